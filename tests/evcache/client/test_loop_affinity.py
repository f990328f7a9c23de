"""A client belongs to one event loop in one process until it is closed. Use elsewhere is an error, and does not hang."""

import asyncio
import subprocess
import sys
import threading

import pytest

from evcache import EVCache, UsageError
from evcache._helpers.loop_affinity import LoopAffinity

ZONES = {"a": ["127.0.0.1:1"]}  # no server listens: the check of the loop comes first


def call(cache):
    async def main():
        return await cache.get("k", "default", errors="miss", timeout=5)

    return main()


@pytest.fixture
def owned():
    """A client whose loop, which is still open, made the first call."""
    cache = EVCache("t", ZONES)
    with asyncio.Runner() as runner:
        assert runner.run(call(cache)) == "default"
        yield cache
        runner.run(cache.close(0))


def test_another_loop(owned):
    """A second loop gets an error, also while the first one still works."""
    outcome = []

    def elsewhere():
        try:
            asyncio.run(call(owned))
        except UsageError as error:
            outcome.append(str(error))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join(30)
    assert len(outcome) == 1
    assert "another event loop" in outcome[0]


def test_the_loop_after_the_first():
    """A call opens the client again when the first loop is closed: nothing of it is left to disturb."""
    cache = EVCache("t", ZONES)
    assert asyncio.run(call(cache)) == "default"
    assert asyncio.run(call(cache)) == "default"
    asyncio.run(cache.close())
    with pytest.raises(UsageError, match="closed"):
        asyncio.run(call(cache))
    asyncio.run(cache.close())


@pytest.mark.parametrize(
    "operation",
    [
        lambda cache: cache.get("k"),
        lambda cache: cache.get_item("k"),
        lambda cache: cache.get_item("k", for_update=True),
        lambda cache: cache.get_many(["k"]),
        lambda cache: cache.get_many([]),
        lambda cache: cache.get_and_touch("k"),
        lambda cache: cache.set("k", 1),
        lambda cache: cache.set_many({"k": 1}),
        lambda cache: cache.set_many({}),
        lambda cache: cache.delete("k"),
        lambda cache: cache.delete_many(["k"]),
        lambda cache: cache.touch("k"),
        lambda cache: cache.add("k", 1),
        lambda cache: cache.replace("k", 1),
        lambda cache: cache.cas("k", 1, 1),
        lambda cache: cache.append("k", "x"),
        lambda cache: cache.prepend("k", "x"),
        lambda cache: cache.incr("k"),
        lambda cache: cache.decr("k"),
    ],
)
@pytest.mark.parametrize("used", [True, False])
def test_after_close(operation, used):
    """Every operation of a closed client says so, whether or not it was ever used, and `errors="miss"` hides nothing."""

    async def main():
        cache = EVCache("t", ZONES, errors="miss")
        if used:
            await call(cache)
        await cache.close()
        await cache.close()
        with pytest.raises(UsageError, match="closed"):
            await operation(cache)

    asyncio.run(main())


FORKED = """
import asyncio, os, sys
from evcache import EVCache, UsageError

cache = EVCache("t", {"a": ["127.0.0.1:1"]})

async def call():
    return await cache.get("k", "default", errors="miss", timeout=5)

async def in_child():
    try:
        await call()
    except UsageError as error:
        return str(error)

def fork_and_call():
    child = os.fork()
    if child == 0:
        try:
            said = asyncio.run(in_child())
            os._exit(7 if said is not None and "fork" in said else 8)
        except BaseException:
            os._exit(9)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)

async def main():
    await call()
    code = fork_and_call()
    await call()  # the parent goes on
    await cache.close(0)
    return code

sys.exit(asyncio.run(main()))
"""


def test_a_forked_child():
    """A child process that inherits an open client gets an error, and the parent's client still works."""
    code = subprocess.run([sys.executable, "-c", FORKED], timeout=60, check=False).returncode
    assert code == 7


def test_a_client_made_before_a_fork_and_used_after_it_works():
    """Nothing is bound before the first call: a client made at import time serves in each forked worker."""
    unused = FORKED.replace("    await call()\n    code", "    code").replace(
        '== 0:\n        try:\n            said = asyncio.run(in_child())\n            os._exit(7 if said is not None and "fork" in said else 8)',
        '== 0:\n        try:\n            os._exit(7 if asyncio.run(call()) == "default" else 8)',
    )
    assert unused != FORKED
    assert subprocess.run([sys.executable, "-c", unused], timeout=60, check=False).returncode == 7


def test_no_loop_is_needed_to_make_a_client():
    """The constructor does no I/O, starts nothing and asks for no running loop."""
    threads = threading.active_count()
    cache = EVCache("t", ZONES)
    assert cache.topology is None
    assert threading.active_count() == threads
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


def test_the_owner_is_who_came_first():
    """Calls are welcome in the loop of the first one, until `close`, which says whether there is something to end.

    Each time, since one that was cancelled has to be called again.
    """

    async def main():
        owner = LoopAffinity()
        assert owner.open_in is None
        assert owner.enter() is True
        assert owner.enter() is False
        assert owner.open_in is asyncio.get_running_loop()
        assert owner.close() is True
        assert owner.close() is True
        assert owner.open_in is None
        with pytest.raises(UsageError):
            owner.enter()
        owner.reopen()
        assert owner.enter() is True

    asyncio.run(main())
    unused = LoopAffinity()
    assert unused.close() is False
    with pytest.raises(UsageError):
        unused.enter()
