"""LocalZones on real servers: what kill, pause, resume and restart mean on the wire, for containers and processes alike."""

import asyncio
import contextlib
import gc
import os
import shutil
import subprocess

import pytest

from evcache.testing import BackendUnavailable, LocalZones
from evcache.testing.backends.docker import LABEL

LIMIT = 30  # seconds after which a test that hangs is ended
SILENCE = 0.05  # seconds without an answer, after which a server counts as paused


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


async def ask(address, command=b"mn"):
    async with Connection(address) as connection:
        return await connection.ask(command)


def run(main):
    asyncio.run(asyncio.wait_for(main, LIMIT))


def containers():
    """Containers of this process, running or not."""
    if shutil.which("docker") is None:
        return []
    command = ["docker", "ps", "--all", "--quiet", "--filter", f"label={LABEL}={os.getpid()}"]
    return subprocess.run(command, capture_output=True, text=True).stdout.split()


def test_every_node_answers_with_the_version_of_its_zones(zones_of_each_kind):
    zones = zones_of_each_kind

    async def main():
        for nodes in zones.zones.values():
            for node in nodes:
                assert await ask(node, b"version") == f"VERSION {zones.version}\r\n".encode()

    assert sum(map(len, zones.zones.values())) == 6
    run(main())


def test_a_killed_zone_refuses_connections_and_comes_back_empty_on_its_addresses(zones_of_each_kind):
    zones = zones_of_each_kind
    before = zones.zones

    async def main():
        nodes = zones.zones["eu-1a"]
        async with Connection(nodes[0]) as connection:
            assert await connection.ask(b"ms key 1\r\nx") == b"HD\r\n"
            zones.kill("eu-1a")
            with contextlib.suppress(ConnectionResetError):
                assert await connection.reader.read() == b""
        assert not zones.is_up("eu-1a")
        for node in nodes:
            with pytest.raises(ConnectionRefusedError):
                await ask(node)
        assert await ask(zones.zones["eu-1b"][0]) == b"MN\r\n"

        zones.restart("eu-1a")
        assert zones.is_up("eu-1a")
        assert zones.zones == before
        assert await ask(nodes[0], b"mg key") == b"EN\r\n"
        assert await ask(nodes[1]) == b"MN\r\n"

    run(main())


def test_a_paused_zone_takes_connections_and_answers_after_resume(zones_of_each_kind):
    zones = zones_of_each_kind

    async def main():
        node = zones.zones["eu-1b"][1]
        async with Connection(node) as early:
            assert await early.ask(b"ms key 1\r\nx") == b"HD\r\n"
            zones.pause("eu-1b")
            assert not zones.is_up("eu-1b")
            async with Connection(node) as late:
                answers = [asyncio.create_task(each.ask(b"mg key v")) for each in (early, late)]
                done, _ = await asyncio.wait(answers, timeout=SILENCE)
                assert not done
                zones.resume("eu-1b")
                assert await asyncio.gather(*answers) == [b"VA 1\r\n", b"VA 1\r\n"]
        assert zones.is_up("eu-1b")

    run(main())


def test_a_paused_zone_can_be_killed_and_restarted(zones_of_each_kind):
    zones = zones_of_each_kind

    async def main():
        node = zones.zones["eu-1c"][0]
        async with Connection(node) as connection:
            assert await connection.ask(b"mn") == b"MN\r\n"
            zones.pause("eu-1c")
            connection.writer.write(b"mn\r\n")
            zones.kill("eu-1c")
            with contextlib.suppress(ConnectionResetError):
                assert await connection.reader.read() == b""  # it did not answer on its way out
        with pytest.raises(ConnectionRefusedError):
            await ask(node)
        zones.restart("eu-1c")
        assert await ask(node) == b"MN\r\n"

    run(main())


def test_one_node_can_be_killed(zones_of_each_kind):
    zones = zones_of_each_kind
    zones.kill("eu-1a", node=1)
    assert zones.is_up("eu-1a", node=0)
    assert not zones.is_up("eu-1a", node=1)
    run(ask(zones.zones["eu-1a"][0]))
    zones.restart("eu-1a", node=1)
    run(ask(zones.zones["eu-1a"][1]))


def test_a_cancelled_start_leaves_no_container_and_no_process(each_kind):
    async def main():
        before = containers()  # of fixtures that live as long as the session
        for seconds in (0, 0.01, 0.3):
            zones = each_kind.local_zones()
            starting = asyncio.create_task(zones.start())
            await asyncio.sleep(seconds)
            starting.cancel()
            await asyncio.wait([starting])
            if not starting.cancelled():
                await zones.stop()
            assert containers() == before

    run(main())
    gc.collect()  # what was not closed is a ResourceWarning, and so an error


@pytest.mark.docker
def test_an_image_that_is_not_there_is_an_error_that_names_it(servers):
    if servers.best.backend != "docker":
        pytest.skip("no containers here")

    async def main():
        before = containers()
        with pytest.raises(BackendUnavailable, match="evcache-test/no-such-image"):
            await LocalZones(backend="docker", image="evcache-test/no-such-image:1").start()
        assert containers() == before

    run(main())
    gc.collect()


@pytest.mark.docker
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # the docker package's, when it can't connect
def test_no_engine_is_an_error_that_says_so(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///no/such/docker.sock")
    with pytest.raises(BackendUnavailable, match="no docker engine answers"):
        run(LocalZones(backend="docker").start())
    gc.collect()
