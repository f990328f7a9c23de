"""LocalZones, on the servers that need no container: one contract, run on each of them."""

import asyncio
import contextlib
import errno
import gc
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from evcache.testing import BackendUnavailable, LocalZones
from evcache.testing.backends import base, embedded, process

BINARY = process.find_binary()

needs_memcached = pytest.mark.skipif(BINARY is None, reason="no memcached on PATH or in EVCACHE_MEMCACHED")

every_backend = pytest.mark.parametrize(
    "backend",
    ["embedded", pytest.param("memcached", marks=[pytest.mark.memcached, needs_memcached])],
)

LIMIT = 20  # seconds after which a test that hangs is ended
SILENCE = 0.02  # seconds without an answer, after which a server counts as paused


def run(scenario):
    """Run a coroutine function; afterwards no task, process or socket may be left."""

    async def main():
        async with asyncio.timeout(LIMIT):
            await scenario()
        # transports close in the next turns of the loop
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0.001)

    asyncio.run(main())
    gc.collect()  # an unclosed socket, file or subprocess is a ResourceWarning, and so an error
    assert children() == {}


def children():
    """Command lines by pid of the processes that this one started, dead ones that were not waited for included."""
    found = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            parent = status.read_text().rpartition(")")[2].split()[1]
            if int(parent) == os.getpid():
                found[int(status.parent.name)] = (status.parent / "cmdline").read_text()
    return found


async def ask(address, command=b"version"):
    """Send a command on a connection of its own; the first line of the answer."""
    async with Connection(address) as connection:
        return await connection.ask(command)


class Connection:
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


def can_be_bound(address):
    """Whether the system gives the port to others."""
    host, _, port = address.rpartition(":")
    with socket.socket() as other:
        try:
            other.bind((host, int(port)))
        except OSError as error:
            assert error.errno == errno.EADDRINUSE
            return False
        return True


@every_backend
def test_every_node_of_every_zone_answers_on_a_port_of_its_own(backend):
    async def scenario():
        async with LocalZones({"eu-1a": 2, "eu-1b": 1}, backend=backend) as zones:
            assert {zone: len(nodes) for zone, nodes in zones.zones.items()} == {"eu-1a": 2, "eu-1b": 1}
            addresses = sum(zones.zones.values(), [])
            assert len(set(addresses)) == 3
            for address in addresses:
                assert await ask(address) == f"VERSION {zones.version}\r\n".encode()
            assert zones.backend == backend
            assert zones.is_up("eu-1a") and zones.is_up("eu-1b")
        for address in addresses:
            with pytest.raises(ConnectionRefusedError):
                await ask(address)

    run(scenario)


@every_backend
def test_a_killed_zone_loses_its_connections_and_refuses_new_ones(backend):
    async def scenario():
        async with LocalZones(["a", "b"], nodes_per_zone=2, backend=backend) as zones:
            async with Connection(zones.zones["a"][0]) as connection:
                assert await connection.ask(b"mn") == b"MN\r\n"
                await zones.kill("a")
                with contextlib.suppress(ConnectionResetError):
                    assert await connection.reader.read() == b""
            assert not zones.is_up("a")
            assert zones.is_up("b")
            for address in zones.zones["a"]:
                with pytest.raises(ConnectionRefusedError):
                    await ask(address)
            assert await ask(zones.zones["b"][0], b"mn") == b"MN\r\n"
            await zones.kill("a")  # no effect

    run(scenario)


@every_backend
def test_a_restarted_zone_is_empty_and_has_its_addresses(backend):
    async def scenario():
        async with LocalZones(["a"], backend=backend) as zones:
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


@every_backend
def test_a_paused_zone_takes_connections_and_answers_after_resume(backend):
    async def scenario():
        async with LocalZones(["a"], backend=backend) as zones:
            (address,) = zones.zones["a"]
            async with Connection(address) as early:
                await early.ask(b"mn")
                await zones.pause("a")
                assert not zones.is_up("a")
                async with Connection(address) as late:
                    answers = [asyncio.create_task(each.ask(b"mn")) for each in (early, late)]
                    done, _ = await asyncio.wait(answers, timeout=SILENCE)
                    assert not done
                    await zones.resume("a")
                    assert zones.is_up("a")
                    assert await asyncio.gather(*answers) == [b"MN\r\n", b"MN\r\n"]
            await zones.resume("a")  # no effect

    run(scenario)


