"""Values of entries of the near cache."""

from __future__ import annotations

from typing import Any

from evcache.errors import DecodeError
from evcache.near_cache.coherence import CoherentNearCache
from evcache.near_cache.entry import UNDECODED, NearEntry
from evcache.reads.decoding import Decoder, Decoding
from evcache.values.typed import TypedDecoder


class NearValues:
    """Decoding of entries of the near cache. Each caller gets its own object, unless the value is immutable."""

    def __init__(self, near: CoherentNearCache, decoding: Decoding) -> None:
        self._near = near
        self._decoding = decoding
        self._codec = decoding.codec

    def value(self, key: bytes, entry: NearEntry, decoder: Decoder) -> Any:
        """Return the value of an entry that is no absence.

        Args:
            key: The key, for errors.
            entry: The entry. It keeps the decoded value if that is immutable.
            decoder: Decoder of the type that the caller named, or the codec.

        Raises:
            DecodeError: The value cannot be decoded. The client counts it.
        """
        value = entry.value
        if value is not UNDECODED and decoder is self._codec:
            return value
        if entry.typed is not None and entry.typed[0] is decoder:
            return entry.typed[1]
        if entry.data is not None and isinstance(decoder, TypedDecoder) and not decoder.converts(entry.flags):
            value = self._decoding.value(key, entry, decoder)
            self._near.store_typed(entry, decoder, value)
            return value
        if entry.data is not None:
            value = self._decoding.value(key, entry, self._codec)
            self._near.store_decoded(entry, value)
        if not isinstance(decoder, TypedDecoder):
            return value
        try:
            return decoder.convert(value)
        except DecodeError as error:
            raise self._decoding.failed(error, key, entry.flags, entry.zone) from error
