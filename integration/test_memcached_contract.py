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

from tests.contracts.memcached_contract import SocketClient, byte_by_byte, cases_for, run_case

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
        command += ["-u", "root"]  # memcached refuses to be root unless told to
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


async def run_all(address: tuple[str, int], server: str, slices=lambda data: [data]) -> list[str]:
    """Run all cases for this server; returns what failed, so that one failure does not hide the next."""
    loop = asyncio.get_running_loop()
    version = await version_of(address) if server != "auth" else "1.6.38"
    failures = []
    cases = cases_for(version, server)
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


@pytest.mark.parametrize("slices", [lambda data: [data], byte_by_byte], ids=["whole", "byte by byte"])
def test_contract(memcached_address, slices):
    assert asyncio.run(run_all(memcached_address, "plain", slices)) == []


@pytest.mark.parametrize("server", ["no-cas", "auth"])
def test_contract_of_servers_with_options(memcached_binary, server, tmp_path):
    with running(memcached_binary, *options_for(server, tmp_path)) as target:
        assert asyncio.run(run_all((target.host, target.port), server)) == []
