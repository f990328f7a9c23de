"""Access of calls to the zones of a client. The first call opens the client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from evcache._helpers.loop_affinity import LoopAffinity
from evcache.errors import CacheUnavailable, UsageError
from evcache.hooks import HookDispatcher
from evcache.options import Defaults, Options
from evcache.zones.cluster import Cluster
from evcache.zones.errors import InvalidArgument
from evcache.zones.snapshot import ClusterSnapshot

Ready = tuple[ClusterSnapshot, Options]
"""The zones as a call uses them, and its options with the time that is left."""


class ClusterAccess:
    """The zones of one client, for its calls."""

    def __init__(
        self,
        cluster: Cluster,
        affinity: LoopAffinity,
        open_client: Callable[[Options], Awaitable[Ready]],
        defaults: Defaults,
        hooks: HookDispatcher,
    ) -> None:
        """Make it for one client.

        Args:
            cluster: The client's nodes.
            affinity: The event loop and process that the client is open in.
            open_client: Opens the client for a call with these options.
            defaults: Options of calls that pass none.
            hooks: Listeners of the client.
        """
        self.cluster = cluster
        self.affinity = affinity
        self.open = open_client
        self._defaults = defaults
        self._hooks = hooks

    def ready(self, options: Options) -> Ready | None:
        """Return the zones and the options of a call, or None if the client is not open on the running event loop."""
        view = self.cluster.view
        return None if view is None or self.affinity.open_in is not asyncio.get_running_loop() else (view, options)

    async def ready_by(self, options: Options, deadline: float) -> Ready:
        """Return the zones and the options of a call that has used a part of its time.

        Args:
            options: Options of the call. Their timeout is not changed: the call has a deadline.
            deadline: End of the call, on the event loop's clock.

        Raises:
            CacheUnavailable: The zones are not known in time.
            UsageError: The client is closed, or open on another event loop or in another process.
        """
        ready = self.ready(options)
        if ready is not None:
            return ready
        left = max(0.0, deadline - asyncio.get_running_loop().time())
        return (await self.open(options._replace(timeout=left)))[0], options

    async def snapshot_or_none(self) -> ClusterSnapshot | None:
        """Return the zones, or None if they are not known in time. A loader and a source need no zones.

        Raises:
            InvalidArgument: The topology cannot be used.
            UsageError: The client is closed, or open on another event loop or in another process.
        """
        view = self.cluster.view
        if view is not None and self.affinity.open_in is asyncio.get_running_loop():
            return view
        try:
            return (await self.open(self._defaults.reads))[0]
        except (InvalidArgument, UsageError):
            raise
        except Exception as error:  # the service's discovery may raise any error while its source is down
            unknown = error if isinstance(error, CacheUnavailable) else CacheUnavailable("finding the zones", {})
            self._hooks.error_as_miss(unknown)
            return None
