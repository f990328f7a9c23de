"""Write-behind under virtual time: what reaches the source, when, and what becomes of what does not."""

import asyncio
import logging

import pytest

from evcache import CacheError, CacheUnavailable, EncodeError, InvalidArgument, InvalidKey, UsageError, ValueTooLarge
from evcache.write_behind import BufferFull, WriteBehind
from evcache.write_behind_flushes import RETRY_FIRST_SECONDS, RETRY_LONGEST_SECONDS
from tests.evcache.memory_zones import on_zones, pass_time
from tests.virtual_time import in_virtual_time, now, run, settle


class Source:
    """A writer, and what it was given. `fails`: how many tries fail, or a function of the batch that says whether one does."""

    def __init__(self, *, fails=0, takes=0.0):
        self.fails = fails
        self.takes = takes
        self.tries = []
        self.values = {}
        self.at_once = 0

    @property
    def batches(self):
        return [batch for _, batch, _ in self.tries]

    @property
    def times(self):
        return [round(time, 3) for time, _, _ in self.tries]

    @property
    def ids(self):
        return [batch_id for _, _, batch_id in self.tries]

    async def __call__(self, batch):
        self.tries.append((now(), dict(batch), batch.id))
        self.at_once += 1
        assert self.at_once == 1, "one flush at a time"
        try:
            await asyncio.sleep(self.takes)
        finally:
            self.at_once -= 1
        if callable(self.fails):
            fails = self.fails(batch)
        else:
            fails, self.fails = self.fails > 0, self.fails - 1
        if fails:
            raise OSError("the source is down")
        for key, value in batch.items():
            self.values[key] = self.values.get(key, 0) + value if key in batch.deltas else value


@in_virtual_time
async def test_a_flush_begins_when_the_first_value_has_waited_its_time():
    """However many come after it, and in one batch with them, the last of each key."""
    source = Source()
    async with WriteBehind(None, source, interval=2.0) as behind:
        for number in range(19):
            await behind.set(f"k{number % 2}", number)
            await behind.add("n", number)
            await asyncio.sleep(0.1)
        assert source.tries == []
        await asyncio.sleep(1)
        assert source.times == [2.0]
        assert source.batches == [{"k0": 18, "n": 171, "k1": 17}]
        assert behind.stats().waiting == 0
        assert behind.stats().coalesced == 35


@in_virtual_time
async def test_a_flush_begins_when_enough_keys_wait():
    source = Source()
    async with WriteBehind(None, source, max_batch=3, interval=60) as behind:
        for number in range(8):
            await behind.set(f"k{number}", number)
        await settle()
        assert source.batches == [{"k0": 0, "k1": 1, "k2": 2}, {"k3": 3, "k4": 4, "k5": 5}]
        assert source.times == [0, 0]


@in_virtual_time
async def test_nothing_runs_before_the_first_call_and_nothing_after_close():
    before = asyncio.all_tasks()
    behind = WriteBehind(None, Source())
    assert asyncio.all_tasks() == before
    assert await behind.close() == {}
    with pytest.raises(UsageError):
        await behind.set("k", 1)
    used = WriteBehind(None, Source())
    await used.set("k", 1)
    assert len(asyncio.all_tasks()) == len(before) + 1
    assert await used.close() == {}
    assert asyncio.all_tasks() == before


def test_it_belongs_to_one_loop():
    behind = WriteBehind(None, Source())

    async def use():
        await behind.set("k", 1)
        await behind.flush()

    with asyncio.Runner() as runner:
        runner.run(use())
        with pytest.raises(UsageError):
            asyncio.run(use())
        runner.run(behind.close())


@in_virtual_time
async def test_flush_waits_for_what_is_there_and_for_nothing_later():
    source = Source(takes=1.0)
    async with WriteBehind(None, source, max_batch=2, interval=60) as behind:
        assert await behind.flush()
        assert now() == 0
        for key in "abc":
            await behind.set(key, 1)
        flushing = asyncio.create_task(behind.flush())
        await asyncio.sleep(1.5)
        await behind.set("late", 1)
        await behind.set("b", 2)
        await behind.set("c", 2)  # "c" is under way
        assert await flushing
        assert now() == 2.0
        assert source.values == {"a": 1, "b": 1, "c": 1}
    assert source.values == {"a": 1, "b": 2, "c": 2, "late": 1}


