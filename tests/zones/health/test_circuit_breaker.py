"""A circuit opens for failed requests only, pauses longer after each failed probe, and forgets failures when it closes."""

import math

import pytest

from evcache.zones.errors import InvalidArgument
from evcache.zones.health.circuit_breaker import CircuitBreaker, CircuitLimits

START = 1_000.0  # seconds


class Bench:
    """A circuit with a clock and a count of requests. Jitter is what `drawn` says."""

    def __init__(self, drawn=0.0, **limits):
        self.now = START
        self.asked = 0
        self.why = None
        self.limits = CircuitLimits(**limits)
        self.circuit = CircuitBreaker(self.limits, self.now, draw=lambda: drawn)

    @property
    def state(self):
        return self.circuit.state

    def fine(self, requests):
        """Requests that were answered. The circuit is not called for them."""
        self.asked += requests

    def fail(self, requests=1, in_a_row=0):
        self.asked += requests
        why = self.circuit.count_failures(self.now, requests, in_a_row, self.asked)
        if why is not None:
            self.why = why
            self.circuit.open(self.now)

    def play(self, *events):
        """Of `(event, argument)`: what is to happen, one after another."""
        for event, argument in events:
            if event == "wait":
                self.now += argument
            elif event == "late":
                self.fail(1, argument)
            else:
                getattr(self, event)(argument)

    def back(self):
        """Its probe is answered."""
        self.circuit.begin_probe()
        self.circuit.close(self.now, self.asked)


# Timeouts in a row.


@pytest.mark.parametrize(
    ("limit", "in_a_row", "opens"),
    [
        (3, [1, 2], False),
        (3, [1, 2, 3], True),
        (3, [1, 2, 1, 2, 1, 2], False),
        (3, [1, 2, 1, 2, 3], True),
        (1, [1], True),
        (5, [1, 2, 3, 4], False),
        (5, [4, 9], True),
    ],
)
def test_it_opens_after_so_many_timeouts_in_a_row(limit, in_a_row, opens):
    """The connection counts them, and restarts the count with each reply."""
    bench = Bench(timeouts_in_a_row=limit, least_requests=1_000)
    bench.play(*(("late", count) for count in in_a_row))
    assert bench.state == ("open" if opens else "closed")
    assert bench.why == (f"{in_a_row[-1]} requests in a row had no reply in time" if opens else None)


# The share of failures.


@pytest.mark.parametrize(
    ("events", "opens"),
    [
        # Below the least number of requests a share says nothing.
        ([("fail", 9)], False),
        ([("fail", 10)], True),
        ([("fail", 1)] * 9, False),
        ([("fail", 1)] * 10, True),
        # Over the share, and not at it.
        ([("fine", 10), ("fail", 10)], False),
        ([("fine", 10), ("fail", 11)], True),
        ([("fine", 9), ("fail", 10)], True),
        # Requests that went well count, also those before the first failure and between two.
        ([("fine", 1_000), ("fail", 20)], False),
        ([("fail", 9), ("fine", 1_000), ("fail", 20)], False),
        ([("fine", 5), ("fail", 3), ("fine", 5), ("fail", 7)], False),
        ([("fine", 5), ("fail", 3), ("fine", 5), ("fail", 8)], True),
        # The window passes: failures of long ago count no more.
        ([("fail", 9), ("wait", 4.9), ("fail", 1)], True),
        ([("fail", 9), ("wait", 9.9), ("fail", 1)], True),
        ([("fail", 9), ("wait", 10), ("fail", 1)], False),
        ([("fail", 9), ("wait", 5), ("fine", 1), ("fail", 1)], True),
        ([("fail", 9), ("wait", 5), ("fail", 0), ("wait", 5), ("fail", 5)], False),
        # And so do the requests that went well.
        ([("fine", 1_000), ("fail", 1), ("wait", 4.9), ("fail", 20)], False),
        ([("fine", 1_000), ("fail", 1), ("wait", 5), ("fail", 1), ("wait", 5), ("fail", 30)], True),
        # The window is not updated without failures. Requests of a long time count as spread evenly.
        ([("wait", 3_600), ("fine", 3_600 * 100), ("fail", 60)], False),
        ([("wait", 3_600), ("fine", 3_600), ("fail", 60)], True),
        ([("wait", 3_600), ("fail", 10)], True),
    ],
)
def test_it_opens_when_more_than_a_share_of_the_requests_in_a_window_failed(events, opens):
    bench = Bench(failure_share=0.5, window=10.0, least_requests=10, timeouts_in_a_row=1_000)
    bench.play(*events)
    assert bench.state == ("open" if opens else "closed"), bench.why
    assert bench.why is None or bench.why.endswith("requests failed")


