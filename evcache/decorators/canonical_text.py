"""Values as texts that no other value has, in any process and Python version. What keys of calls are made of. Pure.

Types are told apart: 1, 1.0, True, "1" and b"1" are five values. Whatever has no such text is refused, where `repr` would
have had one that ends with an address.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from datetime import date, datetime, timezone
from decimal import Decimal
from enum import Enum, Flag
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

# What a value is written in; all else becomes %XX, as in RFC 3986, whose unreserved letters these are, without the tilde.
_SAFE = frozenset((string.ascii_letters + string.digits + "-_.").encode())
_WRITTEN = tuple(chr(byte) if byte in _SAFE else f"%{byte:02X}" for byte in range(256))
_IS_SAFE = re.compile(r"[A-Za-z0-9\-_.]*").fullmatch
# Begins a value in a template that is more than its plain text. Escaped where a text holds it, so no text can look like one.
_MARK = "~"
_IN_VALUES = _SAFE | frozenset(b"%~")

# Python refuses to write, and a process may set the limit down to 640 digits, which is 2,126 bits.
_MAX_DECIMAL_BITS = 2048


class NoExactTextError(Exception):
    """This value has no form that no other value has. Becomes an `InvalidArgument` that names the parameter."""

    def __init__(self, value: object) -> None:
        kind = type(value)
        super().__init__(f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."))


def escape(text: str | bytes) -> str:
    """Letters, digits and -_. as they are, everything else as %XX; different texts stay different."""
    if isinstance(text, str):
        if _IS_SAFE(text):
            return text
        text = text.encode("utf-8", "surrogatepass")  # lone surrogates, too, have a form of their own
    return "".join([_WRITTEN[byte] for byte in text])


def exact(value: Any) -> str:
    """The form of a value that no other value has, whatever its type. Raises `NoExactTextError`."""
    write = _EXACT.get(type(value))
    if write is not None:
        return write(value)
    if isinstance(value, Enum):
        return _member(value)
    if _is_uuid(type(value)):
        return f"UUID({value})"
    raise NoExactTextError(value)


def in_template(value: Any) -> str:
    """The form of a value in a template: the text of a str, int, UUID or date, so that keys are what templates look like.

    The developer writes that text down by hand elsewhere, and the number 42 and the text "42" of a URL are one user.
    All else is marked: None is not the user "None". Raises `NoExactTextError`.
    """
    write = _PLAIN.get(type(value))
    if write is not None:
        return write(value)
    if _is_uuid(type(value)):
        return str(value)
    return _MARK + escape(exact(value))


def keywords(values: dict[str, Any]) -> str:
    """`exact` for what `**kwargs` holds, whose order makes no difference. Raises `NoExactTextError`."""
    return f"{{{','.join([f'{escape(name)}={exact(values[name])}' for name in sorted(values)])}}}"


def separates(text: str) -> bool:
    """Whether a text between two values in a template shows where one ends and the next begins: it holds what none can."""
    return any(letter not in _IN_VALUES for letter in text.encode("utf-8", "surrogatepass"))


def _int(value: int) -> str:
    return str(value) if value.bit_length() <= _MAX_DECIMAL_BITS else hex(value)


def _plain_int(value: int) -> str:
    return str(value) if value.bit_length() <= _MAX_DECIMAL_BITS else _MARK + hex(value)


def _datetime(value: datetime) -> str:
    # The zone belongs to it: a day later is another moment in Berlin than at +01:00. So does `fold`: which of two 2:30.
    zone = value.tzinfo
    if zone is None:
        name = ""
    elif type(zone) is timezone:
        name = f"({escape(zone.tzname(None))})"
    elif type(zone) is ZoneInfo and zone.key is not None:
        name = f"[{escape(zone.key)}]"
    else:
        raise NoExactTextError(zone)
    return f"datetime({value.isoformat()}{'~' if value.fold else ''}{name})"


def _tuple(values: tuple[Any, ...]) -> str:
    return f"({''.join([exact(value) + ',' for value in values])})"


def _member(member: Enum) -> str:
    kind = type(member)
    if kind.__module__ == "__main__" or "<locals>" in kind.__qualname__:  # another program's has the same name
        raise NoExactTextError(member)
    which = exact(member._value_) if isinstance(member, Flag) else escape(member._name_)  # flags may have several names
    return f"{escape(kind.__module__)}:{escape(kind.__qualname__)}[{which}]"


def _is_uuid(kind: type) -> bool:
    # asyncpg's rows hold UUIDs of its own class, which are meant to be taken for the standard one. Other classes that are
    # derived from a type may mean something else by the same value.
    return kind.__module__ == "asyncpg.pgproto.pgproto" and issubclass(kind, UUID)


# By exact type: what is derived from one of these may hold more than its text says.
_EXACT: dict[type, Callable[[Any], str]] = {
    str: lambda value: f"'{escape(value)}'",
    bytes: lambda value: f"b'{escape(value)}'",
    int: _int,
    bool: repr,
    type(None): repr,
    float: repr,  # the shortest text that is read as the same number; -0.0 and 0.0 differ
    Decimal: lambda value: f"Decimal({str(value).upper()})",  # the context may ask for a small e
    UUID: lambda value: f"UUID({value})",
    date: lambda value: f"date({value.isoformat()})",
    datetime: _datetime,
    tuple: _tuple,
}
_PLAIN: dict[type, Callable[[Any], str]] = {str: escape, int: _plain_int, UUID: str, date: date.isoformat}
