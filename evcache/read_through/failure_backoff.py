"""Keys whose loader has failed, and is left alone for a while since there is a value to serve."""

from __future__ import annotations

from collections import OrderedDict

# Keys at once. Over that the oldest is forgotten: its loader is tried again too early.
MAX_THROTTLED = 10_000


class FailureBackoff:
    """Until when each key is left alone. Clockless: `now` is monotonic seconds."""

    __slots__ = ("_limit", "until")

    def __init__(self, limit: int = MAX_THROTTLED) -> None:
        self.until: OrderedDict[bytes, float] = OrderedDict()
        """Always the same dict: the end of each key's time."""
        self._limit = limit

    def __len__(self) -> int:
        return len(self.until)

    def failed(self, key: bytes, until: float) -> None:
        """Leave this key alone until then."""
        self.until[key] = until
        self.until.move_to_end(key)
        if len(self.until) > self._limit:
            self.until.popitem(last=False)

    def end(self, key: bytes) -> None:
        """End the pause of a key that was loaded or written."""
        self.until.pop(key, None)

    def end_all(self) -> None:
        """End the pause of every key, because each may have been written."""
        self.until.clear()

    def holds(self, key: bytes, now: float) -> bool:
        """Whether this key is to be left alone."""
        until = self.until.get(key)
        if until is None:
            return False
        if now < until:
            return True
        del self.until[key]
        return False
