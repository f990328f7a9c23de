"""What is passed down while something is loaded: what a call asks for, and what has been found out about each key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from evcache.load_policy import LoadPolicy
from evcache.options import Options
from evcache.read_through.leases import Lease
from evcache.read_through.single_flight import Call
from evcache.reads.decoding import Decoder, can_read
from evcache.values.flags import FLAG_ABSENT
from evcache.values.lifetime import Content

# Loads by keys as servers know them: a value for each that has one, None or nothing for the others.
Loader = Callable[[Sequence[bytes]], Awaitable[Mapping[bytes, Any]]]


class LoadRequest(NamedTuple):
    """What one call asks for, beside its keys."""

    loader: Loader
    ttl: float
    """Seconds; `math.inf`: does not expire."""
    policy: LoadPolicy
    reads: Options
    writes: Options
    timeout: float | None
    """Seconds that the caller waits for a load; None: the policy's."""
    decoder: Decoder
    """The caller's."""
    same_type: bool = False
    """Whether a loaded value is refused that would come back as a value of another type."""
    readable: Callable[[bytes, int], bool] | None = None
    """Returns False for bytes and flags that count as absent because the caller cannot decode them. None: all count as
    present, until the caller finds out."""

    source: object = None
    """The loader as the caller gave it."""

    def only_readable(self) -> LoadRequest:
        """Return a copy for which a value that the caller cannot decode counts as absent."""
        return self._replace(readable=partial(can_read, self.decoder))

    def can_read(self, content: Content) -> bool:
        """Return False for a value that counts as absent because the caller cannot decode it."""
        return self.readable is None or content.flags == FLAG_ABSENT or self.readable(content.data, content.flags)

    def patience(self, has_fallback: bool) -> float:  # noqa: FBT001  # the only argument
        """Seconds that the caller waits for a load."""
        patience = self.policy.hard_timeout if self.timeout is None else self.timeout
        if has_fallback and self.policy.soft_timeout is not None:
            return min(patience, self.policy.soft_timeout)
        return patience


class LoadTask(NamedTuple):
    """A key whose loader is to be called, and what has been found out about it."""

    flight: Call
    lease: Lease | None = None
    stored: bool = True
    """Whether the value is to be stored."""
    serves: bool = False
    """Whether there is a value that is served meanwhile."""
