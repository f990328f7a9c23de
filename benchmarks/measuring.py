"""How a contender is measured on one kind of work: answers in a second, what each cost this process, how long it took."""

from __future__ import annotations

import asyncio
import math
import statistics
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

OURS, ARRIVAL, CLASSIC, UNREPAIRED = "evcache", "evcache, arrival", "evcache, classic", "evcache, no repair"
PURE = "evcache, core in Python"
VALKEY_GLIDE, REDIS_PY = "valkey-glide", "redis-py with hiredis"
BOUND, BOUND_META = "bound: loop and socket alone", "bound with mg: loop and socket alone"


class WrongAnswerError(Exception):
    """A contender answered what it should not have: its figures would be worth nothing."""


class CannotTakePartError(Exception):
    """A contender cannot do a kind of work on these servers. The text is the reason."""


@dataclass
class Run:
    """A contender that is connected and ready for one kind of work."""

    name: str
    calls: list[Callable[[], Awaitable[Any]]] | list[Callable[[], Any]]
    """For each caller, what it calls again and again."""
    is_right: Callable[[Any], object] = bool
    """Whether an answer is what it should be: a hit where there is a value, stored. Asked of every answer."""
    values: Callable[[Any], list[bytes]] | None = None
    """The values that are in an answer; None: there are none. Compared once."""
    written: list[tuple[int, bytes]] = field(default_factory=list)
    """Where the value must be after the call of the first caller: ports of nodes and the key there."""
    variant: str = ""
    """How it is set up, where that was chosen."""
    in_threads: bool = False
    """The calls block: each caller is a thread."""


@dataclass(frozen=True)
class Round:
    """What was measured in one turn."""

    operations: int
    seconds: float
    cpu: float
    """Seconds of this process's processor time, all threads."""
    latencies: list[float]
    """Seconds, sorted."""

    @property
    def per_second(self) -> float:
        """Answers in a second."""
        return self.operations / self.seconds

    @property
    def cpu_microseconds(self) -> float:
        """Of this process, for each answer."""
        return self.cpu / self.operations * 1e6

    def latency(self, share: float) -> float:
        """The latency, in microseconds, within which this share of the answers came."""
        return percentile(self.latencies, share) * 1e6


def percentile(ordered: list[float], share: float) -> float:
    """The value that this share of the sorted ones does not exceed: the nearest one, nothing in between."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


async def measure(run: Run, seconds: float) -> Round:
    """One turn: every caller calls, waits for the answer, and calls again, until the time is up."""
    if run.in_threads:  # the loop keeps running: the connections of other contenders need it
        return await asyncio.to_thread(_threads, run, seconds)
    each: list[list[float]] = [[] for _ in run.calls]
    clock = time.perf_counter
    is_right = run.is_right
    began, cpu = clock(), time.process_time()
    until = began + seconds

    async def caller(call: Callable[[], Awaitable[Any]], latencies: list[float]) -> None:
        last = clock()
        while True:  # once at least: on a busy machine the time may be up before the last of 256 begins
            if not is_right(await call()):
                raise WrongAnswerError(run.name)
            now = clock()
            latencies.append(now - last)
            last = now
            if now >= until:
                return

    await asyncio.gather(*map(caller, run.calls, each))
    return _round(each, clock() - began, time.process_time() - cpu)


def _threads(run: Run, seconds: float) -> Round:
    each: list[list[float]] = [[] for _ in run.calls]
    wrong: list[BaseException] = []
    clock = time.perf_counter
    is_right = run.is_right
    start = threading.Barrier(len(run.calls) + 1)
    until = 0.0

    def caller(call: Callable[[], Any], latencies: list[float]) -> None:
        start.wait()
        try:
            last = clock()
            while True:
                if not is_right(call()):
                    raise WrongAnswerError(run.name)  # noqa: TRY301
                now = clock()
                latencies.append(now - last)
                last = now
                if now >= until:
                    return
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=caller, args=pair) for pair in zip(run.calls, each, strict=True)]
    for thread in threads:
        thread.start()
    began, cpu = clock(), time.process_time()
    until = began + seconds
    start.wait()
    for thread in threads:
        thread.join()
    if wrong:
        raise wrong[0]
    return _round(each, clock() - began, time.process_time() - cpu)


def _round(each: list[list[float]], seconds: float, cpu: float) -> Round:
    latencies = sorted(latency for some in each for latency in some)
    return Round(len(latencies), seconds, cpu, latencies)


@dataclass(frozen=True)
class Result:
    """The rounds of one contender on one kind of work, each without its latencies."""

    variant: str
    per_second: list[float]
    cpu_microseconds: list[float]
    p50: list[float]
    p99: list[float]
    p999: list[float]

    @classmethod
    def of(cls, variant: str, rounds: list[Round]) -> Result:
        """Latencies become percentiles, in microseconds."""
        return cls(
            variant,
            [one.per_second for one in rounds],
            [one.cpu_microseconds for one in rounds],
            [one.latency(0.5) for one in rounds],
            [one.latency(0.99) for one in rounds],
            [one.latency(0.999) for one in rounds],
        )

    def median(self, of: str) -> float:
        """The median over the rounds."""
        values: list[float] = getattr(self, of)
        return statistics.median(values)


def ratio(ours: list[float], theirs: list[float]) -> float:
    """How many times theirs ours are: the median of the ratios within each round, in which the machine was in one mood."""
    return statistics.median(one / other for one, other in zip(ours, theirs, strict=True))
