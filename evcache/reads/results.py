"""Results of reads, made from the items of the zones and the entries of the near cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from evcache.errors import DecodeError
from evcache.hooks import HookDispatcher
from evcache.near_cache.coherence import CoherentNearCache
from evcache.near_cache.entry import NearEntry
from evcache.options import Key
from evcache.reads.decoding import Decoder, Decoding
from evcache.reads.near_values import NearValues
from evcache.replication.reconcile import ZoneHit
from evcache.results import Item, source_of
from evcache.values.flags import FLAG_ABSENT, FLAG_ENVELOPE, FLAG_TOMBSTONE
from evcache.values.lifetime import Content, content_of
from evcache.zones.snapshot import ClusterSnapshot

# Flags of items that are not a value of the codec.
SPECIAL_FLAGS = frozenset({FLAG_TOMBSTONE, FLAG_ABSENT, FLAG_ENVELOPE})


class ReadResults:
    """Conversion of items and entries to what callers get. It also reports them to the hooks."""

    def __init__(
        self,
        decoding: Decoding,
        near: CoherentNearCache | None,
        near_values: NearValues | None,
        hooks: HookDispatcher,
        unix_time: Callable[[], float],
        *,
        versions: bool,
    ) -> None:
        """Make it for one client.

        Args:
            decoding: Decoders of values.
            near: The near cache, or None.
            near_values: Values of its entries, or None.
            hooks: Listeners of the client.
            unix_time: Clock of lifetimes, in seconds.
            versions: True if the client's writes have versions.
        """
        self._decoding = decoding
        self._near = near
        self._near_values = near_values
        self._hooks = hooks
        self._unix_time = unix_time
        self._versions = versions

    # Items of the zones.

    def content(self, key: bytes, found: ZoneHit) -> Content | None:
        """Return the content of an item, or None for a known absence or a value past its TTL. Raises `DecodeError`."""
        if not found.is_value:
            return None
        content = self.any_content(key, found)
        return None if found.hit.flags == FLAG_ENVELOPE and content.life.expires_at <= self._unix_time() else content

    def any_content(self, key: bytes, found: ZoneHit) -> Content:
        """Return the content of an item, also past its TTL. Raises `DecodeError`, and counts it."""
        try:
            return content_of(found.hit, found.written_at, self._unix_time(), key=key, zone=found.zone)
        except DecodeError as error:
            raise self._decoding.failed(error, key, found.hit.flags, found.zone) from error

    def value(self, key: bytes, found: ZoneHit | None, default: Any, decoder: Decoder) -> Any:
        """Return the value of an item, or the default if it has none for plain reads. Raises `DecodeError`."""
        content = None if found is None else self.content(key, found)
        return default if content is None else self._decoding.value(key, content, decoder)

    def item(self, key: bytes, found: ZoneHit | None, decoder: Decoder, view: ClusterSnapshot) -> Item | None:
        """Return the value of an item with its origin, or None if it has none for plain reads. Raises `DecodeError`."""
        content = None if found is None else self.content(key, found)
        if found is None or content is None:
            return None
        left = found.hit.ttl
        if found.hit.flags == FLAG_ENVELOPE:  # the server may keep the item for longer than it is fresh
            left = max(0, math.floor(content.life.expires_at - self._unix_time()))
        return Item(
            value=self._decoding.value(key, content, decoder),
            version=found.version if self._versions else None,
            ttl=None if left is None or left < 0 else left,
            zone=found.zone,
            source=source_of(found.zone, view.local, view.preferred_zone),
            stale=found.hit.stale,
            cas_token=found.hit.cas,
        )

    def report(self, view: ClusterSnapshot, key: bytes, found: ZoneHit | None) -> None:
        """Report a read of the zones as the caller sees it. A value past its TTL is a miss."""
        hit = found is not None and found.is_value
        if hit and found is not None and found.hit.flags == FLAG_ENVELOPE:  # only an envelope names its TTL
            with suppress(DecodeError):  # the item exists, and the caller gets the error
                content = content_of(found.hit, found.written_at, 0.0, key=key, zone=found.zone)
                hit = content.life.expires_at > self._unix_time()
        self._hooks.looked_up(view, key, "" if found is None else found.zone, hit=hit)

    # Entries of the near cache.

    def near_value(self, key: bytes, entry: NearEntry, default: Any, decoder: Decoder) -> Any:
        """Return the value of an entry, or the default for a known absence. Raises `DecodeError`."""
        if not entry.is_value:
            return default
        assert self._near_values is not None
        return self._near_values.value(key, entry, decoder)

    def near_item(self, key: bytes, entry: NearEntry, decoder: Decoder) -> Item | None:
        """Return the value of an entry with its origin, or None for a known absence. Raises `DecodeError`."""
        if not entry.is_value:
            return None
        assert self._near is not None
        return Item(
            value=self.near_value(key, entry, None, decoder),
            version=entry.version if self._versions else None,
            ttl=self._near.seconds_left(entry),
            zone=entry.zone,
            source="near",
            stale=False,
            cas_token=entry.cas,
        )


def all_decoded(values: dict[Key, Any], unreadable: Mapping[Key, DecodeError]) -> dict[Key, Any]:
    """Return the values. Raises `DecodeError` with them if some values cannot be decoded."""
    if unreadable:
        error = next(iter(unreadable.values()))
        raise DecodeError(error.problem, error.key, error.zone, error.flags, values, tuple(unreadable)) from error
    return values
