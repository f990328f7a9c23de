"""Two sources of zones, for a cache that moves from one set of zones to another while it is in use."""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from evcache.zones._tasks import ended, unattended
from evcache.zones.discovery.base import Discovery, SourceStatus
from evcache.zones.discovery.forms import discovery_of_mapping, discovery_of_text
from evcache.zones.errors import DiscoveryError, InvalidArgument, InvalidTopology
from evcache.zones.topology.model import Mode, Topology, Zone, is_zone_name
from evcache.zones.validation import has_methods, positive_seconds

# Suffix of the zones of the new set, whose source may have the names of the old zones.
NEW_SUFFIX = "-new"

# Seconds between looks at the file with the step. A step takes minutes.
STEP_POLL_SECONDS = 2.0

# Seconds until a set whose source did not answer is asked again.
RETRY_SECONDS = 5.0

_log = logging.getLogger("evcache.zones.discovery")


class MigrationStep(enum.StrEnum):
    """Step of a migration. Processes that are at most one step apart may run at the same time."""

    OLD = "old"
    """The old set alone."""
    FILL = "fill"
    """Reads from the old set. The new set receives all writes, and does not count."""
    DUAL = "dual"
    """Reads from the old set. Both sets must acknowledge a write."""
    SWITCHED = "switched"
    """Reads from the new set, and from the old one on a miss. Both sets must acknowledge a write."""
    DRAIN = "drain"
    """Reads from the new set. The old set receives all writes, and does not count."""
    NEW = "new"
    """The new set alone."""


# Modes of the old and of the new set. None if the set is not used.
_MODES: dict[MigrationStep, tuple[Mode | None, Mode | None]] = {
    MigrationStep.OLD: (Mode.READ_WRITE, None),
    MigrationStep.FILL: (Mode.READ_WRITE, Mode.WRITE_ONLY),
    MigrationStep.DUAL: (Mode.READ_WRITE, Mode.STANDBY),
    MigrationStep.SWITCHED: (Mode.STANDBY, Mode.READ_WRITE),
    MigrationStep.DRAIN: (Mode.WRITE_ONLY, Mode.READ_WRITE),
    MigrationStep.NEW: (None, Mode.READ_WRITE),
}


def join(old: Topology | None, new: Topology | None, step: MigrationStep, suffix: str) -> Topology | None:
    """Return the topology of both sets in a step, or None if a set is unknown that the step needs.

    A write-only set may be unknown, because it does not count. A set that must acknowledge writes may not.

    Args:
        old: Topology of the old set. None if it is unknown.
        new: Topology of the new set. None if it is unknown.
        step: The step.
        suffix: Suffix of the names of the new zones. They keep their names as locations.
    """
    zones: list[Zone] = []
    for topology, mode, ending in zip((old, new), _MODES[step], ("", suffix), strict=True):
        if mode is None or (topology is None and mode is Mode.WRITE_ONLY):
            continue
        if topology is None:
            return None
        # A zone that its own source does not want to be read stays write-only.
        zones += [
            Zone(
                zone.name + ending,
                zone.nodes,
                mode if zone.mode is Mode.READ_WRITE else zone.mode,
                zone.location or (zone.name if ending else None),
            )
            for zone in topology.zones
        ]
    return Topology(tuple(zones))


