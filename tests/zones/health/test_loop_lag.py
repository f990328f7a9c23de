"""A stall of the loop during requests is remembered for a second. An idle process is not woken."""

import asyncio

import pytest

from evcache.zones.health.loop_lag import LOOK_SECONDS, REMEMBER_SECONDS, STALL_SECONDS, LoopLag
from tests.support.virtual_time import in_virtual_time, now, settle


def timers():
    """Timers of the loop that will run."""
    return [timer for timer in asyncio.get_running_loop()._scheduled if not timer.cancelled()]  # noqa: SLF001


def bench():
    loop = asyncio.get_running_loop()
    return loop, LoopLag(loop)


@in_virtual_time
async def test_nothing_is_looked_at_before_it_is_asked_for():
    loop, lag = bench()
    assert timers() == []
    loop.advance(10)
    assert not lag.stalled_lately(loop.time())
    assert (lag.latest, lag.worst) == (0.0, 0.0)


@pytest.mark.parametrize("requests", [1, 2, 100])
@in_virtual_time
async def test_an_idle_loop_is_not_woken(requests):
    """However many requests there were: one look after the last, and none from then on."""
    loop, lag = bench()
    for _ in range(requests):
        lag.watch()
        await asyncio.sleep(LOOK_SECONDS / 3)
    assert len(timers()) == 1
    await asyncio.sleep(2 * LOOK_SECONDS)
    assert timers() == []
    assert not lag.stalled_lately(loop.time())


@in_virtual_time
async def test_while_requests_go_on_it_goes_on_looking_with_one_timer():
    loop, lag = bench()
    for _ in range(1_000):
        lag.watch()
        await asyncio.sleep(0.001)
        assert len(timers()) == 1
    loop.advance(0.5)
    await settle()
    assert lag.stalled_lately(loop.time())


@pytest.mark.parametrize(
    ("stall", "noticed"),
    [(0.0, False), (LOOK_SECONDS, False), (LOOK_SECONDS + 0.9 * STALL_SECONDS, False), (LOOK_SECONDS + 0.006, True)]
    + [(seconds, True) for seconds in (0.05, 0.2, 5.0)],
)
@pytest.mark.parametrize("look_first", [True, False], ids=["when it has looked", "before it can look"])
@in_virtual_time
async def test_a_stall_is_noticed_when_it_holds_up_a_look(stall, noticed, look_first):
    """Also before the look has run, because a deadline that passed in the stall may be handled first."""
    loop, lag = bench()
    lag.watch()
    loop.advance(stall)
    if look_first:
        await settle()
        assert lag.latest == pytest.approx(max(0.0, stall - LOOK_SECONDS))
        assert lag.worst == lag.latest
    assert lag.stalled_lately(loop.time()) is noticed


@pytest.mark.parametrize("look_first", [True, False])
@in_virtual_time
async def test_a_stall_is_remembered_for_a_second(look_first):
    loop, lag = bench()
    lag.watch()
    loop.advance(0.5)
    if look_first:
        await settle()
    ended = loop.time()
    assert lag.stalled_lately(ended)
    assert lag.stalled_lately(ended + REMEMBER_SECONDS - 0.001)
    await asyncio.sleep(REMEMBER_SECONDS)
    assert not lag.stalled_lately(ended + REMEMBER_SECONDS)


@in_virtual_time
async def test_the_latest_look_and_the_worst_are_shown():
    loop, lag = bench()
    for stall, worst in [(0.02, 0.0), (0.12, 0.1), (0.52, 0.5), (0.03, 0.5)]:
        lag.watch()
        loop.advance(stall)
        await settle()
        assert lag.latest == pytest.approx(stall - LOOK_SECONDS)
        assert lag.worst == pytest.approx(worst)


@pytest.mark.parametrize("look_first", [True, False])
@in_virtual_time
async def test_the_time_that_was_lost_adds_up(look_first):
    """Of stalls, as far as they held up a look."""
    loop, lag = bench()
    assert lag.lost(loop.time()) == 0.0
    lost = 0.0
    for stall in (0.02, 0.022, 0.12, 0.52, 0.01):
        lag.watch()
        loop.advance(stall)
        lost += stall - LOOK_SECONDS if stall > LOOK_SECONDS + STALL_SECONDS else 0.0
        if look_first:
            await settle()
        assert lag.lost(loop.time()) == pytest.approx(lost)
        await asyncio.sleep(1)
        assert lag.lost(loop.time()) == pytest.approx(lost)
    assert lost == pytest.approx(0.6)


@in_virtual_time
async def test_after_close_it_looks_no_more():
    loop, lag = bench()
    lag.watch()
    lag.close()
    lag.close()
    assert timers() == []
    await asyncio.sleep(1)
    assert now() == pytest.approx(1)
    assert lag.worst == 0.0
    lag.watch()  # by a request that leaves after that
    assert timers() == []
    loop.advance(1)
    assert not lag.stalled_lately(loop.time())
