"""Decoding of values as the type that a caller names."""

from __future__ import annotations

import enum
import typing
from typing import Any

import msgspec
import msgspec.inspect

from evcache.errors import DecodeError
from evcache.values.codec import Codec, StandardCodec
from evcache.values.flags import MSGPACK_FLAGS
from evcache.values.models import TEXTS, check_model, from_plain, is_model, is_pydantics, parts_of
from evcache.zones.errors import InvalidArgument

# Types with a form in MessagePack. `msgspec.convert` would otherwise take a str in place of bytes for base64.
_NATIVE = (bytes, bytearray, memoryview)


class TypedDecoder:
    """A decoder whose values have one type."""

    def __init__(self, as_: Any, codec: Codec, argument: str = "as_") -> None:
        """Make a decoder.

        Args:
            as_: The type: a class, or a type expression such as `list[User]` or `User | None`.
            codec: The codec that encoded the values.
            argument: The name of the argument that the type came from.

        Raises:
            InvalidArgument: Values of this type do not survive being stored.
            NameError: A name in an annotation that belongs to the type is not defined.
        """
        self.as_ = as_
        self.name = type_name(as_)
        self._is_standard = type(codec) is StandardCodec
        # A codec of the user may have a form for any class, as pickle does.
        _check(as_, argument, any_class=not self._is_standard)
        self._codec = codec
        if isinstance(codec, StandardCodec) and self._is_standard:
            self._codec = codec.unpacking_with(msgspec.msgpack.Decoder(as_, dec_hook=from_plain).decode)
        self._class = as_ if isinstance(as_, type) and not typing.is_typeddict(as_) else None

    def decode(self, data: bytes, flags: int) -> Any:
        """Return the value. Raises `DecodeError`; the caller adds key and zone."""
        if self.converts(flags):
            return self.convert(self._codec.decode(data, flags))
        try:
            return self._codec.decode(data, flags)
        except Exception as error:  # code of the type runs, such as __post_init__ or a validator
            raise self._no_fit(error) from error

    def converts(self, flags: int) -> bool:
        """Return True if the codec decodes values of these flags to their own type, and `convert` is needed."""
        return not self._is_standard or flags not in MSGPACK_FLAGS

    def convert(self, value: Any) -> Any:
        """Return a decoded value as this type. Raises `DecodeError`."""
        if self._class is not None and type(value) is self._class:
            return value
        try:
            return msgspec.convert(value, self.as_, builtin_types=_NATIVE, dec_hook=from_plain)
        except Exception as error:
            if self._is_standard:
                raise self._no_fit(error) from error
            try:  # `convert` refuses some instances, such as members of an enum
                plain = msgspec.to_builtins(value, builtin_types=_NATIVE)
                return msgspec.convert(plain, self.as_, builtin_types=_NATIVE, dec_hook=from_plain)
            except Exception:
                raise self._no_fit(error) from error

    def _no_fit(self, error: Exception) -> DecodeError:
        problem = error.problem if isinstance(error, DecodeError) else str(error) or type(error).__name__
        return DecodeError(f"not readable as {self.name}: {problem}")


def type_name(as_: Any) -> str:
    """Return the name of a type for messages."""
    return as_.__qualname__ if isinstance(as_, type) and not typing.get_args(as_) else str(as_).replace("typing.", "")


def _check(as_: Any, argument: str, *, any_class: bool) -> None:
    """Refuse a type whose values do not survive being stored."""
    try:
        info = msgspec.inspect.type_info(as_)
    except NameError:
        raise
    except Exception as error:  # mostly TypeError; a broken annotation can raise anything
        raise InvalidArgument(argument, f"{type_name(as_)} cannot be stored: {error}") from error
    seen: set[int] = set()
    waiting: list[Any] = [info]
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, msgspec.inspect.Metadata):
            waiting.append(one.type)
            continue
        problem = None
        if isinstance(one, msgspec.inspect.CustomType):
            problem = None if any_class else _custom(one.cls, argument)
        elif isinstance(one, msgspec.inspect.EnumType) and issubclass(one.cls, enum.Flag):
            problem = f"{one.cls.__qualname__} is a Flag, and combinations of its members cannot be read back"
        elif isinstance(one, msgspec.inspect.DataclassType):
            problem = _lost_field(one.cls)
        if problem is not None:
            raise InvalidArgument(argument, f"{type_name(as_)} cannot be stored: {problem}")
        for name in one.__struct_fields__:
            part = getattr(one, name)
            parts = part if isinstance(part, tuple) else (part,)
            for inner in parts:
                if isinstance(inner, msgspec.inspect.Field):
                    waiting.append(inner.type)
                elif isinstance(inner, msgspec.inspect.Type):
                    waiting.append(inner)


def _custom(kind: Any, argument: str) -> str | None:
    if kind is object or (isinstance(kind, type) and issubclass(kind, TEXTS)):
        return None
    if is_model(kind):
        _check_fields(kind, argument)
        return None
    return f"values of type {type_name(kind)} have no stored form that can be read back"


def _check_fields(model: Any, argument: str) -> None:
    """Refuse a model with a field whose values do not survive. Checks the parts of a union one by one, as pydantic does."""
    seen: set[Any] = {model}
    waiting = check_model(model, argument)
    while waiting:
        one = waiting.pop()
        parts = parts_of(one)
        if parts:
            waiting += parts
        elif not isinstance(one, type) or one in seen or is_pydantics(one):
            continue
        elif is_model(one):
            seen.add(one)
            waiting += check_model(one, argument)
        else:
            seen.add(one)
            _check(one, argument, any_class=False)


def _lost_field(kind: type) -> str | None:
    # msgspec encodes no attribute of an attrs class whose name begins with an underscore.
    for field in getattr(kind, "__attrs_attrs__", ()):
        if field.name.startswith("_"):
            return f"{kind.__qualname__}.{field.name} would be lost: it is private"
    return None
