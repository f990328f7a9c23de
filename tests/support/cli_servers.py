"""Fake servers for tests of commands. A command runs its own event loop, so the servers run in another thread."""

from contextlib import contextmanager

from evcache.testing.blocking import LoopThread
from evcache.zones.testing import FakeMemcached

DEAD = "127.0.0.1:1"  # no server listens there


@contextmanager
def servers(**kinds):
    """Run servers by name in another event loop, each with options of FakeMemcached."""
    with LoopThread() as thread:

        async def start():
            made = {name: FakeMemcached(**options) for name, options in kinds.items()}
            for server in made.values():
                await server.start()
            return made

        started = thread.call(start())
        try:
            yield {name: server.address for name, server in started.items()}
        finally:
            for server in started.values():
                thread.call(server.stop())
