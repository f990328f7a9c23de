"""What the near cache costs: nanoseconds, stalls, bytes for each entry, and a near hit as its caller sees it.

Run by `python -m benchmarks.near_cache_traces costs` and `near_hit`. Seconds are those of this thread: on a machine that is
shared, those of the clock are mostly others'.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import statistics
import sys
import time
import types
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass

from evcache import EVCache, NearCache
from evcache.near_cache.hot_keys import COUNTED_KEYS, HotKeys
from evcache.near_cache.settings import ENTRY_OVERHEAD
from evcache.near_cache.store import NearStore
from evcache.near_cache.sweeper import SWEPT_PER_STEP
from evcache.replication.hlc import cas_of
from evcache.testing import LocalZones
from evcache.zones.testing import FakeMemcached

ENTRIES = 100_000  # in the store whose costs are measured
ROUNDS = 25
RUNS = 5  # of each stall
STEP_EVERY = 1_000  # calls between two steps of the sweeper, under traffic: at 10,000 a second
LIFE = 20_000  # seconds
NEVER = 10.0**9  # seconds
SEED = 20_230_923
NEWER = 1_700_000_000_000 << 20  # a version, of 2023


def filled(entries: int, clock: Callable[[], float] = time.monotonic, size: int = 1) -> NearStore:
    store = NearStore(NearCache(max_bytes=2**40, max_entries=entries, ttl=NEVER), clock)
    for number in range(entries):
        store.put(b"user:%014d" % number, bytes(size), size, LIFE, number)
    return store


def seconds(operation: Callable[[bytes], object], keys: list[bytes]) -> float:
    """Of this thread, each: other processes do not count."""
    started = time.thread_time()
    for key in keys:
        operation(key)
    return (time.thread_time() - started) / len(keys)


def nothing(keys: list[bytes]) -> float:
    started = time.thread_time()
    for _ in keys:
        pass
    return (time.thread_time() - started) / len(keys)


def print_times() -> None:
    entries = ENTRIES // 10
    store, evicting, hot, crowd = filled(entries), filled(entries), HotKeys(10**9), HotKeys(10**9)
    plain_dict: dict[bytes, object] = {b"user:%014d" % number: None for number in range(entries)}
    keys = [bytes(bytearray(key)) for key in plain_dict]  # equal, and not the same objects
    absent = [b"other:%d" % number for number in range(entries)]
    fresh = (b"fresh:%d" % number for number in itertools.count())
    few = keys[: COUNTED_KEYS // 2] * 4
    operations: dict[str, Callable[[], float]] = {
        "dict.get, hit": lambda: seconds(plain_dict.get, keys),
        "dict.get, miss": lambda: seconds(plain_dict.get, absent),
        "dict, replace": lambda: seconds(lambda key: plain_dict.__setitem__(key, None), keys),
        "get, hit": lambda: seconds(store.get, keys),
        "get, miss": lambda: seconds(store.get, absent),
        "put, replaces": lambda: seconds(lambda key: store.put(key, b"", 1, LIFE, ENTRIES), keys),
        "put, evicts": lambda: seconds(
            lambda key: evicting.put(key, b"", 1, LIFE, 1), list(itertools.islice(fresh, entries))
        ),
        "renew": lambda: seconds(lambda key: store.renew(key, LIFE), keys),
        "HotKeys, few": lambda: seconds(hot.count, few),
        "HotKeys, too many": lambda: seconds(crowd.count, list(itertools.islice(fresh, entries))),
    }
    rounds = [
        {"loop": nothing(keys), **{name: operation() for name, operation in operations.items()}} for _ in range(ROUNDS)
    ]
    print("\nnanoseconds of the thread: best and median of", ROUNDS, "and median ratio to dict.get")
    for name in operations:
        taken = [times[name] - times["loop"] for times in rounds]
        ratios = [one / (times["dict.get, hit"] - times["loop"]) for one, times in zip(taken, rounds, strict=True)]
        best, middle = min(taken) * 1e9, statistics.median(taken) * 1e9
        print(f"{name:<20}{best:9.0f}{middle:9.0f}{statistics.median(ratios):7.1f} x")


@dataclass
class Stall:
    """Seconds that the longest call took: of this thread, of the world, and where Python collected its garbage in it."""

    thread: float = 0.0
    wall: float = 0.0
    collecting: float = 0.0


def longest(calls: Iterable[Callable[[], object]]) -> Stall:
    """Measure the longest stall. If `wall` exceeds `thread`, the machine ran another program during the stall.

    The last row is of a dict that is not divided, as the store's is.
    """
    stall, collections, before = Stall(), 0, 0

    def collecting(phase: str, _: dict[str, int]) -> None:
        nonlocal collections
        collections += phase == "start"

    gc.callbacks.append(collecting)
    try:
        wall = thread = 0.0
        for place, call in enumerate(calls):
            if not place:  # what comes before the first call is the preparation
                before, wall, thread = collections, time.perf_counter(), time.thread_time()
            call()
            # Each reading ends a call and begins the next: the thread's clock takes as long as a hit does.
            thread, last_thread = time.thread_time(), thread
            wall, last_wall = time.perf_counter(), wall
            if collections > before:
                before, stall.collecting = collections, max(stall.collecting, thread - last_thread)
            else:
                stall.thread, stall.wall = max(stall.thread, thread - last_thread), max(stall.wall, wall - last_wall)
    finally:
        gc.callbacks.remove(collecting)
    return stall


class Time:
    """A clock that is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def stalls() -> dict[str, Callable[[], Iterator[Callable[[], object]]]]:
    """Calls, with 100,000 entries that go at once before them or among them."""
    old = [b"user:%014d" % number for number in range(ENTRIES)]
    fresh = [b"fresh:%d" % number for number in range(ENTRIES)]

    def fetch(store: NearStore, key: bytes) -> None:
        if store.get(key) is None:
            store.put(key, b"", 1, LIFE)

    def expired() -> NearStore:
        clock = Time()
        store = filled(ENTRIES, clock)
        clock.now += 2 * LIFE
        return store

    def idle() -> Iterator[Callable[[], object]]:
        store = expired()
        while not store.is_empty:
            yield lambda: store.sweep(SWEPT_PER_STEP)

    def after_idle(keys: list[bytes]) -> Iterator[Callable[[], object]]:
        store = expired()
        for key in keys:
            yield lambda key=key: fetch(store, key)  # type: ignore[misc]

    def under_traffic() -> Iterator[Callable[[], object]]:
        clock = Time()
        store = filled(ENTRIES, clock)
        for place, key in enumerate(random.Random(SEED).choices(old + fresh, k=2 * ENTRIES)):
            if place == ENTRIES // 2:
                clock.now += 2 * LIFE
            yield lambda key=key: fetch(store, key)  # type: ignore[misc]
            if place % STEP_EVERY == 0:
                yield lambda: store.sweep(SWEPT_PER_STEP)

    def cleared() -> Iterator[Callable[[], object]]:
        store = filled(ENTRIES)
        yield store.clear
        for key in fresh:
            yield lambda key=key: fetch(store, key)  # type: ignore[misc]

    def crowd() -> Iterator[Callable[[], object]]:
        hot = HotKeys(10**9)
        for key in fresh:
            yield lambda key=key: hot.count(key)  # type: ignore[misc]

    def a_dict() -> Iterator[Callable[[], object]]:
        churned: dict[bytes, None] = dict.fromkeys(old)
        for key, gone in zip(fresh, old, strict=True):
            yield lambda key=key, gone=gone: churned.update({key: churned.pop(gone)})  # type: ignore[misc]

    return {
        "idle, sweeper": idle,
        "idle, then the same keys": lambda: after_idle(old),
        "idle, then other keys": lambda: after_idle(fresh),
        "under traffic": under_traffic,
        "clear, then traffic": cleared,
        "(HotKeys, too many)": crowd,
        "(one dict, churned)": a_dict,
    }


