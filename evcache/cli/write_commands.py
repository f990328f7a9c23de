"""Commands `evcache set` and `evcache delete`: one write to all zones, and a report of its outcome in each zone.

The hints of a command end with its process. By default a command therefore requires all zones. With `--wait` it waits for
zones that missed the write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import click

from evcache.cli.output import parse_json, to_json
from evcache.cli.runner import NoAnswer, Status, run_command
from evcache.cli.target import Target, make_client, targeted
from evcache.client import EVCache
from evcache.consistency import Consistency
from evcache.errors import CacheUnavailable
from evcache.hooks import HintEnd, Hooks
from evcache.results import ACKNOWLEDGED, ACKNOWLEDGED_DELETE, Outcome, WriteResult
from evcache.zones.health.circuit_breaker import CircuitLimits
from evcache.zones.topology.model import Mode, Topology
from evcache.zones.validation import zero_or_more

# A service probes a dead node up to 30 s apart, because many processes probe it. A command is one process that waits for
# seconds.
WAITING = CircuitLimits(longest_pause=1.0, probe_timeout=1.0)

# Outcomes for which the client stores a hint. A zone that refused the write gets none.
MAY_BE_DELIVERED = frozenset({Outcome.TIMEOUT, Outcome.UNAVAILABLE, Outcome.PENDING})
DELIVERED: Mapping[HintEnd, Outcome] = {"delivered": Outcome.STORED, "superseded": Outcome.SUPERSEDED}
UNDELIVERED: Mapping[HintEnd, str] = {
    "refused": "its server keeps no versions, or refuses the write; repeat the command",
    "expired": "a later delivery could undo a delete of another client; repeat the command",
}

# Below this, the report does not mention the wait.
SHORTEST_WAIT_SECONDS = 0.05

Write = Callable[[EVCache, Consistency], Awaitable[WriteResult]]

_LEVELS = "Number of zones that must acknowledge the write. By default all, because hints end with the command."


@dataclass(frozen=True, slots=True)
class Report:
    """The state of a write when its command ends."""

    met: bool
    """True if the number of zones that the command requires have the write."""
    version: int | None
    zones: Mapping[str, Outcome]
    missed: list[str]
    """Zones that may not have the write. The command does not deliver it after its end."""
    fell_short: tuple[Mode, ...] = ()
    """Modes of the sets of zones in which too few have the write."""
    waited: float = 0.0
    """Seconds for which the command waited for zones that missed the write. 0 if it did not wait."""
    failed_deliveries: Mapping[str, HintEnd] = field(default_factory=dict)
    """Reasons for which the write will not be delivered to zones that missed it, by zone."""
    write_only: frozenset[str] = frozenset()
    """Write-only zones, which serve no reads."""

    @property
    def is_answered(self) -> bool:
        """True if any zone stored or refused the write."""
        return not MAY_BE_DELIVERED.issuperset(self.zones.values())


class ZoneProgress(Hooks):
    """Outcomes of one write by zone, with the outcomes of its hints."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}
        """Latest outcome of each zone, during the call or after it."""
        self.hint_ends: dict[str, HintEnd] = {}
        """Latest outcome of a hint for each zone."""
        self._changed = asyncio.Event()

    def zone_wrote(self, zone: str, outcome: Outcome, *, late: bool) -> None:
        """Record the outcome of a zone."""
        del late
        self.outcomes[zone] = outcome
        self._changed.set()

    def hint_ended(self, zone: str, end: HintEnd) -> None:
        """Record the outcome of a hint.

        An expired set is demoted to a comparison of the zones, whose outcome says nothing about this write.
        """
        if self.hint_ends.get(zone) != "expired":
            self.hint_ends[zone] = end
        self._changed.set()

    async def wait_for_change(self) -> None:
        """Wait for the next outcome."""
        self._changed.clear()
        await self._changed.wait()


