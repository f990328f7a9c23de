"""Results of reads: what a caller gets of an item from the zones or from the near cache."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from evcache.errors import DecodeError
from evcache.lifecycle import Lifecycle
from evcache.near_cache.entry import NearEntry
from evcache.options import Key
from evcache.reads.decoding import Decoder
from evcache.reads.near_values import NearValues
from evcache.replication.reconcile import ZoneHit
from evcache.results import Item
from evcache.values.flags import FLAG_ABSENT, FLAG_ENVELOPE, FLAG_TOMBSTONE
from evcache.values.lifetime import Content, content_of
from evcache.zones.cluster import ClusterSnapshot

# Items that are not simply a value of the codec's.
UNUSUAL = frozenset({FLAG_TOMBSTONE, FLAG_ABSENT, FLAG_ENVELOPE})


class ReadResults(Lifecycle):
    """A client that turns items into results."""

    def _all_kept(self, keys: Iterable[bytes]) -> dict[bytes, NearEntry]:
        """Return what the near cache has of the keys."""
        found: dict[bytes, NearEntry] = {}
        for full in keys:
            kept = self._reads.kept(full)
            if kept is not None:
                found[full] = kept
                if self._hooks.of_reads:
                    self._hooks.read(full, kept.zone, "near", hit=kept.is_value)
        return found

    @staticmethod
    def _all_read(values: dict[Key, Any], unread: Mapping[Key, DecodeError]) -> dict[Key, Any]:
        """Return the values. Raises `DecodeError` with them if some could not be decoded."""
        if unread:
            error = next(iter(unread.values()))
            raise DecodeError(error.problem, error.key, error.zone, error.flags, values, tuple(unread)) from error
        return values

    def _tell_read(self, view: ClusterSnapshot, full: bytes, found: ZoneHit | None) -> None:
        """Report a read as the caller sees it. A value that is out of date is a miss."""
        hit = found is not None and found.is_value
        if hit and found is not None and found.hit.flags == FLAG_ENVELOPE:  # no other kind says when it is out of date
            with suppress(DecodeError):  # it is there, and the caller gets the error
                hit = (
                    content_of(found.hit, found.written_at, 0.0, key=full, zone=found.zone).life.expires_at
                    > self._wall_clock()
                )
        self._hooks.looked_up(view, full, "" if found is None else found.zone, hit=hit)

    def _content(self, full: bytes, found: ZoneHit) -> Content | None:
        """Return what a caller may see of an item; None for an absence, and for a value that is out of date."""
        if not found.is_value:
            return None
        content = self._any_content(full, found)
        return None if found.hit.flags == FLAG_ENVELOPE and content.life.expires_at <= self._wall_clock() else content

    def _any_content(self, full: bytes, found: ZoneHit) -> Content:
        """Return what was found, out of date or not. Raises `DecodeError`, and counts it."""
        try:
            return content_of(found.hit, found.written_at, self._wall_clock(), key=full, zone=found.zone)
        except DecodeError as error:
            raise self._decoding.failed(error, full, found.hit.flags, found.zone) from error

    def _value_kept(self, full: bytes, kept: NearEntry, default: Any, decoder: Decoder) -> Any:
        """Return the value of what the near cache holds. Each caller gets an object of its own, unless it is immutable."""
        if not kept.is_value:
            return default
        assert self._near is not None
        return NearValues(self._near, self._decoding).value(full, kept, decoder)

    def _item_kept(self, full: bytes, kept: NearEntry, decoder: Decoder) -> Item | None:
        if not kept.is_value:
            return None
        assert self._near is not None
        return Item(
            value=self._value_kept(full, kept, None, decoder),
            version=kept.version if self._versions else None,
            ttl=self._near.seconds_left(kept),
            zone=kept.zone,
            source="near",
            stale=False,
            cas_token=kept.cas,
        )
