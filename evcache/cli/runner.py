"""Execution of commands: stop signals, and the translation of errors to exit statuses."""

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

# SIGHUP is sent when a terminal is closed. Under nohup it is ignored, and stays ignored.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SIGNAL_STATUS = 128  # plus the number of the signal, as shells report it


class Status(enum.IntEnum):
    """Exit statuses of every command."""

    DONE = 0
    NO = 1
    """Negative result: a miss, a write that too few zones have, a demo that lost a read, a problem that a check found."""
    USAGE = 2
    """An argument cannot be used. click uses this status too."""
    UNAVAILABLE = 3
    """Too few zones answered."""


class BadUse(click.ClickException):
    """Error that ends the command with one line on stderr, because an argument cannot be used."""

    exit_code = Status.USAGE


class NoAnswer(click.ClickException):
    """Error that ends the command with one line on stderr, because no zone or server answered."""

    exit_code = Status.UNAVAILABLE


class Stopped(Exception):
    """A signal stopped the work. Its cleanup is complete."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number)
        self.status = SIGNAL_STATUS + number


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a new event loop, in the main thread, and cancel it at a stop signal.

    Returns:
        The result of the coroutine.

    Raises:
        BadUse: An argument cannot be used.
        NoAnswer: Too few zones answered.
        Stopped: A signal arrived. The coroutine was cancelled and has cleaned up.
    """
    received: list[signal.Signals] = []
    try:
        with translate_errors():
            return asyncio.run(_until_signal(work, received))
    except asyncio.CancelledError:
        if not received:
            raise
        raise Stopped(received[0]) from None


def run_command(work: Coroutine[Any, Any, T]) -> T:
    """Run the work of a command and return its result. A stop signal exits with the status that shells expect."""
    try:
        return run(work)
    except Stopped as stopped:
        raise SystemExit(stopped.status) from None


@contextmanager
def translate_errors() -> Iterator[None]:
    """Translate documented errors to `BadUse` or `NoAnswer`. Other errors are bugs and keep their traceback."""
    try:
        yield
    except BrokenPipeError:  # the reader of the output has ended, for example `head`; click handles it silently
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