def test_a_share_of_one_is_never_exceeded():
    """So it switches this off, and leaves timeouts in a row."""
    bench = Bench(failure_share=1.0)
    bench.play(("fail", 1_000))
    assert bench.state == "closed"


def test_an_open_circuit_has_nothing_to_learn_from_requests_that_were_on_their_way():
    bench = Bench()
    bench.fail(3, in_a_row=3)
    bench.why = None
    bench.fail(1_000, in_a_row=1_000)
    bench.circuit.begin_probe()
    bench.fail(1_000, in_a_row=1_000)
    assert (bench.state, bench.why) == ("half-open", None)


def test_what_was_before_it_closed_counts_no_more():
    """Neither failures, nor the requests that went well before the outage."""
    bench = Bench(least_requests=10, timeouts_in_a_row=1_000)
    bench.play(("fail", 20))
    assert bench.state == "open"
    bench.now += 1
    bench.back()
    bench.play(("fail", 9))
    assert bench.state == "closed"
    bench.play(("fail", 1))
    assert bench.state == "open"
    bench.asked += 1_000  # on their way when it opened, and answered since
    bench.back()
    bench.play(("fail", 10))
    assert bench.state == "open"


# States.


@pytest.mark.parametrize(
    ("steps", "state"),
    [
        ([], "closed"),
        (["begin_probe"], "closed"),  # connecting, while nothing is wrong
        (["fail_probe"], "closed"),
        (["open"], "open"),
        (["open", "open"], "open"),
        (["open", "fail_probe"], "open"),
        (["open", "begin_probe"], "half-open"),
        (["open", "begin_probe", "begin_probe"], "half-open"),
        (["open", "begin_probe", "fail_probe"], "open"),
        (["open", "begin_probe", "fail_probe", "begin_probe"], "half-open"),
        (["open", "begin_probe", "close"], "closed"),
        (["open", "begin_probe", "close", "fail_probe"], "closed"),
    ],
)
def test_it_is_half_open_from_a_probe_to_what_came_of_it(steps, state):
    bench = Bench()
    for step in steps:
        arguments = {"open": (bench.now,), "close": (bench.now, bench.asked)}.get(step, ())
        getattr(bench.circuit, step)(*arguments)
    assert bench.state == state


# Pauses.


@pytest.mark.parametrize(
    ("first", "longest", "pauses"),
    [(1.0, 30.0, [1, 2, 4, 8, 16, 30, 30, 30]), (0.5, 2.0, [0.5, 1, 2, 2]), (3.0, 3.0, [3, 3]), (1.0, 100.0, [1, 2, 4])],
)
def test_pauses_double_up_to_the_longest(first, longest, pauses):
    bench = Bench(first_pause=first, longest_pause=longest)
    bench.circuit.open(bench.now)
    assert [bench.circuit.next_pause() for _ in pauses] == pauses


