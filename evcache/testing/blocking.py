"""Blocking form of LocalZones, which runs an event loop in a thread."""

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
    """Started zones with blocking operations, as `LocalZones.running()` yields them.

    Any thread may call them. In async code a call blocks the caller's event loop: a few milliseconds with processes and
    embedded servers, up to a second with containers. `await asyncio.to_thread(zones.restart, "eu-1a")` avoids that.
    LocalZones documents the operations and their errors.
    """

    def __init__(self, zones: LocalZones, thread: LoopThread) -> None:
        self._zones = zones
        self._thread = thread

    @property
    def zones(self) -> dict[str, list[str]]:
        """Addresses of the nodes by zone, in the form that EVCache accepts."""
        return self._zones.zones

    @property
    def backend(self) -> str:
        """Kind of server in use."""
        return self._zones.backend

    @property
    def version(self) -> str:
        """Version that the servers report."""
        return self._zones.version

    def is_up(self, zone: str, *, node: int | None = None) -> bool:
        """Return True if the zone, or one of its nodes, runs and is not paused.

        Args:
            zone: Name of the zone.
            node: Index of the node in its zone. If None, all nodes of the zone.
        """
        return self._zones.is_up(zone, node=node)

    def kill(self, zone: str, *, node: int | None = None) -> None:
        """Kill the zone, or one of its nodes.

        Args:
            zone: Name of the zone.
            node: Index of the node in its zone. If None, all nodes of the zone.
        """
        self._thread.call(self._zones.kill(zone, node=node))

    def restart(self, zone: str, *, node: int | None = None) -> None:
        """Restart the zone, or one of its nodes, empty and on the same addresses.

        Args:
            zone: Name of the zone.
            node: Index of the node in its zone. If None, all nodes of the zone.
        """
        self._thread.call(self._zones.restart(zone, node=node))

    def pause(self, zone: str, *, node: int | None = None) -> None:
        """Suspend the zone, or one of its nodes.

        Args:
            zone: Name of the zone.
            node: Index of the node in its zone. If None, all nodes of the zone.
        """
        self._thread.call(self._zones.pause(zone, node=node))

    def resume(self, zone: str, *, node: int | None = None) -> None:
        """Resume a paused zone, or one of its nodes.

        Args:
            zone: Name of the zone.
            node: Index of the node in its zone. If None, all nodes of the zone.
        """
        self._thread.call(self._zones.resume(zone, node=node))


class LoopThread:
    """Event loop in a thread for the duration of a `with` block."""

    def __init__(self) -> None:
        self._loop: Future[asyncio.AbstractEventLoop] = Future()
        self._closing = asyncio.Event()
        # A daemon thread: a program that fails inside the block must not wait for this thread at its exit.
        self._thread = threading.Thread(target=lambda: asyncio.run(self._stay()), name="evcache-zones", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._loop.result()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._loop.result().call_soon_threadsafe(self._closing.set)
        self._thread.join()

    def call(self, work: Coroutine[None, None, T]) -> T:
        """Run a coroutine in the event loop of the thread and return its result. Ctrl-C cancels the coroutine."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop.result())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def _stay(self) -> None:
        self._loop.set_result(asyncio.get_running_loop())
        await self._closing.wait()