@in_virtual_time
async def test_flush_says_when_its_time_is_over_and_goes_on_behind():
    source = Source(takes=1.0)
    async with WriteBehind(None, source, interval=60) as behind:
        await behind.set("k", 1)
        assert not await behind.flush(timeout=0.5)
        flushing = asyncio.create_task(behind.flush())
        await settle()
        flushing.cancel()
        await asyncio.wait([flushing])
        assert flushing.cancelled()
        await asyncio.sleep(1)
        assert source.values == {"k": 1}
        assert len(source.tries) == 1


# Failures.


@in_virtual_time
async def test_a_failed_batch_is_tried_again_as_it_was_with_growing_pauses(caplog):
    """Under its id; what came meanwhile is not mixed into it. A success resets the pause. It is said once."""
    caplog.set_level(logging.INFO, "evcache")
    source = Source(fails=2)
    async with WriteBehind(None, source) as behind:
        await behind.add("n", 1)
        await asyncio.sleep(1.05)
        await behind.add("n", 10)
        await behind.set("k", 1)
        assert behind.waiting("n") == 11
        await asyncio.sleep(3)
        assert source.batches == [{"n": 1}, {"n": 1}, {"n": 1}, {"k": 1, "n": 10}]
        assert len(set(source.ids)) == 2
        first, second = source.times[1] - source.times[0], source.times[2] - source.times[1]
        assert RETRY_FIRST_SECONDS <= first <= 2 * RETRY_FIRST_SECONDS
        assert 2 * RETRY_FIRST_SECONDS <= second <= 3 * RETRY_FIRST_SECONDS
        assert source.values == {"n": 11, "k": 1}
        stats = behind.stats()
        assert (stats.flushes, stats.flushed, stats.failures, stats.retried) == (2, 3, 2, 2)
        source.fails = 1
        await behind.set("k", 2)
        await asyncio.sleep(2)
        assert source.times[-1] - source.times[-2] <= 2 * RETRY_FIRST_SECONDS
    said = [record.getMessage() for record in caplog.records]
    assert [text.split(" ")[0] for text in said] == ["a", "the", "a", "the"]
    assert "the source is down" in said[0]


@in_virtual_time
async def test_an_outage_of_hours_loses_nothing():
    """The source is asked a few times a minute; afterwards it has everything within a moment."""
    source = Source(fails=lambda _: now() < 6 * 3600)
    async with WriteBehind(None, source, max_batch=10, max_keys=100, max_attempts=2) as behind:
        for number in range(100):
            await behind.set(f"k{number}", number)
        with pytest.raises(BufferFull):
            await behind.set("one more", 1)
        await asyncio.sleep(3600)
        asked = len(source.tries)
        await asyncio.sleep(3600)
        assert len(source.tries) - asked <= 3600 / RETRY_LONGEST_SECONDS
        assert behind.stats().oldest > 7200
        assert behind.stats().waiting == 100
        await asyncio.sleep(4 * 3600 + RETRY_LONGEST_SECONDS)
        assert source.values == {f"k{number}": number for number in range(100)}
        assert behind.stats().given_up == 0


@in_virtual_time
async def test_flush_does_not_wait_for_the_end_of_a_pause():
    source = Source(fails=lambda _: now() < 600)
    async with WriteBehind(None, source) as behind:
        await behind.set("k", 1)
        await asyncio.sleep(600 + RETRY_LONGEST_SECONDS / 100)
        tried = len(source.tries)
        assert await behind.flush(timeout=0.01) or len(source.tries) == tried + 1
        assert source.values == {"k": 1}


@in_virtual_time
async def test_one_bad_row_is_found_given_up_and_reported(caplog):
    """All others are written, those that come later with little delay."""
    lost = []
    source = Source(fails=lambda batch: "bad" in batch)
    async with WriteBehind(None, source, max_attempts=3, on_lost=lost.append) as behind:
        for number in range(50):
            await behind.set(f"k{number}", number)
        await behind.set("bad", "row")
        for number in range(50, 100):
            await behind.set(f"k{number}", number)
        await asyncio.sleep(10)
        assert source.values == {f"k{number}": number for number in range(100)}
        assert lost == []  # nothing shows that the source works
        for number in range(100, 120):
            await behind.set(f"k{number}", number)
            await asyncio.sleep(1.01)
            assert f"k{number}" in source.values  # whatever pauses "bad" has brought about
        assert lost == [{"bad": "row"}]
        assert behind.stats().given_up == 1
        assert behind.stats().waiting == 0
    assert any("'bad'" in record.getMessage() and record.levelno == logging.ERROR for record in caplog.records)


