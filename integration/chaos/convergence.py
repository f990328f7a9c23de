"""Looks at what zones hold, asked of their servers and not through a client; and waiting until all hold the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

from integration.chaos.end_state import EndState, Held, tell, unequal_keys
from integration.chaos.history import History, Kind, Outcome
from integration.chaos.servers import look
from integration.chaos.system import System, label_of

# Between two looks at all servers.
PAUSE_SECONDS = 0.2

# Between two accounts of what differs still, and the keys that one names.
TELL_SECONDS = 2.0
TOLD = 5


class Observer:
    """Looks at every server again and again, and enters what it holds into the history."""

    def __init__(self, system: System, history: History, keys: Sequence[str]) -> None:
        self._system = system
        self._history = history
        self._keys = keys
        self._held_by: dict[tuple[str, int], list[str]] = {}  # by zone and node: the keys
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

        `say` is told from time to time what differs, and what the clients have to do: why it takes long when it does.
        Raises `ConnectionError` when a server does not answer at the end of that time.
        """
        began = self._history.now()
        told = 0.0
        while True:
            state = await self.look_everywhere()
            waited = self._history.now() - began
            complete = all(len(copies) == len(self._system.zones) for copies in state.values())
            if complete and (waited >= limit or not unequal_keys(state)):
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
                    for (zone, _), node in client.cache._cluster.nodes.items()
                    if node.is_down
                ]
                yield f"    {client.name} has {stats.hints} writes to deliver; down: {', '.join(down) or 'nothing'}"

    async def look_everywhere(self) -> EndState:
        """What the servers hold that answer, and are not started anew meanwhile."""
        state: dict[str, dict[str, Held | None]] = {key: {} for key in self._keys}
        for (zone, node), keys in self._held_by.items():
            start = self._system.starts[zone, node]
            looked = self._history.now()
            try:
                held = await asyncio.to_thread(look, self._system.running.zones[zone][node], keys)
            except OSError:
                continue
            if self._system.starts[zone, node] != start:
                continue
            for key, item in held.items():
                state[key][zone] = item
                # What it held before it was started anew does not count: it is another server.
                call = self._history.begin(f"{label_of(zone, node)}, start {start},", key, Kind.LOOK)
                call.invoked = looked
                if item is not None:
                    call.version, call.value = item
                self._history.end(call, Outcome.OK)
        return state
