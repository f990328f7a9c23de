"""Sources that are asked again at an interval: pauses, failures, and the freshness that they report."""

import asyncio
import logging
import traceback

import pytest

from evcache.zones.discovery.base import SourceStatus
from evcache.zones.discovery.polling import FIRST_RETRY_SECONDS, JITTER, Look, PolledDiscovery
from evcache.zones.errors import DiscoveryError, InvalidArgument, InvalidTopology
from evcache.zones.topology.model import Topology
from tests.support import virtual_time
from tests.support.scripted_nodes import HANG, ScriptedSource
from tests.support.virtual_time import in_virtual_time, now, settle
from tests.support.watching import Watching

ONE, TWO = Topology.from_node_list("a=h1"), Topology.from_node_list("a=h2")
DOWN = OSError("down")


def messages(caplog):
    return [(record.levelname, record.getMessage()) for record in caplog.records]


@pytest.fixture(autouse=True)
def _all_levels(caplog):
    caplog.set_level(logging.DEBUG, "evcache")


# The first load.


@pytest.mark.parametrize(
    ("failure", "problem"),
    [
        (DOWN, "script: down"),
        (RuntimeError(), "script: RuntimeError"),
        (InvalidTopology("zones", "there are none"), "script: zones: there are none"),
        (DiscoveryError("its server", "down"), "its server: down"),
        (TimeoutError("110 connection timed out"), "script: 110 connection timed out"),
        (HANG, "script: no answer in 10 s"),
    ],
    ids=str,
)
@in_virtual_time
async def test_a_load_that_fails_names_the_problem(failure, problem):
    source = ScriptedSource(failure)
    with pytest.raises(DiscoveryError) as raised:
        await source.load()
    assert str(raised.value) == problem
    assert source.status.confirmed_at is None


@pytest.mark.parametrize("failure", [DOWN, HANG], ids=str)
@in_virtual_time
async def test_a_load_after_one_that_failed_asks_again_only_a_second_after_its_end(failure):
    source = ScriptedSource(failure, Look(ONE))
    with pytest.raises(DiscoveryError) as first:
        await source.load()
    lines = len(traceback.format_tb(first.value.__traceback__))
    for _ in range(3):
        with pytest.raises(DiscoveryError) as raised:
            await source.load()
        assert str(raised.value) == str(first.value)
    assert len(source.asked) == 1
    assert len(traceback.format_tb(first.value.__traceback__)) == lines, "the error collects tracebacks"
    await asyncio.sleep(FIRST_RETRY_SECONDS * 0.99)
    with pytest.raises(DiscoveryError):
        await source.load()
    await asyncio.sleep(FIRST_RETRY_SECONDS * 0.01)
    assert await source.load() == ONE
    assert len(source.asked) == 2


def test_a_load_on_another_event_loop_does_not_wait_for_the_clock_of_the_first():
    source = ScriptedSource(DOWN, Look(ONE))

    async def first():
        await asyncio.sleep(3600)
        with pytest.raises(DiscoveryError):
            await source.load()

    virtual_time.run(first())
    assert virtual_time.run(source.load()) == ONE


@in_virtual_time
async def test_a_load_that_is_cancelled_is_no_failure_of_the_source():
    source = ScriptedSource(HANG, Look(ONE))
    task = asyncio.create_task(source.load())
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert source.status.error is None
    assert await source.load() == ONE


# Pauses.


@in_virtual_time
async def test_a_source_is_asked_at_its_interval_and_only_changes_are_reported():
    source = ScriptedSource(Look(ONE), Look(ONE), Look(TWO), Look(TWO), Look(ONE))
    assert await source.load() == ONE
    async with Watching(source) as watching:
        await asyncio.sleep(151)
        assert source.asked == [0, 30, 60, 90, 120, 150]
        assert watching.seen == [(60, TWO), (120, ONE)]


@in_virtual_time
async def test_a_look_sets_the_pause_until_the_next():
    source = ScriptedSource(Look(ONE, 7), Look(ONE, 100), Look(ONE))
    await source.load()
    async with Watching(source):
        await asyncio.sleep(140)
        assert source.asked == [0, 7, 107, 137]


@pytest.mark.parametrize(("drawn", "share"), [(0.0, 1 - JITTER), (0.5, 1.0), (1.0, 1 + JITTER)])
@in_virtual_time
async def test_each_pause_has_jitter(drawn, share):
    source = ScriptedSource(Look(ONE), DOWN, Look(ONE), draw=lambda: drawn)
    await source.load()
    async with Watching(source):
        await asyncio.sleep(80)
        retried = 30 * share + FIRST_RETRY_SECONDS * share
        assert source.asked[:4] == pytest.approx([0, 30 * share, retried, retried + 30 * share])


@in_virtual_time
async def test_two_sources_do_not_ask_together():
    sources = [PolledDiscovery("script", interval=30, timeout=10) for _ in range(2)]
    times = []

    async def look():
        times.append(now())
        return Look(ONE)

    for source in sources:
        source.look = look
        await source.load()
    async with Watching(sources[0]), Watching(sources[1]):
        await asyncio.sleep(40)
        assert times[2] != times[3]
        assert all(24 <= time <= 36 for time in times[2:4])


