"""What happens inside a client, for whoever measures it. Every method does nothing; override those that are wanted.

Called on the event loop, on the path of calls: a hook must not block. One that raises is logged once, and is not called
again: measuring must not break what it measures.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Literal

from evcache.errors import DecodeError
from evcache.results import Outcome, RemovalCause, Source, source_of
from evcache.zones.cluster import ClusterSnapshot
from evcache.zones.errors import CacheError

HintEnd = Literal["delivered", "superseded", "refused", "expired", "overflow", "closed"]
"""Why a hint is not kept any more: the zone took it; a newer write got there; its server refused; it was too old to be sent;
there were too many; the client was closed."""

_log = logging.getLogger("evcache.hooks")


class Hooks:
    """The base of all listeners."""

    def read(self, key: bytes, zone: str, source: Source, *, hit: bool) -> None:
        """A key (as servers know it) was looked for and found in this zone, or (`hit` false) nowhere, or not to exist.

        Not called unless it is overridden: there are many.
        """

    def zone_wrote(self, zone: str, outcome: Outcome, *, late: bool) -> None:
        """A zone's part of a write ended; `late`: after the call had returned."""

    def fell_back(self, zone: str, error: CacheError | None) -> None:
        """A read left this zone for the next one: because of an error, or (None) because of a miss."""

    def zone_behind(self, zone: str) -> None:
        """A zone answered with an older version than this client has written or seen; the answer was not used."""

    def failover_denied(self, zone: str) -> None:
        """A read did not ask this zone: the failover budget is used up."""

    def hedged(self, zone: str, *, won: bool) -> None:
        """A read asked this zone too, since the first was slow; `won`: its answer came first."""

    def gutter_used(self, *, hit: bool) -> None:
        """No zone answered, and a read was served by the gutter: from what it holds, or by a miss."""

    def repaired(self, zone: str, outcome: Outcome) -> None:
        """A zone that was behind was brought the newest value."""

    def hinted(self, zone: str) -> None:
        """A zone missed a write, which is kept for it."""

    def hint_ended(self, zone: str, end: HintEnd) -> None:
        """A write that was kept for a zone is not kept any more."""

    def replayed(self, zone: str, end: HintEnd, cause: object) -> None:
        """Like `hint_ended`, with the cause captured when the write was sent. Not called for hints restored from a file."""

    def near_removed(self, key: bytes, cause: RemovalCause) -> None:
        """The near cache has let go of a key (as servers know it). Not called unless it is overridden: there are many."""

    def loaded(self, keys: int, seconds: float, error: Exception | None) -> None:
        """A loader that was asked for so many keys returned after so many seconds, or failed."""

    def stale_served(self, error: BaseException | None) -> None:
        """A value that is out of date was returned: because loading it failed, or (None) while it is loaded anew."""

    def error_as_miss(self, error: CacheError) -> None:
        """An error was returned as a miss, as `errors="miss"` asks."""

    def decode_failed(self, zone: str, error: DecodeError) -> None:
        """A value was found that cannot be decoded. A read raises the error; `get_or_load` loads the value again."""

    def node_changed(self, zone: str, node: str, *, down: bool, why: Exception | None) -> None:
        """A node (its label) has gone down, because of `why`, or is back."""

    def zone_changed(self, zone: str, *, out: bool) -> None:
        """A zone is out, since too many of its nodes are down: it is read last; or it is read again."""


class HookDispatcher(Hooks):
    """Everybody who listens to a client: nobody at first. Each hears what it overrides, until it raises."""

    def __init__(self) -> None:
        # With the method itself, which otherwise would be looked up for every key that is read.
        self._heard: dict[str, tuple[tuple[Hooks, Callable[..., None]], ...]] = dict.fromkeys(HOOKS, ())
        self.of_reads = False
        """Whether anybody listens to `read`: there is one for every key, so it is not called for nobody."""
        self.of_writes = False
        """The same of `zone_wrote`, of which there is one for every zone."""
        self.cause: Callable[[], object] | None = None
        """Asked when a write begins: what it says is handed on to `replayed`."""
        self.background: Callable[[str], AbstractContextManager[None]] | None = None
        """Entered around work that outlives its call, which is said in a word."""

    def add(self, listener: Hooks) -> None:
        """Have it told what it overrides."""
        for name in HOOKS:
            if getattr(type(listener), name, None) is not getattr(Hooks, name):
                self._heard[name] += ((listener, getattr(listener, name)),)
        self._note_what_is_heard()

    def remove(self, listener: Hooks) -> None:
        """Tell it nothing more."""
        for name, listeners in self._heard.items():
            self._heard[name] = tuple(pair for pair in listeners if pair[0] is not listener)
        self._note_what_is_heard()

    def _note_what_is_heard(self) -> None:
        self.of_reads, self.of_writes = self.hears("read"), self.hears("zone_wrote")

    def looked_up(self, view: ClusterSnapshot, key: bytes, zone: str, *, hit: bool) -> None:
        """Report a key that was read from the zones, if `of_reads` says that a listener wants it. Empty `zone`: a miss."""
        source: Source = source_of(zone, view.local, view.preferred_zone) if zone else "none"
        for listener, read in self._heard["read"]:
            try:
                read(key, zone, source, hit=hit)
            except Exception:
                self._broke(listener)

    def hears(self, name: str) -> bool:
        """Whether anybody listens to this."""
        return bool(self._heard[name])

    def _broke(self, listener: Hooks) -> None:
        """It has just raised. Some calls of hooks come out of a connection that has read a reply: passed on, the exception
        would end that for all.
        """
        _log.exception("a hook raised, and is not called any more: %r", listener)
        self.remove(listener)


def _telling(name: str) -> Callable[..., None]:
    def tell(self: HookDispatcher, *arguments: Any, **named: Any) -> None:
        for listener, method in self._heard[name]:
            try:
                method(*arguments, **named)
            except Exception:
                self._broke(listener)

    return tell


# One by one they would be written twice, and the next one be forgotten here.
HOOKS = tuple(name for name in vars(Hooks) if not name.startswith("_"))
for _name in HOOKS:
    setattr(HookDispatcher, _name, _telling(_name))
