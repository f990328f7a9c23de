"""Servers that a benchmark runs against, its own, on this machine: memcached nodes, and one of the Redis protocol."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

VERSIONS_SINCE = (1, 6, 27)
IMAGES = ("memcached:1.6", "evcache-test/memcached:1.6")
START_SECONDS = 20.0

NO_REDIS = "no valkey-server or redis-server on PATH or in EVCACHE_REDIS"

# Peers with a connection for each of 256 callers, several of them at once; values of 1 MB, one for each of 32 callers.
OPTIONS = ("-l", "127.0.0.1", "-U", "0", "-c", "4096", "-m", "1024")


@contextmanager
def memcached_nodes(count: int) -> Iterator[tuple[list[int], str]]:
    """Start `count` servers. Return their ports, and a description of them.

    The first choice is a binary that keeps versions (EVCACHE_MEMCACHED, or on PATH). The second is a container on the
    host's network, because a published port would add a proxy process to the measurement. The last is an older binary.
    """
    binary = _binary()
    if binary is None and (image := _image()) is not None:
        what, command = f"containers of {image} on the host's network", ["docker", "run", "--rm", "--network", "host", image]
    elif (old := shutil.which("memcached")) is not None or binary is not None:
        what, command = f"processes of {binary or old}", [binary or str(old)]
    else:
        raise SystemExit("no memcached: install one, or build the image with integration/image/build.sh")
    ports = _free_ports(count)
    options = [*OPTIONS, "-u", "memcache" if command[0] == "docker" else "nobody"]
    with ExitStack() as stack:
        started = [stack.enter_context(_started([*command, *options, "-p", str(port)], port)) for port in ports]
        for process, port in zip(started, ports, strict=True):
            _wait_for(process, port, _version_of)
        yield ports, f"{what}, memcached {_version_of(ports[0])}"


@contextmanager
def redis_protocol_server() -> Iterator[tuple[int | str, str]]:
    """Start a server that keeps nothing on disk. Return its port, and a description of it.

    The first choice is the binary that EVCACHE_REDIS names. The next are `valkey-server` and `redis-server` on PATH.
    If there is none, the reason stands in the place of the port.
    """
    names = (os.environ.get("EVCACHE_REDIS"), "valkey-server", "redis-server")
    binary = next((path for name in names if name and (path := shutil.which(name)) is not None), None)
    if binary is None:
        yield NO_REDIS, "no Redis-protocol server"
        return
    (port,) = _free_ports(1)
    with tempfile.TemporaryDirectory(prefix="evcache-bench-") as folder:
        command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        command += ["--dir", folder, "--loglevel", "warning"]
        with _started(command, port) as process:
            _wait_for(process, port, _redis_version_of)
            yield port, f"a process of {binary}, version {_redis_version_of(port)}"


@contextmanager
def _started(command: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    name = f"evcache-bench-{port}"
    if command[0] == "docker":
        command[3:3] = ["--name", name]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        if command[0] == "docker":
            subprocess.run(["docker", "kill", name], capture_output=True, check=False)
        process.terminate()
        process.wait()


def _wait_for(process: subprocess.Popen[bytes], port: int, version_of: Callable[[int], str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            version_of(port)
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{process.args!r} did not start") from None
            time.sleep(0.02)
        else:
            return


def _binary() -> str | None:
    for name in [*os.environ.get("EVCACHE_MEMCACHED", "").split(os.pathsep), "memcached"]:
        path = shutil.which(name) if name else None
        if path is not None:
            said = subprocess.run([path, "-V"], capture_output=True, text=True, check=False).stdout
            if _numbers(said) >= VERSIONS_SINCE:
                return path
    return None


def _image() -> str | None:
    if shutil.which("docker") is None:
        return None
    for image in IMAGES:
        if subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False).returncode == 0:
            return image
    return None


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:  # all at once, or two could be the same
        probes = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(probe.getsockname()[1]) for probe in probes]


def _version_of(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port), 1) as connection:
        connection.sendall(b"version\r\n")
        answer = connection.recv(100)
        if not answer:
            raise ConnectionError("closed")
        return answer.decode().removeprefix("VERSION ").strip()


def _redis_version_of(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port), 1) as connection, connection.makefile("rb") as answers:
        connection.sendall(b"INFO server\r\n")
        head = answers.readline()
        if not head.startswith(b"$"):  # it is loading, or it closed the connection
            raise ConnectionError(head.decode())
        fields = dict(line.split(":", 1) for line in answers.read(int(head[1:])).decode().splitlines() if ":" in line)
        return fields.get("valkey_version") or fields["redis_version"]


def held_by(port: int, key: bytes) -> bytes | None:
    """What the server on this port holds, asked without any of the clients that are measured."""
    with socket.create_connection(("127.0.0.1", port), 5) as connection, connection.makefile("rb") as answers:
        connection.sendall(b"get " + key + b"\r\n")
        head = answers.readline()
        return answers.read(int(head.split()[3])) if head.startswith(b"VALUE ") else None


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])
