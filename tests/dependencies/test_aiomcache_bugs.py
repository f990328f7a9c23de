"""Faults of aiomcache for which the classic transport has a client and a pool of its own.

A scenario returns True if aiomcache fails. When a release fixes a fault, its test is skipped with a notice that names the
code that can use aiomcache again. `make dependencies` runs these tests, since they change only with the lock file.
"""

import asyncio
import contextlib
import signal
import subprocess
import sys
import textwrap

import aiomcache
import pytest

from evcache.zones.testing import FakeMemcached
from tests.support.streams import SOON, settled

pytestmark = pytest.mark.dependencies

TURNS = 200  # iterations of the event loop in which a waiting call would wake

# Seconds after which a signal ends a process whose event loop is blocked.
FROZEN_SECONDS = 0.5


def client_of(address):
    host, _, port = address.rpartition(":")
    return aiomcache.Client(host, int(port), pool_size=1)


class Holding(FakeMemcached):
    """Server that can hold its replies, and shows the requests that it has received."""

    def held(self):
        return b"".join(bytes(connection._requests) for connection in self._sockets)


async def cancel_once_sent(server, call, line):
    server.pause()
    task = asyncio.create_task(call)
    await settled(lambda: line in server.held())
    task.cancel()
    await asyncio.wait([task])
    server.resume()


async def a_get_after_a_cancelled_get(client, server):
    """#489: it returns the value of the first key."""
    await client.set(b"a", b"of a")
    await client.set(b"b", b"of b")
    await cancel_once_sent(server, client.get(b"a"), b"get a\r\n")
    return await client.get(b"b") != b"of b"


async def an_add_after_a_cancelled_set(client, server):
    """#489: it reports a store that did not happen: two callers hold the lock."""
    await client.set(b"lock", b"mine")
    await cancel_once_sent(server, client.set(b"other", b"x"), b"set other")
    return await client.add(b"lock", b"yours")


async def an_incr_after_a_cancelled_incr(client, server):
    """#489: it returns the number of the first counter."""
    await client.set(b"a", b"110")
    await client.set(b"b", b"4")
    await cancel_once_sent(server, client.incr(b"a"), b"incr a 1\r\n")
    return await client.incr(b"b") != 5


async def a_get_after_half_a_value(client, server):
    """#489: the rest of the value is read as the next reply."""
    await client.set(b"big", b"END\r\n" * 100_000)
    await client.set(b"b", b"of b")
    reading = asyncio.create_task(client.get(b"big"))
    await settled(lambda: server.commands["get"] == 1)
    for _ in range(3):  # until a part of the value has arrived
        await asyncio.sleep(0)
    if reading.done():
        pytest.fail("the value arrived too fast for this test")
    reading.cancel()
    await asyncio.wait([reading])
    try:
        return await client.get(b"b") != b"of b"
    except Exception:
        return True


async def a_waiter_whose_connection_is_lost(client, server):
    """It sleeps until the next call."""
    server.pause()
    holds = asyncio.create_task(client.get(b"a"))
    await settled(lambda: b"get a\r\n" in server.held())
    waits = asyncio.create_task(client.get(b"b"))
    await asyncio.sleep(0)
    for connection in list(server._sockets):
        connection._transport.abort()
    server.resume()
    await asyncio.wait([holds])
    holds.exception()
    for _ in range(TURNS):
        await asyncio.sleep(0)
    asleep = not waits.done() and server.connections_total == 1
    if asleep:
        waits.cancel()
    await asyncio.wait([waits])
    return asleep


async def a_bad_key(client, server):
    """It costs a connection."""
    await client.get(b"a")
    for _ in range(3):
        with pytest.raises(aiomcache.ValidationException):
            await client.get(b"a b")
    await client.get(b"a")
    return server.connections_total > 1


async def a_cas_token_of_0(client, server):
    """It is left out of the command, and the server runs the value as a command."""
    await client.set(b"k", b"v")
    with contextlib.suppress(aiomcache.ClientException):
        await client.cas(b"k", b"flush_all", 0)
    await settled(lambda: server.commands["cas"] == 1)
    return server.commands["flush_all"] == 1


async def a_value_with_flags(client, server):
    """It cannot be read."""
    server.session().receive(b"set k 256 0 1\r\n1\r\n")
    try:
        return await client.get(b"k") != (b"1", 256)
    except aiomcache.ClientException:
        return True


async def a_key_that_is_not_utf8(client, server):
    """Its error differs from that for an invalid key."""
    try:
        return await client.get(b"\xff") is not None
    except UnicodeDecodeError:
        return True


async def a_bounded_pool_when_it_is_cold(client, server):
    """It opens a connection for each waiting call."""
    await asyncio.gather(*(client.get(b"k") for _ in range(20)))
    return server.connections_total > 1


SCENARIOS = {
    a_get_after_a_cancelled_get: "ClassicPool.lend (#489)",
    an_add_after_a_cancelled_set: "ClassicPool.lend (#489)",
    an_incr_after_a_cancelled_incr: "ClassicPool.lend (#489)",
    a_get_after_half_a_value: "ClassicPool.lend (#489)",
    a_waiter_whose_connection_is_lost: "ClassicPool.lend",
    a_bad_key: "the check of keys before a connection is taken",
    a_cas_token_of_0: "ClassicClient.store",
    a_value_with_flags: "ClassicClient.fetch",
    a_key_that_is_not_utf8: "the check of keys",
    a_bounded_pool_when_it_is_cold: "ClassicPool.lend",
}


def fails(scenario):
    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # aiomcache leaves some behind
        async with Holding(classic_only=True) as server, asyncio.timeout(2 * SOON):
            client = client_of(server.address)
            try:
                return await scenario(client, server)
            finally:
                await client.close()

    return asyncio.run(main())


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_aiomcache_fails(scenario):
    if not fails(scenario):
        fixed(scenario.__name__, SCENARIOS[scenario])


def fixed(what, replacement):
    """Skip with a notice: the project can drop code."""
    pytest.skip(f"NOTICE: aiomcache {aiomcache.__version__} fixed {what}: it can replace {replacement}")


# A server that closes when it has the request, and a client that calls it, in their own process.
FROZEN = """
    import asyncio, signal, sys
    import aiomcache

    async def close_at_once(reader, writer):
        await reader.readline()
        writer.close()

    async def main():
        server = await asyncio.start_server(close_at_once, "127.0.0.1", 0)
        client = aiomcache.Client("127.0.0.1", server.sockets[0].getsockname()[1], pool_size=1)
        signal.setitimer(signal.ITIMER_REAL, {seconds})  # ends the process: a blocked event loop runs no timer
        try:
            async with asyncio.timeout({seconds} / 5):
                await client.{call}
        except Exception as error:
            print("ended with", type(error).__name__)
        server.close()

    asyncio.run(main())
"""
ONE_LINE = ["set(b'k', b'v')", "delete(b'k')", "incr(b'k')", "touch(b'k', 5)", "version()", "flush_all()"]


@pytest.mark.parametrize("call", ONE_LINE)
def test_a_server_that_closes_blocks_the_event_loop_of_aiomcache(call):
    """No timeout ends the call."""
    script = textwrap.dedent(FROZEN).format(seconds=FROZEN_SECONDS, call=call)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    if "ended with" in done.stdout:
        fixed("the end of the stream (#502, PR #503)", "ClassicClient")
    assert done.returncode == -signal.SIGALRM, done.stderr
