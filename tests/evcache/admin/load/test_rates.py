"""Rates of a server between two replies."""

import pytest

from evcache.admin.load.rates import NO_RATES, Rates, has_restarted, rates_between, total, total_rates
from evcache.zones.admin.statistics import ServerStatistics

BEFORE = ServerStatistics(
    pid=7, uptime=100, cmd_get=1000, get_hits=800, get_misses=200, cmd_set=50, evictions=3, bytes_read=10, bytes_written=20
)


def later(**changes):
    """Return the statistics 2 s later, with these counters."""
    found = {name: getattr(BEFORE, name) for name in ServerStatistics.__dataclass_fields__}
    return ServerStatistics(**(found | {"uptime": 102} | changes))


@pytest.mark.parametrize(
    ("after", "seconds", "rates"),
    [
        (later(), 2.0, Rates(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)),
        (
            later(cmd_get=1010, get_hits=808, get_misses=202, cmd_set=51, evictions=4, bytes_read=1010, bytes_written=2020),
            2.0,
            Rates(gets=5.0, hits=4.0, misses=1.0, sets=0.5, evictions=0.5, bytes_in=500.0, bytes_out=1000.0),
        ),
        (later(cmd_get=1001), 0.5, Rates(2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)),
        pytest.param(later(cmd_set=None), 2.0, Rates(0.0, 0.0, 0.0, None, 0.0, 0.0, 0.0), id="a counter is missing"),
        pytest.param(ServerStatistics(pid=7), 2.0, NO_RATES, id="all counters are missing"),
        pytest.param(later(pid=8, uptime=200, cmd_get=5000), 2.0, NO_RATES, id="another process"),
        pytest.param(later(uptime=1, cmd_get=5000), 2.0, NO_RATES, id="restarted with the same process id"),
        pytest.param(later(cmd_get=4), 2.0, NO_RATES, id="one counter fell"),
        pytest.param(later(cmd_get=1010), 0.0, NO_RATES, id="no time has passed"),
    ],
)
def test_rates_of_two_replies(after, seconds, rates):
    assert rates_between(BEFORE, after, seconds) == rates


def test_the_first_reply_has_no_rates():
    assert rates_between(None, BEFORE, 2.0) == NO_RATES


@pytest.mark.parametrize(
    ("after", "restarted"),
    [
        (later(), False),
        (later(uptime=100), False),
        (later(uptime=None, cmd_get=None), False),
        (later(curr_items=0, bytes=0, curr_connections=1), False),
        (later(uptime=99), True),
        (later(pid=8), True),
        (later(evictions=0), True),
    ],
)
def test_a_restart_is_found_by_what_falls(after, restarted):
    assert has_restarted(BEFORE, after) is restarted


@pytest.mark.parametrize(
    ("rates", "ratio"),
    [
        (Rates(hits=3.0, misses=1.0), 0.75),
        (Rates(hits=0.0, misses=2.0), 0.0),
        (Rates(hits=0.0, misses=0.0), None),
        (Rates(hits=1.0), None),
        (NO_RATES, None),
    ],
)
def test_the_hit_ratio_of_an_interval(rates, ratio):
    assert rates.hit_ratio == ratio


def test_totals_leave_out_what_is_unknown():
    assert total_rates([Rates(gets=1.0, hits=1.0), NO_RATES, Rates(gets=2.0, sets=4.0)]) == Rates(
        gets=3.0, hits=1.0, sets=4.0
    )
    assert total_rates([]) == NO_RATES
    assert total([None, None]) is None
    assert total([None, 0.0]) == 0.0