@every_backend
def test_a_paused_zone_can_be_killed_and_does_not_come_back_paused(backend):
    async def scenario():
        async with LocalZones(["a"], backend=backend) as zones:
            (address,) = zones.zones["a"]
            await zones.pause("a")
            await zones.kill("a")
            with pytest.raises(ConnectionRefusedError):
                await ask(address)
            await zones.restart("a")
            assert await ask(address, b"mn") == b"MN\r\n"
            await zones.pause("a")
            await zones.restart("a")
            assert await ask(address, b"mn") == b"MN\r\n"
            await zones.pause("a")  # and stop() copes with it

    run(scenario)


@every_backend
def test_one_node_of_a_zone_can_be_meant(backend):
    async def scenario():
        async with LocalZones(["a"], nodes_per_zone=2, backend=backend) as zones:
            await zones.kill("a", node=1)
            assert zones.is_up("a", node=0)
            assert not zones.is_up("a", node=1)
            assert not zones.is_up("a")
            await zones.pause("a", node=0)
            assert not zones.is_up("a", node=0)
            await zones.resume("a", node=0)
            await zones.restart("a", node=1)
            assert zones.is_up("a")

    run(scenario)


@every_backend
def test_operations_on_one_node_wait_for_each_other(backend):
    async def scenario():
        async with LocalZones(["a"], backend=backend) as zones:
            await asyncio.gather(*[operation("a") for operation in (zones.kill, zones.restart) for _ in range(5)])
            await zones.restart("a")
            assert await ask(zones.zones["a"][0], b"mn") == b"MN\r\n"

    run(scenario)


@every_backend
def test_start_and_stop_are_idempotent_and_may_be_repeated(backend):
    async def scenario():
        zones = LocalZones(["a"], backend=backend)
        await zones.stop()
        for _ in range(2):
            await zones.start()
            before = zones.zones
            await zones.start()
            assert zones.zones == before
            assert await ask(before["a"][0], b"mn") == b"MN\r\n"
            await zones.stop()
            await zones.stop()

    run(scenario)


@every_backend
def test_ports_stay_reserved_while_a_zone_is_dead_and_are_free_after_stop(backend):
    async def scenario():
        async with LocalZones(["a"], backend=backend) as zones:
            (address,) = zones.zones["a"]
            await zones.kill("a")
            assert not can_be_bound(address)
        assert can_be_bound(address)

    run(scenario)


@every_backend
def test_a_node_whose_port_is_taken_moves_to_another(backend, monkeypatch):
    async def scenario():
        with socket.create_server(("127.0.0.1", 0)) as other:
            taken = other.getsockname()[1]

            class Unlucky(base.ReservedPort):
                numbers = iter([taken])

                def __init__(self):
                    super().__init__()
                    self.number = next(self.numbers, self.number)

            monkeypatch.setattr("evcache.testing.local_zones.ReservedPort", Unlucky)
            async with LocalZones(["a"], backend=backend) as zones:
                assert zones.zones["a"] != [f"127.0.0.1:{taken}"]
                assert await ask(zones.zones["a"][0], b"mn") == b"MN\r\n"

    run(scenario)


@every_backend
def test_a_start_that_is_cancelled_leaves_nothing(backend):
    async def scenario():
        for turns in range(20):
            zones = LocalZones(["a", "b"], backend=backend)
            starting = asyncio.create_task(zones.start())
            for _ in range(turns):
                await asyncio.sleep(0)
            starting.cancel()
            await asyncio.wait([starting])
            if starting.cancelled():
                assert children() == {}
                with pytest.raises(RuntimeError):
                    str(zones.zones)
            await zones.stop()

    run(scenario)