@pytest.mark.parametrize("jitter", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("drawn", [0.0, 0.25, 1.0])
def test_a_pause_is_longer_by_a_random_share_that_does_not_add_up(jitter, drawn):
    bench = Bench(drawn, jitter=jitter)
    bench.circuit.open(bench.now)
    pauses = [bench.circuit.next_pause() for _ in range(7)]
    assert pauses == [pytest.approx(plain * (1 + jitter * drawn)) for plain in (1, 2, 4, 8, 16, 30, 30)]


def test_jitter_is_drawn_anew_for_each_pause():
    circuit = CircuitBreaker(CircuitLimits(), START)
    circuit.open(START)
    pauses = [circuit.next_pause() for _ in range(50)][10:]
    assert len(set(pauses)) > 30
    assert all(30 <= pause <= 45 for pause in pauses)


def test_a_node_that_is_only_short_of_a_connection_is_tried_at_an_even_pace():
    """And what that took does not lengthen the pauses of an outage that comes later."""
    circuit = CircuitBreaker(CircuitLimits(), START, lambda: 0.5)
    assert [circuit.next_pause() for _ in range(20)] == [1.25] * 20
    circuit.open(START)
    assert [circuit.next_pause(), circuit.next_pause()] == [1.25, 2.5]


def test_pauses_are_a_tenth_while_calls_have_nowhere_to_go():
    """They do not double, and the ordinary pauses go on where they were."""
    circuit = CircuitBreaker(CircuitLimits(urgent_pause=2.0), START, lambda: 0.0)
    circuit.open(START)
    assert [circuit.next_pause(urgent=True) for _ in range(7)] == pytest.approx([0.1] * 7)
    assert [circuit.next_pause() for _ in range(6)] == [1, 2, 4, 8, 16, 30]
    assert circuit.next_pause(urgent=True) == 2.0, "the longest urgent pause"


def test_a_sign_of_life_ends_the_first_pause_of_an_outage_and_urgent_ones():
    """A node that answers late all the time is not probed with each answer."""
    circuit = CircuitBreaker(CircuitLimits(calm=10.0), START, lambda: 0.0)
    ends_early = []
    for now, urgent in ((START, False), (START, False), (START, True)):
        circuit.open(now)
        circuit.next_pause(urgent=urgent)
        ends_early.append(circuit.ends_early)
    circuit.close(START, 0)
    circuit.open(START + 0.1)  # soon after the return: the same outage
    circuit.next_pause()
    ends_early.append(circuit.ends_early)
    circuit.close(START, 0)
    circuit.next_pause()  # the node is only short of a connection
    ends_early.append(circuit.ends_early)
    assert ends_early == [True, False, True, False, False]


def test_pauses_do_not_shrink():
    with pytest.raises(InvalidArgument) as caught:
        CircuitLimits(first_pause=2.0, longest_pause=1.0)
    assert caught.value.argument == "longest_pause"


@pytest.mark.parametrize(
    ("up", "next_pause"), [(0.0, 4.0), (2.4, 4.0), (2.5, 2.0), (5.0, 1.0), (9.9, 1.0), (10.0, 1.0), (3_600.0, 1.0)]
)
def test_pauses_go_on_after_a_short_return_and_begin_anew_after_a_calm_time(up, next_pause):
    bench = Bench(calm=10.0)
    bench.circuit.open(bench.now)
    assert [bench.circuit.next_pause(), bench.circuit.next_pause()] == [1.0, 2.0]
    bench.back()
    bench.now += up
    bench.circuit.open(bench.now)
    assert bench.circuit.next_pause() == next_pause


def test_a_node_that_answers_probes_only_is_asked_less_and_less():
    bench = Bench()
    pauses = []
    for _ in range(7):
        bench.fail(3, in_a_row=3)
        pauses.append(bench.circuit.next_pause())
        bench.now += pauses[-1]
        bench.back()
        bench.now += 0.1
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


def test_pauses_of_other_attempts_do_not_make_the_first_outage_longer():
    """One of several connections is refused. The client retries it with pauses, while the node is up."""
    bench = Bench()
    for _ in range(10):
        bench.circuit.next_pause()
    bench.circuit.open(bench.now)
    assert bench.circuit.next_pause() == 1.0


# Limits.

NO_SECONDS = [0, -1, math.nan, math.inf, True, "1"]
NO_COUNT = [0, -1, 1.5, True, "1", None]
NOT_POSITIVE = [-1, -0.001, math.nan, math.inf, True, "1", None]


@pytest.mark.parametrize(
    ("argument", "bad"),
    [
        ("timeouts_in_a_row", NO_COUNT),
        ("least_requests", NO_COUNT),
        ("window", [*NO_SECONDS, None]),
        ("first_pause", [*NO_SECONDS, None]),
        ("longest_pause", [*NO_SECONDS, None]),
        ("urgent_pause", [*NO_SECONDS, None]),
        ("probe_timeout", NO_SECONDS),
        ("jitter", NOT_POSITIVE),
        ("calm", NOT_POSITIVE),
        ("slow_start", NOT_POSITIVE),
        ("failure_share", [0, -0.5, 1.001, math.nan, math.inf, True, "1", None]),
    ],
)
def test_a_limit_that_cant_be_used_is_named(argument, bad):
    for value in bad:
        with pytest.raises(InvalidArgument) as caught:
            CircuitLimits(**{argument: value})
        assert caught.value.argument == argument, value


def test_limits_that_can_be_used_are_taken():
    CircuitLimits(timeouts_in_a_row=1, least_requests=1, window=1, first_pause=0.01, longest_pause=0.01)
    CircuitLimits(jitter=0, calm=0, slow_start=0, failure_share=1, probe_timeout=None)
    CircuitLimits(jitter=1.5, calm=0.5, slow_start=1, failure_share=0.01, probe_timeout=0.1)
