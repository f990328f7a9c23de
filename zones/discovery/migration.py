"""Two sources of zones, for a cache that moves from one set of zones to another while it is in use."""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from evcache.zones._tasks import closing, ended, unattended
from evcache.zones.discovery.base import Discovery, Handover, SourceStatus, name_of_source
from evcache.zones.discovery.forms import discovery_of_mapping, discovery_of_text
from evcache.zones.errors import DiscoveryError, InvalidArgument, InvalidTopology, UsageError
from evcache.zones.topology.model import Mode, Topology, Zone, is_zone_name
from evcache.zones.validation import has_methods, positive_seconds

# Suffix of the zones of the new set, whose source may have the names of the old zones.
NEW_SUFFIX = "-new"

# Seconds between looks at the file with the step. A step takes minutes.
STEP_POLL_SECONDS = 2.0

# Seconds for a set that does not count when a client opens.
IDLE_LOAD_SECONDS = 2.0

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
MODES: dict[MigrationStep, tuple[Mode | None, Mode | None]] = {
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

    Raises:
        InvalidTopology: Both sets have a node or a name, or a set has standby zones.
    """
    zones: list[Zone] = []
    for topology, mode, ending in zip((old, new), MODES[step], ("", suffix), strict=True):
        if mode is None or (topology is None and mode is Mode.WRITE_ONLY):
            continue
        if topology is None:
            return None
        if topology.standby:
            # It would count in the other set, whose zones then need not acknowledge.
            raise InvalidTopology(
                "zones", f"zone {topology.standby[0].name} of a set is standby, which only a migration may be"
            )
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
    if old is not None and new is not None and None not in MODES[step]:
        shared = {node.address for zone in old.zones for node in zone.nodes if node.host}
        shared &= {node.address for zone in new.zones for node in zone.nodes}
        if shared:
            raise InvalidTopology("zones", f"both sets have the node {min(shared)}")
    return Topology(tuple(zones))


class Migration:
    """Source of a cache that moves from one set of zones to another.

    The step is changed by `move_to`, or in a file that all processes watch. See the guide in docs/migration.md.
    """

    def __init__(
        self,
        old: str | Mapping[str, object] | Discovery,
        new: str | Mapping[str, object] | Discovery,
        step: MigrationStep | str | Path = MigrationStep.OLD,
        *,
        suffix: str = NEW_SUFFIX,
        poll: float = STEP_POLL_SECONDS,
    ) -> None:
        """Make a source. No I/O happens here.

        Args:
            old: Zones that are in use: a node list, a mapping or a source.
            new: Zones that the cache moves to, in the same forms.
            step: Step of the migration, or the `Path` of a file with its name.
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
        self._loaded = Handover[list[Topology | None]]()
        self._watching: set[_Sets] = set()
        self._status = SourceStatus("migration")
        self._file_status = SourceStatus(str(self._file))

    @property
    def step(self) -> MigrationStep:
        """Step that is wanted. It is in use when the client has logged the topology with its modes."""
        return self._step

    @property
    def status(self) -> SourceStatus | None:
        """Freshness of the part that fails, or else of the set that answered least recently. None if no set reports it."""
        found = [status for status in (self._status, self._file_status) if status.error is not None]
        for source, mode in zip(self._sources, MODES[self._step], strict=True):
            status = getattr(source, "status", None)
            if mode is not None and isinstance(status, SourceStatus):
                found.append(status)
        return min(found, key=lambda status: (status.error is None, status.confirmed_at or 0.0), default=None)

    def move_to(self, step: MigrationStep | str) -> None:
        """Change the step. Call it on the event loop of the client.

        Args:
            step: The step before or after the present one.

        Raises:
            InvalidArgument: There is no such step, or it is further away: a step must reach all processes before the next.
                After `new` there is no way back, because the old set has missed writes.
            UsageError: The step is in a file.
        """
        wanted = step_of(step)
        if self._file is not None:
            raise UsageError(f"the step of this migration is in the file {self._file}")
        if _distance(self._step, wanted) > 1:
            raise InvalidArgument("step", f"{wanted} is more than one step from {self._step}")
        if self._step is MigrationStep.NEW and wanted is not self._step:
            raise InvalidArgument("step", "the old set has missed writes: begin a migration in the other direction")
        self._set_step(wanted)

    async def load(self) -> Topology:
        """Return the present topology of both sets.

        Raises:
            InvalidTopology: A set that counts in the step cannot be used, or both sets have a node or a name.
            DiscoveryError: A set that counts in the step is unknown, or the file does not have a step.
        """
        if self._file is not None:
            step = self._read_step()
            self._file_status.confirm()
            if self._watching and step is not self._step:
                self._set_step(step)
            self._step = step
        self._status.reset()
        sets = _Sets()
        async with asyncio.TaskGroup() as group:
            for side, mode in enumerate(MODES[self._step]):
                if mode is Mode.WRITE_ONLY:
                    # Writes before the set is known would not reach it, nor leave a hint. But a set that does not count must
                    # not keep a service from starting.
                    group.create_task(self._load(sets, side, IDLE_LOAD_SECONDS))
                elif mode is not None:
                    group.create_task(self._load(sets, side))
        for error, mode in zip(sets.errors, MODES[self._step], strict=True):
            if error is not None and mode is not Mode.WRITE_ONLY:
                raise error
        joined = self._join(sets)
        assert joined is not None
        self._loaded.put(joined, sets.known)
        return joined

    async def watch(self) -> AsyncIterator[Topology]:
        """Yield each topology after a change of a set or of the step."""
        sets, loaded = _Sets(), self._loaded.take()
        if loaded is not None:
            sets.last, sets.known = loaded[0], list(loaded[1])
        self._watching.add(sets)
        loop = asyncio.get_running_loop()
        work = [self._follow(sets, 0), self._follow(sets, 1), self._follow_file()]
        tasks = [unattended(loop.create_task(each, name="evcache-migration")) for each in work]
        try:
            while True:
                await sets.changed.wait()
                sets.changed.clear()
                try:
                    joined = self._join(sets)
                except InvalidTopology as error:
                    self._status.fail(error)
                    continue
                if joined is not None and joined != sets.last:
                    sets.last = joined
                    yield joined
        finally:
            self._watching.discard(sets)
            for task in tasks:
                task.cancel()
            await ended(tasks, lambda _: "the source of a migration")

    def _join(self, sets: _Sets) -> Topology | None:
        """Return the topology of the step, and note whether a set is missing that the step uses."""
        joined = join(sets.known[0], sets.known[1], self._step, self._suffix)
        problems = [
            f"the {name} set {'is unknown' if topology is None else 'fails'}{f': {error}' if error else ''}"
            for name, mode, topology, error in zip(("old", "new"), MODES[self._step], sets.known, sets.errors, strict=True)
            if mode is not None and (topology is None or error is not None)
        ]
        if problems:
            effect = f"step {self._step} is not in use: " if joined is None else ""
            self._status.fail(DiscoveryError("migration", effect + "; ".join(problems)), None if joined is None else ())
            if any(sets.errors):
                self._status.stale = None
        else:
            self._status.confirm()
        return joined

    def stale_zones(self) -> frozenset[str] | None:
        """Return the zones whose source fails. None for all."""
        found: set[str] = set()
        parts = [(self._status, "")]
        for source, mode, ending in zip(self._sources, MODES[self._step], ("", self._suffix), strict=True):
            status = getattr(source, "status", None)
            if mode is not None and isinstance(status, SourceStatus):
                parts.append((status, ending))
        for status, ending in parts:
            if status.stale is None:
                return None
            found |= {zone + ending for zone in status.stale}
        return frozenset(found)

    async def _load(self, sets: _Sets, side: int, timeout: float | None = None) -> None:
        try:
            async with asyncio.timeout(timeout):
                sets.known[side], sets.errors[side] = await self._sources[side].load(), None
        except TimeoutError as error:
            late = DiscoveryError(name_of_source(self._sources[side]), f"no answer in {timeout or 0:g} s")
            sets.errors[side] = error if timeout is None else late
        except Exception as error:  # a source of the service may raise any error; the other set must outlive all
            sets.errors[side] = error

    async def _follow(self, sets: _Sets, side: int) -> None:
        """Follow one of the sources. One that failed is asked again until it answers."""
        while True:
            if sets.known[side] is None or sets.errors[side] is not None:
                await self._load(sets, side)
                sets.changed.set()
            if sets.errors[side] is None:
                try:
                    async with closing(self._sources[side].watch()) as topologies:
                        async for topology in topologies:
                            sets.known[side] = topology
                            sets.changed.set()
                    return  # a source that never changes
                except Exception as error:
                    sets.errors[side] = error
                    _log.exception("discovery failed: unexpected exception; keeping the previous topology")
            await asyncio.sleep(RETRY_SECONDS)

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
        if _distance(self._step, step) > 1 or self._step is MigrationStep.NEW:
            _log.warning("migration step is not safe: from %s to %s; acknowledged writes may be lost", self._step, step)
        _log.info("migration step wanted: %s, after %s", step, self._step)
        self._step = step
        for sets in self._watching:
            sets.changed.set()


class _Sets:
    """Both sets as one client follows them."""

    def __init__(self) -> None:
        self.known: list[Topology | None] = [None, None]
        self.errors: list[Exception | None] = [None, None]
        self.last: Topology | None = None
        self.changed = asyncio.Event()


def _distance(step: MigrationStep, other: MigrationStep) -> int:
    steps = list(MigrationStep)
    return abs(steps.index(step) - steps.index(other))


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
