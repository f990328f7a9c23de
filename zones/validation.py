"""Checks of arguments and settings. Each raises `InvalidArgument` with the name of the argument, before anything is sent."""

from __future__ import annotations

import math
from typing import get_args

from evcache.zones.errors import InvalidArgument


def is_finite(value: float) -> bool:
    """Return True if a float can hold the number and it is not NaN or infinite. An int of hundreds of digits is refused."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def number(
    value: float,
    argument: str,
    *,
    minimum: float = -math.inf,
    maximum: float = math.inf,
    exclusive: bool = False,
    whole: bool = False,
    unit: str = "",
) -> float:
    """Check that a value is a finite number within limits. Bools are refused.

    Args:
        value: The value.
        argument: Name of the argument, for the error.
        minimum: Lowest value.
        maximum: Highest value, always included.
        exclusive: True if the minimum itself is refused.
        whole: True if only an int is accepted. Its size has no limit other than `maximum`.
        unit: Unit of the number, for the error.

    Returns:
        The value.

    Raises:
        InvalidArgument: The value is something else.
    """
    if isinstance(value, int if whole else int | float) and not isinstance(value, bool):
        is_high_enough = value > minimum if exclusive else value >= minimum  # NaN compares false
        if is_high_enough and value <= maximum and (whole or is_finite(value)):
            return value
    limits = f" above {minimum}" if exclusive else f" of at least {minimum}" if minimum > -math.inf else ""
    if maximum < math.inf:
        limits += f" and at most {maximum}"
    noun = "a whole number" if whole else "a number"
    raise InvalidArgument(argument, f"{noun}{f' of {unit}' if unit else ''}{limits} is required, not {value!r}")


def at_least_one(value: int, argument: str) -> None:
    """Check that the value is a whole number of at least 1."""
    number(value, argument, minimum=1, whole=True)


def not_negative(value: int, argument: str) -> int:
    """Check that the value is a whole number of at least 0, and return it."""
    number(value, argument, minimum=0, whole=True)
    return value


def positive_seconds(value: float, argument: str) -> float:
    """Check that the value is a finite duration above 0, and return it as a float."""
    return float(number(value, argument, minimum=0, exclusive=True, unit="seconds"))


def zero_or_more(value: float, argument: str) -> None:
    """Check that the value is a finite number of at least 0."""
    number(value, argument, minimum=0)


def fraction(value: float, argument: str) -> float:
    """Check that the value is a number from 0 to 1, and return it."""
    return number(value, argument, minimum=0, maximum=1)


def positive_fraction(value: float, argument: str) -> None:
    """Check that the value is a number above 0 and at most 1."""
    number(value, argument, minimum=0, maximum=1, exclusive=True)


def login(value: tuple[str, str] | None, argument: str) -> None:
    """Check that the value is None, or a user and a password without white space."""
    if value is None:
        return
    if not isinstance(value, tuple) or len(value) != 2 or not all(isinstance(part, str) and part for part in value):
        raise InvalidArgument(argument, "a tuple of user and password is required")
    if any(character.isspace() for part in value for character in part):
        raise InvalidArgument(argument, "a user or password contains white space, where the server ends it")


def flag(value: bool, argument: str) -> bool:  # noqa: FBT001  # what is checked
    """Check that the value is a bool, and return it."""
    if not isinstance(value, bool):
        raise InvalidArgument(argument, f"True or False is required, not {value!r}")
    return value


def an_instance(value: object, kind: type, argument: str, *, optional: bool = True) -> None:
    """Check that the value is an instance of the class, or None if it is optional."""
    if not isinstance(value, kind) and not (optional and value is None):
        raise InvalidArgument(argument, f"{kind.__name__}(...){' or None' if optional else ''} is required, not {value!r}")


def one_of(value: object, kind: object, argument: str) -> None:
    """Check that the value is one that the Literal type `kind` lists."""
    if value not in get_args(kind):
        raise InvalidArgument(argument, f"{value!r} is none of {', '.join(map(repr, get_args(kind)))}")


def has_methods(value: object, *names: str) -> bool:
    """Return True if the value is an object, not a class, with all of these methods."""
    return not isinstance(value, type) and all(callable(getattr(value, name, None)) for name in names)


def methods(value: object, names: tuple[str, ...], argument: str, *, optional: bool = True) -> None:
    """Check that the value is an object with all of these methods, or None if it is optional."""
    if not has_methods(value, *names) and not (optional and value is None):
        needed = " and ".join(f"{name}()" for name in names)
        raise InvalidArgument(
            argument, f"an object with {needed}{' or None' if optional else ''} is required, not {value!r}"
        )


def text(value: str | None, argument: str, *, optional: bool = False) -> None:
    """Check that the value is a str that is not empty, or None if it is optional."""
    if not (isinstance(value, str) and value) and not (optional and value is None):
        raise InvalidArgument(
            argument, f"a str that is not empty{' or None' if optional else ''} is required, not {value!r}"
        )