@in_virtual_time
async def test_a_writer_that_hangs_is_cancelled():
    """And its batch is tried again: nobody knows what became of it."""
    ended = []

    async def writer(batch):
        ended.append("began")
        try:
            await asyncio.sleep(0 if len(ended) > 2 else 1000)
        except asyncio.CancelledError:
            ended.append(now())
            raise

    async with WriteBehind(None, writer, flush_timeout=5.0) as behind:
        await behind.set("k", 1)
        await behind.flush()
        assert ended == ["began", 5.0, "began"]
        assert behind.stats().failures == 1


async def cancels_itself(batch):
    raise asyncio.CancelledError


async def names_others(batch):
    return ["other"]


async def returns_a_str(batch):
    return "k"


async def returns_a_number(batch):
    return 1


async def writes_none(batch):
    return list(batch)


async def times_out(batch):
    raise TimeoutError


def is_no_coroutine(batch):
    return None


@pytest.mark.parametrize(
    "writer", [cancels_itself, names_others, returns_a_str, returns_a_number, writes_none, times_out, is_no_coroutine]
)
def test_whatever_a_writer_does_is_a_failure_and_no_end(writer):
    """An answer that makes no sense, too: the batch is tried again, under its id, and nothing is lost."""

    async def main():
        ids = set()

        def flaky(batch):
            ids.add(batch.id)
            return writer(batch) if now() < 2 else Source()(batch)

        async with WriteBehind(None, flaky) as behind:
            await behind.set("k", 1)
            assert await behind.flush(timeout=5)
            assert behind.stats().failures > 1
            assert len(ids) == 1

    run(main())


@in_virtual_time
async def test_keys_that_a_writer_names_are_tried_again():
    given = []

    async def writer(batch):
        given.append((dict(batch), batch.id))
        return list(batch)[1:]  # a source that takes one at a time

    async with WriteBehind(None, writer) as behind:
        for key in "abc":
            await behind.set(key, key)
        assert await behind.flush()
        assert [list(batch) for batch, _ in given] == [["a", "b", "c"], ["b", "c"], ["c"]]
        assert len({batch_id for _, batch_id in given}) == 3
        stats = behind.stats()
        assert (stats.flushes, stats.flushed, stats.failures, stats.retried) == (3, 3, 0, 3)


@in_virtual_time
async def test_a_value_that_comes_while_its_key_is_written_is_written_next():
    """Never lost, never overtaken by the older one, however often that has to be tried."""
    source = Source(fails=1, takes=1.0)
    async with WriteBehind(None, source) as behind:
        await behind.set("k", "old")
        await asyncio.sleep(1.5)
        await behind.set("k", "new")
        assert behind.waiting("k") == "new"
        await behind.flush()
        assert [batch["k"] for batch in source.batches] == ["old", "old", "new"]
        assert behind.waiting("k", "nothing") == "nothing"


@in_virtual_time
async def test_after_a_bug_flushes_begin_anew(monkeypatch, caplog):
    """Nobody waits for ever for what has ended."""

    def broken(at):
        raise RuntimeError("a bug")

    source = Source()
    async with WriteBehind(None, source) as behind:
        await behind.set("k", 1)
        with monkeypatch.context() as patch:
            patch.setattr(behind._buffer, "next", broken)
            assert await behind.flush() is False
        assert "ended with a bug" in caplog.text
        assert await behind.flush()
        assert source.values == {"k": 1}


# Room.


@in_virtual_time
async def test_a_full_buffer_makes_new_keys_wait_and_no_others():
    """They go on in their order when a flush, which begins at once, has made room."""
    source = Source(takes=1.0)
    async with WriteBehind(None, source, max_keys=2, interval=60, timeout=None) as behind:
        await behind.set("a", 1)
        await behind.set("b", 1)
        done = []

        async def put(key):
            await behind.set(key, 2)
            done.append((key, now()))

        async with asyncio.TaskGroup() as group:
            for key in ["c", "d", "e", "c"]:
                group.create_task(put(key))
            await settle()
            await put("a")
            assert done == [("a", 0)]
            await asyncio.sleep(0.5)
        # "a" has a newer value, so one key's room was made first
        assert [key for key, _ in done] == ["a", "c", "c", "d", "e"]
        await behind.flush()
        assert source.values == {"a": 2, "b": 1, "c": 2, "d": 2, "e": 2}
        assert all(len(batch) <= 2 for batch in source.batches)