def print_stalls() -> None:
    print("\nlongest call,", f"{ENTRIES:,}", "entries gone at once, milliseconds: median and worst of", RUNS, "runs")
    print(f"{'':<26}{'of the thread':>18}{'on the clock':>18}{'with a collection':>20}")
    for name, calls in stalls().items():
        runs = []
        for _ in range(RUNS):
            gc.collect()
            runs.append(longest(calls()))
        columns = ([run.thread for run in runs], [run.wall for run in runs], [run.collecting for run in runs])
        shown = "".join(f"{statistics.median(column) * 1e3:11.2f}{max(column) * 1e3:8.2f}" for column in columns)
        print(f"{name:<25}{shown}", flush=True)


KEY = "user:%014d"
VALUE = bytes(100)
BATCH = 500  # keys of a call that fills
SIZES = (10_000, 44_000, 100_000)  # entries
ALIGNED = 16  # bytes, to which Python's allocator rounds up
NOT_HELD = (
    *(types.ModuleType, type, types.FunctionType, types.BuiltinFunctionType, types.FrameType, types.CodeType),
    asyncio.AbstractEventLoop,  # which holds the server too
)


def held_by(root: object) -> int:
    """Bytes of all objects that can be reached from this one.

    `tracemalloc` says the same within a hundredth, and makes a client six times as slow.
    """
    seen: set[int] = set()
    total, left = 0, [root]
    while left:
        one = left.pop()
        if id(one) not in seen and not isinstance(one, NOT_HELD):
            seen.add(id(one))
            total += -(-sys.getsizeof(one) // ALIGNED) * ALIGNED
            left.extend(gc.get_referents(one))
    return total


def store_memory(entries: int) -> tuple[float, float]:
    """Bytes for each entry beside key and value: as good as new, and full of ghosts."""
    store = filled(entries, size=len(VALUE))
    new = held_by(store)
    for number in range(entries):
        store.put(b"more:%014d" % number, bytes(len(VALUE)), len(VALUE), LIFE, NEWER + number)
    return (new / entries - len(VALUE) - len(KEY % 0), held_by(store) / entries - len(VALUE) - len(KEY % 0))


async def client_memory(server: FakeMemcached, entries: int) -> tuple[float, float]:
    """The same, with all that a client keeps for its near cache: not the versions that it remembers anyway."""
    near = NearCache(max_bytes=2**40, max_entries=entries, ttl=600)
    zones = {"zone-a": [server.address]}
    figures = []
    async with EVCache("bench", zones, local_zone="zone-a", near_cache=near, remember_versions=0, read_timeout=60) as cache:
        await cache.get("connects")
        before = held_by(cache)
        for first in (0, entries):
            for at in range(first, first + entries, BATCH):
                assert len(await cache.get_many([KEY % number for number in range(at, at + BATCH)])) == BATCH
            figures.append((held_by(cache) - before) / entries - len(VALUE) - len("bench:" + KEY % 0))
    return figures[0], figures[1]


async def print_memory() -> None:
    """With values of 100 bytes, and as many puts again for the ghosts."""
    print("\nbytes for each entry beside key and value, as good as new and full of ghosts; reckoned with:", ENTRY_OVERHEAD)
    print(f"{'':<20}{'the store':>18}{'and its client':>18}")
    async with FakeMemcached() as server:
        session = server.session()
        for number in range(2 * max(SIZES)):
            head = b"ms bench:%b %d T6000 E%d" % ((KEY % number).encode(), len(VALUE), cas_of(NEWER + number))
            session.receive(b"%b\r\n%b\r\n" % (head, VALUE))
        for entries in SIZES:
            figures = (*store_memory(entries), *await client_memory(server, entries))
            print(f"{entries:<20,}{''.join(f'{one:9.0f}' for one in figures)}", flush=True)


HITS = 20_000  # of each kind in a round


async def near_hit() -> None:
    """Print the cost of a near hit to the caller of `get`, beside a dict lookup in a coroutine."""

    async def each(call: Callable[[], Awaitable[object]]) -> float:
        started = time.thread_time()
        for _ in range(HITS):
            await call()
        return (time.thread_time() - started) / HITS

    async def empty() -> None:
        pass

    key = KEY % 1
    known: dict[str, bytes] = {key: VALUE}

    async def look_up(key: str) -> bytes | None:
        return known.get(key)

    values: dict[str, object] = {"bytes": VALUE, "str": "x" * 100, "dict": {"id": 1, "name": "x" * 80}}
    async with (
        LocalZones(["zone-a"], backend="embedded") as zones,
        EVCache("bench", zones.zones, local_zone="zone-a", near_cache=NearCache(ttl=600), read_timeout=10) as cache,
    ):
        for kind, value in values.items():
            await cache.set(kind, value)
        operations: dict[str, Callable[[], Awaitable[object]]] = {
            "await of nothing": empty,
            "dict in a coroutine": lambda: look_up(key),
            **{f"get, {kind}": lambda kind=kind: cache.get(kind) for kind in values},  # type: ignore[misc]
        }
        rounds = []
        for _ in range(ROUNDS):
            for kind, value in values.items():
                item = await cache.get_item(kind)
                assert item is not None
                assert (item.source, item.value) == ("near", value)
            rounds.append({name: await each(call) for name, call in operations.items()})
    print("\nmicroseconds of the thread for a near hit: best and median of", ROUNDS, "and median ratio to the dict's")
    for name in operations:
        taken = [times[name] for times in rounds]
        times_dict = statistics.median(times[name] / times["dict in a coroutine"] for times in rounds)
        print(f"{name:<20}{min(taken) * 1e6:9.2f}{statistics.median(taken) * 1e6:9.2f}{times_dict:7.1f} x")


def print_all() -> None:
    """All but `near_hit`."""
    gc.disable()  # nanoseconds are about what is measured
    print_times()
    gc.enable()
    print_stalls()
    gc.disable()  # it would look at all entries again and again
    asyncio.run(print_memory())
    gc.enable()
