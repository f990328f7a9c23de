"""Count of the standby zones that have acknowledged a write.

As in Raft's joint consensus, a write is acknowledged only if each of the two sets of zones, counted separately, has enough
acknowledgements. It therefore survives when the sets exchange their modes.
"""

from __future__ import annotations


class StandbyTally:
    """Standby zones of one write."""

    __slots__ = ("_acknowledged", "_required", "_undecided")

    def __init__(self, required: int) -> None:
        """Begin without zones. `required` is the number of standby zones that must acknowledge."""
        self._required = required
        self._acknowledged = 0
        self._undecided = 0

    @property
    def met(self) -> bool:
        """True if enough standby zones have acknowledged."""
        return self._acknowledged >= self._required

    @property
    def is_out_of_reach(self) -> bool:
        """True if too few standby zones can still acknowledge."""
        return self._acknowledged + self._undecided < self._required

    def add(self, zones: int) -> None:
        """Add standby zones to which the write is sent."""
        self._undecided += zones

    def report(self, *, acknowledged: bool) -> None:
        """Record the outcome of one standby zone."""
        self._undecided -= 1
        self._acknowledged += acknowledged
