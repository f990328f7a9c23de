"""Command `evcache demo`: three zones serve traffic while the local zone is killed and returns empty."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from evcache.cli.demo.stats import Phase, Record, value_of
from evcache.cli.demo.view import Screen
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

# Mean pause of a reader. 32 readers make about 2,500 reads a second. Two cores carry this load with embedded servers, which
# share the event loop with the client.
READ_PAUSE_SECONDS = 0.012
# Writers rewrite the keys in turn. An empty zone is thus filled on servers without versions too, where nothing is repaired.
# 400 writes a second cover the default keys in 1.5 s.
WRITERS = 4
WRITE_PAUSE_SECONDS = 0.01

# Keys of one bulk write: well below the queue limit of a connection, and done within the write timeout.
FILL_BATCH = 200

# Ten times the default of a read. On a machine whose two cores were busy, reads failed after 0.1 s and 0.3 s although the
# remaining zones would have answered.
CALL_TIMEOUT_SECONDS = 1.0

# No key expires during a demo, so a missing key is a lost key.
TTL_SECONDS = 24 * 60 * 60

# Extension of a demo whose reads have not returned to the local zone. It covers the longest pause between two reconnects
# (5 s) and the refill.
PATIENCE_SECONDS = 8.0

REFRESH_SECONDS = 0.25  # takes well below 1 % of a core


@dataclass(frozen=True, slots=True)
class Plan:
    """Parameters of a demo."""

    backend: BackendName = "auto"
    seconds: float = DEFAULT_SECONDS
    callers: int = DEFAULT_CALLERS
    keys: int = DEFAULT_KEYS
    pause: bool = False
    """True to suspend the local zone instead of killing it."""
    seed: int = DEFAULT_SEED

    @property
    def names(self) -> list[str]:
        """Keys of the cache."""
        return [f"key-{number:05d}" for number in range(self.keys)]


async def run_demo(plan: Plan, record: Record, screen: Screen) -> None:
    """Run the demo, and fill the record.

    Cancellation ends all servers, tasks and connections before the call returns.

    Raises:
        BackendUnavailable: The servers cannot be started.
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
            await _run_with_companions(_story(zones, record, plan), [*traffic.calls(), _show(screen, record)])
    screen.refresh(record, ended=True)


async def _fill(cache: EVCache, record: Record, names: Sequence[str]) -> str:
    """Write each key once. Recovery a sentence about the way in which an empty zone is filled on these servers."""
    for start in range(0, len(names), FILL_BATCH):
        numbers = {key: record.next_write(key) for key in names[start : start + FILL_BATCH]}
        results = await cache.set_many({key: value_of(key, number) for key, number in numbers.items()})
        for key, result in results.items():
            if result:
                record.acknowledged[key] = numbers[key]
    item = await cache.get_item(names[0])
    if item is not None and item.version is not None:
        return "These servers keep versions: reads and writes repair missing keys."
    return "These servers keep no versions: an empty zone gets its keys when they are written again."


async def _story(zones: LocalZones, record: Record, plan: Plan) -> None:
    """Kill or suspend the local zone for the second third of the time, then restart it."""
    third = plan.seconds / 3
    await asyncio.sleep(third)
    record.phase = Phase.DURING
    if plan.pause:
        await zones.pause(LOCAL_ZONE)
        record.set_zone_state(LOCAL_ZONE, "paused", f"{LOCAL_ZONE} suspended")
    else:
        await zones.kill(LOCAL_ZONE)
        record.set_zone_state(LOCAL_ZONE, "down", f"{LOCAL_ZONE} killed")
    await asyncio.sleep(third)
    await zones.restart(LOCAL_ZONE)
    record.phase = Phase.AFTER
    record.recovery.start(record.timer())
    record.set_zone_state(LOCAL_ZONE, "up", f"{LOCAL_ZONE} restarted, empty")
    await asyncio.sleep(third)
    longest_end = record.timer() + PATIENCE_SECONDS
    while record.recovery.complete is None and record.timer() < longest_end:  # noqa: ASYNC110  # the record is plain data
        await asyncio.sleep(REFRESH_SECONDS)


class Traffic:
    """Readers and writers, which run until they are cancelled."""

    def __init__(self, cache: EVCache, record: Record, plan: Plan) -> None:
        self._cache = cache
        self._record = record
        self._plan = plan
        self._names = plan.names

    def calls(self) -> list[Coroutine[Any, Any, None]]:
        """Return one coroutine for each reader and writer."""
        readers = [self._read(random.Random(f"{self._plan.seed}/{number}")) for number in range(self._plan.callers)]  # noqa: S311  # a load, not a secret
        # Each writer has its own keys. With one writer for each key, the numbers of a key can only rise.
        writers = [self._write(self._names[number::WRITERS]) for number in range(min(WRITERS, len(self._names)))]
        return [*readers, *writers]

    async def _read(self, choice: random.Random) -> None:
        while True:
            # A random pause keeps the readers out of step.
            await asyncio.sleep(2 * READ_PAUSE_SECONDS * choice.random())
            await read_once(self._cache, self._record, choice.choice(self._names))

    async def _write(self, names: Sequence[str]) -> None:
        for key in itertools.cycle(names):
            await asyncio.sleep(WRITE_PAUSE_SECONDS)
            await write_once(self._cache, self._record, key)


async def read_once(cache: EVCache, record: Record, key: str) -> None:
    """Read a key once and record the result."""
    known, phase = record.acknowledged.get(key), record.phase
    began = record.timer()
    try:
        item = await cache.get_item(key)
    except Exception as error:  # the demo shows each error of a read
        record.record_failure(error, phase, record.timer() - began)
        return
    took = record.timer() - began
    if item is None:
        record.record_miss(key, known, phase, took)
    else:
        record.record_hit(key, item.value, item.zone, known, phase, took)


async def write_once(cache: EVCache, record: Record, key: str) -> None:
    """Write a key once and record the result."""
    number = record.next_write(key)
    try:
        acknowledged = (await cache.set(key, value_of(key, number))).met
    except CacheError:
        acknowledged = False
    record.record_write(key, number, acknowledged=acknowledged)


async def _show(screen: Screen, record: Record) -> None:
    while True:
        screen.refresh(record)
        await asyncio.sleep(REFRESH_SECONDS)


async def _run_with_companions(story: Coroutine[Any, Any, None], companions: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run the story and its companions. The end of the story cancels the companions. The first error ends all tasks."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(companion) for companion in companions]
            await group.create_task(story)
            for task in tasks:
                task.cancel()
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from errors
