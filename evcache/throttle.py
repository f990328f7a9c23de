"""Keys whose loader has failed, and is left alone for a while since there is a value to serve."""

from __future__ import annotations

from collections import OrderedDict

# Keys at once. Over that the oldest is forgotten: its loader is tried again too early.
MAX_THROTTLED = 10_000


class Throttle:
    """Until when each key is left alone. Clockless: `now` is monotonic seconds."""

    __slots__ = ("_limit", "_until")

    def __init__(self, limit: int = MAX_THROTTLED) -> None:
        self._until: OrderedDict[bytes, float] = OrderedDict()
        self._limit = limit

    def __len__(self) -> int:
        return len(self._until)

    def failed(self, key: bytes, until: float) -> None:
        """Leave this key alone until then."""
        self._until[key] = until
        self._until.move_to_end(key)
        if len(self._until) > self._limit:
            self._until.popitem(last=False)

    def loaded(self, key: bytes) -> None:
        """All is well again."""
        self._until.pop(key, None)

    def holds(self, key: bytes, now: float) -> bool:
        """Whether this key is to be left alone."""
        until = self._until.get(key)
        if until is None:
            return False
        if now < until:
            return True
        del self._until[key]
        return False
