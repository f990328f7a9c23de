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
START_SECONDS = 10.0


@contextmanager
def memcached_nodes(count: int) -> Iterator[tuple[list[int], str]]:
    """Start so many servers; their ports, and what they are.

    A binary that keeps versions (EVCACHE_MEMCACHED, or on PATH), else a container on the host's own network: a published
    port would go through a proxy process, and that would be measured.
    """
    binary = _binary()
    if binary is None and (image := _image()) is not None:
        what, command = f"container of {image}", ["docker", "run", "--rm", "--network", "host", image]
    elif (old := shutil.which("memcached")) is not None or binary is not None:
        what, command = f"{binary or old}", [binary or str(old)]
    else:
        raise SystemExit("no memcached: install one, or build the image with integration/image/build.sh")
    ports = [_free_port() for _ in range(count)]
    with ExitStack() as stack:
        for port in ports:
            stack.enter_context(_running([*command, "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-u", "nobody"], port))
        yield ports, f"{what}, memcached {_version_of(ports[0])}"


@contextmanager
def _running(command: list[str], port: int) -> Iterator[None]:
    name = f"evcache-bench-{port}"
    if command[0] == "docker":
        command[3:3] = ["--name", name]
        command[-2:] = ["-u", "memcache"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                _version_of(port)
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{' '.join(command)} did not start") from None
                time.sleep(0.02)
        yield
    finally:
        if command[0] == "docker":
            subprocess.run(["docker", "kill", name], capture_output=True, check=False)
        process.terminate()
        process.wait()


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


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _version_of(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port), 1) as connection:
        connection.sendall(b"version\r\n")
        answer = connection.recv(100)
        if not answer:
            raise ConnectionError("closed")
        return answer.decode().removeprefix("VERSION ").strip()


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])
