"""A task that follows a source of topologies."""

import asyncio

from tests.support.virtual_time import now


class Watching:
    """A task that collects what `watch` reports, with the time of each."""

    def __init__(self, discovery):
        self.seen = []
        self.discovery = discovery
        self._changed = asyncio.Event()

    async def __aenter__(self):
        self._task = asyncio.create_task(self._collect())
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        await asyncio.wait([self._task])
        assert self._task.cancelled()

    async def _collect(self):
        async for found in self.discovery.watch():
            self.seen.append((now(), found))
            self._changed.set()

    async def another(self):
        """Wait for the next topology, and return it."""
        self._changed.clear()
        await self._changed.wait()
        return self.topologies[-1]

    @property
    def topologies(self):
        return [found for _, found in self.seen]
