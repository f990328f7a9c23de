"""Forms of keys and values in one server group, as plain functions of bytes.

EVCache hashes a key by the settings of the app and of the group. Under a hashed key it stores an object with the key and
the value. A reader compares the key, because two keys can have one hash.
"""

from __future__ import annotations

from typing import NamedTuple

from evcache.errors import DecodeError
from evcache.interop.forms.java_envelope import JavaEnvelope, unwrap, unwrap_compact, wrap
from evcache.interop.forms.key_hash import KeyHash
from evcache.interop.settings import GroupInterop, Interop
from evcache.values.flags import FLAG_COMPACT_ENVELOPE, FLAG_INT, FLAG_JAVA, FLAG_STR
from evcache.zones.protocol.replies import Hit

_MD5 = KeyHash(algorithm="md5")


class WireKey(NamedTuple):
    """Key that the servers of a group get."""

    key: bytes
    is_hashed: bool
    """True if it is a hash, and the value is stored in an envelope."""


class GroupRules:
    """Rules of one server group."""

    def __init__(self, interop: Interop, group: str) -> None:
        """Bind the settings of a group.

        Args:
            interop: Settings of the JVM clients.
            group: Name of the group, which is the name of its zone.
        """
        self._interop = interop
        self._group = settings = interop.groups.get(group, GroupInterop())
        self.chunk_bytes = interop.chunk_bytes if settings.chunk_bytes == "app" else settings.chunk_bytes
        """Size of a chunk. If None, the group has no chunks."""

    def wire_key(self, canonical: bytes) -> WireKey:
        """Return the key that the servers get for a canonical key."""
        key_hash = self._key_hash(canonical)
        return (
            WireKey(canonical, is_hashed=False) if key_hash is None else WireKey(key_hash.hashed(canonical), is_hashed=True)
        )

    def _key_hash(self, canonical: bytes) -> KeyHash | None:
        interop, group = self._interop, self._group
        is_long = interop.hash_keys == "long" and utf16_length(canonical) > interop.longest_key
        of_app = interop.key_hash if is_long or interop.hash_keys == "all" else None
        if interop.release == "5.9":
            # The group decides only about keys that the app does not hash. A group with chunks hashes none by itself.
            by_group = group.hash_keys and self.chunk_bytes is None
            return of_app or ((group.key_hash or _MD5) if by_group else None)
        if group.hash_keys is None:
            return of_app
        return (group.key_hash or interop.key_hash) if group.hash_keys else None

    @staticmethod
    def stored(canonical: bytes, wire: WireKey, data: bytes, flags: int, exptime: int, now_ms: int) -> tuple[bytes, int]:
        """Return the bytes and flags that the servers get for an encoded value.

        Args:
            canonical: Canonical key.
            wire: Result of `wire_key`.
            data: Encoded value.
            flags: Flags of the encoded value. `FLAG_INT` marks a counter, which is stored as text under any key.
            exptime: TTL as memcached takes it.
            now_ms: Unix time in milliseconds.
        """
        if flags == FLAG_INT:
            return data, FLAG_STR
        if not wire.is_hashed:
            return data, flags
        return wrap(JavaEnvelope(canonical.decode(), data, flags, exptime, now_ms)), FLAG_JAVA

    def envelope_bytes(self, canonical: bytes) -> int:
        """Return the bytes that the form of the group adds to an encoded value of this key."""
        wire = self.wire_key(canonical)
        return len(wrap(JavaEnvelope(canonical.decode(), b"", 0, 0, 0))) if wire.is_hashed else 0

    @staticmethod
    def loaded(canonical: bytes, wire: WireKey, hit: Hit) -> Hit | None:
        """Return the item of a canonical key that the servers hold, or None if it is the item of another key.

        Something that no client stores under a hash is None as well. JVM clients read it as absent.
        """
        if not wire.is_hashed:
            return hit
        if hit.flags == FLAG_STR and hit.value.rstrip(b" ").isdigit():
            return hit  # a counter, which has no envelope
        try:
            if hit.flags == FLAG_JAVA:
                envelope = unwrap(hit.value)
            else:
                envelope = unwrap_compact(hit.value) if hit.flags == FLAG_COMPACT_ENVELOPE else None
        except DecodeError:
            return None
        if envelope is None or envelope.key != canonical.decode():
            return None
        return hit._replace(value=envelope.value, flags=envelope.flags)


def utf16_length(key: bytes) -> int:
    """Return the length of a key in UTF-16 units, which is the length of its Java string."""
    text = key.decode()
    return len(text) + sum(character > "\uffff" for character in text)
