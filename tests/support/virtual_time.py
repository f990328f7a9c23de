"""Event loop whose clock jumps to the next timer when nothing is ready. Hours pass at once, and each run is equal.

For code on in-memory connections (and socket pairs, whose bytes arrive as they are sent). Work in other threads is not
waited for, so nothing here resolves names or connects to real servers.
"""

import asyncio
import functools
import gc
import selectors

START = 1_000.0  # not 0, so that a clock that was never set is noticed
LONGEST = 24 * 3600.0  # seconds after which a test is taken to wait for something that never comes


class Deadlock(Exception):
    """Nothing is ready and there is no timer, or only timers that repeat without an end."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop of virtual time."""

    def __init__(self) -> None:
        self._now = START
        self.problems = []
        super().__init__(_JumpingSelector(self))
        self.set_exception_handler(lambda _, context: self.problems.append(context))

    def time(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass in the middle of a callback, as when it computes: timers come due, and none has run."""
        self._now += seconds
        if self._now > START + LONGEST:
            raise Deadlock(f"nothing but timers for {LONGEST:g} s")


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout=None):
        events = super().select(0)
        if not events:
            if timeout is None:
                raise Deadlock("nothing is ready, and there is no timer")
            if timeout > 0:
                self._loop.advance(timeout)
        return events


def run(coroutine):
    """Run a coroutine to its end on a loop of virtual time and return what it returns.

    Fails if it leaves a task, or an exception that no code retrieved.
    """
    gc.freeze()  # so that the collection below is about this run only, and quick
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        loop = runner.get_loop()
        result = runner.run(_and_nothing_left(coroutine))
        gc.collect()  # futures complain when they are collected
        if loop.problems:
            raise AssertionError(f"left behind: {loop.problems}") from loop.problems[0].get("exception")
    return result


def in_virtual_time(scenario):
    """Make a test of a coroutine function."""

    @functools.wraps(scenario)
    def test(**fixtures):
        run(scenario(**fixtures))

    return test


async def _and_nothing_left(coroutine):
    result = await coroutine
    await settle()  # connections report their end in the next turns of the loop
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks left behind: {left}"
    return result


async def settle(turns: int = 20) -> None:
    """Let everything happen that needs no time."""
    for _ in range(turns):
        await asyncio.sleep(0)


def now() -> float:
    """Seconds since the beginning of the run."""
    return asyncio.get_running_loop().time() - START
