"""Checks of settings: `InvalidArgument` names the one that can't be used, before anything is opened."""

from __future__ import annotations

import math

from zones.errors import InvalidArgument


def at_least_one(value: int, argument: str) -> None:
    """Raise unless the value is a whole number from 1 up."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidArgument(argument, f"a whole number from 1 is needed, not {value!r}")


def seconds(value: float, argument: str) -> float:
    """A time span over 0. Raises for anything else, NaN and infinity among them."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0 or math.isinf(value):
        raise InvalidArgument(argument, f"seconds over 0 are needed, not {value!r}")
    return float(value)


def zero_or_more(value: float, argument: str) -> None:
    """Raise unless the value is a finite number from 0 up."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0 or math.isinf(value):
        raise InvalidArgument(argument, f"0 or more is needed, not {value!r}")


def share(value: float, argument: str) -> None:
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
