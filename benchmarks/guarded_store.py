"""Measure each form of the guarded store: bytes for each zone, processor time of client and servers, sets per second.

One client writes to three zones of one node. Its forms take turns, round after round and each time in another order, with
values of one size after another. Processor time is that of this process and of the servers together. It is compared within
a round, because the machine changes more between rounds than most of what is measured; the median of the ratios counts.

    python -m benchmarks.guarded_store [--sizes 100 1000] [--callers 32] [--rounds 9] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.__main__ import keep_memory
from benchmarks.servers import memcached_nodes
from evcache import EVCache
from evcache.replication.commands import guarded_store as commands
from evcache.replication.commands.command import NEEDS_PEEK, NeedsPeek
from evcache.writes import writer
from evcache.zones.protocol import operations
from evcache.zones.protocol.packet import Packet
from evcache.zones.transport.core import selected

ZONES = 3
SIZES = (100, 256, 512, 1_000, 4_000, 10_000, 100_000, 1_000_000)
KEYS = 64
CALLERS = 32
ROUNDS = 9
TURN_SECONDS = 0.15
QUEUED_BYTES = 32 * 1024 * 1024  # three copies for all callers must have room in a connection's queue
SEED = 1

COLUMNS = ("bytes/zone", "sets/s", "client µs", "servers µs", "sets/s", "CPU")
HEAD = " " * 16 + "".join(f"{name:>12}" for name in COLUMNS)
ARRIVAL, THREE, LOOK, ONE = "arrival", "three copies", "look first", "one copy"


@contextmanager
def form(name: str) -> Iterator[None]:
    """Have guarded stores take this form."""
    if name == LOOK:
        with (
            patch.object(writer, "ordinary_zones", return_value=None),  # ordinary writes do not call `send`
            patch.object(commands.StoreCommand, "send", _look_first),
        ):
            yield
    else:
        # In Python on both cores, so that the forms cost the client alike.
        encode = partial(_encode, operations.one_copy if name == ONE else operations.three_copies)
        with patch.object(selected, "SELECTED", selected.SELECTED._replace(guarded_store=encode)):
            yield


def _encode(
    packet: Callable[..., Packet], key: bytes, data: bytes, flags: int, exptime: int, cas: int, stub: int
) -> operations.EncodedStore:
    return operations.EncodedStore(key, data, flags, exptime, cas, packet(key, data, flags, exptime, cas, stub))


def _look_first(store: commands.StoreCommand, *_: Any) -> NeedsPeek:
    store.note_sent(versioned=True)  # by `StoreCommand.peek_and_apply`
    return NEEDS_PEEK


@dataclass(frozen=True)
class Turn:
    """Results of one turn of one form, for each set."""

    per_second: float
    client_us: float
    servers_us: float
    zone_bytes: float

    @property
    def cpu_us(self) -> float:
        return self.client_us + self.servers_us


@dataclass(frozen=True)
class Used:
    """Return the processor time that the servers have used since they began."""

    cpu: float
    received: int

    @classmethod
    def by(cls, ports: list[int]) -> Used:
        cpu, received = 0.0, 0
        for port in ports:
            with socket.create_connection(("127.0.0.1", port), 5) as connection, connection.makefile("rb") as lines:
                connection.sendall(b"stats\r\n")
                found = dict(line.split()[1:3] for line in iter(lines.readline, b"END\r\n"))
            cpu += float(found[b"rusage_user"]) + float(found[b"rusage_system"])
            received += int(found[b"bytes_read"])
        return cls(cpu, received)


async def turn(cache: EVCache, value: bytes, ports: list[int], callers: int, seconds: float) -> Turn:
    """Every caller sets one key after another until the time is up."""
    keys = itertools.cycle([f"key-{number}" for number in range(KEYS)])
    sets = 0
    before = await asyncio.to_thread(Used.by, ports)
    began, cpu = time.perf_counter(), time.process_time()

    async def caller() -> None:
        nonlocal sets
        while True:
            if not await cache.set(next(keys), value, consistency="all"):
                raise SystemExit("a set failed")
            sets += 1
            if time.perf_counter() - began >= seconds:
                return

    await asyncio.gather(*(caller() for _ in range(callers)))
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    after = await asyncio.to_thread(Used.by, ports)
    return Turn(
        sets / took,
        cpu * 1e6 / sets,
        (after.cpu - before.cpu) * 1e6 / sets,
        (after.received - before.received) / sets / ZONES,
    )


async def measure(ports: list[int], sizes: list[int], callers: int, rounds: int, seconds: float) -> dict[int, Any]:
    """Turns of each form by size; the first round warms up."""
    zones = {f"zone-{port}": [f"127.0.0.1:{port}"] for port in ports}
    chooser = random.Random(SEED)
    found: dict[int, Any] = {}
    async with (
        EVCache("bench", zones, write_timeout=60, telemetry=None) as guarded,
        EVCache("bench-arrival", zones, write_timeout=60, telemetry=None, ordering="arrival") as arrival,
    ):
        for size in sizes:
            value = b"v" * size
            at_once = max(1, min(callers, QUEUED_BYTES // (3 * size)))
            turns: dict[str, list[Turn]] = {name: [] for name in (ARRIVAL, THREE, LOOK, ONE)}
            for number in range(rounds + 1):
                for name in chooser.sample(list(turns), len(turns)):
                    cache = arrival if name == ARRIVAL else guarded
                    with form(name):
                        one = await turn(cache, value, ports, at_once, seconds)
                    if number:
                        turns[name].append(one)
            found[size] = turns
            print(table(size, at_once, turns), flush=True)
    return found


def table(size: int, callers: int, turns: dict[str, list[Turn]]) -> str:
    """One size, all forms: medians, and ratios to the three copies of the same round."""
    lines = [f"\n{size} bytes, {callers} callers. In the last two columns three copies are 1", HEAD]
    for name, of_form in turns.items():
        rate = statistics.median(one.per_second / base.per_second for one, base in zip(of_form, turns[THREE], strict=True))
        cpu = statistics.median(one.cpu_us / base.cpu_us for one, base in zip(of_form, turns[THREE], strict=True))
        lines.append(
            f"  {name:14}"
            f"{statistics.median(one.zone_bytes for one in of_form):12,.0f}"
            f"{statistics.median(one.per_second for one in of_form):12,.0f}"
            f"{statistics.median(one.client_us for one in of_form):12,.1f}"
            f"{statistics.median(one.servers_us for one in of_form):12,.1f}"
            f"{rate:12.2f}{cpu:12.2f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guarded_store")
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, help="bytes of the values")
    parser.add_argument("--callers", type=int, default=CALLERS)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds that count, after one that warms up")
    parser.add_argument("--seconds", type=float, default=TURN_SECONDS, help="length of a turn")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the turns there")
    options = parser.parse_args()
    keep_memory()
    with memcached_nodes(ZONES) as (ports, servers):
        print(f"{ZONES} {servers}; {options.callers} callers, {options.rounds} rounds of {options.seconds:g} s")
        found = asyncio.run(measure(ports, options.sizes, options.callers, options.rounds, options.seconds))
    if options.json is not None:
        plain = {size: {name: [asdict(one) for one in of] for name, of in turns.items()} for size, turns in found.items()}
        options.json.write_text(json.dumps(plain, indent=1))


if __name__ == "__main__":
    main()
