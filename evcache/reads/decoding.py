"""Decoding of one client's values, plain or as the type that a caller names, and a count of those that cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from evcache.errors import DecodeError, EncodeError
from evcache.hooks import HookDispatcher
from evcache.near_cache.entry import NearEntry
from evcache.values.annotations import mapped_type, return_type
from evcache.values.codec import Codec
from evcache.values.lifetime import Content
from evcache.values.typed import TypedDecoder, type_name
from evcache.zones.errors import InvalidArgument

# Limit on cached decoders. A process that creates types without end would fill its memory otherwise.
_MAX_DECODERS = 1000


class Decoder(Protocol):
    """Decoder of values: the codec, or the decoder of one type."""

    def decode(self, data: bytes, flags: int) -> Any:
        """Return the value. Raises `DecodeError`."""
        ...


def can_read(decoder: Decoder, data: bytes, flags: int) -> bool:
    """Return True if these bytes can be decoded."""
    try:
        decoder.decode(data, flags)
    except DecodeError:
        return False
    return True


class Decoding:
    """The decoders of one client."""

    def __init__(self, codec: Codec, hooks: HookDispatcher) -> None:
        self.codec = codec
        self._hooks = hooks
        self._decoders: dict[Any, Decoder] = {}
        self.errors = 0
        """Number of values that could not be decoded."""

    def typed(self, as_: Any, argument: str = "as_") -> Decoder:
        """Return the decoder of a type, or the codec if `as_` names no type.

        Args:
            as_: The type. `Any`, `object` and type variables name none.
            argument: Name of the argument that the type came from.

        Raises:
            InvalidArgument: A value of this type would come back as something else, or an annotation cannot be resolved.
        """
        try:
            return self._decoders[as_]
        except (KeyError, TypeError):  # new, or with metadata that has no hash
            pass
        try:
            return self.new_decoder(as_, argument)
        except NameError as error:
            raise InvalidArgument(
                argument, f"{type_name(as_)} has an annotation that cannot be resolved: {error}"
            ) from error

    def new_decoder(self, as_: Any, argument: str) -> Decoder:
        """Make the decoder of a type. Raises `InvalidArgument`, or NameError if an annotation names an undefined type."""
        plain = as_ is None or as_ is Any or as_ is object or isinstance(as_, TypeVar)
        decoder: Decoder = self.codec if plain else TypedDecoder(as_, self.codec, argument)
        if len(self._decoders) < _MAX_DECODERS:
            with suppress(TypeError):
                self._decoders[as_] = decoder
        return decoder

    def of_loader(self, loader: Callable[..., Any], *, many: bool = False) -> Decoder:
        """Return the decoder of the type that a loader is annotated to return, or the codec if there is none."""
        try:
            return self.typed((mapped_type if many else return_type)(loader), "loader")
        except (InvalidArgument, NameError, TypeError):
            return self.codec  # the caller has named no type, so the loader's annotation is a hint and no more

    def value(self, key: bytes, found: Content | NearEntry, decoder: Decoder) -> Any:
        """Return the value of what was found. Raises `DecodeError` naming key, zone and flags, and counts it."""
        try:
            return decoder.decode(found.data, found.flags)  # type: ignore[arg-type]  # an assert would cost every load
        except DecodeError as error:
            raise self.failed(error, key, found.flags, found.zone) from error

    def failed(self, error: DecodeError, key: bytes, flags: int, zone: str) -> DecodeError:
        """Count a value that cannot be read. Return the error with key, zone and flags."""
        self.errors += 1
        named = error.located(key, zone, flags)
        self._hooks.decode_failed(zone, named)
        return named

    def check(self, value: Any, data: bytes, flags: int, decoder: Decoder, *, same_type: bool) -> None:
        """Refuse a loaded value that would come back as something else.

        Args:
            value: The value that the loader returned.
            data: Its bytes.
            flags: Its flags.
            decoder: The decoder of the caller.
            same_type: True to refuse a value that comes back as a value of another type.

        Raises:
            EncodeError: The value does not come back as a value of that type.
        """
        kind = type(value).__qualname__
        try:
            back = decoder.decode(data, flags)
        except DecodeError as error:
            raise EncodeError(
                f"the loader returned a value of type {kind} that cannot be read back: {error.problem}"
            ) from error
        if same_type and not isinstance(value, type(back)):
            raise EncodeError(
                f"the loader returned a value of type {kind}, which comes back as {type(back).__qualname__}: "
                "name its type by as_=, or in the annotation of the loader"
            )
