"""Checks of settings: `InvalidArgument` names the one that can't be used, before anything is opened."""

from __future__ import annotations

import math
from typing import get_args

from evcache.zones.errors import InvalidArgument


def is_finite(value: float) -> bool:
    """Return True if a float can hold the number. An int of hundreds of digits is none."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def at_least_one(value: int, argument: str) -> None:
    """Raise unless the value is a whole number from 1 up."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidArgument(argument, f"a whole number from 1 is needed, not {value!r}")


def seconds(value: float, argument: str) -> float:
    """A time span over 0. Raises for anything else, NaN and infinity among them."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0 or not is_finite(value):
        raise InvalidArgument(argument, f"seconds over 0 are needed, not {value!r}")
    return float(value)


def zero_or_more(value: float, argument: str) -> None:
    """Raise unless the value is a finite number from 0 up."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0 or not is_finite(value):
        raise InvalidArgument(argument, f"0 or more is needed, not {value!r}")


def fraction(value: float, argument: str) -> float:
    """Return the value. Raise unless it is a number from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InvalidArgument(argument, f"a share from 0 to 1 is needed, not {value!r}")
    return value


def positive_fraction(value: float, argument: str) -> None:
    """Raise unless the value is a number over 0, and 1 at the most."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise InvalidArgument(argument, f"a share over 0, and 1 at the most, is needed, not {value!r}")


def login(value: tuple[str, str] | None, argument: str) -> None:
    """Raise unless the value is None or a user and a password that memcached can tell apart."""
    if value is None:
        return
    if not isinstance(value, tuple) or len(value) != 2 or not all(isinstance(part, str) and part for part in value):
        raise InvalidArgument(argument, "a tuple of user and password is needed")
    if any(character.isspace() for part in value for character in part):
        raise InvalidArgument(argument, "the server takes a space for the end of the user or password")


def flag(value: bool, argument: str) -> bool:  # noqa: FBT001  # what is checked
    """Return the value. Raise unless it is True or False."""
    if not isinstance(value, bool):
        raise InvalidArgument(argument, f"True or False is needed, not {value!r}")
    return value


def an_instance(value: object, kind: type, argument: str, *, optional: bool = True) -> None:
    """Raise unless the value is an instance of the class, or None if it is optional."""
    if not isinstance(value, kind) and not (optional and value is None):
        raise InvalidArgument(argument, f"{kind.__name__}(...){' or None' if optional else ''} is needed, not {value!r}")


def one_of(value: str, kind: object, argument: str) -> None:
    """Raise unless the value is one that the Literal type `kind` lists."""
    if value not in get_args(kind):
        raise InvalidArgument(argument, f"{value!r} is none of {', '.join(map(repr, get_args(kind)))}")


def has_methods(value: object, *names: str) -> bool:
    """Return True if the value is an object, not a class, with all of these methods."""
    return not isinstance(value, type) and all(callable(getattr(value, name, None)) for name in names)


def methods(value: object, names: tuple[str, ...], argument: str, *, optional: bool = True) -> None:
    """Raise unless the value is an object with all of these methods, or None if it is optional."""
    if not has_methods(value, *names) and not (optional and value is None):
        needed = " and ".join(f"{name}()" for name in names)
        raise InvalidArgument(argument, f"an object with {needed}{' or None' if optional else ''} is needed, not {value!r}")


def text(value: str | None, argument: str, *, optional: bool = False) -> None:
    """Raise unless the value is a text that is not empty, or None if it is optional."""
    if not (isinstance(value, str) and value) and not (optional and value is None):
        raise InvalidArgument(argument, f"a text{' or None' if optional else ''} is needed, not {value!r}")


def not_negative(value: int, argument: str) -> int:
    """Raise `InvalidArgument` unless the value is a whole number from 0."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidArgument(argument, f"a whole number from 0 is needed, not {value!r}")
    return value