@in_virtual_time
async def test_a_source_that_fails_is_asked_again_soon_and_less_often_each_time(caplog):
    source = ScriptedSource(Look(ONE), *[DOWN] * 7, Look(TWO), DOWN, Look(ONE))
    await source.load()
    async with Watching(source) as watching:
        await asyncio.sleep(200)
        assert source.asked == [0, 30, 31, 33, 37, 45, 61, 91, 121, 151, 152, 182]
        assert watching.seen == [(121, TWO), (152, ONE)]
        assert (
            messages(caplog)
            == [
                ("WARNING", "topology update failed: script: down; keeping the previous topology"),
                ("INFO", "topology source recovered: script"),
            ]
            * 2
        )


@in_virtual_time
async def test_an_interval_below_the_first_retry_is_kept():
    source = ScriptedSource(Look(ONE), DOWN, interval=0.5)
    await source.load()
    async with Watching(source):
        await asyncio.sleep(2.1)
        assert source.asked == [0, 0.5, 1.0, 1.5, 2.0]


@in_virtual_time
async def test_a_look_that_hangs_ends_in_time_and_the_next_one_succeeds(caplog):
    source = ScriptedSource(Look(ONE), HANG, Look(TWO))
    await source.load()
    async with Watching(source) as watching:
        await asyncio.sleep(50)
        assert watching.seen == [(41, TWO)]
        assert messages(caplog)[0] == (
            "WARNING",
            "topology update failed: script: no answer in 10 s; keeping the previous topology",
        )


@in_virtual_time
async def test_a_watch_that_is_cancelled_ends_a_look_that_hangs():
    source = ScriptedSource(Look(ONE), HANG)
    await source.load()
    async with Watching(source):
        await asyncio.sleep(35)
    assert source.status.error is None


# Freshness.


@in_virtual_time
async def test_the_time_of_the_last_answer_is_known(caplog):
    source = ScriptedSource(Look(ONE), Look(ONE), DOWN, OSError("still down"), Look(ONE))
    status = source.status
    assert (status.source, status.confirmed_at, status.error) == ("script", None, None)
    await source.load()
    async with Watching(source):
        seen = []
        for _ in range(65):
            await asyncio.sleep(1)
            state = (status.confirmed_at - virtual_time.START, status.error)
            if state not in seen:
                seen.append(state)
        assert seen == [(0, None), (30, None), (30, "script: down"), (30, "script: still down"), (63, None)]
        assert len(messages(caplog)) == 2


@in_virtual_time
async def test_a_look_that_fails_in_part_changes_the_topology_and_is_a_failure(caplog):
    partly = DiscoveryError("script", "zone b: down")
    source = ScriptedSource(Look(ONE, None, partly), Look(TWO, 5, partly), Look(TWO))
    assert await source.load() == ONE
    assert (source.status.confirmed_at, source.status.error) == (None, "script: zone b: down")
    async with Watching(source) as watching:
        await asyncio.sleep(31)
        assert watching.seen == [(30, TWO)]
        assert [level for level, _ in messages(caplog)] == ["WARNING"]
        await asyncio.sleep(5)
        assert source.status.error is None
        assert messages(caplog)[1:] == [("INFO", "topology source recovered: script")]


def test_a_load_forgets_the_times_of_an_earlier_event_loop():
    source = ScriptedSource(Look(ONE), DOWN)
    virtual_time.run(source.load())
    assert source.status.confirmed_at is not None
    with pytest.raises(DiscoveryError):
        virtual_time.run(source.load())
    assert source.status.confirmed_at is None


@in_virtual_time
async def test_a_load_that_fails_keeps_the_failure_that_another_client_has_seen():
    source = ScriptedSource(Look(ONE), DOWN)
    await source.load()
    source.status.fail(OSError("refused"))
    with pytest.raises(DiscoveryError):
        await source.load()
    assert (source.status.error, source.status.stale) == ("refused", None)


@in_virtual_time
async def test_a_status_logs_the_first_failure_of_each_outage(caplog):
    status = SourceStatus("file")
    status.confirm()
    for error in (OSError("first"), OSError("second"), RuntimeError()):
        status.fail(error)
    assert status.error == "RuntimeError"
    status.confirm()
    status.confirm()
    status.fail(OSError("third"))
    assert messages(caplog) == [
        ("WARNING", "topology update failed: first; keeping the previous topology"),
        ("INFO", "topology source recovered: file"),
        ("WARNING", "topology update failed: third; keeping the previous topology"),
    ]


@pytest.mark.parametrize("argument", ["interval", "timeout"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), True, None, "5"])
def test_a_wrong_time_is_named(argument, value):
    with pytest.raises(InvalidArgument, match=f"^{argument}: "):
        ScriptedSource(Look(ONE), **{argument: value})
