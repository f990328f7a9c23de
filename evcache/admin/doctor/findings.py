"""Findings of the judges: a verdict on one subject, and the fix of a fault."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, replace


class Verdict(enum.StrEnum):
    """Severity of a finding."""

    OK = "ok"
    WARNING = "warning"
    """The zones work, with less capacity, features or safety than they could have."""
    PROBLEM = "problem"
    """Reads or writes fail, or return wrong values, in at least one zone."""


class Subject(enum.StrEnum):
    """Subjects of the examination, in the order of the output."""

    TOPOLOGY = "topology"
    REACHABILITY = "reachability"
    VERSIONS = "versions"
    FEATURES = "features"
    PROXIES = "proxies"
    CONNECTIONS = "connections"
    MEMORY = "memory"
    SETTINGS = "settings"
    CLOCKS = "clocks"
    PLACEMENT = "placement"
    NAMESPACES = "namespaces"
    BALANCE = "balance"
    HINTS = "hints"


@dataclass(frozen=True, slots=True)
class Finding:
    """Result for one subject, zone or node."""

    name: str
    """Name of the fault, which never changes. `ok` without a fault."""
    verdict: Verdict
    subject: Subject
    text: str
    """Line for an operator, of the form `<what failed>: <cause>`."""
    fix: str | None = None
    """Action that removes the fault. None without a fault."""
    zone: str | None = None
    """Zone of the fault. None if it concerns several."""
    node: str | None = None
    """Label of the node of the fault. None if it concerns several, or none."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Kind of fault that a judge can find."""

    name: str
    subject: Subject
    verdict: Verdict
    meaning: str
    """Explanation, for the page of all faults."""
    fix: str
    """Action that removes it."""

    def found(self, text: str, *, zone: str | None = None, node: str | None = None) -> Finding:
        """Return the finding of this fault with its text."""
        return Finding(self.name, self.verdict, self.subject, text, self.fix, zone, node)


def ok(subject: Subject, text: str) -> Finding:
    """Return the finding for a subject without a fault."""
    return Finding("ok", Verdict.OK, subject, text)


def without(findings: Iterable[Finding], ignored: Iterable[str]) -> list[Finding]:
    """Return the findings, with those of the ignored faults turned to `ok`."""
    names = frozenset(ignored)
    return [replace(finding, verdict=Verdict.OK, fix=None) if finding.name in names else finding for finding in findings]
