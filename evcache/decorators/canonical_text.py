"""Canonical encoding of values: different values have different texts, in every process and Python version.

Keys of calls consist of these texts. The type is part of the text: 1, 1.0, True, "1" and b"1" are five values. A value of
another type is refused, because its `repr` may contain an address.
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

# Characters that stand for themselves: the unreserved characters of RFC 3986 except the tilde. All others become %XX.
_SAFE = frozenset((string.ascii_letters + string.digits + "-_.").encode())
_WRITTEN = tuple(chr(byte) if byte in _SAFE else f"%{byte:02X}" for byte in range(256))
_IS_SAFE = re.compile(r"[A-Za-z0-9\-_.]*").fullmatch
# First character of a value in a template that is not plain text. Plain text has it escaped, so it never looks like one.
_MARK = "~"
_IN_VALUES = _SAFE | frozenset(b"%~")

# Python refuses to write longer numbers in decimal. A process may lower the limit to 640 digits, which are 2,126 bits.
_MAX_DECIMAL_BITS = 2048


class NoCanonicalTextError(Exception):
    """Refusal of a value without a canonical text. The caller turns it into an `InvalidArgument` of the parameter."""

    def __init__(self, value: object) -> None:
        kind = type(value)
        super().__init__(f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."))


def escape(text: str | bytes) -> str:
    """Return the text with every byte as %XX, except letters, digits and -_. Different texts stay different."""
    if isinstance(text, str):
        if _IS_SAFE(text):
            return text
        text = text.encode("utf-8", "surrogatepass")  # lone surrogates have their own form
    return "".join([_WRITTEN[byte] for byte in text])


def canonical(value: Any) -> str:
    """Return the text that no other value of any type has. Raises `NoCanonicalTextError`."""
    write = _CANONICAL.get(type(value))
    if write is not None:
        return write(value)
    if isinstance(value, Enum):
        return _member(value)
    if _is_uuid(type(value)):
        return f"UUID({value})"
    raise NoCanonicalTextError(value)


def template_text(value: Any) -> str:
    """Return the text of a value in a template.

    A str, int, UUID or date has its plain text, as in keys that developers write by hand. The number 42 and the text "42" of
    a URL are then one user. Values of other types are marked, so that None is not the user "None". Raises
    `NoCanonicalTextError`.
    """
    write = _PLAIN.get(type(value))
    if write is not None:
        return write(value)
    if _is_uuid(type(value)):
        return str(value)
    return _MARK + escape(canonical(value))


def canonical_keywords(values: dict[str, Any]) -> str:
    """Return the text of `**kwargs`, whose order makes no difference. Raises `NoCanonicalTextError`."""
    return f"{{{','.join([f'{escape(name)}={canonical(values[name])}' for name in sorted(values)])}}}"


def is_separator(text: str) -> bool:
    """Return True if a text between two values of a template contains a character that no value can contain."""
    return any(letter not in _IN_VALUES for letter in text.encode("utf-8", "surrogatepass"))


def _int(value: int) -> str:
    return str(value) if value.bit_length() <= _MAX_DECIMAL_BITS else hex(value)


def _plain_int(value: int) -> str:
    return str(value) if value.bit_length() <= _MAX_DECIMAL_BITS else _MARK + hex(value)


def _datetime(value: datetime) -> str:
    # The zone is part of the value: one day later is a different moment in Berlin and at +01:00. So is `fold`, which tells
    # the two 2:30 of a change of clocks apart.
    zone = value.tzinfo
    if zone is None:
        name = ""
    elif type(zone) is timezone:
        name = f"({escape(zone.tzname(None))})"
    elif type(zone) is ZoneInfo and zone.key is not None:
        name = f"[{escape(zone.key)}]"
    else:
        raise NoCanonicalTextError(zone)
    return f"datetime({value.isoformat()}{'~' if value.fold else ''}{name})"


def _tuple(values: tuple[Any, ...]) -> str:
    return f"({''.join([canonical(value) + ',' for value in values])})"


def _member(member: Enum) -> str:
    kind = type(member)
    if kind.__module__ == "__main__" or "<locals>" in kind.__qualname__:  # another program may use the same name
        raise NoCanonicalTextError(member)
    which = canonical(member._value_) if isinstance(member, Flag) else escape(member._name_)  # flags may have several names
    return f"{escape(kind.__module__)}:{escape(kind.__qualname__)}[{which}]"


def _is_uuid(kind: type) -> bool:
    # Rows of asyncpg hold UUIDs of its own class, which stand for the standard ones. Other derived classes may give the same
    # value another meaning.
    return kind.__module__ == "asyncpg.pgproto.pgproto" and issubclass(kind, UUID)


# By exact type, because an object of a derived class may hold more than its text.
_CANONICAL: dict[type, Callable[[Any], str]] = {
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
