"""The promises that a history is checked for, and what a check reports: violations, and how many facts it looked at.

A checker is a generator of findings. Each finding is one checked fact: a `Kept` or a `Violation`. The counts of the report come
from them, so that "0 violations" of a promise that no call exercised is visible.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple


class Promise(enum.StrEnum):
    """A promise, as a report names it."""

    WHOLE = "a value that is read was written under its key, whole"
    OWN_WRITES = "a client reads its own acknowledged writes, or a miss"
    NO_STEP_BACK = "a client never reads an older version than before"
    NEWEST_WINS = "in a zone, an older write never replaces a newer one"
    ONE_VERSION = "no two writes have one version"
    CONVERGENCE = "zones end with the same version and bytes"
    NOTHING_LOST = "an acknowledged write is lost only with its zones"
    DELETED = "a deleted key stays deleted"
    TTL = "a value is not read later than its ttl + 1 s"
    EQUAL_TTL = "copies of one version expire together"
    SHORT_LIVED = "no older long-lived value returns to a client that knew a newer short-lived one"
    REAL_TIME = "a write that begins after an acknowledged write has returned wins, whatever the clocks say"
    COMPARE = "a conditional write replaces the latest acknowledged version"
    REFUSAL = "a conditional write is refused only if the latest version says so"
    APPENDED = "an acknowledged append is in every later value"
    COUNTED = "results of incr are unique and grow; no acknowledged increment is lost"
    COUNT_READ = "a read after an acknowledged incr is not lower (own, QUORUM, ALL)"
    INTEGER = "a counter reads as an int"
    COUNTER_DELETED = "no late copy undoes the delete of a counter"
    TOUCH = "touch is true for values only, and never changes how long an absence lasts"


class Violation(NamedTuple):
    """A promise that was broken."""

    promise: Promise
    key: str
    story: str
    what: str = ""


class Kept(NamedTuple):
    """A fact that was checked and is as promised."""

    promise: Promise
    what: str = ""
    """Kind of the fact, such as the operation; the report counts each kind by itself."""


Finding = Violation | Kept


class Findings:
    """Violations and counts of a number of findings."""

    def __init__(self, findings: Iterable[Finding] = ()) -> None:
        self.violations: list[Violation] = []
        self.checked: Counter[tuple[Promise, str]] = Counter()
        for finding in findings:
            self.checked[finding.promise, finding.what] += 1
            if isinstance(finding, Violation):
                self.violations.append(finding)

    def of(self, promise: Promise) -> Counter[str]:
        """Number of facts checked for a promise, by their kind."""
        return Counter({what: count for (each, what), count in self.checked.items() if each is promise})
