"""LocalZones for code that isn't async: a thread with an event loop of its own, and plain calls that block."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType

    from evcache.testing.local_zones import LocalZones

T = TypeVar("T")


class RunningZones:
    """What LocalZones.running() yields: started zones, with operations that return when they are done.

    They may be called from any thread, and from async code too, where they hold up the caller's event loop: a few
    milliseconds with processes and embedded servers, up to a second with containers. Where that matters,
    `await asyncio.to_thread(zones.restart, "eu-1a")`. LocalZones describes each operation and its errors.
    """

    def __init__(self, zones: LocalZones, thread: LoopThread) -> None:
        self._zones = zones
        self._thread = thread

    @property
    def zones(self) -> dict[str, list[str]]:
        """Zones and their nodes' addresses, as EVCache takes them."""
        return self._zones.zones

    @property
    def backend(self) -> str:
        """The kind of server in use."""
        return self._zones.backend

    @property
    def version(self) -> str:
        """What the servers say of themselves."""
        return self._zones.version

    def is_up(self, zone: str, *, node: int | None = None) -> bool:
        """Whether the zone (or one node) runs and is not paused."""
        return self._zones.is_up(zone, node=node)

    def kill(self, zone: str, *, node: int | None = None) -> None:
        """Let the zone (or one node) die at once."""
        self._thread.call(self._zones.kill(zone, node=node))

    def restart(self, zone: str, *, node: int | None = None) -> None:
        """Bring the zone (or one node) back, empty, on the same addresses."""
        self._thread.call(self._zones.restart(zone, node=node))

    def pause(self, zone: str, *, node: int | None = None) -> None:
        """Freeze the zone (or one node)."""
        self._thread.call(self._zones.pause(zone, node=node))

    def resume(self, zone: str, *, node: int | None = None) -> None:
        """Let a paused zone (or one node) go on."""
        self._thread.call(self._zones.resume(zone, node=node))


class LoopThread:
    """An event loop in a thread, for the length of a `with` block."""

    def __init__(self) -> None:
        self._loop: Future[asyncio.AbstractEventLoop] = Future()
        self._closing = asyncio.Event()
        # A daemon: a program that dies inside the block must not wait for servers that nobody will stop.
        self._thread = threading.Thread(target=lambda: asyncio.run(self._stay()), name="evcache-zones", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._loop.result()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._loop.result().call_soon_threadsafe(self._closing.set)
        self._thread.join()

    def call(self, work: Coroutine[None, None, T]) -> T:
        """Run a coroutine in the thread's loop and return its result. Ctrl-C while waiting cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop.result())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def _stay(self) -> None:
        self._loop.set_result(asyncio.get_running_loop())
        await self._closing.wait()
