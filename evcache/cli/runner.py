"""How commands run: until they are done or a signal ends them, and with which exit status."""

from __future__ import annotations

import asyncio
import enum
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from evcache.errors import CacheError, EncodeError, InvalidArgument, Unsupported, UsageError
from evcache.testing import BackendUnavailable

T = TypeVar("T")

# The last one comes when a terminal is closed, and not to a program under nohup, which ignores it.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SIGNAL_STATUS = 128  # plus the signal's number, as shells report it


class Status(enum.IntEnum):
    """Exit statuses of every command."""

    DONE = 0
    NO = 1
    """It worked, and the answer is no: a miss, a write that too few zones took, a demo that lost a read."""
    USAGE = 2
    """Arguments that can't be used; click's own status for them."""
    UNAVAILABLE = 3
    """No zone, or too few of them, gave an answer that can be used."""


class BadUse(click.ClickException):
    """Ends the command with one line on stderr: its arguments can't be used."""

    exit_code = Status.USAGE


class NoAnswer(click.ClickException):
    """Ends the command with one line on stderr: the cache, or the servers to be started, did not answer."""

    exit_code = Status.UNAVAILABLE


class Stopped(Exception):
    """A signal ended the work, after it had cleaned up."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number)
        self.status = SIGNAL_STATUS + number


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in a loop of its own. Only in the main thread, since it listens to signals.

    A stop signal cancels the work: whatever it started is removed by its own cleanup, and then `Stopped` is raised.
    Errors of the library become `BadUse` or `NoAnswer`.
    """
    received: list[signal.Signals] = []
    try:
        with failing_cleanly():
            return asyncio.run(_until_signal(work, received))
    except asyncio.CancelledError:
        if not received:
            raise
        raise Stopped(received[0]) from None


@contextmanager
def failing_cleanly() -> Iterator[None]:
    """Turn errors that the library raises on purpose into `BadUse` or `NoAnswer`. Others are bugs: they keep their trace."""
    try:
        yield
    except BrokenPipeError:  # whoever read our output has gone, as `head` does; click ends quietly on that
        raise
    except (InvalidArgument, EncodeError, UsageError, Unsupported, BackendUnavailable) as error:
        raise BadUse(str(error)) from error
    except (CacheError, OSError) as error:
        raise NoAnswer(str(error) or type(error).__name__) from error


async def _until_signal(work: Coroutine[Any, Any, T], received: list[signal.Signals]) -> T:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)

    def stop(number: signal.Signals) -> None:
        received.append(number)
        task.cancel()

    handled = [number for number in STOP_SIGNALS if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]
    for number in handled:
        loop.add_signal_handler(number, stop, number)
    try:
        return await task
    finally:
        for number in handled:
            loop.remove_signal_handler(number)
