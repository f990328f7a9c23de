"""A run: clients at work, faults by plan, an end to both, and the check of everything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from evcache.testing import RunningZones
from evcache.values.ttl import TOMBSTONE_TTL_SECONDS
from evcache.zones.health.circuit_breaker import CircuitLimits
from evcache.zones.nodes.settings import NodeSettings
from integration.chaos.convergence import Observer
from integration.chaos.end_state import unequal_keys
from integration.chaos.fault_plan import Fault, Pace, plan_faults
from integration.chaos.faults import carry_out
from integration.chaos.guests import Guests
from integration.chaos.history import History
from integration.chaos.keys import KEYS, NEVER_DELETED
from integration.chaos.promises import Findings
from integration.chaos.report import Report, count_calls, count_misses
from integration.chaos.system import FORGOTTEN_DELETE_SECONDS, TTL_SECONDS, System, open_system, start_apart
from integration.chaos.verdict import check_all
from integration.chaos.without import without
from integration.chaos.workload import READERS, WRITERS, Worker

# Servers keep versions since this release. Without them the latest write cannot win.
LEAST_VERSION = (1, 6, 27)

CONVERGENCE_SECONDS = 60.0
"""How long zones may differ after the last fault: what a zone missed waits for it for a while, and so do reconnects."""

PROGRESS_SECONDS = 5.0

SHORT_PAUSES = CircuitLimits(first_pause=0.3, longest_pause=1.0, jitter=0.2)

NO_REPAIR = {"hints": None, "repair": False, "read_repair_chance": 0, "remember_versions": 0}
"""Options of a client that does nothing about what a zone missed."""


class TooOld(Exception):
    """The servers keep no versions, so most of what is checked is not promised on them."""


@dataclass(frozen=True)
class Settings:
    """How to run."""

    seed: int
    seconds: float
    """Of faults; what comes after them takes a few more, and up to `CONVERGENCE_SECONDS`."""
    ordering: Literal["newest", "arrival"] = "newest"
    tombstones: bool = True
    """Whether zones remember deletes for longer than a second."""
    clients: int = 6
    skews: Sequence[float] = (0.0, 0.0, 0.0, 0.5, -0.5, 0.1)
    """Seconds by which the clients' clocks are ahead."""
    short_pauses: bool = True
    """True if clients probe a lost node every second. They then agree about it for most of the run, and more of it can be
    checked."""
    guests: bool = True
    """True if an idle client and late ones take part."""
    without: Sequence[str] = ()
    """Fixes that are switched off, by their names (see `without.py`)."""
    calls_per_second: float = 450.0
    """Of all clients together, in good times."""
    pace: Pace = field(default_factory=Pace)
    faults: Sequence[Fault] = tuple(Fault)
    """The kinds that come, beside the last one."""
    convergence: float = CONVERGENCE_SECONDS
    options: Mapping[str, Any] = field(default_factory=dict)
    """More arguments for each `EVCache`."""


def require_versions(running: RunningZones) -> None:
    """Raise `TooOld` unless the servers keep versions."""
    if tuple(map(int, running.version.split("."))) < LEAST_VERSION:
        needed = ".".join(map(str, LEAST_VERSION))
        raise TooOld(f"memcached {running.version} ({running.backend}) keeps no versions: {needed} and newer do")


async def run(running: RunningZones, settings: Settings, say: Callable[[str], None] = print) -> Report:
    """Break fresh zones under load, heal them, and check all results of clients. `say` receives lines of progress.

    Raises `TooOld`.
    """
    require_versions(running)
    with without(settings.without):
        return await _run(running, settings, say)


