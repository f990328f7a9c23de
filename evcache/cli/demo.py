"""`evcache demo`: three zones under traffic; the local one goes away and comes back empty, and nobody should notice."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from evcache.cli.demo_stats import Phase, Record, value_of
from evcache.cli.demo_view import Screen
from evcache.client import EVCache
from evcache.errors import CacheError
from evcache.testing.local_zones import BackendName, LocalZones

ZONES = ("eu-1a", "eu-1b", "eu-1c")
LOCAL_ZONE = ZONES[0]
NODES_PER_ZONE = 2
NAMESPACE = "demo"

DEFAULT_SECONDS = 12.0
DEFAULT_CALLERS = 32
DEFAULT_KEYS = 500
DEFAULT_SEED = 1

# A reader's pause between two reads, on average. 32 readers then make about 2,500 reads a second: two cores carry that
# with the servers in this process too, which share the event loop with everything else here.
READ_PAUSE_SECONDS = 0.012
# Writers rewrite the keys in turn, so that a zone that came back empty fills up even where the servers keep no versions and
# nothing can be repaired: 400 writes a second, the default keys in a second and a half.
WRITERS = 4
WRITE_PAUSE_SECONDS = 0.01

# Keys that are first written at once: well below what a connection lets wait, and done within a write's timeout.
FILL_BATCH = 200

# Ten times the client's default for a read, which is for machines that have time. With both cores of a small one taken
# by other programs, 0.1 s and 0.3 s let reads fail here although every zone that was up would have answered.
CALL_TIMEOUT_SECONDS = 1.0

# Nothing expires while a demo runs, so that a missing key is a lost one.
TTL_SECONDS = 24 * 60 * 60

# How much longer than asked a demo runs when its reads are not back in the local zone yet: a client's longest pause between
# two attempts to reconnect (5 s), and some for the refill.
PATIENCE_SECONDS = 8.0

REFRESH_SECONDS = 0.25  # a few times a second: smooth to the eye, and well below 1 % of a core


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run."""

    backend: BackendName = "auto"
    seconds: float = DEFAULT_SECONDS
    callers: int = DEFAULT_CALLERS
    keys: int = DEFAULT_KEYS
    pause: bool = False
    """Whether the local zone is frozen, and not killed."""
    seed: int = DEFAULT_SEED

    @property
    def names(self) -> list[str]:
        """The keys."""
        return [f"key-{number:05d}" for number in range(self.keys)]


async def run_demo(plan: Plan, record: Record, screen: Screen) -> None:
    """Start the zones, put them under traffic, take the local zone away and bring it back; fills the record.

    Raises what `LocalZones` raises when the servers can't be started. When it is cancelled, servers, tasks and connections
    are gone before it ends.
    """
    async with LocalZones(dict.fromkeys(ZONES, NODES_PER_ZONE), backend=plan.backend) as zones:
        screen.say(
            f"{len(ZONES)} zones of {NODES_PER_ZONE} nodes: memcached {zones.version} ({zones.backend}). "
            f"{LOCAL_ZONE} is local. {plan.callers} readers, {WRITERS} writers, {plan.keys} keys."
        )
        async with EVCache(
            NAMESPACE,
            zones.zones,
            local_zone=LOCAL_ZONE,
            read_timeout=CALL_TIMEOUT_SECONDS,
            write_timeout=CALL_TIMEOUT_SECONDS,
            ttl=TTL_SECONDS,
        ) as cache:
            screen.say(await _fill(cache, record, plan.names))
            record.begin()
            traffic = Traffic(cache, record, plan)
            await _beside(_story(zones, record, plan), [*traffic.calls(), _show(screen, record)])
    screen.refresh(record, ended=True)