@pytest.mark.parametrize("timeout", [0, 0.5, 3])
def test_a_full_buffer_says_so_when_the_time_is_over(timeout):
    async def main():
        source = Source(fails=10**9)
        behind = WriteBehind(None, source, max_keys=1, timeout=timeout)
        await behind.add("a", 1)
        with pytest.raises(BufferFull, match="1 keys wait") as caught:
            await behind.set("b", 1)
        assert now() == timeout
        assert isinstance(caught.value, CacheError)
        await behind.add("a", 1)
        assert await behind.close(0) == {"a": 2}

    run(main())


@pytest.mark.parametrize("when", ["in line", "called"])
def test_a_cancelled_wait_for_room_leaves_nothing(when):
    """Neither the value, nor a room that nobody takes: also when its turn has just come."""

    async def main():
        source = Source(takes=2.0)
        async with WriteBehind(None, source, max_keys=1, timeout=None) as behind:
            await behind.set("a", 1)
            first = asyncio.create_task(behind.set("b", 2))
            second = asyncio.create_task(behind.set("c", 3))
            if when == "in line":
                await asyncio.sleep(1)
            else:
                await asyncio.sleep(2)
                for _ in range(20):
                    if behind.waiting("a") is None:
                        break
                    await asyncio.sleep(0)
                assert behind.waiting("a") is None
                assert not first.done()
            first.cancel()
            await asyncio.wait([first])
            assert first.cancelled()
            await second
            await behind.flush()
            assert source.values == {"a": 1, "c": 3}
            await behind.set("d", 4)

    run(main())


@in_virtual_time
async def test_a_merge_that_fails_does_not_keep_the_room_of_its_key():
    source = Source()
    async with WriteBehind(None, source, max_keys=1, timeout=None, interval=0.1) as behind:
        await behind.set("a", 1)
        with pytest.raises(InvalidArgument):
            await behind.add("b", "no number")
        await behind.set("c", 1)
        await behind.flush()
        assert source.values == {"a": 1, "c": 1}


@in_virtual_time
async def test_close_ends_waits_for_room():
    behind = WriteBehind(None, Source(fails=10**9), max_keys=1, timeout=None)
    await behind.set("a", 1)
    waiting = asyncio.create_task(behind.set("b", 1))
    await settle()
    assert await behind.close(1) == {"a": 1}
    with pytest.raises(UsageError):
        await waiting


# Closing.


@in_virtual_time
async def test_close_writes_what_waits():
    source = Source(fails=2)
    behind = WriteBehind(None, source, interval=60, max_batch=2)
    for key in "abc":
        await behind.set(key, key)
    assert await behind.close() == {}
    assert source.values == {"a": "a", "b": "b", "c": "c"}
    assert now() < 2


@pytest.mark.parametrize("drain", [0, 2.0])
def test_close_says_what_was_not_written(drain, caplog):
    """Deltas that were under way and those that came later summed up; once, in the log and to `on_lost`."""

    async def main():
        lost = []
        source = Source(fails=lambda batch: "n" in batch, takes=0.5)
        behind = WriteBehind(None, source, on_lost=lost.append)
        await behind.add("n", 1)
        await asyncio.sleep(1.2)
        await behind.add("n", 10)
        await behind.set("k", 1)
        began = now()
        first, second = await asyncio.gather(behind.close(drain), behind.close(drain))
        assert now() - began <= drain + 0.01
        assert first == second == {"n": 11, "k": 1}
        assert await behind.close() == first
        assert lost == [first]
        assert len([record for record in caplog.records if "are lost" in record.getMessage()]) == 1
        assert source.at_once == 0
        assert behind.waiting("n") == 11

    run(main())


@in_virtual_time
async def test_a_cancelled_close_ends_the_task_and_keeps_values():
    lost = []
    source = Source(takes=100)
    behind = WriteBehind(None, source, flush_timeout=1000, on_lost=lost.append)
    await behind.set("k", 1)
    closing = asyncio.create_task(behind.close(50))
    await asyncio.sleep(1)
    closing.cancel()
    await asyncio.wait([closing])
    assert closing.cancelled()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert behind.waiting("k") == 1
    assert lost == []
    assert await behind.close() == {"k": 1}
    assert lost == [{"k": 1}]


