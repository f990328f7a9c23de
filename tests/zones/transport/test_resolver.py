"""Lookups of names: each runs in its own thread, one at a time for each name, and delays nothing else."""

import asyncio
import concurrent.futures
import functools
import gc
import socket
import subprocess
import sys
import textwrap
import threading

import pytest

from evcache.zones.transport import resolver
from evcache.zones.transport.resolver import Resolver, is_name
from tests.support.streams import cancelled, settled

SOON = 5.0  # seconds: a deadline that only a failing test reaches


class Names:
    """A system resolver whose lookups end when the test ends them."""

    def __init__(self):
        self.asked = []
        self.gates = {}
        self.running = 0
        self.most = 0
        self._lock = threading.Lock()

    def hold(self, *hosts):
        for host in hosts:
            self.gates[host] = threading.Event()

    def answer(self, host):
        self.gates.pop(host).set()

    def getaddrinfo(self, host, port, **_):
        with self._lock:
            self.asked.append(host)
            self.running += 1
            self.most = max(self.most, self.running)
            gate = self.gates.get(host)
        try:
            if gate is not None:
                assert gate.wait(SOON)
            if host.startswith("unknown"):
                raise socket.gaierror(-2, "Name or service not known")
            if host.startswith("label"):
                raise UnicodeError("label too long")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", port))]
        finally:
            with self._lock:
                self.running -= 1


class NoExecutor(concurrent.futures.ThreadPoolExecutor):
    def submit(self, *_, **__):
        raise AssertionError("the default executor belongs to the service")


@pytest.fixture
def names(monkeypatch):
    made = Names()
    monkeypatch.setattr(socket, "getaddrinfo", made.getaddrinfo)
    yield made
    for host in list(made.gates):
        made.answer(host)


def on_a_loop(scenario):
    """Run a coroutine test, whose default executor takes nothing, and which leaves no task and no unseen exception."""

    @functools.wraps(scenario)
    def test(**fixtures):
        async def main():
            problems = []
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: problems.append(context))
            loop.set_default_executor(NoExecutor())
            async with asyncio.timeout(2 * SOON):
                await scenario(**fixtures)
            await settled(lambda: asyncio.all_tasks() == {asyncio.current_task()})
            gc.collect()
            assert problems == []

        asyncio.run(main())

    return test


async def given_up(resolve, host):
    """A caller that stops waiting once its lookup runs."""
    task = asyncio.create_task(resolve(host, 1))
    await asyncio.sleep(0)
    await cancelled(task)


FOUND = [(socket.AF_INET, ("10.0.0.1", 1))]


@on_a_loop
async def test_callers_of_one_name_share_a_look_up(names):
    resolve = Resolver()
    names.hold("host")
    callers = [asyncio.create_task(resolve("host", 1)) for _ in range(50)]
    await settled(lambda: names.running == 1)
    names.answer("host")
    assert await asyncio.gather(*callers) == [FOUND] * 50
    assert names.asked == ["host"]


@on_a_loop
async def test_the_next_caller_after_an_answer_looks_up_again(names):
    resolve = Resolver()
    for _ in range(3):
        assert await resolve("host", 1) == FOUND
    assert names.asked == ["host"] * 3


@on_a_loop
async def test_cancelled_callers_start_no_second_look_up_while_one_runs(names):
    resolve = Resolver()
    names.hold("host")
    for _ in range(20):
        await given_up(resolve, "host")
    assert names.asked == ["host"]
    caller = asyncio.create_task(resolve("host", 1))
    await asyncio.sleep(0)
    names.answer("host")
    assert await caller == FOUND
    assert names.asked == ["host"]


@on_a_loop
async def test_an_answer_after_the_last_caller_gave_up_is_for_the_next_one(names):
    """Otherwise a lookup that takes longer than the connect timeout would never lead to a connection."""
    resolve = Resolver()
    names.hold("host")
    await given_up(resolve, "host")
    names.answer("host")
    (lookups,) = resolve._by_loop.values()  # noqa: SLF001
    await settled(lambda: lookups.known["host", 1].ended is not None)
    assert await resolve("host", 1) == FOUND
    assert names.asked == ["host"]
    assert await resolve("host", 1) == FOUND
    assert names.asked == ["host"] * 2


