"""Contract of LocalZones for each backend: processes, containers, embedded servers and the automatic choice.

A test module inherits from `LocalZonesContract` and defines a fixture `make`. It returns zones that are not started, for a
mapping of names to numbers of nodes.
"""

import asyncio
import contextlib
import errno
import gc
import os
import socket
import threading
from pathlib import Path

import pytest

from evcache.testing.backends import base

LIMIT = 30  # seconds after which a test that hangs is ended
SILENCE = 0.05  # seconds without an answer, after which a server counts as paused


def children():
    """Return the command lines of child processes by pid, zombies included."""
    found = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # the process has ended
            parent = status.read_text().rpartition(")")[2].split()[1]
            if int(parent) == os.getpid():
                found[int(status.parent.name)] = (status.parent / "cmdline").read_text()
    return found


def run(scenario):
    """Run a coroutine function. Afterwards no task, process or socket may be left."""
    before = children()

    async def main():
        async with asyncio.timeout(LIMIT):
            await scenario()
        # Transports close in the next iterations of the loop.
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0.001)

    asyncio.run(main())
    gc.collect()  # an unclosed socket, file or subprocess is a ResourceWarning, and so an error
    assert children() == before


class Connection:
    """A connection to one server, closed at the end of an `async with` block."""

    def __init__(self, address):
        self.host, _, self.port = address.rpartition(":")

    async def __aenter__(self):
        self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
        return self

    async def __aexit__(self, *exc):
        self.writer.transport.abort()

    async def ask(self, command):
        self.writer.write(command + b"\r\n")
        return await self.reader.readline()


async def ask(address, command=b"mn"):
    """Send a command on a new connection and return the first line of the answer."""
    async with Connection(address) as connection:
        return await connection.ask(command)


async def refuses(address):
    """Check that the address refuses connections."""
    with pytest.raises(ConnectionRefusedError):
        await ask(address)


def is_free(address):
    """Return True if the system gives the port to another socket."""
    host, _, port = address.rpartition(":")
    with socket.socket() as other:
        try:
            other.bind((host, int(port)))
        except OSError as error:
            assert error.errno == errno.EADDRINUSE
            return False
        return True


