"""The clock of an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


def clock_of(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """Return the `time` of an event loop.

    asyncio's own loops return `time.monotonic()`. The result is then that function, because a method takes a Python frame
    for each call, and each request asks for the time.
    """
    method = loop.time
    return time.monotonic if getattr(method, "__func__", None) is asyncio.BaseEventLoop.time else method