def report(
    result: WriteResult | None,
    progress: ZoneProgress,
    topology: Topology,
    level: Consistency,
    acknowledged: frozenset[Outcome],
    waited: float = 0.0,
) -> Report:
    """Return the state of a write after its client was closed.

    Args:
        result: The result of the call, or None if it raised because no zone answered.
        progress: Outcomes since the call began.
        topology: The zones, with their modes.
        level: The level that the command requires.
        acknowledged: Outcomes after which a zone has the write.
        waited: Seconds for which the command waited for zones.
    """
    outcomes = dict(progress.outcomes)
    if result is not None:
        outcomes |= {zone: outcome for zone, outcome in result.zones.items() if outcome is not Outcome.PENDING}
    zones = {zone.name: outcomes.get(zone.name, Outcome.PENDING) for zone in topology.zones}
    for zone, end in progress.hint_ends.items():
        if zones.get(zone) in MAY_BE_DELIVERED and end in DELIVERED:
            zones[zone] = DELIVERED[end]
    having = {zone for zone, outcome in zones.items() if outcome in acknowledged}
    sets = {Mode.READ_WRITE: topology.readable, Mode.STANDBY: topology.standby}
    fell_short = tuple(
        mode
        for mode, members in sets.items()
        if members and len(having.intersection(zone.name for zone in members)) < level.required(len(members))
    )
    missed = [zone for zone in zones if zone not in having]
    return Report(
        not fell_short,
        None if result is None else result.version,
        zones,
        missed,
        fell_short,
        waited,
        failed_deliveries={zone: end for zone, end in progress.hint_ends.items() if zone in missed and end in UNDELIVERED},
        write_only=frozenset(zone.name for zone in topology.zones if zone.mode is Mode.WRITE_ONLY),
    )


def lines(found: Report, wait: float) -> list[str]:
    """Return the lines of a report. `wait`: the option, in seconds."""
    version = "" if found.version is None else f", version {found.version}"
    standby = "standby " if found.fell_short == (Mode.STANDBY,) else ""
    text = [f"done{version}" if found.met else f"not done: too few {standby}zones acknowledged"]
    width = max(map(len, found.zones))
    text += [f"  {zone:<{width}}  {outcome.value}" for zone, outcome in found.zones.items()]
    waited = f" after {found.waited:.1f} s of waiting" if found.waited >= SHORTEST_WAIT_SECONDS else ""
    for zones, consequence in (
        ([zone for zone in found.missed if zone not in found.write_only], "reads from there may return the earlier value"),
        ([zone for zone in found.missed if zone in found.write_only], "write-only; the earlier value may remain there"),
    ):
        if zones:
            text.append(f"missed by {', '.join(zones)}{waited}: {consequence}")
    refused = [zone for zone in found.missed if found.zones[zone] is Outcome.NOT_STORED]
    if refused:
        text.append(f"refused by {', '.join(refused)}: too large for the server's items, or no memory is left")
    text += [f"not delivered to {zone}: {UNDELIVERED[end]}" for zone, end in found.failed_deliveries.items()]
    if not wait and any(found.zones[zone] in MAY_BE_DELIVERED for zone in found.missed):
        text.append("with --wait SECONDS the command delivers the write when the zones return, if they keep versions")
    return text


def _waiting(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--wait",
        type=float,
        default=0.0,
        show_default=True,
        metavar="SECONDS",
        help="Wait for zones that missed the write, and deliver it when they return. A delete is delivered at any time, a "
        "set for about a minute.",
    )(targeted(command, levels=_LEVELS))


@click.command(name="set")
@click.argument("key")
@click.argument("value")
@click.option("--ttl", type=float, help="Seconds to live, or 'inf' for no expiry. By default 900.")
@click.option("--json-value", is_flag=True, help="VALUE is JSON. Without this option, VALUE is stored as text.")
@_waiting
def set_(target: Target, key: str, value: str, ttl: float | None, wait: float, *, json_value: bool) -> None:
    """Store VALUE under KEY in all zones.

    The report names each zone that missed the write. Hints end with the command, so a zone that is down gets the write only
    with --wait, if it returns in that time.

    \b
    Examples:
        evcache set user:42 Ada
        evcache set user:42 '{"name": "Ada"}' --json-value --ttl 3600
        evcache set user:42 Ada --wait 60

    Exit status 0: the required zones have it; 1: too few zones have it; 3: no zone answered.
    """  # noqa: D301  # click reads a backspace as: do not wrap the next paragraph
    stored = parse_json(value) if json_value else value

    async def write(cache: EVCache, level: Consistency) -> WriteResult:
        return await cache.set(key, stored, ttl=ttl, consistency=level, timeout=target.timeout)

    _write(target, write, wait, ACKNOWLEDGED)


