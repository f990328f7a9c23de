"""The classic client for tests."""

import asyncio
import functools
import gc

from evcache.zones.transport.byte_counter import ByteCounter
from evcache.zones.transport.classic.client import ClassicClient
from evcache.zones.transport.classic.pool import PoolLimits
from tests.support.streams import SOON, settled


def client_of(dial, *, connect_timeout=SOON, on_server_end=None, **limits):
    return ClassicClient(
        dial,
        PoolLimits(**limits),
        connect_timeout=connect_timeout,
        traffic=ByteCounter(),
        on_server_end=on_server_end,
    )


def scenario(test):
    """Run a coroutine as a test. It must end in time, and leave no task and no problem behind."""

    @functools.wraps(test)
    def run(**fixtures):
        async def main():
            problems = []
            asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
            async with asyncio.timeout(2 * SOON):
                await test(**fixtures)
            await settled(lambda: asyncio.all_tasks() == {asyncio.current_task()})
            gc.collect()
            assert problems == []

        asyncio.run(main())

    return run
