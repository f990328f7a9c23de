"""Retries without an end, with exponential backoff and jitter."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tenacity import AsyncRetrying, retry_if_result, wait_exponential, wait_random


async def retry_forever(
    step: Callable[[], Awaitable[bool]],
    first: float,
    longest: float,
    *,
    wake: asyncio.Event | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Call `step` until it returns True, with a pause after each other call.

    Pauses double from `first` to `longest` seconds. Each has up to `first` seconds of jitter more. An exception of `step`
    ends the retries, and so does cancellation.

    Args:
        step: Async function. It returns True if no retry is needed.
        first: Seconds of the first pause.
        longest: Seconds of the longest pause.
        wake: Event that ends the present pause early. It is cleared before each call of `step`.
        sleep: Async function that pauses for the given seconds. Not used if `wake` is given.
    """

    async def attempt() -> bool:
        if wake is not None:
            wake.clear()
        return await step()

    async def pause(seconds: float) -> None:
        if wake is None:
            await sleep(seconds)
        else:
            await wait_until_set(wake, seconds)

    retrying = AsyncRetrying(
        wait=wait_exponential(first, longest) + wait_random(0, first),
        retry=retry_if_result(lambda done: not done),
        sleep=pause,
    )
    await retrying(attempt)


async def wait_until_set(event: asyncio.Event, seconds: float) -> None:
    """Wait until the event is set, or for this number of seconds. Does not clear the event."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
