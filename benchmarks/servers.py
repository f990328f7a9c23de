"""The memcached nodes that a benchmark runs against: its own, on this machine, and able to keep versions."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

VERSIONS_SINCE = (1, 6, 27)
IMAGES = ("memcached:1.6", "evcache-test/memcached:1.6")
START_SECONDS = 20.0

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
    with ExitStack() as stack:
        started = [stack.enter_context(_started([*command, *OPTIONS, "-p", str(port)], port)) for port in ports]
        for process, port in zip(started, ports, strict=True):
            _wait_for(process, port)
        yield ports, f"{what}, memcached {_version_of(ports[0])}"


@contextmanager
def _started(command: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    name = f"evcache-bench-{port}"
    if command[0] == "docker":
        command[3:3] = ["--name", name]
        command += ["-u", "memcache"]
    else:
        command += ["-u", "nobody"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        if command[0] == "docker":
            subprocess.run(["docker", "kill", name], capture_output=True, check=False)
        process.terminate()
        process.wait()


def _wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            _version_of(port)
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


def held_by(port: int, key: bytes) -> bytes | None:
    """What the server on this port holds, asked without any of the clients that are measured."""
    with socket.create_connection(("127.0.0.1", port), 5) as connection, connection.makefile("rb") as answers:
        connection.sendall(b"get " + key + b"\r\n")
        head = answers.readline()
        return answers.read(int(head.split()[3])) if head.startswith(b"VALUE ") else None


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])
