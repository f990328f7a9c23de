"""memcached processes on this machine."""

# ruff: noqa: D102 - Backend and ServerNode in base.py say what the methods do

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from typing import IO, TYPE_CHECKING

from evcache.testing.backends.base import (
    HOST,
    POLL_SECONDS,
    BackendUnavailable,
    PortTaken,
    wait_until_ready,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BINARY_VARIABLE = "EVCACHE_MEMCACHED"

MEMORY_MEGABYTES = 64  # a limit, not a reservation: an empty server takes about 5 MB

# A server must not outlive the program that started it, however that ends, SIGKILL included. The ways that come to
# mind first have holes: atexit doesn't run on SIGKILL, and PR_SET_PDEATHSIG follows the *thread* that forked and
# needs code between fork and exec, which is unsafe in a program with threads. A pipe has none: the kernel closes our
# end when we are gone, and a shell that waits on the other end then kills the server. One line means "no longer needed".
GUARD_SCRIPT = 'read -r _ || kill -KILL "$1"'


def find_binary(binary: str | None = None) -> str | None:
    """Return the path of the memcached to run: `binary`, else the first in EVCACHE_MEMCACHED (a list like PATH), else
    the one on PATH. None when there is none. Raises BackendUnavailable when one is named that can't be run.
    """
    named = binary or os.environ.get(BINARY_VARIABLE, "").partition(os.pathsep)[0]
    found = shutil.which(named or "memcached")
    if named and found is None:
        raise BackendUnavailable(f"{named} can't be run (given by binary= or {BINARY_VARIABLE})")
    return found


class ProcessBackend:
    """Starts `binary` once per node, on the loopback address."""

    name = "memcached"

    def __init__(self, binary: str, extra_args: Sequence[str] = ()) -> None:
        self._command = [binary, "-l", HOST, "-U", "0", "-m", str(MEMORY_MEGABYTES), *_user_args(), *extra_args]

    def node(self, port: int) -> ProcessNode:
        return ProcessNode([*self._command, "-p", str(port)], port)


class ProcessNode:
    """One memcached process and its guard.

    Both are plain subprocess.Popen objects that are polled: asyncio's child watchers are tied to a loop, and a server
    here may outlive the loop that started it.
    """

    def __init__(self, command: list[str], port: int) -> None:
        self._command = command
        self._port = port
        self._server: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._paused = False

    @property
    def is_up(self) -> bool:
        return self._is_alive() and not self._paused

    async def start(self) -> str:
        await self.stop()
        self._spawn()
        return await wait_until_ready(self._port, self._check_alive)

    async def kill(self) -> None:
        # SIGKILL needs no SIGCONT before it: it ends stopped processes too, and a server that is continued first
        # would answer what piled up while it was paused.
        server, guard = self._server, self._guard
        if server is not None:
            server.kill()
            await _poll_until(lambda: server.poll() is not None)
            self._server = None
            self._paused = False
        if guard is not None:
            _dismiss(guard)
            await _poll_until(lambda: guard.poll() is not None)
            self._guard = None

    async def pause(self) -> None:
        if self._server is None or not self._is_alive():
            raise RuntimeError(f"the server on port {self._port} does not run")
        self._paused = True
        self._server.send_signal(signal.SIGSTOP)
        # The signal takes effect when the process is next scheduled; until then it may still answer.
        pid = self._server.pid
        await _poll_until(lambda: not self._is_alive() or _is_stopped(pid))

    async def resume(self) -> None:
        if self._server is not None and self._paused:
            self._server.send_signal(signal.SIGCONT)
            self._paused = False

    async def stop(self) -> None:
        await self.kill()
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    def _spawn(self) -> None:
        # Its own process group: Ctrl-C in a terminal goes to the program alone, which then decides what to stop.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - stop() closes it
        self._server = subprocess.Popen(  # noqa: S603 - the command is ours, or what the caller's own code names
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            process_group=0,
        )
        self._guard = subprocess.Popen(  # noqa: S603
            ["/bin/sh", "-c", GUARD_SCRIPT, "guard", str(self._server.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            process_group=0,
        )

    def _is_alive(self) -> bool:
        if self._server is None:
            return False
        if self._server.poll() is None:
            return True
        # Its number is free for other processes now: the guard must forget it.
        if self._guard is not None:
            _dismiss(self._guard)
        return False

    def _check_alive(self) -> None:
        if self._is_alive():
            return
        assert self._server is not None
        assert self._errors is not None
        self._errors.seek(0)
        said = self._errors.read().decode("utf-8", "replace").strip()
        if "Address already in use" in said:
            raise PortTaken(f"port {self._port}: {said}")
        raise BackendUnavailable(f"{' '.join(self._command)} ended with status {self._server.returncode}: {said}")


def _user_args() -> list[str]:
    # memcached refuses to run as root unless told as whom.
    if os.geteuid() != 0:
        return []
    try:
        pwd.getpwnam("nobody")
    except KeyError:
        return ["-u", "root"]
    return ["-u", "nobody"]


def _dismiss(guard: subprocess.Popen[bytes]) -> None:
    assert guard.stdin is not None
    if not guard.stdin.closed:
        with contextlib.suppress(BrokenPipeError):
            guard.stdin.write(b"\n")
        guard.stdin.close()


async def _poll_until(done: Callable[[], bool]) -> None:
    while not done():  # noqa: ASYNC110 - there is no event to wait for: the state is another process's
        await asyncio.sleep(POLL_SECONDS)


def _is_stopped(pid: int) -> bool:
    if sys.platform != "linux":
        return True  # no way to look without disturbing Popen; there the signal is taken on trust
    # WNOWAIT looks and leaves the state in place, so that Popen still learns of the exit later.
    return os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None