@on_a_loop
async def test_an_answer_that_no_caller_wanted_for_long_is_not_used(names):
    resolve = Resolver()
    names.hold("host")
    await given_up(resolve, "host")
    names.answer("host")
    (lookups,) = resolve._by_loop.values()  # noqa: SLF001
    await settled(lambda: lookups.known["host", 1].ended is not None)
    lookups.known["host", 1].ended -= resolver.KEEP_UNUSED_SECONDS + 1
    assert await resolve("host", 1) == FOUND
    assert names.asked == ["host"] * 2


@on_a_loop
async def test_a_failure_that_no_caller_waited_for_is_forgotten(names):
    resolve = Resolver()
    names.hold("unknown")
    await given_up(resolve, "unknown")
    names.answer("unknown")
    (lookups,) = resolve._by_loop.values()  # noqa: SLF001
    await settled(lambda: not lookups.known)
    with pytest.raises(socket.gaierror):
        await resolve("unknown", 1)
    assert names.asked == ["unknown"] * 2


@pytest.mark.parametrize("host", ["unknown", "label"])
@on_a_loop
async def test_a_failure_reaches_every_caller(names, host):
    resolve = Resolver()
    names.hold(host)
    callers = [asyncio.create_task(resolve(host, 1)) for _ in range(3)]
    await settled(lambda: names.running == 1)
    names.answer(host)
    await asyncio.wait(callers)
    assert all(isinstance(caller.exception(), OSError) for caller in callers)


@on_a_loop
async def test_names_beyond_the_limit_wait_for_a_thread(names):
    resolve = Resolver()
    hosts = [f"host{number}" for number in range(resolver.MAX_LOOKUPS + 8)]
    names.hold(*hosts)
    callers = [asyncio.create_task(resolve(host, 1)) for host in hosts]
    await settled(lambda: names.running == resolver.MAX_LOOKUPS)
    assert names.asked == hosts[: resolver.MAX_LOOKUPS]
    for host in hosts:
        names.answer(host)
    assert await asyncio.gather(*callers) == [FOUND] * len(hosts)
    assert names.most == resolver.MAX_LOOKUPS


@on_a_loop
async def test_a_process_without_threads_left_is_an_error_of_the_call(names, monkeypatch):
    def no_thread(_):
        raise RuntimeError("can't start new thread")

    resolve = Resolver()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(OSError, match="can't start new thread"):
            await resolve("host", 1)
    assert await resolve("host", 1) == FOUND


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "fe80::1%lo"])
def test_an_address_needs_no_thread(monkeypatch, host):
    monkeypatch.setattr(threading.Thread, "start", None)
    assert not is_name(host)
    ((_, where),) = asyncio.run(Resolver()(host, 1))
    assert where[:2] == (host.partition("%")[0], 1) or where[:2] == (host, 1)


@pytest.mark.parametrize(("host", "expected"), [("host", True), ("localhost", True), ("10.0.0.256", True), ("", False)])
def test_names_are_told_from_addresses(host, expected):
    assert is_name(host) is expected


def test_each_loop_has_its_own_look_ups(names):
    """A lookup that hangs belongs to a loop that is closed by now."""
    resolve = Resolver()
    names.hold("host")
    asyncio.run(given_up(resolve, "host"))
    (first,) = resolve._by_loop  # noqa: SLF001
    names.answer("host")
    assert asyncio.run(resolve("host", 1)) == FOUND
    assert names.asked == ["host"] * 2
    assert first not in resolve._by_loop  # noqa: SLF001


def test_a_look_up_that_hangs_does_not_hold_up_the_end_of_the_process():
    program = """
        import asyncio, socket, threading
        socket.getaddrinfo = lambda *_, **__: threading.Event().wait()
        from evcache import CacheUnavailable, EVCache

        async def main():
            async with EVCache("ns", {"a": ["host-1", "host-2"]}, local_zone="a") as cache:
                for number in range(10):
                    try:
                        await cache.get(f"key-{number}", timeout=0.05)
                    except CacheUnavailable:
                        pass
                assert await asyncio.to_thread(lambda: 1) == 1

        asyncio.run(main())
        print("ended", len(threading.enumerate()))
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=True
    )
    assert run.stdout == "ended 3\n"  # the two lookups are still running
