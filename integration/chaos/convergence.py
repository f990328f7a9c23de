"""Looks at what zones hold, asked of their servers and not through a client; and waiting until all hold the same."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence

from integration.chaos.end_state import EndState, Held, tell, unequal_keys
from integration.chaos.history import Call, History, Kind, Outcome
from integration.chaos.servers import look
from integration.chaos.system import System, label_of

# Between two looks at all servers.
PAUSE_SECONDS = 0.2

# Servers report whole seconds. Two reports of one expiry differ by at most a second, plus the time of the answer.
SAME_END_SECONDS = 1.5

# Between two accounts of what differs still, and the keys that one names.
TELL_SECONDS = 10.0
TOLD = 5


class Observer:
    """Looks at every server again and again, and enters what it holds into the history."""

    def __init__(self, system: System, history: History, keys: Sequence[str]) -> None:
        self._system = system
        self._history = history
        self._keys = keys
        self._held_by: dict[tuple[str, int], list[str]] = {}  # by zone and node: the keys
        self._last: dict[tuple[str, str], Call] = {}  # by server and key: the last look that is in the history
        self.equal_since: dict[str, float] = {}
        """Seconds from the last fault until all zones held the same, by key, for each key that was seen to differ."""
        for zone in system.zones:
            for key in keys:
                self._held_by.setdefault((zone, system.node_of(zone, key)), []).append(key)

    async def watch(self) -> None:
        """Look while faults happen, until the system is over. Servers that don't answer are left out."""
        while not self._system.over.is_set():
            await self.look_everywhere()
            await self._system.sleep(PAUSE_SECONDS)

    async def wait_until_equal(self, limit: float, say: Callable[[str], None]) -> tuple[EndState, float]:
        """Look until all zones hold the same under every key, or for `limit` seconds; what they hold, and after how long.

        `say` receives from time to time what differs and what the clients still have to do, which explains a long wait.
        Raises `ConnectionError` when a server does not answer at the end of that time.
        """
        began = self._history.now()
        told = 0.0
        while True:
            state = await self.look_everywhere()
            waited = self._history.now() - began
            unequal = unequal_keys(state)
            for key in unequal:
                self.equal_since[key] = math.inf
            for key in self.equal_since.keys() - unequal:
                if math.isinf(self.equal_since[key]):
                    self.equal_since[key] = waited
            complete = all(len(copies) == len(self._system.zones) for copies in state.values())
            if complete and (waited >= limit or not unequal):
                return state, waited
            if waited >= limit:
                raise ConnectionError("a server does not answer, though every fault has ended")
            if waited - told >= TELL_SECONDS:
                told = waited
                for line in self._differences(state):
                    say(f"{self._history.now():7.1f} s  {line}")
            await asyncio.sleep(PAUSE_SECONDS)

    def _differences(self, state: EndState) -> Iterator[str]:
        keys = unequal_keys(state)
        yield f"{len(keys)} keys differ still"
        for key in keys[:TOLD]:
            yield f"    {key}: {tell(state[key])}"
        for client in self._system.clients:
            stats = client.cache.stats()
            if stats.hints or stats.nodes_down:
                down = [
                    f"{zone} {node.label} ({node.circuit})"
                    for (zone, _), node in client.cache._runtime.cluster.nodes.items()
                    if node.is_down
                ]
                yield f"    {client.name} has {stats.hints} writes to deliver; down: {', '.join(down) or 'nothing'}"

    async def look_everywhere(self) -> EndState:
        """Return the items of servers that answer, and that are not restarted during the look."""
        state: dict[str, dict[str, Held | None]] = {key: {} for key in self._keys}
        for (zone, node), keys in self._held_by.items():
            start = self._system.starts[zone, node]
            looked = self._history.now()
            try:
                held = await asyncio.to_thread(look, self._system.running.zones[zone][node], keys, self._history.now)
            except OSError:
                continue
            if self._system.starts[zone, node] != start:
                continue
            for key, item in held.items():
                state[key][zone] = item
                # Items from before a restart do not count, because a restarted server is another server.
                self._enter(f"{label_of(zone, node)}, start {start},", key, looked, item)
        return state

    def _enter(self, server: str, key: str, looked: float, item: Held | None) -> None:
        last = self._last.get((server, key))
        if last is not None and _is_same(last, item):
            last.last_seen, last.seen_until = looked, self._history.now()
            return
        call = self._history.begin(server, key, Kind.LOOK)
        call.invoked = call.last_seen = looked
        if item is not None:
            call.version, call.value, call.number = item.version, item.value, item.number
            call.elements, call.expires = item.elements, item.expires
            call.absence, call.what = item.is_absence, item.absence
        self._history.end(call, Outcome.OK)
        call.seen_until = call.completed
        self._last[server, key] = call


def _is_same(last: Call, item: Held | None) -> bool:
    """Return True if a look saw the same as the last one, with the same time to live."""
    if item is None:
        return not last.has_value and not last.absence
    if (last.version, last.value, last.number, last.elements) != (item.version, item.value, item.number, item.elements):
        return False
    if last.expires is None or item.expires is None:
        return last.expires is item.expires and last.absence == item.is_absence
    return abs(last.expires - item.expires) < SAME_END_SECONDS
