"""Clients that exist before a fork, as in servers that load the application first, are independent after it."""

import os

from evcache.invalidation.outbox import Outbox
from evcache.replication.hlc import COUNTER_BITS, WRITER_BITS, HybridLogicalClock


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
