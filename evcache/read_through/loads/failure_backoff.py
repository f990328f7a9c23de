"""Keys whose loader failed, and is not called again for a time while an old value can be served."""

from __future__ import annotations

from collections import OrderedDict

# Keys at once. Over that the oldest is dropped, and its loader is called again too early.
MAX_KEYS = 10_000


class FailureBackoff:
    """End of the backoff of each key. It has no clock: times are monotonic seconds, given by the caller."""

    __slots__ = ("_limit", "until")

    def __init__(self, limit: int = MAX_KEYS) -> None:
        self.until: OrderedDict[bytes, float] = OrderedDict()
        """End of the backoff, by key. The dict is never replaced, so that other parts can test cheaply if it is empty."""
        self._limit = limit

    def __len__(self) -> int:
        return len(self.until)

    def failed(self, key: bytes, until: float) -> None:
        """Start the backoff of a key, which ends at `until`."""
        self.until[key] = until
        self.until.move_to_end(key)
        if len(self.until) > self._limit:
            self.until.popitem(last=False)

    def end(self, key: bytes) -> None:
        """End the backoff of a key that was loaded or written."""
        self.until.pop(key, None)

    def end_all(self) -> None:
        """End every backoff, because each key may have been written."""
        self.until.clear()

    def blocks(self, key: bytes, now: float) -> bool:
        """Return True during the backoff of a key. Drop an entry whose time is over."""
        until = self.until.get(key)
        if until is None:
            return False
        if now < until:
            return True
        del self.until[key]
        return False
