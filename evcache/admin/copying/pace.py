"""Limit of a rate. No I/O, no clock."""

from __future__ import annotations

# A pause of the work, such as a retry, is caught up with for this long at most. A longer burst would be a load that the
# operator has excluded.
BURST_SECONDS = 0.1


class Pace:
    """Limit of units per second, such as keys or bytes."""

    def __init__(self, rate: float) -> None:
        """Make a limit.

        Args:
            rate: Units per second. `math.inf` is no limit.
        """
        self._rate = rate
        self._free_at = 0.0  # time at which all units so far fit the rate

    def pause_after(self, units: float, now: float) -> float:
        """Count units, and return the seconds to wait before the next ones.

        Args:
            units: Units of work that is done.
            now: Present time in seconds, on any clock that does not step.
        """
        self._free_at = max(self._free_at, now - BURST_SECONDS) + units / self._rate
        return max(0.0, self._free_at - now)
