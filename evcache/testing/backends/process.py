"""Processes of memcached on this machine."""

# ruff: noqa: D102 - Backend and ServerNode in base.py document the methods

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
    POLL_SECONDS,
    BackendUnavailable,
    PortTaken,
    wait_until_ready,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BINARY_VARIABLE = "EVCACHE_MEMCACHED"

MEMORY_MEGABYTES = 64  # a limit; an empty server takes about 5 MB

# A server must not outlive the program that started it, even after SIGKILL. atexit handlers do not run on SIGKILL.
# PR_SET_PDEATHSIG follows the thread that forked, and needs code between fork and exec, which is unsafe with threads. A
# pipe has neither fault: the kernel closes its write end with the program. A shell that waits for input then kills the
# server. One line of input dismisses the shell.
GUARD_SCRIPT = 'read -r _ || kill -KILL "$1"'


def find_binary(binary: str | None = None) -> str | None:
    """Return the path of memcached, or None if there is none.

    The first of these applies: `binary`, the first entry of EVCACHE_MEMCACHED (a list like PATH), memcached on PATH.

    Raises:
        BackendUnavailable: The named binary cannot be run.
    """
    named = binary or os.environ.get(BINARY_VARIABLE, "").partition(os.pathsep)[0]
    found = shutil.which(named or "memcached")
    if named and found is None:
        raise BackendUnavailable(f"{named} cannot be run (given by binary= or {BINARY_VARIABLE})")
    return found


class ProcessBackend:
    """Backend that starts `binary` once for each node, on a loopback address."""

    name = "memcached"

    def __init__(self, binary: str, extra_args: Sequence[str] = ()) -> None:
        self._command = [binary, "-U", "0", "-m", str(MEMORY_MEGABYTES), *_user_args(), *extra_args]

    def node(self, host: str, port: int) -> ProcessNode:
        return ProcessNode([*self._command, "-l", host, "-p", str(port)], host, port)


class ProcessNode:
    """One memcached process and its guard.

    Both are subprocess.Popen objects that are polled. Child watchers of asyncio are tied to a loop, and a server may outlive
    the loop that started it.
    """

    def __init__(self, command: list[str], host: str, port: int) -> None:
        self._command = command
        self._host = host
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
        return await wait_until_ready(self._host, self._port, self._check_alive)

    async def kill(self) -> None:
        # SIGKILL ends stopped processes too. A server that gets SIGCONT first would answer the requests that arrived
        # during its pause.
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
            raise RuntimeError(f"pause failed: the server on port {self._port} does not run")
        self._paused = True
        self._server.send_signal(signal.SIGSTOP)
        # The signal takes effect when the process is scheduled next. Before that, the server may answer.
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
        # A separate process group: Ctrl-C in a terminal reaches only this program, which then stops its servers.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - stop() closes it
        self._server = subprocess.Popen(  # noqa: S603 - the command comes from this module or from the caller's code
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
        # The system may reuse the process number from now on, so the guard must not kill it.
        if self._guard is not None:
            _dismiss(self._guard)
        return False

    def _check_alive(self) -> None:
        if self._is_alive():
            return
        assert self._server is not None
        assert self._errors is not None
        self._errors.seek(0)
        text = self._errors.read().decode("utf-8", "replace").strip()
        if "Address already in use" in text:
            raise PortTaken(f"port {self._port}: {text}")
        raise BackendUnavailable(f"{' '.join(self._command)} ended with status {self._server.returncode}: {text}")


def _user_args() -> list[str]:
    # memcached refuses to run as root unless -u names a user.
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
    while not done():  # noqa: ASYNC110 - another process has no event to wait for
        await asyncio.sleep(POLL_SECONDS)


def _is_stopped(pid: int) -> bool:
    if sys.platform != "linux":
        return True  # other systems have no check that leaves the state for Popen, so the signal is trusted
    # WNOWAIT leaves the state in place, so that Popen is informed of the exit later.
    return os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None
