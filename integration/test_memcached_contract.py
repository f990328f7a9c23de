"""The contract on real memcached: what the fake server is tested with, byte for byte the same cases.

Servers are the binaries (or scripts that run one) in EVCACHE_MEMCACHED, separated by colons, and `memcached` on PATH.
"""

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from evcache import EVCache
from evcache.zones.testing import FakeMemcached
from integration.patience import PATIENT, PATIENT_SECONDS
from tests.contracts.memcached_contract import SocketClient, byte_by_byte, cases_for, run_case
from tests.contracts.operator_cases import check_reclaiming
from tests.evcache.client.test_dead_backend import check_dead_backend

pytestmark = pytest.mark.memcached

START_TIMEOUT = 10.0  # seconds


def find_binaries() -> list[str]:
    """Paths of memcached binaries, each once."""
    named = [path for path in os.environ.get("EVCACHE_MEMCACHED", "").split(":") if path]
    on_path = shutil.which("memcached")
    return list(dict.fromkeys([*named, *([on_path] if on_path else [])]))


@dataclass(frozen=True)
class Target:
    """A running server."""

    host: str
    port: int


@contextlib.contextmanager
def running(binary: str, *options: str) -> Iterator[Target]:
    """Start memcached on a free port of the loopback interface, and end it."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [binary, "-l", "127.0.0.1", "-p", str(port), "-U", "0", *options]
    if os.geteuid() == 0:
        command += ["-u", "root"]  # memcached refuses to run as root without this option
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    process.kill()
                    raise RuntimeError(f"{binary} did not start: {process.communicate()[1]!r}") from None
                time.sleep(0.02)
        yield Target("127.0.0.1", port)
    finally:
        process.terminate()
        process.communicate(timeout=START_TIMEOUT)


def options_for(server: str, directory: Path) -> list[str]:
    """The options of the servers that `Case.server` names."""
    if server == "no-cas":
        return ["-C"]
    if server == "auth":
        users = directory / "users"
        users.write_text("alice:s3cret\n")
        return ["-Y", str(users)]
    return []


@contextlib.contextmanager
def running_proxy(binary: str, directory: Path) -> Iterator[Target]:
    """Start memcached as a proxy, with one backend that works and one, for keys under `dead/`, that does not."""
    with running(binary) as living, socket.create_server(("127.0.0.1", 0)) as nothing:
        dead = nothing.getsockname()[1]
        nothing.close()
        routes = directory / "routes.lua"
        routes.write_text(
            f"""
            pools{{ here = {{ backends = {{"{living.host}:{living.port}"}} }}, gone = {{ backends = {{"127.0.0.1:{dead}"}} }} }}
            routes{{ map = {{ dead = route_direct{{ child = "gone" }} }}, default = route_direct{{ child = "here" }} }}
            """
        )
        with running(binary, "-o", f"proxy_config=routelib,proxy_arg={routes}") as proxy:
            yield proxy


def has_proxy(binary: str) -> bool:
    """Return True if the binary was built with the proxy."""
    return "proxy_config" in subprocess.run([binary, "-h"], capture_output=True, text=True, check=False).stdout


@pytest.fixture
def proxy_address(memcached_binary, tmp_path) -> Iterator[tuple[str, int]]:
    """A proxy with a dead backend."""
    if not has_proxy(memcached_binary):
        pytest.skip(f"{memcached_binary} was built without the proxy")
    with running_proxy(memcached_binary, tmp_path) as target:
        yield target.host, target.port


@pytest.fixture(scope="module", params=find_binaries() or [None])
def memcached_binary(request) -> str:
    if request.param is None:
        pytest.skip("no memcached: put one on PATH, or name binaries in EVCACHE_MEMCACHED")
    return request.param


@pytest.fixture(scope="module")
def memcached_address(memcached_binary) -> Iterator[tuple[str, int]]:
    """A server that was started without options."""
    with running(memcached_binary) as target:
        yield target.host, target.port


def whole(data):
    return [data]


async def run_all(address: tuple[str, int], server: str, slices=whole) -> list[str]:
    """Run all cases for this server; returns what failed, so that one failure does not hide the next."""
    loop = asyncio.get_running_loop()
    version = await version_of(address) if server != "auth" else "1.6.38"
    failures = []
    cases = [case for case in cases_for(version, server) if slices is whole or not case.at_once]
    for case in cases:
        transport, client = await loop.create_connection(SocketClient, *address)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await run_case(case, client, wait=asyncio.sleep, slices=slices)
        except AssertionError as error:
            failures.append(str(error))
        await client.close()
    assert cases
    return failures


async def version_of(address: tuple[str, int]) -> str:
    _, client = await asyncio.get_running_loop().create_connection(SocketClient, *address)
    await client.send(b"version\r\n")
    reply = await client.read(lambda data: data.endswith(b"\r\n"))
    await client.close()
    return reply.removeprefix(b"VERSION ").decode().strip()


@pytest.mark.parametrize("slices", [whole, byte_by_byte], ids=["whole", "byte by byte"])
def test_contract(memcached_address, slices):
    assert asyncio.run(run_all(memcached_address, "plain", slices)) == []


@pytest.mark.parametrize("server", ["no-cas", "auth"])
def test_contract_of_servers_with_options(memcached_binary, server, tmp_path):
    with running(memcached_binary, *options_for(server, tmp_path)) as target:
        assert asyncio.run(run_all((target.host, target.port), server)) == []


def test_expired_items_are_reclaimed(memcached_binary):
    async def scenario(target: Target) -> None:
        _, client = await asyncio.get_running_loop().create_connection(SocketClient, target.host, target.port)
        try:
            await check_reclaiming(client, wait=asyncio.sleep)
        finally:
            await client.close()

    with running(memcached_binary) as target:
        asyncio.run(scenario(target))


def test_contract_of_the_proxy(proxy_address):
    assert asyncio.run(run_all(proxy_address, "proxy")) == []


@pytest.mark.parametrize("transport", ["meta", "classic"])
@pytest.mark.parametrize("victim", [0, 1])
def test_dead_backend_of_a_proxy_fails_its_own_keys_only(memcached_binary, tmp_path, transport, victim):
    """With one victim or the other, the key that probes ask for is on the dead backend."""
    if not has_proxy(memcached_binary):
        pytest.skip(f"{memcached_binary} was built without the proxy")

    async def scenario(proxy: Target, backends: list[Target], end_victim) -> None:
        keys = [f"key-{number}" for number in range(60)]
        zones = {"a": [f"{proxy.host}:{proxy.port}"]}
        async with EVCache("p", zones, transport=transport, write_consistency="all", **PATIENT) as cache:
            await cache.set_many(dict.fromkeys(keys, 1), timeout=PATIENT_SECONDS)
            survivor = backends[1 - victim]
            living = [key for key in keys if is_there(survivor, f"p:{key}")]
            end_victim()
            await asyncio.sleep(1)  # the proxy first tries to connect again
            await check_dead_backend(cache, living, [key for key in keys if key not in living])
        async with EVCache("p", zones, transport=transport) as latecomer:
            assert await latecomer.get(living[0], timeout=PATIENT_SECONDS) == 1

    with contextlib.ExitStack() as servers:
        ends = [servers.enter_context(contextlib.ExitStack()) for _ in range(2)]
        backends = [end.enter_context(running(memcached_binary)) for end in ends]
        addresses = ", ".join(f'"{backend.host}:{backend.port}"' for backend in backends)
        routes = tmp_path / "routes.lua"
        routes.write_text(
            f'pools{{ one = {{ backends = {{{addresses}}} }} }}\nroutes{{ default = route_direct{{ child = "one" }} }}\n'
        )
        proxy = servers.enter_context(running(memcached_binary, "-o", f"proxy_config=routelib,proxy_arg={routes}"))
        asyncio.run(scenario(proxy, backends, ends[victim].close))


def is_there(server: Target, key: str) -> bool:
    with socket.create_connection((server.host, server.port)) as connection:
        connection.sendall(b"mg %b\r\n" % key.encode())
        return connection.recv(100).startswith(b"HD")


TOO_MANY = b"ERROR Too many open connections\r\n"


def test_connections_over_the_limit_are_refused_as_by_the_fake(memcached_binary):
    async def fake_says() -> bytes:
        async with FakeMemcached(max_connections=1) as fake:
            _, first = await asyncio.open_connection("127.0.0.1", fake.port)
            reader, second = await asyncio.open_connection("127.0.0.1", fake.port)
            said = await reader.read()
            first.close()
            second.close()
            return said

    assert asyncio.run(fake_says()) == TOO_MANY
    with running(memcached_binary, "-c", "40") as target, contextlib.ExitStack() as sockets:
        for _ in range(60):
            connection = sockets.enter_context(socket.create_connection((target.host, target.port), timeout=START_TIMEOUT))
            connection.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                said = connection.recv(100)
                break
        else:
            pytest.fail("60 connections are fewer than 40")
        assert said + connection.recv(100) == TOO_MANY


@pytest.mark.parametrize("options", [(), ("-o", "no_maxconns_fast")], ids=["refused", "silent"])
def test_classic_calls_succeed_at_the_connection_limit(memcached_binary, options):
    async def scenario(target: Target) -> None:
        async with EVCache("c", {"a": [f"{target.host}:{target.port}"]}, transport="classic") as cache:
            await cache.set("key", 1, timeout=2)
            for _ in range(3):
                assert set(await asyncio.gather(*(cache.get("key", timeout=2) for _ in range(200)))) == {1}
                await asyncio.sleep(0.3)

    with running(memcached_binary, "-c", "40", *options) as target:
        asyncio.run(scenario(target))
