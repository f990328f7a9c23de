"""Loads under way: callers share the result, may leave separately, and a load without callers ends."""

import asyncio
import traceback

import pytest

from evcache import LoadAborted, LoadTimeout
from evcache.read_through.loads import single_flight as module
from evcache.read_through.loads.single_flight import SingleFlight
from evcache.values.lifetime import Content, Lifetime
from tests.support.virtual_time import in_virtual_time, now, settle

VALUE = Content(b"v", 0, Lifetime(None, 0.0, 0.0, 0.0))


class Load:
    """A task that completes loads when a test asks for it."""

    def __init__(self, flights, *keys, background=False):
        self.flights = flights
        self.loads = flights.begin(keys, background=background)
        self.end = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._run())
        flights.assign(self.loads, self.task)

    async def _run(self):
        try:
            await self.end
        finally:
            self.flights.finish(self.loads, asyncio.current_task())

    @property
    def flight(self):
        (flight,) = self.loads
        return flight


async def wait(flights, *waited, seconds=10.0):
    await flights.wait(waited, seconds)
    return [flight.outcome() for flight in waited]


@in_virtual_time
async def test_everybody_who_waits_gets_what_was_loaded():
    flights = SingleFlight()
    load = Load(flights, b"k")
    callers = [asyncio.create_task(wait(flights, flights.get(b"k"))) for _ in range(3)]
    await settle()
    assert len(flights) == 1
    flights.resolve(load.flight, VALUE)
    assert await asyncio.gather(*callers) == [[VALUE]] * 3
    assert await wait(flights, flights.get(b"k")) == [VALUE], "joined between landing and settling"
    load.end.set_result(None)
    await load.task
    assert flights.get(b"k") is None
    assert len(flights) == 0


@in_virtual_time
async def test_nothing_is_a_result():
    flights = SingleFlight()
    load = Load(flights, b"k")
    flights.resolve(load.flight, None)
    assert await wait(flights, load.flight) == [None]
    load.end.set_result(None)
    await load.task


@in_virtual_time
async def test_the_first_end_counts():
    flights = SingleFlight()
    load = Load(flights, b"a", b"b")
    flights.resolve(load.loads[0], VALUE)
    flights.fail(load.loads[0], LookupError())
    flights.fail(load.loads[1], LookupError())
    flights.resolve(load.loads[1], VALUE)
    assert load.loads[0].outcome() == VALUE
    with pytest.raises(LookupError):
        load.loads[1].outcome()
    load.end.set_result(None)
    await load.task


@in_virtual_time
async def test_everybody_gets_the_very_error_and_its_own_traceback():
    """However often it is raised, it ends where the loader raised it, and does not get longer."""
    flights = SingleFlight()
    load = Load(flights, b"k")
    try:
        raise LookupError("broken")
    except LookupError as error:
        raised = error
    lengths, seen = [], []

    async def caller():
        try:
            await wait(flights, load.flight)
        except LookupError as error:
            seen.append(error)
            lengths.append(len(traceback.extract_tb(error.__traceback__)))

    callers = [asyncio.create_task(caller()) for _ in range(50)]
    await settle()
    flights.fail(load.flight, raised)
    await asyncio.gather(*callers)
    assert all(error is raised for error in seen)
    assert len(seen) == 50
    assert len(set(lengths)) == 1
    load.end.set_result(None)
    await load.task


@pytest.mark.parametrize("victim", [0, 1])
@in_virtual_time
async def test_a_caller_that_is_cancelled_leaves_alone(victim):
    """The first or a later one."""
    flights = SingleFlight()
    load = Load(flights, b"k")
    callers = [asyncio.create_task(wait(flights, load.flight)) for _ in range(2)]
    await settle()
    callers[victim].cancel()
    await settle()
    assert not load.task.done()
    flights.resolve(load.flight, VALUE)
    assert await callers[1 - victim] == [VALUE]
    assert callers[victim].cancelled()
    load.end.set_result(None)
    await load.task


@in_virtual_time
async def test_with_the_last_caller_a_load_ends():
    """It ends at once: the next caller begins again."""
    flights = SingleFlight()
    load = Load(flights, b"k")
    callers = [asyncio.create_task(wait(flights, load.flight)) for _ in range(2)]
    await settle()
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)
    assert flights.get(b"k") is None
    await asyncio.wait([load.task])
    assert load.task.cancelled()
    assert len(flights) == 0


@in_virtual_time
async def test_a_load_in_the_background_goes_on_without_callers():
    flights = SingleFlight()
    load = Load(flights, b"k", background=True)
    caller = asyncio.create_task(wait(flights, load.flight))
    await settle()
    caller.cancel()
    await settle()
    assert not load.task.done()
    assert flights.get(b"k") is load.flight
    load.end.set_result(None)
    await load.task