class LocalZonesContract:
    """Tests that hold for each backend."""

    cancellations = tuple(range(20))
    """Numbers of loop iterations after which a start is cancelled."""

    def test_each_node_answers_on_its_own_port(self, make):
        async def scenario():
            async with make({"eu-1a": 2, "eu-1b": 1}) as zones:
                assert {zone: len(nodes) for zone, nodes in zones.zones.items()} == {"eu-1a": 2, "eu-1b": 1}
                addresses = sum(zones.zones.values(), [])
                assert len(set(addresses)) == 3
                for address in addresses:
                    assert await ask(address, b"version") == f"VERSION {zones.version}\r\n".encode()
                assert zones.is_up("eu-1a") and zones.is_up("eu-1b")
            for address in addresses:
                await refuses(address)

        run(scenario)

    def test_killed_zone_loses_its_connections_and_refuses_new_ones(self, make):
        async def scenario():
            async with make({"a": 2, "b": 1}) as zones:
                async with Connection(zones.zones["a"][0]) as connection:
                    assert await connection.ask(b"mn") == b"MN\r\n"
                    await zones.kill("a")
                    with contextlib.suppress(ConnectionResetError):
                        assert await connection.reader.read() == b""
                assert not zones.is_up("a")
                assert zones.is_up("b")
                for address in zones.zones["a"]:
                    await refuses(address)
                assert await ask(zones.zones["b"][0]) == b"MN\r\n"
                await zones.kill("a")  # no effect

        run(scenario)

    def test_restarted_zone_is_empty_and_keeps_its_addresses(self, make):
        async def scenario():
            async with make({"a": 1}) as zones:
                before = zones.zones
                (address,) = before["a"]
                for was_killed in (True, False):
                    assert await ask(address, b"ms key 1\r\nx") == b"HD\r\n"
                    if was_killed:
                        await zones.kill("a")
                    await zones.restart("a")
                    assert zones.is_up("a")
                    assert zones.zones == before
                    assert await ask(address, b"mg key") == b"EN\r\n"

        run(scenario)

    def test_paused_zone_accepts_connections_and_answers_after_resume(self, make):
        async def scenario():
            async with make({"a": 1}) as zones:
                (address,) = zones.zones["a"]
                async with Connection(address) as early:
                    assert await early.ask(b"ms key 1\r\nx") == b"HD\r\n"
                    await zones.pause("a")
                    assert not zones.is_up("a")
                    async with Connection(address) as late:
                        answers = [asyncio.create_task(each.ask(b"mg key v")) for each in (early, late)]
                        done, _ = await asyncio.wait(answers, timeout=SILENCE)
                        assert not done
                        await zones.resume("a")
                        assert zones.is_up("a")
                        assert await asyncio.gather(*answers) == [b"VA 1\r\n", b"VA 1\r\n"]
                await zones.resume("a")  # no effect

        run(scenario)

    def test_paused_zone_can_be_killed_and_is_not_paused_after_its_restart(self, make):
        async def scenario():
            async with make({"a": 1}) as zones:
                (address,) = zones.zones["a"]
                async with Connection(address) as connection:
                    assert await connection.ask(b"mn") == b"MN\r\n"
                    await zones.pause("a")
                    connection.writer.write(b"mn\r\n")
                    await zones.kill("a")
                    with contextlib.suppress(ConnectionResetError):
                        assert await connection.reader.read() == b""  # the server did not answer before its end
                await refuses(address)
                await zones.restart("a")
                assert await ask(address) == b"MN\r\n"
                await zones.pause("a")
                await zones.restart("a")
                assert await ask(address) == b"MN\r\n"
                await zones.pause("a")  # `stop` removes a paused zone too

        run(scenario)

    def test_one_node_of_a_zone_can_be_killed_and_paused(self, make):
        async def scenario():
            async with make({"a": 2}) as zones:
                first, second = zones.zones["a"]
                await zones.kill("a", node=1)
                assert zones.is_up("a", node=0)
                assert not zones.is_up("a", node=1)
                assert not zones.is_up("a")
                assert await ask(first) == b"MN\r\n"
                await zones.pause("a", node=0)
                assert not zones.is_up("a", node=0)
                await zones.resume("a", node=0)
                await zones.restart("a", node=1)
                assert zones.is_up("a")
                assert await ask(second) == b"MN\r\n"

        run(scenario)

    def test_operations_on_one_node_are_serialized(self, make):
        async def scenario():
            async with make({"a": 1}) as zones:
                await asyncio.gather(*[operation("a") for operation in (zones.kill, zones.restart) for _ in range(3)])
                await zones.restart("a")
                assert await ask(zones.zones["a"][0]) == b"MN\r\n"

        run(scenario)

    def test_start_and_stop_may_be_repeated(self, make):
        async def scenario():
            zones = make({"a": 1})
            await zones.stop()
            for _ in range(2):
                await zones.start()
                before = zones.zones
                await zones.start()
                assert zones.zones == before
                assert await ask(before["a"][0]) == b"MN\r\n"
                await zones.stop()
                await zones.stop()

        run(scenario)

    def test_port_stays_reserved_while_a_zone_is_dead_and_is_free_after_stop(self, make):
        async def scenario():
            async with make({"a": 1}) as zones:
                (address,) = zones.zones["a"]
                await zones.kill("a")
                assert not is_free(address)
            assert is_free(address)

        run(scenario)

    def test_node_whose_port_is_in_use_gets_another(self, make, monkeypatch):
        async def scenario():
            with socket.create_server(("127.0.0.1", 0)) as other:
                taken = other.getsockname()[1]

                class TakenPort(base.ReservedPort):
                    numbers = iter([taken])

                    def __init__(self, host):
                        super().__init__(host)
                        self.number = next(self.numbers, self.number)

                monkeypatch.setattr("evcache.testing.local_zones.ReservedPort", TakenPort)
                async with make({"a": 1}) as zones:
                    assert zones.zones["a"] != [f"127.0.0.1:{taken}"]
                    assert await ask(zones.zones["a"][0]) == b"MN\r\n"

        run(scenario)

    def test_own_addresses_give_each_node_its_own_one_also_after_a_restart(self, make):
        async def scenario():
            async with make({"a": 2, "b": 1}, own_addresses=True) as zones:
                hosts = {zone: [address.rpartition(":")[0] for address in nodes] for zone, nodes in zones.zones.items()}
                assert hosts == {"a": ["127.1.0.1", "127.1.0.2"], "b": ["127.1.1.1"]}
                await zones.kill("b")
                await zones.restart("b")
                for address in [*zones.zones["a"], *zones.zones["b"]]:
                    assert await ask(address) == b"MN\r\n"
                    other = "127.0.0.1:" + address.rpartition(":")[2]
                    with pytest.raises(ConnectionRefusedError):
                        await ask(other)

        run(scenario)

    def test_cancelled_start_leaves_no_server(self, make):
        async def scenario():
            before = children(), self.other_servers()
            for turns in self.cancellations:
                zones = make({"a": 1, "b": 1})
                starting = asyncio.create_task(zones.start())
                for _ in range(turns):
                    await asyncio.sleep(0)
                starting.cancel()
                await asyncio.wait([starting])
                if starting.cancelled():
                    assert (children(), self.other_servers()) == before
                    with pytest.raises(RuntimeError):
                        str(zones.zones)
                await zones.stop()

        run(scenario)

    def test_cancelled_stop_removes_all_servers(self, make):
        async def scenario():
            zones = make({"a": 1, "b": 1})
            await zones.start()
            addresses = sum(zones.zones.values(), [])
            stopping = asyncio.create_task(zones.stop())
            await asyncio.sleep(0)
            stopping.cancel()
            await asyncio.wait([stopping])
            assert stopping.cancelled()
            for address in addresses:
                await refuses(address)

        run(scenario)

    def test_blocking_form_serves_several_event_loops(self, make):
        before, threads = children(), set(threading.enumerate())
        with make({"a": 2}).running() as zones:
            first, second = zones.zones["a"]
            for _ in range(2):
                assert asyncio.run(ask(first, b"version")) == f"VERSION {zones.version}\r\n".encode()
            zones.kill("a", node=0)
            assert not zones.is_up("a")
            assert zones.is_up("a", node=1)
            asyncio.run(refuses(first))
            zones.restart("a")
            zones.pause("a")
            assert not zones.is_up("a")
            zones.resume("a")
            assert asyncio.run(ask(second)) == b"MN\r\n"
            with pytest.raises(ValueError, match="unknown zone 'c'"):
                zones.kill("c")
        asyncio.run(refuses(second))
        assert [one for one in threading.enumerate() if one not in threads and one.name == "evcache-zones"] == []
        assert children() == before

    def other_servers(self):
        """Return the servers of this process that are not its children."""
        return []