class Migration:
    """Source of a cache that moves from one set of zones to another.

    The step is changed by `move_to`, or in a file that all processes watch. See the guide in docs/migration.md.
    """

    def __init__(
        self,
        old: str | Mapping[str, object] | Discovery,
        new: str | Mapping[str, object] | Discovery,
        step: MigrationStep | str | Path = MigrationStep.DUAL,
        *,
        suffix: str = NEW_SUFFIX,
        poll: float = STEP_POLL_SECONDS,
    ) -> None:
        """Make a source. No I/O happens here.

        Args:
            old: Zones that are in use: a node list, a mapping or a source.
            new: Zones that the cache moves to, in the same forms.
            step: Step of the migration, or the path of a file with its name.
            suffix: Suffix of the names of the new zones. It must be the same in all processes.
            poll: Seconds between looks at the file.

        Raises:
            InvalidArgument: An argument has a wrong type or value. `InvalidTopology` for zones.
        """
        if not isinstance(suffix, str) or not is_zone_name("a" + suffix) or not suffix:
            raise InvalidArgument("suffix", f"the end of a zone name is required, not {suffix!r}")
        self._sources = (_source(old, "old"), _source(new, "new"))
        self._file = step if isinstance(step, Path) else None
        self._step = MigrationStep.OLD if isinstance(step, Path) else step_of(step)
        self._suffix = suffix
        self._poll = positive_seconds(poll, "poll")
        self._known: list[Topology | None] = [None, None]
        self._last: Topology | None = None
        self._changed: asyncio.Event | None = None
        self._file_status = SourceStatus(str(self._file))

    @property
    def step(self) -> MigrationStep:
        """Step of the migration."""
        return self._step

    @property
    def status(self) -> SourceStatus | None:
        """Freshness of the set that failed, or else of the one that answered least recently. None if no set reports it."""
        found = [self._file_status] if self._file_status.error is not None else []
        for source, mode in zip(self._sources, _MODES[self._step], strict=True):
            status = getattr(source, "status", None)
            if mode is not None and isinstance(status, SourceStatus):
                found.append(status)
        return min(found, key=lambda status: (status.error is None, status.confirmed_at or 0.0), default=None)

    def move_to(self, step: MigrationStep | str) -> None:
        """Change the step. Call it on the event loop of the client.

        Args:
            step: The step before or after the present one.

        Raises:
            InvalidArgument: There is no such step, or it is further away. A step must reach all processes before the next.
        """
        wanted, steps = step_of(step), list(MigrationStep)
        if abs(steps.index(wanted) - steps.index(self._step)) > 1:
            raise InvalidArgument("step", f"{wanted} is more than one step from {self._step}")
        self._set_step(wanted)

    async def load(self) -> Topology:
        """Return the present topology of both sets.

        Raises:
            InvalidTopology: A set cannot be used, or the file does not have a step.
            DiscoveryError: The source of a set did not answer, and the step needs the set.
        """
        if self._file is not None:
            self._step = self._read_step()
            self._file_status.confirm()
        self._known = [None, None]
        results = await asyncio.gather(*(self._load(side) for side in (0, 1)))
        joined = join(self._known[0], self._known[1], self._step, self._suffix)
        if joined is None:
            raise next(error for error in results if error is not None)
        self._last = joined
        return joined

    async def watch(self) -> AsyncIterator[Topology]:
        """Yield each topology after a change of a set or of the step."""
        self._changed = changed = asyncio.Event()
        loop = asyncio.get_running_loop()
        work = [self._follow(0, changed), self._follow(1, changed), self._follow_file()]
        tasks = [unattended(loop.create_task(each, name="evcache-migration")) for each in work]
        for task in tasks:
            task.add_done_callback(lambda _: changed.set())
        try:
            while True:
                await changed.wait()
                changed.clear()
                for task in tasks:
                    if task.done():
                        task.result()  # raises the error of a source of the service, which the client logs
                try:
                    joined = join(self._known[0], self._known[1], self._step, self._suffix)
                except InvalidTopology as error:
                    _log.warning("topology update failed: %s; keeping the previous topology", error)
                    continue
                if joined is not None and joined != self._last:
                    self._last = joined
                    yield joined
        finally:
            self._changed = None
            for task in tasks:
                task.cancel()
            await ended(tasks, lambda _: "the source of a migration")

    async def _load(self, side: int) -> DiscoveryError | None:
        try:
            self._known[side] = await self._sources[side].load()
        except DiscoveryError as error:
            return error
        return None

    async def _follow(self, side: int, changed: asyncio.Event) -> None:
        """Follow one of the sources. One that did not answer yet is asked until it does."""
        while self._known[side] is None:
            await asyncio.sleep(RETRY_SECONDS)
            if await self._load(side) is None:
                changed.set()
        async for topology in self._sources[side].watch():
            self._known[side] = topology
            changed.set()

    async def _follow_file(self) -> None:
        while self._file is not None:
            await asyncio.sleep(self._poll)
            try:
                step = self._read_step()
            except DiscoveryError as error:
                self._file_status.fail(error)
                continue
            self._file_status.confirm()
            if step is not self._step:
                self._set_step(step)

    def _read_step(self) -> MigrationStep:
        assert self._file is not None
        try:
            return step_of(self._file.read_text("utf-8").strip())
        except (OSError, ValueError) as error:  # InvalidArgument is a ValueError, and so is a UnicodeDecodeError
            raise DiscoveryError(str(self._file), str(error)) from error

    def _set_step(self, step: MigrationStep) -> None:
        _log.info("migration step changed: from %s to %s", self._step, step)
        self._step = step
        if self._changed is not None:
            self._changed.set()


def step_of(step: MigrationStep | str) -> MigrationStep:
    """Return the step of a member, or of its name.

    Raises:
        InvalidArgument: There is no such step.
    """
    try:
        return MigrationStep(step)
    except ValueError:
        raise InvalidArgument("step", f"{step!r} is none of {', '.join(map(repr, map(str, MigrationStep)))}") from None


def _source(zones: object, argument: str) -> Discovery:
    try:
        if isinstance(zones, str):
            return discovery_of_text(zones)
        if isinstance(zones, Mapping):
            return discovery_of_mapping(zones)
    except InvalidTopology as error:
        raise InvalidTopology(argument, error.problem) from error
    if has_methods(zones, "load", "watch"):
        return zones  # type: ignore[return-value]  # it has the methods
    raise InvalidArgument(argument, f"a node list, a mapping or a Discovery is required, not {zones!r}")
