"""Checks around a codec of the user. Its errors become codec errors, and its results must be valid for servers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from evcache.errors import DecodeError, EncodeError
from evcache.values.codec import Codec, StandardCodec
from evcache.values.flags import FLAG_ABSENT, FLAG_ENVELOPE, FLAG_TOMBSTONE
from evcache.zones.errors import CacheError, InvalidArgument

_MAX_FLAGS = 2**32 - 1
RESERVED: Mapping[int, str] = {FLAG_TOMBSTONE: "deletes", FLAG_ABSENT: "known absences", FLAG_ENVELOPE: "envelopes"}


def checked(codec: Codec, argument: str = "codec", *, reserved: Mapping[int, str] = RESERVED) -> Codec:
    """Return a codec whose results are checked. `StandardCodec` needs no check.

    Args:
        codec: Object with `encode` and `decode`.
        argument: Name of the argument, for the error.
        reserved: Flags that the codec must not return, with what the client uses them for.

    Raises:
        InvalidArgument: The codec lacks a method, a method is async, or the codec is a class.
    """
    if isinstance(codec, type):
        raise InvalidArgument(
            argument, f"an object is required, not the class {codec.__qualname__}: write {codec.__qualname__}()"
        )
    for name in ("encode", "decode"):
        method = getattr(codec, name, None)
        if not callable(method):
            raise InvalidArgument(argument, f"an object with encode() and decode() is required: {codec!r} has no {name}()")
        if inspect.iscoroutinefunction(method):
            raise InvalidArgument(argument, f"{name}() of {codec!r} must not be async")
    return codec if type(codec) is StandardCodec else CheckedCodec(codec, reserved)


class CheckedCodec:
    """Codec whose results are checked."""

    def __init__(self, codec: Codec, reserved: Mapping[int, str] = RESERVED) -> None:
        self.codec = codec
        self._reserved = reserved
        self._name = type(codec).__qualname__

    def encode(self, value: Any) -> tuple[bytes, int]:
        """Return the bytes and client flags of a value.

        Raises:
            EncodeError: The codec raised an error, or its result cannot be stored. The message names the codec and the type
                of the value.
        """
        try:
            result = self.codec.encode(value)
        except CacheError:
            raise
        except Exception as error:
            raise EncodeError(f"{self._of(value)} raised {type(error).__name__}: {error}") from error
        if not (isinstance(result, tuple | list) and len(result) == 2):
            raise EncodeError(f"{self._of(value)} must return (bytes, flags), not {type(result).__name__}")
        data, flags = result
        if not isinstance(data, bytes):
            if not isinstance(data, bytearray | memoryview):
                raise EncodeError(f"{self._of(value)} must return bytes, not {type(data).__name__}")
            data = bytes(data)  # a copy, which the codec cannot change before all zones have it
        if not isinstance(flags, int) or isinstance(flags, bool) or not 0 <= flags <= _MAX_FLAGS:
            raise EncodeError(f"{self._of(value)} must return flags from 0 to 2**32 - 1, not {flags!r}")
        if flags in self._reserved:
            raise EncodeError(
                f"{self._of(value)} returned flags {int(flags)}, which are reserved for {self._reserved[flags]}"
            )
        return data, int(flags)

    def decode(self, data: bytes, flags: int) -> Any:
        """Return the value.

        Raises:
            DecodeError: The codec raised an error.
        """
        try:
            return self.codec.decode(data, flags)
        except DecodeError:
            raise
        except Exception as error:
            raise DecodeError(f"{self._name}.decode() raised {type(error).__name__}: {error}") from error

    def _of(self, value: Any) -> str:
        return f"{self._name}.encode() of a value of type {type(value).__name__}"