@every_backend
def test_a_stop_that_is_cancelled_still_removes_everything(backend):
    async def scenario():
        zones = LocalZones(["a", "b"], backend=backend)
        await zones.start()
        addresses = sum(zones.zones.values(), [])
        stopping = asyncio.create_task(zones.stop())
        await asyncio.sleep(0)
        stopping.cancel()
        await asyncio.wait([stopping])
        assert stopping.cancelled()
        for address in addresses:
            with pytest.raises(ConnectionRefusedError):
                await ask(address)

    run(scenario)


def test_a_start_that_fails_half_way_leaves_nothing(monkeypatch):
    class Failing(embedded.EmbeddedBackend):
        nodes = []

        def node(self, port):
            self.nodes.append(super().node(port))
            if len(self.nodes) == 3:
                self.nodes[-1].start = self.fail
            return self.nodes[-1]

        async def fail(self):
            raise BackendUnavailable("the third one does not start")

    monkeypatch.setattr("evcache.testing.local_zones.EmbeddedBackend", Failing)

    async def scenario():
        zones = LocalZones(backend="embedded")
        with pytest.raises(BackendUnavailable, match="the third one"):
            await zones.start()
        assert not any(node.is_up for node in Failing.nodes)
        with pytest.raises(RuntimeError):
            str(zones.zones)

    run(scenario)


@every_backend
def test_running_serves_code_without_a_loop_and_with_several(backend):
    with LocalZones({"a": 2}, backend=backend).running() as zones:
        assert zones.backend == backend
        first, second = zones.zones["a"]
        for _ in range(2):
            assert asyncio.run(ask(first)) == f"VERSION {zones.version}\r\n".encode()
        zones.kill("a", node=0)
        assert not zones.is_up("a")
        assert zones.is_up("a", node=1)
        with pytest.raises(ConnectionRefusedError):
            asyncio.run(ask(first))
        zones.restart("a")
        zones.pause("a")
        assert not zones.is_up("a")
        zones.resume("a")
        assert asyncio.run(ask(second, b"mn")) == b"MN\r\n"
        with pytest.raises(ValueError, match="no zone 'c'"):
            zones.kill("c")
    with pytest.raises(ConnectionRefusedError):
        asyncio.run(ask(second))
    assert not [thread for thread in threading.enumerate() if thread.name == "evcache-zones"]
    assert children() == {}


def test_running_cleans_up_after_errors():
    with pytest.raises(ZeroDivisionError), LocalZones(backend="embedded").running():
        raise ZeroDivisionError
    with pytest.raises(BackendUnavailable), LocalZones(backend="memcached", binary="/no/such").running():
        raise AssertionError("not reached")
    assert not [thread for thread in threading.enumerate() if thread.name == "evcache-zones"]


