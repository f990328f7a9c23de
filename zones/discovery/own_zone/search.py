"""Search for the zone of this process, in the background of a client's opening."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from evcache.zones._tasks import abandon, cancel_once, ended, unattended
from evcache.zones.discovery.local_zone import AUTO, LocalZone
from evcache.zones.discovery.own_zone.finder import OwnZone, find_own_zone
from evcache.zones.errors import InvalidTopology

Find = Callable[[float], Awaitable[OwnZone | None]]


async def names_of(setting: LocalZone) -> tuple[str, ...]:
    """Return the names of a local zone, and find it if the setting is "auto". Empty if it is not found."""
    if setting.name != AUTO:
        return (setting.name,)
    own = await find_own_zone(timeout=setting.timeout)
    return () if own is None else own.names


class LocalZoneSearch:
    """The search of one client. A process does not move, so the first result is kept for all openings."""

    def __init__(
        self,
        setting: LocalZone,
        found: Callable[[Sequence[str]], object],
        find: Find | None = None,
    ) -> None:
        """Make a search that has not begun.

        Args:
            setting: Setting of the client, with the name "auto".
            found: Called with the names that the zone may have in a topology.
            find: Look for the zone, for this number of seconds. If None, `find_own_zone`.
        """
        self.is_strict = setting.strict
        self._timeout = setting.timeout
        self._found = found
        self._find = find
        self._own: OwnZone | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Begin the search on the running event loop, if it has not found the zone in an earlier opening."""
        if self._own is None:
            self._task = unattended(asyncio.get_running_loop().create_task(self._run(), name="evcache-own-zone"))
        else:
            self._found(self._own.names)

    @property
    def has_missed(self) -> bool:
        """True if the search has ended, and has not found the zone."""
        return self._task is not None and self._task.done() and self._own is None

    async def end_by(self, deadline: float) -> None:
        """Wait for the end of the search until a time on the event loop's clock."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=max(0.0, deadline - asyncio.get_running_loop().time()))

    async def wait(self) -> None:
        """Wait for the end of the search. A cancelled caller does not end it.

        Raises:
            InvalidTopology: The zone was not found, and the setting is strict.
        """
        if self.is_strict and self.has_missed:
            self.begin()  # an earlier call has failed for that reason, and the metadata service may answer now
        if self._task is not None:
            await asyncio.wait([self._task])
        if self.is_strict and self._own is None:
            raise InvalidTopology("local_zone", f"the zone of this process was not found in {self._timeout:g} s")

    async def close(self) -> None:
        """End the search."""
        if self._task is not None:
            cancel_once([self._task])
            await ended([self._task], lambda _: "the search for the local zone")

    def reopen(self) -> None:
        """Forget the search of the last opening, whose event loop may be closed."""
        if self._task is not None:
            abandon([self._task])
            self._task = None

    async def _run(self) -> None:
        find = find_own_zone(timeout=self._timeout) if self._find is None else self._find(self._timeout)
        own = await find
        if own is not None:
            self._own = own
            self._found(own.names)