async def _fill(cache: EVCache, record: Record, names: Sequence[str]) -> str:
    """Write every key once, and say how a zone that comes back empty will be filled here."""
    for start in range(0, len(names), FILL_BATCH):
        numbers = {key: record.next_write(key) for key in names[start : start + FILL_BATCH]}
        results = await cache.set_many({key: value_of(key, number) for key, number in numbers.items()})
        for key, result in results.items():
            if result:
                record.acknowledged[key] = numbers[key]
    item = await cache.get_item(names[0])
    if item is not None and item.version is not None:
        return "These servers keep versions: what a zone lacks is repaired by reads, and by writes."
    return "These servers keep no versions, so nothing is repaired: an empty zone fills up as its keys are written again."


async def _story(zones: LocalZones, record: Record, plan: Plan) -> None:
    """What happens to the local zone: a third of the time each before, during and after its outage."""
    third = plan.seconds / 3
    await asyncio.sleep(third)
    record.phase = Phase.DURING
    if plan.pause:
        await zones.pause(LOCAL_ZONE)
        record.zone_became(LOCAL_ZONE, "paused", f"{LOCAL_ZONE} hangs")
    else:
        await zones.kill(LOCAL_ZONE)
        record.zone_became(LOCAL_ZONE, "down", f"{LOCAL_ZONE} killed")
    await asyncio.sleep(third)
    await zones.restart(LOCAL_ZONE)
    record.phase = Phase.AFTER
    record.returned.restarted(record.timer())
    record.zone_became(LOCAL_ZONE, "up", f"{LOCAL_ZONE} back, empty")
    await asyncio.sleep(third)
    patient_until = record.timer() + PATIENCE_SECONDS
    while record.returned.back is None and record.timer() < patient_until:  # noqa: ASYNC110  # the record is plain data
        await asyncio.sleep(REFRESH_SECONDS)


class Traffic:
    """Readers and writers. They go on until they are cancelled, and then finish nothing."""

    def __init__(self, cache: EVCache, record: Record, plan: Plan) -> None:
        self._cache = cache
        self._record = record
        self._plan = plan
        self._names = plan.names

    def calls(self) -> list[Coroutine[Any, Any, None]]:
        """One coroutine for each reader and writer."""
        readers = [self._read(random.Random(f"{self._plan.seed}/{number}")) for number in range(self._plan.callers)]  # noqa: S311  # a load, not a secret
        # Each writer has keys of its own: with one writer at a time, a key's numbers can only rise.
        writers = [self._write(self._names[number::WRITERS]) for number in range(min(WRITERS, len(self._names)))]
        return [*readers, *writers]

    async def _read(self, choice: random.Random) -> None:
        while True:
            # Uneven, so that the readers do not march in step.
            await asyncio.sleep(2 * READ_PAUSE_SECONDS * choice.random())
            await read_once(self._cache, self._record, choice.choice(self._names))

    async def _write(self, names: Sequence[str]) -> None:
        for key in itertools.cycle(names):
            await asyncio.sleep(WRITE_PAUSE_SECONDS)
            await write_once(self._cache, self._record, key)


async def read_once(cache: EVCache, record: Record, key: str) -> None:
    """One read, and what came of it, in the record."""
    known, phase = record.acknowledged.get(key), record.phase
    began = record.timer()
    try:
        item = await cache.get_item(key)
    except Exception as error:  # whatever a read raises is what the demo is there to show
        record.read_failed(error, phase, record.timer() - began)
        return
    took = record.timer() - began
    if item is None:
        record.read_missed(key, known, phase, took)
    else:
        record.read_hit(key, item.value, item.zone, known, phase, took)


async def write_once(cache: EVCache, record: Record, key: str) -> None:
    """One write, and what came of it, in the record."""
    number = record.next_write(key)
    try:
        acknowledged = (await cache.set(key, value_of(key, number))).met
    except CacheError:
        acknowledged = False
    record.wrote(key, number, acknowledged=acknowledged)


async def _show(screen: Screen, record: Record) -> None:
    while True:
        screen.refresh(record)
        await asyncio.sleep(REFRESH_SECONDS)


async def _beside(story: Coroutine[Any, Any, None], companions: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run the story with others beside it, which are cancelled when it ends. The first error ends all, and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(companion) for companion in companions]
            await group.create_task(story)
            for task in tasks:
                task.cancel()
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from errors
