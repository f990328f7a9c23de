"""Background tasks: their number is bounded, and they end with the client."""

import asyncio
import logging

import pytest

from evcache._helpers.background import BackgroundTasks
from evcache.zones.errors import NodeTimeout
from tests.support.virtual_time import run


def test_work_runs_and_is_forgotten():
    """A task's result is there for who waits, and nothing of it is kept."""

    async def main():
        background = BackgroundTasks()

        async def work():
            await asyncio.sleep(5)
            return "done"

        task = background.spawn(work())
        assert len(background) == 1
        assert await task == "done"
        await asyncio.sleep(0)
        assert len(background) == 0

    run(main())


def test_no_more_tasks_than_the_bound():
    """Work over the bound is refused without being run, and there is room again when some has ended."""

    async def main():
        background = BackgroundTasks(max_tasks=2)
        ran = []

        async def work(number):
            ran.append(number)
            await asyncio.sleep(1)

        assert [background.spawn(work(number)) is None for number in range(4)] == [False, False, True, True]
        await asyncio.sleep(2)
        assert ran == [0, 1]
        assert background.spawn(work(4)) is not None
        await background.close(10)
        assert ran == [0, 1, 4]

    run(main())


@pytest.mark.parametrize(("drain", "finished", "cancelled"), [(10, 3, 0), (2.5, 2, 1), (0, 0, 3)])
def test_close_waits_for_a_while_and_no_longer(drain, finished, cancelled):
    """`close` cancels tasks that have not ended after `drain` seconds, awaits them, and returns their number."""

    async def main():
        background = BackgroundTasks()
        ended = []

        async def work(seconds):
            try:
                await asyncio.sleep(seconds)
                ended.append("finished")
            except asyncio.CancelledError:
                await asyncio.sleep(0)
                ended.append("cancelled")
                raise

        for seconds in (1, 2, 3):
            background.spawn(work(seconds))
        await asyncio.sleep(0)
        before = asyncio.get_running_loop().time()
        assert await background.close(drain) == cancelled
        assert ended.count("finished") == finished
        assert ended.count("cancelled") == cancelled
        assert asyncio.get_running_loop().time() - before <= drain
        assert len(background) == 0

    run(main())


def test_nothing_is_taken_after_close():
    """Work that comes while the client closes is refused, without a warning about a coroutine that never ran."""

    async def main():
        background = BackgroundTasks()

        async def work():
            raise AssertionError("it must not run")

        await background.close(1)
        assert background.spawn(work()) is None
        assert await background.close(1) == 0

    run(main())


def test_a_cancelled_close_leaves_no_task_behind():
    """A cancelled call of `close` cancels every task."""

    async def main():
        background = BackgroundTasks()
        task = background.spawn(asyncio.sleep(100))
        closing = asyncio.create_task(background.close(50))
        await asyncio.sleep(1)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


@pytest.mark.parametrize(("error", "logged"), [(NodeTimeout("slow", "n"), False), (KeyError("a bug"), True)])
def test_errors_of_nodes_are_no_news_and_bugs_are(caplog, error, logged):
    """What can happen to any zone has been counted where it happened; anything else is logged with its trace."""

    async def main():
        background = BackgroundTasks()

        async def work():
            raise error

        background.spawn(work())
        await asyncio.sleep(1)

    with caplog.at_level(logging.DEBUG, "evcache"):
        run(main())
    assert [record.exc_info[1] for record in caplog.records] == ([error] if logged else [])
