"""What happens inside a call, for whoever measures it. Every method does nothing; override those that are wanted.

Called on the event loop, on the path of calls: a hook must not block, and must not raise.
"""

from __future__ import annotations

from evcache.results import Outcome
from zones.errors import CacheError


class Hooks:
    """The base of all listeners."""

    def zone_wrote(self, zone: str, outcome: Outcome, *, late: bool) -> None:
        """A zone's part of a write ended; `late`: after the call had returned."""

    def fell_back(self, zone: str, error: CacheError | None) -> None:
        """A read left this zone for the next one: because of an error, or (None) because of a miss."""

    def repaired(self, zone: str, outcome: Outcome) -> None:
        """A zone that was behind was brought the newest value."""

    def error_as_miss(self, error: CacheError) -> None:
        """An error was returned as a miss, as `errors="miss"` asks."""
