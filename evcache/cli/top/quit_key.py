"""Key that ends a command in a terminal."""

from __future__ import annotations

import asyncio
import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_KEYS = frozenset(b"qQ")


@contextmanager
def quit_key(on_quit: Callable[[], object]) -> Iterator[None]:
    """Call `on_quit()` when the key q is typed during the block. No effect if stdin is no terminal.

    The terminal passes each key at once and shows none of them. Ctrl-C remains a signal. The end of the block restores the
    terminal.
    """
    number = _terminal()
    if number is None:
        yield
        return
    loop = asyncio.get_running_loop()

    def read() -> None:
        typed = os.read(number, 64)
        if not typed:  # the terminal is gone
            loop.remove_reader(number)
        if not _KEYS.isdisjoint(typed):
            on_quit()

    before = termios.tcgetattr(number)
    tty.setcbreak(number, termios.TCSANOW)
    loop.add_reader(number, read)
    try:
        yield
    finally:
        loop.remove_reader(number)
        termios.tcsetattr(number, termios.TCSANOW, before)


def _terminal() -> int | None:
    try:
        number = sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):  # no stdin, or one of a test
        return None
    return number if os.isatty(number) else None
