"""The near cache on synthetic traces: hit ratios against LRU, nanoseconds, stalls, and bytes for each entry.

    python -m benchmarks.near_cache_traces [ratios | costs]

Keys are drawn from 100,000 by Zipf's law. The first fifth of a trace warms up. Where a trace adds requests of another kind,
only the drawn ones count: the question is how much the others harm them.

    zipf 0.9 ...  nothing added; the exponent is 1.0 in the traces below
    scan          5,000 keys never seen before, after each 10,000 requests
    ohw           every third request is for a key that comes only once
    loop          the same 30,000 other keys, in order, after each 50,000 requests
    drift         popularity moves on by 2,000 keys every 50,000 requests
    expiring      the values live for 20,000 requests
"""

from __future__ import annotations

import argparse
import gc
import itertools
import random
import statistics
import time
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator

from evcache.near_cache import ENTRY_OVERHEAD, NearCache, NearStore

UNIVERSE = 100_000  # keys
DRAWN = 500_000  # requests
WARM_UP = 0.2  # of all requests
SEED = 20_230_923

SCAN_EVERY, SCAN_LENGTH = 10_000, 5_000
LOOP_EVERY, LOOP_LENGTH = 50_000, 30_000
DRIFT_EVERY, DRIFT_STEP = 50_000, 2_000
LIFE = 20_000  # requests that a value of the trace `expiring` lives

ENTRIES = 100_000  # in the store whose costs are measured
ROUNDS = 25

NEVER = 10.0**9  # seconds, and requests

Trace = list[tuple[bytes, bool]]  # each with whether it counts


def zipf(exponent: float, seed: int = SEED) -> list[int]:
    """Ranks, 0 the most popular."""
    weights = itertools.accumulate((rank + 1) ** -exponent for rank in range(UNIVERSE))
    return random.Random(seed).choices(range(UNIVERSE), cum_weights=list(weights), k=DRAWN)


def plain(ranks: list[int]) -> Iterator[tuple[bytes, bool]]:
    return ((b"user:%d" % rank, True) for rank in ranks)


def scan(ranks: list[int]) -> Iterator[tuple[bytes, bool]]:
    fresh = itertools.count()
    for place, request in enumerate(plain(ranks), 1):
        yield request
        if place % SCAN_EVERY == 0:
            yield from ((b"scan:%d" % next(fresh), False) for _ in range(SCAN_LENGTH))


def one_hit_wonders(ranks: list[int]) -> Iterator[tuple[bytes, bool]]:
    for place, request in enumerate(plain(ranks), 1):
        yield request
        if place % 2 == 0:
            yield b"once:%d" % place, False


def loop(ranks: list[int]) -> Iterator[tuple[bytes, bool]]:
    for place, request in enumerate(plain(ranks), 1):
        yield request
        if place % LOOP_EVERY == 0:
            yield from ((b"loop:%d" % number, False) for number in range(LOOP_LENGTH))


