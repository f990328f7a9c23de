"""Room for keys that wait to be written behind: how many may, and whose turn it is when one goes."""

from __future__ import annotations

import asyncio

from evcache.write_behind.buffer import Buffer


class Capacity:
    """How many keys may wait, and the calls that wait for one to go, in the order in which they came."""

    def __init__(self, buffer: Buffer, max_keys: int) -> None:
        self.max_keys = max_keys
        self._buffer = buffer
        self._line: dict[str, list[asyncio.Future[None]]] = {}
        # Keys whose calls were told to go on and have not yet: how many of them. Nobody else may take their room.
        self._promised: dict[str, int] = {}

    @property
    def _free(self) -> int:
        return self.max_keys - len(self._buffer) - len(self._promised)

    def has(self, key: str) -> bool:
        """Whether there is room for this key; those that wait already are in it."""
        return key in self._buffer or key in self._promised or (not self._line and self._free > 0)

    async def turn(self, key: str) -> None:
        """Wait until there is room for this key. Calls for one key go on together, and take the room of one."""
        turn = asyncio.get_running_loop().create_future()
        self._line.setdefault(key, []).append(turn)
        try:
            await turn
        except BaseException:
            if turn in self._line.get(key, ()):
                self._line[key].remove(turn)
                if not self._line[key]:
                    del self._line[key]
            elif not turn.cancelled() and key in self._promised:  # it was told to go on
                self._promised[key] -= 1
                if not self._promised[key]:
                    self.done(key)
            raise

    def done(self, key: str) -> None:
        """The first call of a key has put it, or failed to."""
        self._promised.pop(key, None)
        self.call()

    def call(self) -> None:
        """Tell as many to go on as there is room for."""
        while self._line and self._free > 0:
            key = next(iter(self._line))
            turns = [turn for turn in self._line.pop(key) if not turn.done()]
            if turns:
                self._promised[key] = len(turns)
            for turn in turns:
                turn.set_result(None)

    def call_all(self) -> None:
        """Tell everybody to go on: there will be no more room."""
        for turns in self._line.values():
            for turn in turns:
                if not turn.done():
                    turn.set_result(None)
        self._line.clear()
