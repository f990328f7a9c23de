"""What the contenders have to do: each kind of work, once for each size, number of callers and event loop."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Kind = Literal["get hit", "get miss", "set", "get_many", "set_many", "near hit"]
Loop = Literal["asyncio", "uvloop"]

ZONES = 3
NODES = 6
SMALL, MEDIUM, LARGE = 100, 10_000, 1_000_000
SIZE_NAMES = {SMALL: "100 B", MEDIUM: "10 kB", LARGE: "1 MB"}
CALLERS = (1, 32, 256)


@dataclass(frozen=True)
class Work:
    """One kind of work. Each caller has a key of its own (in bulk calls all have the same), and waits for each answer."""

    kind: Kind
    zones: int = 1
    """How many have to be written, or looked into."""
    nodes: int = 1
    """In each zone."""
    keys: int = 1
    """In each call."""
    size: int = SMALL
    callers: int = 1
    loop: Loop = "asyncio"
    short: bool = False
    """Part of the short form."""

    @property
    def is_bulk(self) -> bool:
        """Each call has several keys."""
        return self.kind in ("get_many", "set_many")

    @property
    def is_write(self) -> bool:
        """Each call stores values."""
        return self.kind in ("set", "set_many")

    @property
    def operation(self) -> str:
        """What is done, without how much of it."""
        if self.kind == "set":
            return f"set to {_count(self.zones, 'zone')}"
        if self.kind == "set_many":
            return f"set_many of {self.keys} to {_count(self.zones, 'zone')}"
        if self.kind == "get_many":
            return f"get_many of {self.keys}, {_count(self.nodes, 'node')}"
        return f"get miss in {self.zones} zones" if self.kind == "get miss" and self.zones > 1 else self.kind

    @property
    def title(self) -> str:
        """All of it."""
        return f"{self.operation}, {SIZE_NAMES[self.size]}, {_count(self.callers, 'caller')}, {self.loop}"

    @cached_property
    def value(self) -> bytes:
        """What is stored: nothing that could be compressed."""
        return random.Random(self.size).randbytes(self.size)

    @property
    def names(self) -> list[str]:
        """The keys, all of one length: the bound counts bytes."""
        return [f"key:{number:06}" for number in range(self.keys if self.is_bulk else self.callers)]

    def nodes_of(self, ports: list[int], zone: int) -> list[int]:
        """The ports of a zone's nodes."""
        return ports[zone * self.nodes : (zone + 1) * self.nodes]


def works() -> list[Work]:
    """Everything, in the order in which it is printed."""
    made: list[Work] = []
    for loop in ("asyncio", "uvloop"):
        other = loop == "uvloop"
        short = not other
        made += [Work("get hit", callers=callers, loop=loop, short=short or callers == 32) for callers in CALLERS]
        made += [Work("get hit", size=MEDIUM, callers=32, loop=loop)]
        made += [Work("get hit", size=LARGE, callers=callers, loop=loop, short=short) for callers in (1, 32)[: 2 - other]]
        made += [Work("get miss", callers=callers, loop=loop) for callers in ((32,) if other else CALLERS)]
        if not other:
            made += [Work("get miss", zones=ZONES, callers=32)]
        for zones in (1, ZONES):
            made += [
                Work("set", zones=zones, callers=callers, loop=loop, short=short and zones > 1 and callers > 1)
                for callers in ((32,) if other and zones == 1 else CALLERS)
            ]
            if not other:
                made += [Work("set", zones=zones, size=MEDIUM, callers=32, short=zones > 1)]
                made += [
                    Work("set", zones=zones, size=LARGE, callers=callers, short=zones == 1)
                    for callers in ((1, 32) if zones == 1 else (1,))
                ]
        made += [
            Work("get_many", keys=keys, nodes=nodes, loop=loop, short=short and (keys, nodes) in ((100, 1), (1000, NODES)))
            for keys in ((100,) if other else (10, 100, 1000))
            for nodes in (1, NODES)
        ]
        made += [
            Work("get_many", keys=100, nodes=nodes, callers=32, loop=loop, short=short and nodes == 1)
            for nodes in (1, NODES)
        ]
        if not other:
            made += [Work("set_many", keys=100, zones=ZONES, short=True), Work("near hit", short=True)]
    return made


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
