"""Readiness of the service: it waits for the cache when it starts, and stays in rotation when the cache fails later."""

from __future__ import annotations

import asyncio

from evcache import CheckResult, EVCache


class Readiness:
    """Answer to the readiness probe.

    All processes share the zones, so they would all leave the rotation in an outage of the cache. The service would then be
    down, and not only slower. It therefore waits for the cache once, after its start. It waits for `patience` seconds at
    most, so that new processes can join during an outage of the cache.
    """

    def __init__(self, cache: EVCache, patience: float) -> None:
        self._cache = cache
        self._gives_up_at = asyncio.get_running_loop().time() + patience
        self._has_started = False

    async def check(self) -> tuple[bool, CheckResult]:
        """Return True if the service takes requests, and the state of the cache."""
        found = await self._cache.check()
        if found.ready or asyncio.get_running_loop().time() >= self._gives_up_at:
            self._has_started = True
        return self._has_started, found
