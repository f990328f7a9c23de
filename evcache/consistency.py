"""Consistency levels: the number of zones that must answer a read or acknowledge a write. The docs' tables use it."""

from __future__ import annotations

import enum
from collections.abc import Callable

from evcache.zones.errors import InvalidArgument


class Consistency(enum.StrEnum):
    """Number of readable zones that a call requires. Write-only zones never count."""

    NONE = "none"
    """A write returns when it is sent. A read is like one at `ONE`, except that an unavailable cache is a miss."""
    ONE = "one"
    """One zone."""
    QUORUM = "quorum"
    """More than half of the zones. Reads and writes at `QUORUM` have at least one zone in common."""
    ALL_MINUS_ONE = "all_minus_one"
    """All zones but one, and one of two. It is the highest level that works while a zone is down."""
    ALL = "all"
    """Every zone."""

    def required(self, zones: int) -> int:
        """Return the number of zones that must answer.

        Args:
            zones: Number of readable zones of the topology.
        """
        return _REQUIRED[self](zones)

    @classmethod
    def parse(cls, value: Consistency | str, argument: str = "consistency") -> Consistency:
        """Return the level of a member, or of its name in any case.

        Args:
            value: Level, or its name.
            argument: Name of the argument, for the error.

        Raises:
            InvalidArgument: There is no such level. The error names `argument`.
        """
        if isinstance(value, cls):
            return value
        try:
            return cls(value.lower())
        except (ValueError, AttributeError):
            known = ", ".join(repr(member.value) for member in cls)
            raise InvalidArgument(argument, f"{value!r} is none of {known}") from None


# A dict, because a match statement with members of an enum takes three times as long, and every call looks here.
_REQUIRED: dict[Consistency, Callable[[int], int]] = {
    Consistency.NONE: lambda zones: 0,  # noqa: ARG005  # as the others
    Consistency.ONE: lambda zones: 1,  # noqa: ARG005
    Consistency.QUORUM: lambda zones: zones // 2 + 1,
    Consistency.ALL_MINUS_ONE: lambda zones: max(1, zones - 1),
    Consistency.ALL: lambda zones: zones,
}