@pytest.mark.memcached
@needs_memcached
def test_processes_die_with_the_program_even_by_sigkill():
    program = """
        import asyncio, os, signal
        from evcache.testing import LocalZones

        async def main():
            zones = LocalZones(backend="memcached")
            await zones.start()
            await zones.pause("local-b")
            print(" ".join(nodes[0] for nodes in zones.zones.values()), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

        asyncio.run(main())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == -signal.SIGKILL
    addresses = done.stdout.split()
    assert len(addresses) == 3

    async def gone(address):
        while True:
            try:
                await ask(address)
            except ConnectionRefusedError:
                return
            except OSError:
                pass
            await asyncio.sleep(0.005)

    async def scenario():
        for address in addresses:
            await asyncio.wait_for(gone(address), LIMIT)

    run(scenario)


@pytest.mark.memcached
@needs_memcached
def test_a_process_that_ends_by_itself_is_noticed():
    async def scenario():
        async with LocalZones(["a"], backend="memcached") as zones:
            (pid,) = [pid for pid, command in children().items() if "memcached" in command]
            os.kill(pid, signal.SIGKILL)
            while zones.is_up("a"):
                await asyncio.sleep(0.001)
            with pytest.raises(RuntimeError, match="does not run"):
                await zones.pause("a")
            await zones.restart("a")
            assert zones.is_up("a")

    run(scenario)


@pytest.mark.memcached
@needs_memcached
def test_extra_args_reach_the_server_and_its_complaints_reach_the_caller():
    async def scenario():
        zones = LocalZones(["a"], backend="memcached", extra_args=["-I", "2m"])
        async with zones, Connection(zones.zones["a"][0]) as connection:
            line = await connection.ask(b"stats settings")
            while not line.startswith(b"STAT item_size_max"):
                line = await connection.reader.readline()
            assert line == b"STAT item_size_max 2097152\r\n"
        with pytest.raises(BackendUnavailable, match="(?i)item.*size"):
            await LocalZones(["a"], backend="memcached", extra_args=["-I", "1"]).start()

    run(scenario)


def test_auto_takes_processes_where_there_is_a_binary_and_embedded_servers_elsewhere(monkeypatch):
    async def scenario():
        async with LocalZones(["a"]) as zones:
            assert zones.backend == ("memcached" if BINARY else "embedded")
        monkeypatch.setenv("PATH", "/no/such/folder")
        monkeypatch.delenv("EVCACHE_MEMCACHED", raising=False)
        async with LocalZones(["a"]) as zones:
            assert zones.backend == "embedded"
        with pytest.raises(BackendUnavailable, match="no memcached on PATH"):
            await LocalZones(["a"], backend="memcached").start()
        with pytest.raises(BackendUnavailable, match="extra_args"):
            await LocalZones(["a"], extra_args=["-I", "2m"]).start()

    run(scenario)


def test_the_binary_is_the_named_one_then_the_first_of_the_variable_then_the_one_on_path(monkeypatch, tmp_path):
    for name in ("named", "first", "second", "memcached"):
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("EVCACHE_MEMCACHED", raising=False)
    assert process.find_binary() == str(tmp_path / "memcached")
    monkeypatch.setenv("EVCACHE_MEMCACHED", f"{tmp_path}/first:{tmp_path}/second")
    assert process.find_binary() == str(tmp_path / "first")
    assert process.find_binary(str(tmp_path / "named")) == str(tmp_path / "named")
    monkeypatch.setenv("EVCACHE_MEMCACHED", "/no/such/memcached")
    with pytest.raises(BackendUnavailable, match="EVCACHE_MEMCACHED"):
        process.find_binary()


def test_docker_without_its_extra_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "evcache.testing.backends.docker", None)

    async def scenario():
        with pytest.raises(BackendUnavailable, match=r"pip install 'evcache\[docker\]'"):
            await LocalZones(backend="docker").start()

    run(scenario)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"zones": "eu-1a"}, "one string"),
        ({"zones": []}, "at least one zone"),
        ({"zones": {}}, "at least one zone"),
        ({"zones": ["a", ""]}, "needs a name"),
        ({"zones": ["a", "a"]}, "named twice"),
        ({"zones": {"a": 0}}, "at least one node"),
        ({"zones": ["a"], "nodes_per_zone": 0}, "at least one node"),
        ({"zones": {"a": 1}, "nodes_per_zone": 2}, "nodes_per_zone"),
        ({"backend": "podman"}, "'podman' is none of"),
    ],
)
def test_mistakes_in_the_arguments_are_told_by_the_constructor(arguments, message):
    with pytest.raises(ValueError, match=message):
        LocalZones(**arguments)


def test_mistakes_in_calls_are_errors():
    async def scenario():
        zones = LocalZones(["a"], backend="embedded")
        for ask_too_early in (lambda: zones.zones, lambda: zones.backend, lambda: zones.version, lambda: zones.is_up("a")):
            with pytest.raises(RuntimeError, match="not running"):
                ask_too_early()
        with pytest.raises(RuntimeError, match="not running"):
            await zones.kill("a")
        async with zones:
            with pytest.raises(ValueError, match="no zone 'b'; there are a"):
                await zones.kill("b")
            with pytest.raises(ValueError, match="nodes 0 to 0"):
                await zones.pause("a", node=1)
            await zones.kill("a")
            with pytest.raises(RuntimeError, match="does not run"):
                await zones.pause("a")

    run(scenario)
