"""Circumstances: when clients could disagree, what they could reach, and how late a request may have come."""

import math

import pytest

from integration.chaos.fault_plan import Fault
from integration.chaos.troubles import AFTER_CHANGE_SECONDS, BEFORE_DOWN_SECONDS, LATENESS_SECONDS, Span
from tests.chaos.histories import ME, NEW, ONE, TWO, YOU, A, B, C, outage, saw_down, trouble, world, wrote

AFTER, BEFORE = AFTER_CHANGE_SECONDS, BEFORE_DOWN_SECONDS


def test_disagreed_while_only_some_clients_see_a_node_as_down():
    """From the first client's view to the last one's, with a margin; not while all see the same."""
    there = world(views=[*saw_down(ME, 10.0, 30.0), *saw_down(YOU, 11.0, 31.0)])
    assert there.disagreed("k", Span(10.2, 10.3))
    assert there.disagreed("k", Span(11.0 + AFTER - 0.01, 20.0))
    assert there.disagreed("k", Span(9.0, 10.0 - BEFORE + 0.01))
    assert not there.disagreed("k", Span(11.0 + AFTER + 0.01, 30.0 - BEFORE - 0.01))
    assert there.disagreed("k", Span(30.5, 30.6))
    assert not there.disagreed("k", Span(31.0 + AFTER + 0.01, 40.0))
    assert not there.disagreed("k", Span(0.0, 5.0), Span(40.0, 50.0))


def test_disagreed_leaves_out_clients_that_make_no_calls():
    """An idle client decides nothing, so its view counts only while it acts."""
    active = {ME: [Span(0.0, math.inf)], YOU: [Span(50.0, 60.0)]}
    there = world(views=saw_down(ME, 10.0, 55.0), active=active)
    assert not there.disagreed("k", Span(10.0, 40.0))
    assert there.disagreed("k", Span(51.0, 52.0))
    assert not there.disagreed("k", Span(58.0, 59.0))


def test_disagreed_about_counts_the_views_of_two_clients_only():
    """A third client that sees the same as one of them is no reason."""
    there = world(views=saw_down(ME, 10.0, 30.0))
    assert there.disagreed_about("k", ME, YOU, Span(20.0, 21.0))
    assert there.disagreed_about("k", YOU, ME, Span(20.0, 21.0))
    assert not there.disagreed_about("k", YOU, YOU, Span(20.0, 21.0))
    assert not there.disagreed_about("k", ME, YOU, Span(1.0, 2.0), Span(40.0, 41.0))


def test_disagreed_while_the_topology_changes():
    """Some clients see it earlier than others."""
    there = world(rearranged=[(B, Span(10.0, 10.1))])
    assert there.disagreed("k", Span(10.0, 10.0))
    assert not there.disagreed("k", Span(10.1 + AFTER + 0.01, 20.0))


@pytest.mark.parametrize(
    ("there", "known"),
    [
        (world(), True),
        (world(outage(5.5, 6.0, A)), True),
        (world(outage(5.5, 6.0, A), outage(5.5, 6.0, B)), False),
        (world(outage(5.5, 6.0, A), outage(1.0, 2.0, B)), True),
        (world(outage(5.5, 6.0, A), outage(5.5, 6.0, B, client=ME)), True),
        (world(outage(5.5, 6.0, A), outage(5.5, 6.0, B, client=YOU)), False),
        (world(outage(5.5, 6.0, A), views=saw_down(YOU, 3.0, 7.0, B)), False),
        (world(outage(5.5, 6.0, A), views=saw_down(ME, 3.0, 7.0, B)), True),
        (world(outage(5.5, 6.0, A), emptied=[(B, 0, 3.0)]), False),
        (world(outage(5.5, 6.0, A), emptied=[(B, 0, 0.5)]), True),
        (world(outage(5.5, 6.0, A), emptied=[(B, 1, 3.0)]), True),
        (world(outage(5.5, 6.0, A), emptied=[(C, 0, 3.0)]), True),
    ],
)
def test_known_to_if_a_zone_that_acknowledged_could_be_reached_and_forgot_nothing(there, known):
    """By the client of the later call, throughout that call."""
    first = wrote(ONE, NEW, 1.0, 2.0, zones=(A, B))
    assert there.known_to(first, wrote(TWO, NEW + 1, 5.6, 5.7, client=YOU)) is known


@pytest.mark.parametrize(
    ("fault", "later"),
    [
        (Fault.ZONE_HANGS, 4.0),
        (Fault.ZONE_CUT_OFF, 4.0),
        (Fault.LINK_CUT_OFF, 4.0),
        (Fault.NO_REPLIES, 1.0),
        (Fault.SLOW_ZONE, LATENESS_SECONDS),
        (Fault.ZONE_DIES, 0.0),
        (Fault.RESETS, 0.0),
    ],
)
def test_latest_end_moves_by_what_a_fault_holds_back(fault, later):
    """By all of a stall, by a second of held replies, by the delay of a slow link."""
    assert world(trouble(fault, 5.0, 9.0)).latest_end("k", 1.0, 6.0) == 6.0 + later
    assert world(trouble(fault, 7.0, 9.0)).latest_end("k", 1.0, 6.0) == 6.0
    assert world(trouble(fault, 0.0, 0.9)).latest_end("k", 1.0, 6.0) == 6.0


def test_latest_end_counts_a_fault_from_the_write_on():
    """What was held back before it can't have been a copy of it."""
    assert world(trouble(Fault.ZONE_HANGS, 0.0, 3.0)).latest_end("k", 1.0, 6.0) == 8.0


def test_is_resuming_around_the_end_of_a_hang():
    """The server's clock is behind until it ticks."""
    there = world(trouble(Fault.ZONE_HANGS, 1.0, 5.0))
    assert there.is_resuming("k", Span(4.5, 5.2))
    assert there.is_resuming("k", Span(5.1, 5.2))
    assert not there.is_resuming("k", Span(6.0, 6.1))
    assert not there.is_resuming("k", Span(2.0, 3.0))