async def _run(running: RunningZones, settings: Settings, say: Callable[[str], None]) -> Report:
    starts = await start_apart(running)
    skews = settings.skews[: settings.clients]
    header = [
        f"memcached {running.version}, {running.backend}; {settings.clients} clients, {settings.calls_per_second:.0f} calls a second",
        "the clocks of zones tick apart: " + ", ".join(f"{zone} {at % 1:.2f} s" for zone, at in starts.items()),
        "the clocks of clients are ahead by " + ", ".join(f"{skew:+.1f} s" for skew in skews),
    ]
    if settings.without:
        header.append(f"switched off: {', '.join(settings.without)}")
    for line in header:
        say(line)
    history = History()
    names = list(running.zones)
    nodes = len(running.zones[names[0]])
    plan = plan_faults(settings.seed, settings.seconds, names, nodes, settings.clients, settings.pace, settings.faults)
    options: dict[str, Any] = {"ordering": settings.ordering, **settings.options}
    if settings.short_pauses:
        options["nodes"] = NodeSettings(circuit=SHORT_PAUSES)
    if not settings.tombstones:
        options["tombstone_ttl"] = FORGOTTEN_DELETE_SECONDS
    async with open_system(running, settings.clients, history.now, options, settings.skews) as system:
        each = settings.calls_per_second / settings.clients
        workers = [Worker(client, history, settings.seed, each) for client in system.clients]
        observer = Observer(system, history, KEYS)
        guests = Guests(system, history, settings.seed, each)
        async with asyncio.TaskGroup() as group:
            progress = group.create_task(_tell_progress(history, say))
            writers = [group.create_task(worker.write(number)) for worker in workers for number in range(WRITERS)]
            readers = [group.create_task(worker.read(number)) for worker in workers for number in range(READERS)]
            ends = [group.create_task(carry_out(system, plan, say)), group.create_task(observer.watch())]
            if settings.guests:
                ends.append(group.create_task(guests.visit(say)))
            await asyncio.sleep(settings.seconds)
            # Writers stop while the last fault is in effect: what a zone then misses, no later write brings it.
            for worker in workers:
                worker.writing = False
            await asyncio.wait(writers)
            system.over.set()
            await asyncio.wait(ends)
            say(f"{history.now():7.1f} s  every fault has ended; writers have stopped")
            for worker in workers:
                worker.reading = False
            await asyncio.wait(readers)
            workers += guests.workers
            for worker in workers:
                worker.reading = True
            readers = [group.create_task(_read_all(worker)) for worker in workers]
            state, waited = await observer.wait_until_equal(settings.convergence, say)
            for worker in workers:
                worker.reading = False
            progress.cancel()
        converged = not unequal_keys(state)
        circumstances = system.circumstances
        findings = Findings(
            check_all(
                history.calls,
                state,
                _emptied(system),
                circumstances,
                limit=settings.convergence,
                default_ttl=TTL_SECONDS,
                tombstone_ttl=TOMBSTONE_TTL_SECONDS if settings.tombstones else FORGOTTEN_DELETE_SECONDS,
            )
        )
        misses, misses_of_kept = count_misses(history.calls, NEVER_DELETED)
        return Report(
            seed=settings.seed,
            header=header,
            violations=findings.violations,
            checked=findings.checked,
            calls=count_calls(history.calls),
            misses=misses,
            misses_of_kept=misses_of_kept,
            faults=ends[0].result(),
            converged_after=waited if converged else None,
            equal_since=observer.equal_since,
            disagreements=circumstances.disagreements,
            troubles=circumstances.troubles,
            history=history.calls,
        )


async def _read_all(worker: Worker) -> None:
    with worker.is_active():
        await worker.read_all()


def _emptied(system: System) -> Mapping[tuple[str, str], float]:
    return {
        (zone, key): system.emptied[zone, node]
        for zone in system.zones
        for key in KEYS
        if (zone, node := system.node_of(zone, key)) in system.emptied
    }


async def _tell_progress(history: History, say: Callable[[str], None]) -> None:
    while True:
        await asyncio.sleep(PROGRESS_SECONDS)
        say(f"{history.now():7.1f} s  {len(history.calls)} calls")
