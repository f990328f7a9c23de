"""A real redis-server of a test's own, on a free port of the loopback address."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping

import pytest

BINARY_VARIABLE = "EVCACHE_REDIS"  # a path, when it is not on PATH
START_SECONDS = 10


def find_redis(environ: Mapping[str, str] = os.environ) -> str:
    """The redis-server binary. Without one the test is skipped; with CI set, where everything is to run, it fails."""
    path = shutil.which(environ.get(BINARY_VARIABLE) or "redis-server", path=environ.get("PATH"))
    if path is None:
        reason = f"no redis-server on PATH or in {BINARY_VARIABLE}"
        if environ.get("CI"):
            pytest.fail(f"{reason}, and it is required as CI is set")
        pytest.skip(reason)
    return path


class RedisServer:
    """One process, which keeps nothing on disk. Its port stays the same when it is started again."""

    def __init__(self, binary: str) -> None:
        self._binary = binary
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns when it answers."""
        command = [self._binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        command += ["--dir", tempfile.gettempdir(), "--loglevel", "warning"]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, f"redis-server ended with {self._process.returncode}"
            assert time.monotonic() < deadline, f"redis-server does not answer after {START_SECONDS} s"
            time.sleep(0.01)

    def command(self, line: str) -> bytes:
        """What it answers to a command, as far as it comes in one piece."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            connection.sendall(line.encode() + b"\r\n")
            return connection.recv(65536)

    def kill(self) -> None:
        """As a crash does."""
        if self._process is not None:
            self._process.kill()  # also ends one that is paused
            self._process.wait(START_SECONDS)
            self._process = None

    def pause(self) -> None:
        """It answers no more, and its connections stay open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            return self.command("PING").startswith(b"+PONG")
        except OSError:
            return False
