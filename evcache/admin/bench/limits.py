"""Limits that stop a measurement: the share of failed and of slow operations in the last second. No I/O and no clock."""

from __future__ import annotations

from collections import deque

from evcache.admin.bench.plan import Plan

WINDOW_SECONDS = 1.0
SLOW_SHARE = 0.01  # the p99 exceeds a limit if more than this share of the operations do


class LastSecond:
    """Number of events in the last second."""

    def __init__(self) -> None:
        self._times: deque[float] = deque()

    def add(self, now: float) -> int:
        """Add an event at `now`, and return the number of events in the second that ends then."""
        self._times.append(now)
        while self._times[0] <= now - WINDOW_SECONDS:
            self._times.popleft()
        return len(self._times)


class Limits:
    """Limits of a measurement.

    Shares refer to the number of operations that the plan makes in a second. A node that hangs completes few operations,
    which must not hide its failures.
    """

    def __init__(self, plan: Plan) -> None:
        self._most_errors = plan.max_errors * plan.rate
        self._most_slow = SLOW_SHARE * plan.rate
        self._max_p99 = plan.max_p99
        self._errors, self._slow = LastSecond(), LastSecond()
        self._plan = plan

    def failed(self, now: float, what: str) -> str | None:
        """Count a failed operation. Return the reason to stop, or None. `what` describes the failure."""
        errors = self._errors.add(now)
        if errors <= self._most_errors:
            return None
        share = 100 * self._plan.max_errors
        return f"{errors} operations failed within a second, over {share:g} % of {self._plan.rate:g}: {what}"

    def took(self, now: float, seconds: float) -> str | None:
        """Count the duration of an operation. Return the reason to stop, or None."""
        if self._max_p99 is None or seconds <= self._max_p99:
            return None
        slow = self._slow.add(now)
        if slow <= self._most_slow:
            return None
        return (
            f"{slow} operations took over {1000 * self._max_p99:g} ms within a second, over "
            f"{100 * SLOW_SHARE:g} % of {self._plan.rate:g}"
        )
