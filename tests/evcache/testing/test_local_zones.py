"""LocalZones on servers that need no container: the contract, and cases of one backend."""

import asyncio
import functools
import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from evcache.testing import BackendUnavailable, LocalZones
from evcache.testing.backends import embedded, process
from tests.contracts.local_zones_contract import LIMIT, Connection, LocalZonesContract, ask, children, run

BINARY = process.find_binary()

needs_memcached = pytest.mark.skipif(BINARY is None, reason="no memcached on PATH or in EVCACHE_MEMCACHED")


@pytest.fixture(params=["embedded", "auto", pytest.param("memcached", marks=[pytest.mark.memcached, needs_memcached])])
def make(request):
    return functools.partial(LocalZones, backend=request.param)


class TestLocalZones(LocalZonesContract):
    pass


def test_start_that_fails_at_the_third_node_leaves_no_server(monkeypatch):
    class Failing(embedded.EmbeddedBackend):
        nodes = []

        def node(self, host, port):
            self.nodes.append(super().node(host, port))
            if len(self.nodes) == 3:
                self.nodes[-1].start = self.fail
            return self.nodes[-1]

        async def fail(self):
            raise BackendUnavailable("the third node does not start")

    monkeypatch.setattr("evcache.testing.local_zones.EmbeddedBackend", Failing)

    async def scenario():
        zones = LocalZones(backend="embedded")
        with pytest.raises(BackendUnavailable, match="the third node"):
            await zones.start()
        assert not any(node.is_up for node in Failing.nodes)
        with pytest.raises(RuntimeError):
            str(zones.zones)

    run(scenario)


def test_blocking_form_cleans_up_after_errors():
    threads = set(threading.enumerate())  # servers of the session have threads of the same name
    with pytest.raises(ZeroDivisionError), LocalZones(backend="embedded").running():
        raise ZeroDivisionError
    with pytest.raises(BackendUnavailable), LocalZones(backend="memcached", binary="/no/such").running():
        raise AssertionError("not reached")
    assert [one for one in threading.enumerate() if one not in threads and one.name == "evcache-zones"] == []


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
def test_end_of_a_process_is_noticed():
    others = children()  # servers of the session

    async def scenario():
        async with LocalZones(["a"], backend="memcached") as zones:
            (pid,) = [pid for pid, command in children().items() if pid not in others and "memcached" in command]
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
def test_extra_args_reach_the_server_and_its_errors_reach_the_caller():
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


def test_auto_uses_processes_if_there_is_a_binary_and_embedded_servers_otherwise(monkeypatch):
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


def test_find_binary_prefers_the_argument_then_the_variable_then_path(monkeypatch, tmp_path):
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


def test_docker_without_its_extra_names_the_installation(monkeypatch):
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
        ({"zones": ["a", ""]}, "each needs a name"),
        ({"zones": ["a", "a"]}, "duplicate zone name"),
        ({"zones": {"a": 0}}, "at least one node"),
        ({"zones": ["a"], "nodes_per_zone": 0}, "at least one node"),
        ({"zones": {"a": 1}, "nodes_per_zone": 2}, "nodes_per_zone"),
        ({"backend": "podman"}, "'podman' is none of"),
        ({"zones": {"a": 255}, "own_addresses": True}, "256 zones of 254 nodes"),
        ({"zones": [str(number) for number in range(257)], "own_addresses": True}, "256 zones of 254 nodes"),
    ],
)
def test_constructor_refuses_unusable_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        LocalZones(**arguments)


def test_calls_with_unusable_arguments_raise():
    async def scenario():
        zones = LocalZones(["a"], backend="embedded")
        for ask_too_early in (lambda: zones.zones, lambda: zones.backend, lambda: zones.version, lambda: zones.is_up("a")):
            with pytest.raises(RuntimeError, match="not running"):
                ask_too_early()
        with pytest.raises(RuntimeError, match="not running"):
            await zones.kill("a")
        async with zones:
            with pytest.raises(ValueError, match="unknown zone 'b': the zones are a"):
                await zones.kill("b")
            with pytest.raises(ValueError, match="nodes 0 to 0"):
                await zones.pause("a", node=1)
            await zones.kill("a")
            with pytest.raises(RuntimeError, match="does not run"):
                await zones.pause("a")

    run(scenario)