@click.command()
@click.argument("key")
@_waiting
def delete(target: Target, key: str, wait: float) -> None:
    """Delete KEY in all zones.

    The report names each zone that missed the delete, and that may still serve the value.

    \b
    Examples:
        evcache delete user:42
        evcache delete user:42 --wait 60
        evcache delete user:42 --consistency quorum --json

    Exit status 0: it is absent in the required zones; 1: in too few zones; 3: no zone answered.
    """  # noqa: D301  # click reads a backspace as: do not wrap the next paragraph

    async def write(cache: EVCache, level: Consistency) -> WriteResult:
        return await cache.delete(key, consistency=level, timeout=target.timeout)

    _write(target, write, wait, ACKNOWLEDGED_DELETE)


def _write(target: Target, write: Write, wait: float, acknowledged: frozenset[Outcome]) -> None:
    level = Consistency.ALL if target.consistency is None else Consistency.parse(target.consistency)

    async def work() -> Report:
        zero_or_more(wait, "wait")
        progress = ZoneProgress()
        cache = make_client(target, progress, **({"circuit": WAITING} if wait else {}))
        return await write_and_wait(cache, progress, write, level, wait, acknowledged)

    found = run_command(work())
    if not found.is_answered:  # for any level, since `none` requires no zone, and no zone has the write
        outcomes = ", ".join(f"{zone} {outcome.value}" for zone, outcome in found.zones.items())
        raise NoAnswer(f"no zone answered: {outcomes}")
    if target.as_json:
        click.echo(to_json({"met": found.met, "version": found.version, "zones": found.zones, "missed": found.missed}))
    else:
        for line in lines(found, wait):
            click.echo(line)
    raise SystemExit(Status.DONE if found.met else Status.NO)


async def write_and_wait(
    cache: EVCache,
    progress: ZoneProgress,
    write: Write,
    level: Consistency,
    wait: float,
    acknowledged: frozenset[Outcome],
) -> Report:
    """Open a client, write, wait for zones that missed the write, and close the client.

    Args:
        cache: Client whose hooks are `progress`.
        progress: Receiver of outcomes.
        write: Function that makes the call.
        level: Number of zones that the call requires.
        wait: Seconds to wait for zones that missed the write. 0 disables waiting.
        acknowledged: Outcomes after which a zone has the write.

    Returns:
        The state after the client was closed. Closing waits for late zones and tries once more to deliver hints.

    Raises:
        CacheUnavailable: No zone of any mode answered, and no zone received the write later.
    """
    result: WriteResult | None = None
    unreachable: CacheUnavailable | None = None
    async with cache:
        try:
            result = await write(cache, level)
        except CacheUnavailable as error:
            unreachable = error
        waited = await _wait_for_zones(cache, progress, result, wait) if wait else 0.0
        topology = cache.topology
    assert topology is not None
    found = report(result, progress, topology, level, acknowledged, waited)
    # The error is about the read-write zones. A write-only or standby zone may have the write, or a zone that returned.
    if unreachable is not None and not found.is_answered:
        raise unreachable
    return found


async def _wait_for_zones(cache: EVCache, progress: ZoneProgress, result: WriteResult | None, seconds: float) -> float:
    """Wait until all zones have answered and no hint is left, for at most `seconds`. Return the seconds that it took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    pending = [] if result is None else [zone for zone, outcome in result.zones.items() if outcome is Outcome.PENDING]
    is_reported = False
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while cache.stats().hints or any(zone not in progress.outcomes for zone in pending):
                if not is_reported and cache.stats().hints:
                    is_reported = True
                    click.echo(f"waiting up to {seconds:g} s for zones that missed the write", err=True)
                await progress.wait_for_change()
    return loop.time() - began
