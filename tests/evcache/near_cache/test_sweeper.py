"""The timer that gives an idle process the memory of its near cache back, under virtual time."""

import asyncio
import gc
import weakref

import pytest

from evcache.near_cache.settings import NearCache
from evcache.near_cache.store import NearStore
from evcache.near_cache.sweeper import STEP_SECONDS, SWEPT_PER_STEP, Sweeper
from evcache.results import RemovalCause
from tests.support.virtual_time import in_virtual_time, run

TTL = 10.0


def timers():
    """How many timers the loop has."""
    return sum(not timer.cancelled() for timer in asyncio.get_running_loop()._scheduled)


def made(entries=0, on_remove=None):
    """A store on the loop's clock with this number of values, and its sweeper."""
    store = NearStore(NearCache(ttl=TTL), asyncio.get_running_loop().time, on_remove)
    for number in range(entries):
        store.put(b"%d" % number, "v", 1, TTL)
    return store, Sweeper(store)


@in_virtual_time
async def test_an_empty_store_has_no_timer():
    """A sweeper that was not woken has no timer."""
    made(5)
    assert timers() == 0


@in_virtual_time
async def test_what_expired_goes_by_itself_a_little_at_a_time():
    """No step looks at more than it may; when nothing is left there is no timer, and the next put makes one again."""
    gone = []
    store, sweeper = made(5000, lambda key, cause: gone.append((asyncio.get_running_loop().time(), cause)))
    sweeper.wake()
    sweeper.wake()
    assert timers() == 1
    await asyncio.sleep(TTL / 2)
    assert len(store) == 5000
    await asyncio.sleep(TTL / 2 + (5000 / SWEPT_PER_STEP + 2) * STEP_SECONDS)
    assert len(store) == 0
    assert timers() == 0
    steps = [time for time, _ in gone]
    assert max(steps.count(time) for time in set(steps)) <= SWEPT_PER_STEP
    assert {cause for _, cause in gone} == {RemovalCause.EXPIRED}
    store.put(b"k", "v", 1, TTL)
    sweeper.wake()
    assert timers() == 1
    await asyncio.sleep(TTL + 1)
    assert (len(store), timers()) == (0, 0)


@in_virtual_time
async def test_what_was_cleared_is_given_back_too():
    """Although nothing is held any more."""
    store, sweeper = made(1000)
    sweeper.wake()
    store.clear()
    assert len(store) == 0
    await asyncio.sleep(STEP_SECONDS * 1.5)
    assert not store.is_empty
    assert timers() == 1
    await asyncio.sleep(1000 / SWEPT_PER_STEP * STEP_SECONDS)
    assert store.is_empty
    assert timers() == 0


@in_virtual_time
async def test_a_stopped_sweeper_leaves_no_timer_and_makes_none():
    """Also when it was never woken."""
    for woken in (True, False):
        store, sweeper = made(1)
        if woken:
            sweeper.wake()
        sweeper.stop()
        assert timers() == 0
        sweeper.wake()
        sweeper.stop()
        assert timers() == 0
        await asyncio.sleep(TTL + 1)
        assert len(store) == 1


@pytest.mark.parametrize("stops", [False, True])
def test_a_callback_of_the_store_may_use_the_sweeper(stops):
    """It puts something, or ends it all."""

    async def main():
        def on_remove(key, cause):
            if stops:
                sweeper.stop()
            elif key == b"0":
                store.put(b"again", "v", 1, TTL)
                sweeper.wake()

        store, sweeper = made(1, on_remove)
        sweeper.wake()
        await asyncio.sleep(TTL + 1)
        assert timers() == (0 if stops else 1)
        assert len(store) == (0 if stops else 1)
        await asyncio.sleep(TTL + 1)
        assert (timers(), len(store)) == (0, 0)

    run(main())


def test_a_step_that_fails_is_reported_and_not_the_last():
    """A bug in the store must not keep its memory forever."""

    class Broken:
        is_empty = False
        sweeps = 0

        def sweep(self, limit):
            self.sweeps += 1
            raise ZeroDivisionError

    async def main():
        problems = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context["exception"]))
        broken = Broken()
        sweeper = Sweeper(broken)
        for times in (1, 2):
            sweeper.wake()
            await asyncio.sleep(1)
            assert broken.sweeps == len(problems) == times
            assert timers() == 0

    run(main())


@in_virtual_time
async def test_an_empty_store_is_not_kept_in_memory():
    """A client that is dropped without a close is collected as soon as its entries have expired."""

    def on_remove(key, cause):
        pass

    store, sweeper = made(3, on_remove)
    sweeper.wake()
    of_the_store = weakref.ref(on_remove)  # which nothing else refers to
    del on_remove, store, sweeper
    gc.collect()
    assert of_the_store() is not None
    await asyncio.sleep(TTL + 1)
    gc.collect()
    assert of_the_store() is None
    assert timers() == 0
