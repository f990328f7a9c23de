"""How many zones must answer a read or acknowledge a write. Pure arithmetic; the tables of the docs are made from it."""

from __future__ import annotations

import enum

from zones.errors import InvalidArgument


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
        match self:
            case Consistency.NONE:
                return 0
            case Consistency.ONE:
                return 1
            case Consistency.QUORUM:
                return zones // 2 + 1
            case Consistency.ALL_MINUS_ONE:
                return max(1, zones - 1)
            case Consistency.ALL:
                return zones

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
