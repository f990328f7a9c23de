"""Events inside a client, for services that measure it.

Each method of `Hooks` does nothing. A service overrides those that it needs. The client calls them on its event loop, on the
path of calls, so they must not block. A hook that raises is logged once and not called again, because an error in
measuring must not break the client.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

from evcache.errors import DecodeError
from evcache.results import Outcome, RemovalCause, Source, source_of
from evcache.zones.errors import CacheError
from evcache.zones.snapshot import ClusterSnapshot

HintEnd = Literal["delivered", "superseded", "refused", "expired", "overflow", "closed"]
"""Outcome of a hint: the zone stored it; a newer write was there; the server refused it; it was too old to be sent; there
were too many; the client was closed."""

_log = logging.getLogger("evcache.hooks")


class Hooks:
    """Base class of listeners."""

    def read(self, key: bytes, zone: str, source: Source, *, hit: bool) -> None:
        """Receive the result of a read of one key.

        The client does not call it unless it is overridden, because reads are frequent.

        Args:
            key: Key as servers store it.
            zone: Zone of the value. Empty for a miss.
            source: Origin of the value.
            hit: False if no zone holds the key, or if it is known to be absent.
        """

    def zone_wrote(self, zone: str, outcome: Outcome, *, late: bool) -> None:
        """Receive the outcome of a write in one zone.

        Args:
            zone: Name of the zone.
            outcome: Outcome in this zone.
            late: True if the call returned before.
        """

    def fell_back(self, zone: str, error: CacheError | None) -> None:
        """Receive a read that left a zone for the next one.

        Args:
            zone: Zone that the read left.
            error: Error of this zone. None after a miss.
        """

    def zone_behind(self, zone: str) -> None:
        """Receive a reply that was older than a version that this client has written or seen. It was not used.

        Args:
            zone: Zone of the reply.
        """

    def failover_denied(self, zone: str) -> None:
        """Receive a read that did not ask a zone, because the failover budget was used up.

        Args:
            zone: Zone that was not asked.
        """

    def hedged(self, zone: str, *, won: bool) -> None:
        """Receive a read that asked a second zone because the first was slow.

        Args:
            zone: The second zone.
            won: True if its reply came first.
        """

    def gutter_used(self, *, hit: bool) -> None:
        """Receive a read that the gutter served because no zone answered.

        Args:
            hit: True if the gutter had the value.
        """

    def repaired(self, zone: str, outcome: Outcome) -> None:
        """Receive the outcome of a repair: a copy of the latest version to a stale zone.

        Args:
            zone: Zone that receives the copy.
            outcome: Outcome of the copy.
        """

    def hinted(self, zone: str) -> None:
        """Receive a write that a zone missed and that is stored as a hint.

        Args:
            zone: Zone that missed the write.
        """

    def hint_ended(self, zone: str, end: HintEnd) -> None:
        """Receive the end of a hint.

        Args:
            zone: Zone of the hint.
            end: Reason of the end.
        """

    def replayed(self, zone: str, end: HintEnd, cause: object) -> None:
        """Receive the end of a hint with the tracing context of its write. Not called for hints restored from a file.

        Args:
            zone: Zone of the hint.
            end: Reason of the end.
            cause: Context of OpenTelemetry. None without tracing.
        """

    def near_removed(self, key: bytes, cause: RemovalCause) -> None:
        """Receive a key that the near cache removed. Not called unless it is overridden.

        Args:
            key: Key as servers store it.
            cause: Reason of the removal.
        """

    def loaded(self, keys: int, seconds: float, error: Exception | None) -> None:
        """Receive the end of a loader.

        Args:
            keys: Number of keys that it was called with.
            seconds: Duration of the call.
            error: Its error. None if it returned.
        """

    def stale_served(self, error: BaseException | None) -> None:
        """Receive a stale value that was returned.

        Args:
            error: Error of the load. None during a refresh.
        """

    def error_as_miss(self, error: CacheError) -> None:
        """Receive an error that was returned as a miss, as `errors="miss"` demands.

        Args:
            error: The error.
        """

    def decode_failed(self, zone: str, error: DecodeError) -> None:
        """Receive a value that could not be decoded. A read raises the error; `get_or_load` loads the value again.

        Args:
            zone: Zone of the value.
            error: The error, with the key.
        """

    def node_changed(self, zone: str, node: str, *, down: bool, why: Exception | None) -> None:
        """Receive a node that went down or recovered.

        Args:
            zone: Zone of the node.
            node: Label of the node.
            down: True if it went down.
            why: Cause of the failure. None after a recovery.
        """

    def zone_changed(self, zone: str, *, out: bool) -> None:
        """Receive a zone that was ejected, because too many of its nodes are down, or that is read again.

        Args:
            zone: Name of the zone.
            out: True if it was ejected.
        """

    def _read_many(self, keys: Sequence[bytes], zone: str, source: Source, *, hit: bool) -> None:
        """Receive several keys of one bulk read. Listeners of this package that need no keys override it."""
        for key in keys:
            self.read(key, zone, source, hit=hit)


HOOKS = tuple(name for name in vars(Hooks) if not name.startswith("_"))


class HookDispatcher(Hooks):
    """Listeners of one client. Each receives the events that it overrides, until it raises.

    Each method tests for listeners first, because most clients have none for most events.
    """

    def __init__(self) -> None:
        # With bound methods, which would otherwise be looked up for each key that is read.
        self._listeners: dict[str, tuple[tuple[Hooks, Callable[..., None]], ...]] = dict.fromkeys(HOOKS, ())
        self.of_reads = False
        """True if a listener overrides `read`. Without one, the reader skips the call for each key."""
        self.of_writes = False
        """True if a listener overrides `zone_wrote`. Without one, a write skips the call for each zone."""
        self.cause: Callable[[], object] | None = None
        """Function that returns the tracing context of the running call, or None without tracing. The client calls it
        when a write begins, and passes the result to `replayed`."""
        self.background: Callable[[str], AbstractContextManager[None]] | None = None
        """Function that returns a context manager for work that outlives its call, or None without tracing. The argument
        names the work."""

    def trace_with(self, cause: Callable[[], object], background: Callable[[str], AbstractContextManager[None]]) -> None:
        """Set the functions `cause` and `background` of the tracing."""
        self.cause = cause
        self.background = background

    def add(self, listener: Hooks) -> None:
        """Add a listener."""
        for name in HOOKS:
            if getattr(type(listener), name, None) is not getattr(Hooks, name):
                self._listeners[name] += ((listener, getattr(listener, name)),)
        self._update_flags()

    def remove(self, listener: Hooks) -> None:
        """Remove a listener."""
        for name, listeners in self._listeners.items():
            self._listeners[name] = tuple(pair for pair in listeners if pair[0] is not listener)
        self._update_flags()

    def hears(self, name: str) -> bool:
        """Return True if a listener overrides this method."""
        return bool(self._listeners[name])

    def looked_up(self, view: ClusterSnapshot, key: bytes, zone: str, *, hit: bool) -> None:
        """Report a key that was read from the zones. The caller checks `of_reads` first. An empty `zone` means a miss."""
        source: Source = source_of(zone, view.local, view.preferred_zone) if zone else "none"
        self._dispatch("read", key, zone, source, hit=hit)

    def looked_up_many(self, view: ClusterSnapshot, keys: Sequence[bytes], zone: str) -> None:
        """Report keys that a zone served, as `looked_up` does for each."""
        source = source_of(zone, view.local, view.preferred_zone)
        for listener, _ in self._listeners["read"]:
            try:
                listener._read_many(keys, zone, source, hit=True)  # noqa: SLF001
            except Exception:
                self._drop(listener)

    def read(self, key: bytes, zone: str, source: Source, *, hit: bool) -> None:
        """Report the result of a read."""
        if self._listeners["read"]:
            self._dispatch("read", key, zone, source, hit=hit)

    def zone_wrote(self, zone: str, outcome: Outcome, *, late: bool) -> None:
        """Report the outcome of a write in one zone."""
        if self._listeners["zone_wrote"]:
            self._dispatch("zone_wrote", zone, outcome, late=late)

    def fell_back(self, zone: str, error: CacheError | None) -> None:
        """Report a read that left a zone."""
        if self._listeners["fell_back"]:
            self._dispatch("fell_back", zone, error)

    def zone_behind(self, zone: str) -> None:
        """Report a stale reply."""
        if self._listeners["zone_behind"]:
            self._dispatch("zone_behind", zone)

    def failover_denied(self, zone: str) -> None:
        """Report a read without a token for this zone."""
        if self._listeners["failover_denied"]:
            self._dispatch("failover_denied", zone)

    def hedged(self, zone: str, *, won: bool) -> None:
        """Report a hedged request."""
        if self._listeners["hedged"]:
            self._dispatch("hedged", zone, won=won)

    def gutter_used(self, *, hit: bool) -> None:
        """Report a read from the gutter."""
        if self._listeners["gutter_used"]:
            self._dispatch("gutter_used", hit=hit)

    def repaired(self, zone: str, outcome: Outcome) -> None:
        """Report a repair."""
        if self._listeners["repaired"]:
            self._dispatch("repaired", zone, outcome)

    def hinted(self, zone: str) -> None:
        """Report a stored hint."""
        if self._listeners["hinted"]:
            self._dispatch("hinted", zone)

    def hint_ended(self, zone: str, end: HintEnd) -> None:
        """Report the end of a hint."""
        if self._listeners["hint_ended"]:
            self._dispatch("hint_ended", zone, end)

    def replayed(self, zone: str, end: HintEnd, cause: object) -> None:
        """Report the end of a hint with the context of its write."""
        if self._listeners["replayed"]:
            self._dispatch("replayed", zone, end, cause)

    def near_removed(self, key: bytes, cause: RemovalCause) -> None:
        """Report a key that the near cache removed."""
        if self._listeners["near_removed"]:
            self._dispatch("near_removed", key, cause)

    def loaded(self, keys: int, seconds: float, error: Exception | None) -> None:
        """Report the end of a loader."""
        if self._listeners["loaded"]:
            self._dispatch("loaded", keys, seconds, error)

    def stale_served(self, error: BaseException | None) -> None:
        """Report a stale value."""
        if self._listeners["stale_served"]:
            self._dispatch("stale_served", error)

    def error_as_miss(self, error: CacheError) -> None:
        """Report an error that became a miss."""
        if self._listeners["error_as_miss"]:
            self._dispatch("error_as_miss", error)

    def decode_failed(self, zone: str, error: DecodeError) -> None:
        """Report a value that could not be decoded."""
        if self._listeners["decode_failed"]:
            self._dispatch("decode_failed", zone, error)

    def node_changed(self, zone: str, node: str, *, down: bool, why: Exception | None) -> None:
        """Report a node that went down or recovered."""
        if self._listeners["node_changed"]:
            self._dispatch("node_changed", zone, node, down=down, why=why)

    def zone_changed(self, zone: str, *, out: bool) -> None:
        """Report a zone that was ejected or is read again."""
        if self._listeners["zone_changed"]:
            self._dispatch("zone_changed", zone, out=out)

    def _dispatch(self, name: str, *arguments: Any, **named: Any) -> None:
        for listener, method in self._listeners[name]:
            try:
                method(*arguments, **named)
            except Exception:
                # Some calls come from a connection that has read a reply. An exception there would fail all its requests.
                self._drop(listener)

    def _drop(self, listener: Hooks) -> None:
        """Remove a listener that has raised the exception which is handled."""
        _log.exception("hook failed: unexpected exception; not called again: %r", listener)
        self.remove(listener)

    def _update_flags(self) -> None:
        self.of_reads, self.of_writes = self.hears("read"), self.hears("zone_wrote")
