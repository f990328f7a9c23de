"""How many zones must answer a read or acknowledge a write. Pure arithmetic; the tables of the docs are made from it."""

from __future__ import annotations

import enum
from collections.abc import Callable

from evcache.zones.errors import InvalidArgument


class Consistency(enum.StrEnum):
    """How many of the readable zones a call needs. Write-only zones never count."""

    NONE = "none"
    """A write returns once it is sent. A read behaves as `ONE`, but a cache that can't be reached is a miss."""
    ONE = "one"
    """One zone."""
    QUORUM = "quorum"
    """More than half. Reads and writes at `QUORUM` meet in at least one zone."""
    ALL_MINUS_ONE = "all_minus_one"
    """All but one, and one of two: the most that still works while a zone is down."""
    ALL = "all"
    """Every one."""

    def required(self, zones: int) -> int:
        """How many of `zones` readable zones must answer."""
        return _REQUIRED[self](zones)

    @classmethod
    def parse(cls, value: Consistency | str, argument: str = "consistency") -> Consistency:
        """A member, or its name in any case. Raises `InvalidArgument` naming `argument`."""
        if isinstance(value, cls):
            return value
        try:
            return cls(value.lower())
        except (ValueError, AttributeError):
            known = ", ".join(repr(member.value) for member in cls)
            raise InvalidArgument(argument, f"{value!r} is none of {known}") from None


# Looked up in each call, and a third of the time that a match statement takes with members of an enum.
_REQUIRED: dict[Consistency, Callable[[int], int]] = {
    Consistency.NONE: lambda zones: 0,  # noqa: ARG005  # as the others
    Consistency.ONE: lambda zones: 1,  # noqa: ARG005
    Consistency.QUORUM: lambda zones: zones // 2 + 1,
    Consistency.ALL_MINUS_ONE: lambda zones: max(1, zones - 1),
    Consistency.ALL: lambda zones: zones,
}
