"""Results of functions that a caller gave: loaders and writers."""

from __future__ import annotations

from typing import Any

from evcache.zones.errors import InvalidArgument


async def await_result(result: Any, argument: str = "loader") -> Any:
    """Await the result of a function that a caller gave.

    Args:
        result: What the function returned.
        argument: Name of the argument by which the caller gave the function.

    Raises:
        InvalidArgument: The result cannot be awaited.
        Exception: The awaited function raised it.
    """
    if not hasattr(result, "__await__"):
        raise InvalidArgument(
            argument, f"an async function is needed: it returned {type(result).__name__}, which can't be awaited"
        )
    return await result
