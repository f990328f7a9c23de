"""What plain aiomcache does in the situations that it is hardened against: the reason for each override, still there.

Each scenario tells whether it went wrong. With the hardened client it must not. With the plain one it must; when a release
fixes it, its test is skipped with a notice that names the override that can go.
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
from evcache.zones.transport.classic.client import ClassicClient
from evcache.zones.transport.classic.pool import PoolLimits
from tests.support.streams import SOON, dialer, settled

TURNS = 200  # of the event loop, in which whoever is not woken will not be woken any more

# A call that never gives the event loop a turn takes no longer than this: its process is ended by a signal.
FROZEN_SECONDS = 0.5


def plain(address):
    host, _, port = address.rpartition(":")
    return aiomcache.Client(host, int(port), pool_size=1)


def hardened(address):
    return ClassicClient(dialer(address), PoolLimits(connections=1), connect_timeout=SOON)


class Holding(FakeMemcached):
    """A server that can hold its answers, and knows what it was sent meanwhile."""

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
    """#489: it returns the other key's value."""
    await client.set(b"a", b"of a")
    await client.set(b"b", b"of b")
    await cancel_once_sent(server, client.get(b"a"), b"get a\r\n")
    return await client.get(b"b") != b"of b"


async def an_add_after_a_cancelled_set(client, server):
    """#489: it says that it has stored what it has not: a lock that two hold."""
    await client.set(b"lock", b"mine")
    await cancel_once_sent(server, client.set(b"other", b"x"), b"set other")
    return await client.add(b"lock", b"yours")


async def an_incr_after_a_cancelled_incr(client, server):
    """#489: it returns the other counter's number."""
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
    for _ in range(3):  # some of the value has arrived, and not all of it
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
    """It sleeps until somebody else happens to call."""
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
    """It drops out of the command, and the value runs as one."""
    await client.set(b"k", b"v")
    with contextlib.suppress(aiomcache.ClientException):
        await client.cas(b"k", b"flush_all", 0)
    await settled(lambda: server.commands["cas"] == 1)
    return server.commands["flush_all"] == 1


async def a_value_with_flags(client, server):
    """It can't be read."""
    server.session().receive(b"set k 256 0 1\r\n1\r\n")
    try:
        return await client.get(b"k") != (b"1", 256)
    except aiomcache.ClientException:
        return True


async def a_key_that_is_not_utf8(client, server):
    """It is an error of another kind than for a bad key."""
    try:
        return await client.get(b"\xff") is not None
    except UnicodeDecodeError:
        return True


async def a_bounded_pool_when_it_is_cold(client, server):
    """It opens a connection for each who waits."""
    await asyncio.gather(*(client.get(b"k") for _ in range(20)))
    return server.connections_total > 1


SCENARIOS = {
    a_get_after_a_cancelled_get: "ClassicPool.release and exchange (#489)",
    an_add_after_a_cancelled_set: "ClassicPool.release and exchange (#489)",
    an_incr_after_a_cancelled_incr: "ClassicPool.release and exchange (#489)",
    a_get_after_half_a_value: "ClassicPool.release and exchange (#489)",
    a_waiter_whose_connection_is_lost: "ClassicPool.acquire",
    a_bad_key: "the check of keys before a connection is taken",
    a_cas_token_of_0: "ClassicClient._storage_command",
    a_value_with_flags: "the flag handlers",
    a_key_that_is_not_utf8: "ClassicClient._validate_key",
    a_bounded_pool_when_it_is_cold: "ClassicPool.acquire",
}


def went_wrong(make, scenario):
    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # plain aiomcache leaves some behind
        async with Holding(classic_only=True) as server, asyncio.timeout(2 * SOON):
            client = make(server.address)
            try:
                return await scenario(client, server)
            finally:
                await client.close()

    return asyncio.run(main())


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_the_hardened_client_does_it_right(scenario):
    assert not went_wrong(hardened, scenario)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_plain_aiomcache_does_not(scenario):
    if not went_wrong(plain, scenario):
        fixed(scenario.__name__, SCENARIOS[scenario])


def fixed(what, override):
    """A notice, and no failure: there is less to do than before."""
    pytest.skip(f"NOTICE: aiomcache {aiomcache.__version__} fixed {what}: {override} can go")


# A server that closes when it has the request; a plain client that calls it, in a process of its own.
FROZEN = """
    import asyncio, signal, sys
    import aiomcache

    async def close_at_once(reader, writer):
        await reader.readline()
        writer.close()

    async def main():
        server = await asyncio.start_server(close_at_once, "127.0.0.1", 0)
        client = aiomcache.Client("127.0.0.1", server.sockets[0].getsockname()[1], pool_size=1)
        signal.setitimer(signal.ITIMER_REAL, {seconds})  # ends the process: no timer of the event loop will
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
def test_a_server_that_closes_freezes_the_event_loop_of_plain_aiomcache(call):
    """Not even a timeout gets a turn. For the hardened client see test_hardened.py, which has every command."""
    script = textwrap.dedent(FROZEN).format(seconds=FROZEN_SECONDS, call=call)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    if "ended with" in done.stdout:
        fixed("the end of the stream (#502, PR #503)", "ClassicClient._execute_simple_command")
    assert done.returncode == -signal.SIGALRM, done.stderr
