"""A run: clients at work, faults by plan, an end to both, and the check of everything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from evcache.testing import RunningZones
from integration.chaos.checker import Violation, check_calls
from integration.chaos.convergence import Observer
from integration.chaos.end_state import Emptied, EndState, check_convergence, check_end_state, unequal_keys
from integration.chaos.fault_plan import Fault, Pace, plan_faults
from integration.chaos.faults import carry_out
from integration.chaos.history import History
from integration.chaos.report import Report, count_calls, count_misses
from integration.chaos.system import FORGOTTEN_DELETE_SECONDS, System, open_system
from integration.chaos.workload import KEYS, NEVER_DELETED, READERS, WRITERS, Worker

# The servers of which keep versions, by which alone the newest write can win.
LEAST_VERSION = (1, 6, 27)

CONVERGENCE_SECONDS = 60.0
"""How long zones may differ after the last fault: what a zone missed waits for it for a while, and so do reconnects."""

PROGRESS_SECONDS = 5.0

NO_REPAIR = {"hints": None, "repair": False, "check_share": 0, "remember_versions": 0}
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
    calls_per_second: float = 300.0
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
    """Break fresh zones under load, heal them, and check what clients were told. `say` is given lines as things happen.

    Raises `TooOld`.
    """
    require_versions(running)
    history = History()
    names = list(running.zones)
    nodes = len(running.zones[names[0]])
    plan = plan_faults(settings.seed, settings.seconds, names, nodes, settings.clients, settings.pace, settings.faults)
    options = {"ordering": settings.ordering, **settings.options}
    if not settings.tombstones:
        options["tombstone_ttl"] = FORGOTTEN_DELETE_SECONDS
    async with open_system(running, settings.clients, history.now, options) as system:
        each = settings.calls_per_second / settings.clients
        workers = [Worker(client, history, settings.seed, each) for client in system.clients]
        observer = Observer(system, history, KEYS)
        async with asyncio.TaskGroup() as group:
            progress = group.create_task(_tell_progress(history, say))
            writers = [group.create_task(worker.write(number)) for worker in workers for number in range(WRITERS)]
            readers = [group.create_task(worker.read(number)) for worker in workers for number in range(READERS)]
            faults = group.create_task(carry_out(system, plan, say))
            watch = group.create_task(observer.watch())
            await asyncio.sleep(settings.seconds)
            # Writers stop while the last fault is in effect: what a zone then misses, no later write brings it.
            for worker in workers:
                worker.writing = False
            await asyncio.wait(writers)
            system.over.set()
            await asyncio.wait([faults, watch])
            say(f"{history.now():7.1f} s  all is well again; writers have stopped")
            for worker in workers:
                worker.reading = False
            await asyncio.wait(readers)
            for worker in workers:
                worker.reading = True
            readers = [group.create_task(worker.read_all()) for worker in workers]
            state, waited = await observer.wait_until_equal(settings.convergence, say)
            for worker in workers:
                worker.reading = False
            progress.cancel()
        converged = not unequal_keys(state)
        misses, misses_of_kept = count_misses(history.calls, NEVER_DELETED)
        return Report(
            seed=settings.seed,
            violations=_check(history, state, _emptied(system), settings.convergence),
            calls=count_calls(history.calls),
            misses=misses,
            misses_of_kept=misses_of_kept,
            faults=faults.result(),
            converged_after=waited if converged else None,
        )


def _check(history: History, state: EndState, emptied: Emptied, limit: float) -> list[Violation]:
    return [
        *check_calls(history.calls),
        *check_convergence(state, limit),
        *check_end_state(history.calls, state, emptied),
    ]


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