@in_virtual_time
async def test_close_ends_a_flush_that_waits():
    behind = WriteBehind(None, Source(fails=10**9))
    await behind.set("k", 1)
    flushing = asyncio.create_task(behind.flush())
    await settle()
    await behind.close(0.5)
    assert await flushing is False


@in_virtual_time
async def test_what_on_lost_raises_is_logged(caplog):
    def on_lost(values):
        raise RuntimeError("nobody home")

    behind = WriteBehind(None, Source(fails=10**9), on_lost=on_lost)
    await behind.set("k", 1)
    assert await behind.close(0) == {"k": 1}
    assert "on_lost has failed" in caplog.text


# The cache.


@on_zones()
async def test_set_stores_at_once_and_add_does_not_touch_the_cache(zones):
    cache = await zones.ready()
    source = Source()
    async with WriteBehind(cache, source) as behind:
        result = await behind.set("k", {"a": 1}, ttl=300)
        assert result
        assert zones.values("k") == dict.fromkeys("abc", {"a": 1})
        assert 299 <= zones.held("k", "a").ttl <= 300
        await behind.add("n", 1)
        assert zones.values("n") == dict.fromkeys("abc")
        assert source.tries == []
        await pass_time(1.1)
        assert source.values == {"k": {"a": 1}, "n": 1}


@on_zones()
async def test_a_cache_that_is_not_there_costs_the_source_nothing(zones):
    """The call says so, and the value is written all the same."""
    cache = await zones.ready()
    source = Source()
    async with WriteBehind(cache, source) as behind:
        await zones.kill("a", "b", "c")
        with pytest.raises(CacheUnavailable):
            await behind.set("k", 1)
        assert behind.waiting("k") == 1
        await behind.flush()
        assert source.values == {"k": 1}


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [("with space", 1, InvalidKey), ("k", object(), EncodeError), ("k", b"x" * 2_000_000, ValueTooLarge)],
)
@on_zones()
async def test_what_the_cache_takes_for_wrong_is_not_kept(zones, key, value, error):
    """And what waited before is as it was; its room is free."""
    cache = await zones.ready()
    source = Source()
    async with WriteBehind(cache, source, max_keys=2, timeout=0) as behind:
        await behind.set("k", "before")
        with pytest.raises(error):
            await behind.set(key, value)
        await behind.set("other", 1)
        await behind.flush()
        assert source.values == {"k": "before", "other": 1}


@on_zones()
async def test_a_value_that_does_not_fit_leaves_no_room_taken_by_it(zones):
    """Whoever waited for room behind it goes on."""
    cache = await zones.ready()
    async with WriteBehind(cache, Source(), max_keys=1, timeout=None) as behind:
        results = await asyncio.gather(behind.set("with space", 1), behind.set("k", 1), return_exceptions=True)
        assert isinstance(results[0], InvalidKey)
        assert results[1]


# Bad input.


async def write(batch):
    return None


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("max_batch", 0),
        ("max_batch", True),
        ("max_keys", 0),
        ("max_keys", 1.5),
        ("max_attempts", 0),
        ("interval", 0),
        ("interval", float("inf")),
        ("interval", "1"),
        ("timeout", -1),
        ("flush_timeout", 0),
        ("flush_timeout", None),
        ("merge", 1),
        ("on_lost", "print"),
        ("path", ""),
        ("path", 1),
        ("writer", None),
        ("cache", "cache"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(argument, value):
    arguments = {"cache": None, "writer": write, argument: value}
    with pytest.raises(InvalidArgument) as caught:
        WriteBehind(arguments.pop("cache"), arguments.pop("writer"), **arguments)
    assert caught.value.argument == argument


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda behind: behind.set("", 1), "key"),
        (lambda behind: behind.set(b"k", 1), "key"),
        (lambda behind: behind.set("\udc80", 1), "key"),
        (lambda behind: behind.add(None, 1), "key"),
        (lambda behind: behind.set("k", 1, ttl=0), "ttl"),
        (lambda behind: behind.add("k", "1"), "delta"),
        (lambda behind: behind.flush(timeout=-1), "timeout"),
        (lambda behind: behind.close(-1), "drain"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(call, argument):
    """Before anything is kept; the buffer works on."""

    async def main():
        async with WriteBehind(None, write) as behind:
            with pytest.raises(InvalidArgument) as caught:
                await call(behind)
            assert caught.value.argument == argument
            assert behind.stats().waiting == 0
            await behind.set("k", 1)

    run(main())