@pytest.mark.parametrize("loading", [True, False])
@in_virtual_time
async def test_a_load_whose_callers_ran_out_of_time_goes_on_if_its_loader_runs(loading):
    """Otherwise a loader that waits for its slot would be called although no caller is left."""
    flights = SingleFlight()
    load = Load(flights, b"k")
    if loading:
        load.flight.mark_loading()
    before = now()
    with pytest.raises(LoadTimeout) as caught:
        await wait(flights, load.flight, seconds=3.0)
    assert (caught.value.key, caught.value.seconds, now() - before) == (b"k", 3.0, 3.0)
    await settle()
    assert load.task.cancelled() is not loading
    assert (flights.get(b"k") is load.flight) is loading
    load.end.cancel()
    await asyncio.wait([load.task])


@in_virtual_time
async def test_a_task_ends_when_nobody_wants_any_of_its_loads():
    """It does not end sooner: of two keys loaded together, another caller may wait for one."""
    flights = SingleFlight()
    load = Load(flights, b"a", b"b")
    both = asyncio.create_task(wait(flights, *load.loads))
    other = asyncio.create_task(wait(flights, load.loads[1]))
    await settle()
    both.cancel()
    await settle()
    assert not load.task.done()
    assert flights.get(b"a") is None, "nobody may join what may be cut off at any moment"
    assert flights.get(b"b") is load.loads[1]
    other.cancel()
    await asyncio.wait([other, load.task])
    assert load.task.cancelled()


@in_virtual_time
async def test_a_task_with_a_load_that_has_landed_ends_with_the_others():
    flights = SingleFlight()
    load = Load(flights, b"a", b"b")
    both = asyncio.create_task(wait(flights, *load.loads))
    await settle()
    flights.resolve(load.loads[0], VALUE)
    await settle()
    both.cancel()
    await asyncio.wait([both, load.task])
    assert load.task.cancelled()
    assert load.loads[0].outcome() == VALUE


@in_virtual_time
async def test_what_is_written_cannot_be_joined_any_more():
    """Who waits gets what was loaded; the end of that load leaves a new one alone."""
    flights = SingleFlight()
    old = Load(flights, b"k")
    caller = asyncio.create_task(wait(flights, old.flight))
    await settle()
    flights.forget(b"k")
    flights.forget(b"unknown")
    assert flights.get(b"k") is None
    new = Load(flights, b"k")
    flights.resolve(old.flight, VALUE)
    assert await caller == [VALUE]
    old.end.set_result(None)
    await old.task
    assert flights.get(b"k") is new.flight
    flights.forget_all()
    assert flights.get(b"k") is None
    assert len(flights) == 1, "it is still under way"
    new.end.set_result(None)
    await new.task


@in_virtual_time
async def test_what_ends_without_a_result_is_aborted():
    """No caller waits forever."""
    flights = SingleFlight()
    load = Load(flights, b"k")
    caller = asyncio.create_task(wait(flights, load.flight))
    await settle()
    load.end.set_result(None)
    with pytest.raises(LoadAborted):
        await caller


@in_virtual_time
async def test_an_error_of_one_is_not_lost_among_several():
    """Both futures have failed and neither exception stays unretrieved."""
    flights = SingleFlight()
    load = Load(flights, b"a", b"b")
    caller = asyncio.create_task(wait(flights, *load.loads))
    await settle()
    for flight in load.loads:
        flights.fail(flight, LookupError(flight.key))
    with pytest.raises(LookupError, match="a"):
        await caller
    load.end.set_result(None)
    await load.task


@in_virtual_time
async def test_too_many_callers_are_turned_away(monkeypatch):
    """The one that has a load of its own beside the crowded one takes that with it."""
    monkeypatch.setattr(module, "MAX_WAITERS", 2)
    flights = SingleFlight()
    crowded = Load(flights, b"k")
    callers = [asyncio.create_task(wait(flights, crowded.flight)) for _ in range(2)]
    await settle()
    own = Load(flights, b"own")
    with pytest.raises(LoadAborted, match="callers wait"):
        await wait(flights, crowded.flight, own.flight)
    await settle()
    assert own.task.cancelled()
    assert flights.get(b"own") is None
    flights.resolve(crowded.flight, VALUE)
    assert await asyncio.gather(*callers) == [[VALUE]] * 2
    crowded.end.set_result(None)
    await crowded.task


@in_virtual_time
async def test_a_task_that_has_ended_before_it_is_told_of_is_forgotten():
    """As with an eager task factory, which runs a task within the call that makes it."""
    flights = SingleFlight()
    load = Load(flights, b"k")
    load.end.set_result(None)
    await load.task
    flights.assign(load.loads, load.task)
    assert len(flights) == 0
