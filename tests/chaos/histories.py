"""Hand-made histories for the tests of the chaos checks: calls, and what had gone wrong."""

from integration.chaos.fault_plan import Fault
from integration.chaos.history import Call, Kind, Outcome
from integration.chaos.promises import Findings
from integration.chaos.troubles import Circumstances, Span, Trouble, View
from integration.chaos.values import name_value

A, B, C = "eu-1a", "eu-1b", "eu-1c"
ZONES = (A, B, C)
ME, YOU = "client-0", "client-1"
OLD, NEW, NEWER = 1_000 << 20, 2_000 << 20, 3_000 << 20  # versions
ONE, TWO, THREE = name_value(0, 1), name_value(0, 2), name_value(1, 1)  # values

ALWAYS = {ME: [Span(0.0, 1e9)], YOU: [Span(0.0, 1e9)]}


def wrote(
    value, version, begin=1.0, end=2.0, *, key="k", client=ME, kind=Kind.SET, outcome=Outcome.OK, zones=(A, B), **rest
):
    return Call(client, key, kind, begin, end, outcome, version, value, zones, **rest)


def deleted(version, begin=1.0, end=2.0, **rest):
    return wrote(None, version, begin, end, kind=Kind.DELETE, **rest)


def read(value, version=None, begin=3.0, end=4.0, *, key="k", client=ME, **rest):
    return Call(client, key, Kind.READ, begin, end, Outcome.OK, version, value, **rest)


def looked(value, version, begin=3.0, end=4.0, *, server="eu-1a-0, start 0,", key="k", **rest):
    return Call(server, key, Kind.LOOK, begin, end, Outcome.OK, version, value, **rest)


def violations_of(findings):
    return Findings(findings).violations


def promises_of(findings):
    return {violation.promise for violation in violations_of(findings)}


def world(*troubles, emptied=(), views=(), rearranged=(), active=ALWAYS):
    """Three zones of one node; the troubles are `trouble(...)`."""
    return Circumstances(ZONES, lambda zone, key: 0, list(troubles), list(emptied), list(views), list(rearranged), active)


def trouble(fault, begin, end, zone=A, client=None):
    return Trouble(fault, zone, None, client, begin, end)


def outage(begin, end, zone=A, client=None, fault=Fault.REFUSED):
    """A fault that holds nothing back."""
    return trouble(fault, begin, end, zone, client)


def saw_down(client, begin, end, zone=A):
    return [View(begin, client, zone, 0, True), View(end, client, zone, 0, False)]
