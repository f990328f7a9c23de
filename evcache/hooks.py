"""What happens inside a call, for whoever measures it. Every method does nothing; override those that are wanted.

Called on the event loop, on the path of calls: a hook must not block. One that raises is logged once, and is not called
again: measuring must not break what it measures.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from evcache.results import Outcome
from zones.errors import CacheError

_log = logging.getLogger(__name__)


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


class GuardedHooks(Hooks):
    """Somebody's hooks, until they raise."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks

    def zone_wrote(self, zone: str, outcome: Outcome, *, late: bool) -> None:
        """Pass it on."""
        self._pass(lambda hooks: hooks.zone_wrote(zone, outcome, late=late))

    def fell_back(self, zone: str, error: CacheError | None) -> None:
        """Pass it on."""
        self._pass(lambda hooks: hooks.fell_back(zone, error))

    def repaired(self, zone: str, outcome: Outcome) -> None:
        """Pass it on."""
        self._pass(lambda hooks: hooks.repaired(zone, outcome))

    def error_as_miss(self, error: CacheError) -> None:
        """Pass it on."""
        self._pass(lambda hooks: hooks.error_as_miss(error))

    def _pass(self, event: Callable[[Hooks], None]) -> None:
        try:
            event(self._hooks)
        except Exception:
            # Some of these calls come out of a connection that has just read a reply: an exception would end it for all.
            _log.exception("a hook raised, and is not called any more: %r", self._hooks)
            self._hooks = Hooks()
