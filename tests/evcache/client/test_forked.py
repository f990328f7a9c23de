"""Clients that exist before a fork, as in servers that load the application first, are independent after it."""

import asyncio
import os

import pytest

from evcache import EVCache
from evcache.errors import UsageError
from evcache.invalidation.outbox import Outbox
from evcache.replication.hlc import COUNTER_BITS, WRITER_BITS, HybridLogicalClock
from evcache.testing import LocalZones
from tests.support.cores import CORES, running


def in_children(work, count=6):
    """Return the numbers that `work` returns in `count` child processes."""
    results = []
    for _ in range(count):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(writer, b"%d" % work())
            os._exit(0)
        os.close(writer)
        os.waitpid(pid, 0)
        with os.fdopen(reader, "rb") as pipe:
            results.append(int(pipe.read()))
    return results


def test_writes_of_siblings_never_have_the_same_version():
    """In the same millisecond, the writer alone tells versions apart."""
    clock = HybridLogicalClock(wall_ms=lambda: 1_800_000_000_000)
    versions = in_children(clock.tick)
    assert len({version >> WRITER_BITS + COUNTER_BITS for version in versions}) == 1
    assert len(set(versions)) > 1, "of 4,096 writers, six are the same once in 10^18 runs"


def test_siblings_do_not_take_what_others_announce_for_their_own():
    outbox = Outbox()
    assert len(set(in_children(lambda: outbox.publisher))) == 6


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # it has the threads of the servers
@pytest.mark.parametrize("core", CORES, ids=lambda core: core.name)
@pytest.mark.parametrize("before", ["get", "set", "get_many", "sleep"])
def test_a_child_of_a_running_loop_is_refused_and_its_parent_gets_its_own_values(core, before):
    """The task forks while it runs below the connection that woke it. The child has inherited the socket."""

    async def main(zones):
        async with EVCache("t", zones=zones, local_zone="a", read_timeout=5, write_timeout=5) as cache:
            for key in ("one", "two"):
                assert await cache.set(key, key.encode(), ttl=60)

            def use_in_child():
                try:
                    asyncio.run(asyncio.wait_for(cache.get("two"), 1))
                except UsageError as error:
                    return "forked" in str(error)
                except Exception:  # which must not leave the child, or it would go on as the test
                    return False
                return False

            calls = {
                "get": lambda: cache.get("one"),
                "set": lambda: cache.set("one", b"one", ttl=60),
                "get_many": lambda: cache.get_many(["one", "two"]),
                "sleep": lambda: asyncio.sleep(0),
            }
            await calls[before]()
            assert in_children(use_in_child, count=1) == [1]
            for _ in range(3):
                assert await cache.get("one") == b"one"

    with running(core), LocalZones({"a": 1}, backend="embedded").running() as zones:
        asyncio.run(main(zones.zones))
