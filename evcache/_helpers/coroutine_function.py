"""A mark for methods that return a coroutine without being an `async def`."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable
from typing import Any, TypeVar

Method = TypeVar("Method", bound=Callable[..., Any])


def coroutine_function(method: Method) -> Method:
    """Mark a method that returns the coroutine of another one.

    A delegating `async def` costs a coroutine for each call, and a resumption for each reply. Frameworks and mocks ask
    `iscoroutinefunction` whether to await a result, so the method is marked as what it is for its callers.

    `inspect.iscoroutinefunction` has a mark from Python 3.12 on. Before that only `asyncio.iscoroutinefunction`, which
    `unittest.mock` and Starlette ask, can be answered.
    """
    if sys.version_info >= (3, 12):
        return inspect.markcoroutinefunction(method)
    method._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]  # noqa: SLF001
    return method
