"""Envelopes in which EVCache for the JVM stores values of hashed keys, and the original key with them.

The usual form is an object of one class in Java serialization. The class is fixed, so its description is a constant, and
no parser of Java serialization is needed. A reader compares the key in the envelope with its own, because two keys can
have one hash.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from evcache.errors import DecodeError
from evcache.zones.validation import number

# Stream magic and version, a new object, its class description, and the name of the class.
_CLASS = bytes.fromhex("aced0005 7372 0025") + b"com.netflix.evcache.pool.EVCacheValue"
_FIELDS = (
    bytes.fromhex("2c2a7385e07411c0 02 0005")  # version of the class, serializable, five fields
    + b"J\0\x0acreateTimeI\0\x05flagsJ\0\x03ttl"
    + b"L\0\x03keyt\0\x12Ljava/lang/String;"
    + b"[\0\x05valuet\0\x02[B"
    + b"xp"  # the end of the description, and no superclass
)
_HEADER = _CLASS + _FIELDS
# Time of creation, flags and TTL. Java has a signed int for flags, with the same four bytes.
_NUMBERS = struct.Struct(">qIq")
_STRING, _LONG_STRING = b"t", b"|"
_LENGTH16 = struct.Struct(">H")
_LENGTH64 = struct.Struct(">Q")
_ARRAY = bytes.fromhex("7572 0002 5b42 acf317f8060854e0 02 0000 7870")  # a new array of bytes, and its class
_LENGTH32 = struct.Struct(">I")
_SIGNED32 = struct.Struct(">i")  # -1 stands for null in the compact form

_COMPACT_FORMAT = 1
_COMPACT_NUMBERS = struct.Struct(">Iqq")

_SUPPLEMENTARY = re.compile("[\U00010000-\U0010ffff]")


class JavaEnvelope(NamedTuple):
    """Value of a hashed key, with the arguments of the write."""

    key: str
    """Whole key before hashing, with its namespace."""
    value: bytes
    """Bytes of the codec."""
    flags: int
    """Flags of the codec. The item has other flags."""
    ttl: int
    """TTL as the writer passed it. A touch changes the TTL of the item only."""
    created_ms: int
    """Unix time of the write in milliseconds, by the clock of the writer."""


def wrap(envelope: JavaEnvelope) -> bytes:
    """Return the bytes to store under `FLAG_JAVA`.

    Args:
        envelope: Value and the arguments of the write.

    Raises:
        InvalidArgument: A number does not fit its field.
    """
    number(envelope.flags, "flags", minimum=0, maximum=2**32 - 1, whole=True)
    number(envelope.ttl, "ttl", minimum=-(2**63), maximum=2**63 - 1, whole=True)
    number(envelope.created_ms, "created_ms", minimum=-(2**63), maximum=2**63 - 1, whole=True)
    key = _to_modified_utf8(envelope.key)
    string = _STRING + _LENGTH16.pack(len(key)) if len(key) < 2**16 else _LONG_STRING + _LENGTH64.pack(len(key))
    numbers = _NUMBERS.pack(envelope.created_ms, envelope.flags, envelope.ttl)
    return b"".join((_HEADER, numbers, string, key, _ARRAY, _LENGTH32.pack(len(envelope.value)), envelope.value))


def unwrap(stored: bytes) -> JavaEnvelope | None:
    """Return the envelope of bytes that are stored under `FLAG_JAVA`, or None if they are another Java object.

    Bytes behind the envelope are ignored, as the JVM client does. An `append` to a hashed key leaves them there.

    Args:
        stored: Bytes as stored.

    Raises:
        DecodeError: The envelope is cut short or malformed.
    """
    if not stored.startswith(_CLASS):
        return None
    fields = _Fields(stored, len(_CLASS))
    fields.expect(_FIELDS, "the fields of the class")
    created_ms, flags, ttl = fields.numbers(_NUMBERS)
    form = fields.take(1)
    if form not in (_STRING, _LONG_STRING):
        raise DecodeError("invalid JVM envelope: it has no key")
    (length,) = fields.numbers(_LENGTH16 if form == _STRING else _LENGTH64)
    key = _from_modified_utf8(fields.take(length))
    fields.expect(_ARRAY, "an array of bytes")
    (length,) = fields.numbers(_LENGTH32)
    return JavaEnvelope(key, fields.take(length), flags, ttl, created_ms)


def unwrap_compact(stored: bytes) -> JavaEnvelope:
    """Return the envelope of bytes that are stored under `FLAG_COMPACT_ENVELOPE`.

    Bytes behind the envelope are ignored.

    Args:
        stored: Bytes as stored.

    Raises:
        DecodeError: The envelope is cut short or malformed, has an unknown format, or has no key or value.
    """
    fields = _Fields(stored, 0)
    form = fields.take(1)[0]
    if form != _COMPACT_FORMAT:
        raise DecodeError(f"invalid JVM envelope: compact format {form} is unknown to this release")
    key = fields.sized("key")
    value = fields.sized("value")
    flags, ttl, created_ms = fields.numbers(_COMPACT_NUMBERS)
    try:
        return JavaEnvelope(key.decode(), value, flags, ttl, created_ms)
    except UnicodeDecodeError as error:
        raise DecodeError(f"invalid JVM envelope: the key is not UTF-8: {error}") from None


class _Fields:
    """Reader of the fields of an envelope in their order."""

    __slots__ = ("_at", "_stored")

    def __init__(self, stored: bytes, at: int) -> None:
        self._stored = stored
        self._at = at

    def take(self, length: int) -> bytes:
        """Return the next bytes. Raises `DecodeError` if there are fewer."""
        end = self._at + length
        if end > len(self._stored):
            raise DecodeError("invalid JVM envelope: cut short")
        found = self._stored[self._at : end]
        self._at = end
        return found

    def expect(self, constant: bytes, name: str) -> None:
        """Pass a constant. Raises `DecodeError` if other bytes are there, or fewer."""
        found = self._stored[self._at : self._at + len(constant)]
        if not constant.startswith(found):
            raise DecodeError(f"invalid JVM envelope: other bytes than {name}")
        self.take(len(constant))

    def numbers(self, form: struct.Struct) -> tuple[int, ...]:
        """Return the next numbers. Raises `DecodeError` if there are fewer bytes."""
        return form.unpack(self.take(form.size))

    def sized(self, name: str) -> bytes:
        """Return the next bytes of the compact form, which have their length in front. Raises `DecodeError`."""
        (length,) = self.numbers(_SIGNED32)
        if length < 0:
            raise DecodeError(f"invalid JVM envelope: it has no {name}")
        return self.take(length)


def _to_modified_utf8(text: str) -> bytes:
    """Return the UTF-8 of Java: NUL has two bytes, and a character above U+FFFF is two surrogates of three bytes."""
    if text.isascii() and "\0" not in text:
        return text.encode()
    pairs = _SUPPLEMENTARY.sub(lambda found: _surrogates(ord(found[0])), text)
    return pairs.encode("utf-8", "surrogatepass").replace(b"\0", b"\xc0\x80")


def _surrogates(code_point: int) -> str:
    offset = code_point - 0x10000
    return chr(0xD800 + (offset >> 10)) + chr(0xDC00 + (offset & 0x3FF))


def _from_modified_utf8(data: bytes) -> str:
    try:
        units = data.replace(b"\xc0\x80", b"\0").decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise DecodeError(f"invalid JVM envelope: the key is not in Java's UTF-8: {error}") from None
    # UTF-16 joins the two surrogates of a pair, and keeps those without a partner.
    text = units.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    if _to_modified_utf8(text) != data:  # a NUL of one byte, or a character of four bytes
        raise DecodeError("invalid JVM envelope: the key is not in Java's UTF-8")
    return text