def drift(ranks: list[int]) -> Iterator[tuple[bytes, bool]]:
    return plain([(rank + place // DRIFT_EVERY * DRIFT_STEP) % UNIVERSE for place, rank in enumerate(ranks)])


def traces() -> Iterator[tuple[str, Trace, float]]:
    """Name, requests, and for how many requests a value lives."""
    for exponent in (0.9, 1.0, 1.1):
        yield f"zipf {exponent}", list(plain(zipf(exponent))), NEVER
    ranks = zipf(1.0)
    for name, polluted in (("scan", scan), ("ohw", one_hit_wonders), ("loop", loop), ("drift", drift)):
        yield name, list(polluted(ranks)), NEVER
    yield "expiring", list(plain(ranks)), LIFE


def near_hits(trace: Trace, capacity: int, life: float) -> Iterator[bool]:
    now = 0
    store = NearStore(NearCache(max_bytes=2**40, max_entries=capacity, ttl=NEVER), clock=lambda: now)
    for key, _ in trace:
        hit = store.get(key) is not None
        if not hit:
            store.put(key, None, 0, life)
        now += 1
        yield hit


def lru_hits(trace: Trace, capacity: int, life: float) -> Iterator[bool]:
    held: OrderedDict[bytes, float] = OrderedDict()
    for now, (key, _) in enumerate(trace):
        hit = held.get(key, -1) > now
        if not hit:
            held[key] = now + life
        held.move_to_end(key)
        if len(held) > capacity:
            held.popitem(last=False)
        yield hit


def ratio(cache: Callable[[Trace, int, float], Iterator[bool]], trace: Trace, capacity: int, life: float) -> float:
    """Hits for each request that counts, after the warm-up."""
    answered = zip(trace, cache(trace, capacity, life), strict=True)
    return statistics.fmean(
        hit for (_, counts), hit in itertools.islice(answered, int(len(trace) * WARM_UP), None) if counts
    )


def print_ratios() -> None:
    print("hit ratio, %     1 % of keys           10 % of keys")
    print("                 near cache      LRU   near cache      LRU")
    for name, trace, life in traces():
        near_1, lru_1, near_10, lru_10 = (
            100 * ratio(cache, trace, capacity, life)
            for capacity in (UNIVERSE // 100, UNIVERSE // 10)
            for cache in (near_hits, lru_hits)
        )
        print(f"{name:<15}{near_1:12.1f}{lru_1:9.1f}{near_10:13.1f}{lru_10:9.1f}", flush=True)


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


def longest(operation: Callable[[bytes], object], keys: Iterable[bytes]) -> float:
    """Seconds of this thread."""
    worst = 0.0
    for key in keys:
        started = time.thread_time()
        operation(key)
        worst = max(worst, time.thread_time() - started)
    return worst


def print_times() -> None:
    store = filled(ENTRIES // 10)
    plain_dict = {b"user:%014d" % number: None for number in range(ENTRIES // 10)}
    keys = [bytes(bytearray(key)) for key in plain_dict]  # equal, and not the same objects
    absent = [b"other:%d" % number for number in range(ENTRIES // 10)]
    operations: dict[str, Callable[[], float]] = {
        "loop and call": lambda: seconds(lambda _: None, keys),
        "dict.get": lambda: seconds(lambda key: plain_dict.get(key), keys),  # noqa: PLW0108  # called as the others are
        "get, hit": lambda: seconds(lambda key: store.get(key), keys),  # noqa: PLW0108
        "get, miss": lambda: seconds(lambda key: store.get(key), absent),  # noqa: PLW0108
        "put, replaces": lambda: seconds(lambda key: store.put(key, b"", 1, LIFE, ENTRIES), keys),
    }
    rounds = [{name: operation() for name, operation in operations.items()} for _ in range(ROUNDS)]
    print("\nnanoseconds of the thread, best of", ROUNDS, "and median ratio to dict.get")
    for name in list(operations)[1:]:
        best = min(times[name] - times["loop and call"] for times in rounds)
        times_dict = statistics.median(
            (times[name] - times["loop and call"]) / (times["dict.get"] - times["loop and call"]) for times in rounds
        )
        print(f"{name:<20}{best * 1e9:9.0f}{times_dict:7.1f} x")
    fresh = [b"fresh:%d" % number for number in range(ENTRIES)]
    evicting = filled(ENTRIES // 10)
    print(f"{'put, evicts':<20}{seconds(lambda key: evicting.put(key, b'', 1, LIFE, 1), fresh) * 1e9:9.0f}")


def print_stalls() -> None:
    """The longest call after 100,000 entries expired, or were cleared, at once. The dict that grows is part of it."""
    now = 0.0
    fresh = [b"fresh:%d" % number for number in range(ENTRIES // 2)]

    def expired() -> NearStore:
        nonlocal now
        store = filled(ENTRIES, lambda: now)
        now += 2 * LIFE
        return store

    print("\nlongest call with", f"{ENTRIES:,}", "entries gone at once, milliseconds of the thread")
    store = expired()
    print(f"{'put':<20}{longest(lambda key: store.put(key, b'', 1, LIFE), fresh) * 1e3:9.2f}")
    store = expired()
    print(f"{'get, then put':<20}{longest(lambda key: store.get(key) or store.put(key, b'', 1, LIFE), fresh) * 1e3:9.2f}")
    store = expired()
    print(f"{'sweep(200)':<20}{longest(lambda _: store.sweep(200), fresh[: ENTRIES // 200]) * 1e3:9.2f}")
    store = filled(ENTRIES, lambda: now)
    print(f"{'clear':<20}{longest(lambda _: store.clear(), [b'']) * 1e3:9.2f}")
    print(f"{'put after clear':<20}{longest(lambda key: store.put(key, b'', 1, LIFE), fresh) * 1e3:9.2f}")
    churned: dict[bytes, None] = dict.fromkeys(fresh + [b"user:%014d" % number for number in range(ENTRIES // 2)])
    oldest = iter(list(churned))

    def churn(key: bytes) -> None:
        del churned[next(oldest)]
        churned[key] = None

    print(f"{'(dict alone)':<20}{longest(churn, [b'more:%d' % number for number in range(ENTRIES)]) * 1e3:9.2f}")


def print_memory() -> None:
    """With values of 100 bytes and no ghosts yet, and after so many more puts that there are as many as can be."""
    print("\nbytes for each entry beside key and value; reckoned with:", ENTRY_OVERHEAD)
    for entries in (10_000, 50_000, 87_000, 100_000):  # a dict is two thirds full at 87,000, and doubles after
        gc.collect()
        tracemalloc.start()
        store = filled(entries, size=100)
        figures = [tracemalloc.get_traced_memory()[0] / entries - 100 - len(b"user:%014d" % 0)]
        for number in range(2 * entries):
            store.put(b"more:%014d" % number, bytes(100), 100, LIFE, 2**62 + number)
        figures.append(tracemalloc.get_traced_memory()[0] / entries - 100 - len(b"more:%014d" % 0))
        tracemalloc.stop()
        print(f"{entries:<20,}{figures[0]:9.0f}{figures[1]:9.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Hit ratios and costs of the near cache.")
    parser.add_argument("part", nargs="?", choices=["ratios", "costs"], help="one of the two only")
    part = parser.parse_args().part
    if part != "costs":
        print_ratios()
    if part != "ratios":
        gc.disable()  # its pauses are the interpreter's, and come or not
        print_times()
        print_stalls()
        print_memory()


if __name__ == "__main__":
    main()
