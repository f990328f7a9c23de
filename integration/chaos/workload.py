"""Clients at work: callers that write and read keys at random, each family of keys by its own operations."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

from evcache import Consistency
from integration.chaos.caller import Caller
from integration.chaos.history import History
from integration.chaos.keys import BRIEF, COUNTS, DELETED, FRONTS, GENERAL, GONE, HOT, KEYS, LISTS, LOCKS, MIXED, SHORT
from integration.chaos.system import Client
from integration.chaos.troubles import Span

WRITERS = 2  # of each client
READERS = 2
MANY = (3, 10)
"""Keys of a call for many: least and most."""

SHORT_TTLS = (1, 2, 3, 4, 6)
"""Seconds."""
LONG_TOUCH_SECONDS = 3000.0  # longer than a run

# Between two reads of a client that reads all keys, round after round: a round takes it a second or so.
ROUND_PAUSE_SECONDS = 0.01

Action = Callable[[Caller, random.Random], Awaitable[object]]
pick = random.Random.choice


def _some(chooser: random.Random, keys: Sequence[str]) -> list[str]:
    return chooser.sample(keys, min(len(keys), chooser.randint(*MANY)))


def _ttl(chooser: random.Random) -> float:
    return chooser.choice(SHORT_TTLS)


WRITES: Sequence[tuple[int, Action]] = (
    # Long-lived values.
    (22, lambda caller, c: caller.set(pick(c, GENERAL), c)),
    (4, lambda caller, c: caller.set_many(_some(c, GENERAL), c)),
    (9, lambda caller, c: caller.delete(pick(c, DELETED))),
    (1, lambda caller, c: caller.delete_many(_some(c, DELETED))),
    (4, lambda caller, c: caller.add(pick(c, GENERAL), c)),
    (6, lambda caller, c: caller.cas(pick(c, GENERAL), c)),
    (2, lambda caller, c: caller.replace(pick(c, GENERAL), c)),
    # Short-lived ones.
    (6, lambda caller, c: caller.set(pick(c, SHORT), c, _ttl(c))),
    (1, lambda caller, c: caller.set_many(_some(c, SHORT), c, _ttl(c))),
    (3, lambda caller, c: caller.set(pick(c, SHORT), c)),
    (3, lambda caller, c: caller.add(pick(c, SHORT), c, _ttl(c))),
    (3, lambda caller, c: caller.cas(pick(c, SHORT), c, _ttl(c))),
    (3, lambda caller, c: caller.touch(pick(c, SHORT), _ttl(c))),
    (1, lambda caller, c: caller.get_and_touch(pick(c, SHORT), _ttl(c))),
    (1, lambda caller, c: caller.set(pick(c, BRIEF), c, _ttl(c))),
    (1, lambda caller, c: caller.add(pick(c, BRIEF), c, _ttl(c))),
    # Conditional writes.
    (5, lambda caller, c: caller.cas(pick(c, LOCKS), c)),
    (3, lambda caller, c: caller.cas(pick(c, LOCKS), c, for_update=True)),
    (4, lambda caller, c: caller.add(pick(c, LOCKS), c)),
    (3, lambda caller, c: caller.replace(pick(c, LOCKS), c)),
    (2, lambda caller, c: caller.delete(pick(c, LOCKS))),
    (6, lambda caller, c: caller.append(pick(c, LISTS), c)),
    (3, lambda caller, c: caller.prepend(pick(c, FRONTS), c)),
    (1, lambda caller, c: caller.set(pick(c, LISTS + FRONTS), c)),
    # Counters.
    (5, lambda caller, c: caller.count(pick(c, COUNTS), initial=1)),
    (3, lambda caller, c: caller.count(pick(c, MIXED), c.randint(1, 3), initial=1)),
    (1, lambda caller, c: caller.count(pick(c, MIXED), -1)),
    (1, lambda caller, c: caller.set(pick(c, MIXED), c)),
    (2, lambda caller, c: caller.delete(pick(c, MIXED))),
    # Absences.
    (1, lambda caller, c: caller.load_absence(pick(c, GONE))),
    (1, lambda caller, c: caller.touch(pick(c, GONE), c.choice((_ttl(c), LONG_TOUCH_SECONDS)))),
    (1, lambda caller, c: caller.get_and_touch(pick(c, GONE), c.choice((_ttl(c), LONG_TOUCH_SECONDS)))),
    (1, lambda caller, c: caller.delete(pick(c, GONE[2:]))),
    (1, lambda caller, c: caller.touch(pick(c, DELETED), LONG_TOUCH_SECONDS)),
)

READS: Sequence[tuple[int, Action]] = (
    (30, lambda caller, c: caller.get(pick(c, HOT))),
    (10, lambda caller, c: caller.get(pick(c, KEYS))),
    (20, lambda caller, c: caller.get_item(pick(c, HOT))),
    (8, lambda caller, c: caller.get_item(pick(c, KEYS), Consistency.QUORUM)),
    (8, lambda caller, c: caller.get_many(_some(c, HOT))),
    (3, lambda caller, c: caller.get_many(_some(c, KEYS), Consistency.QUORUM)),
    (8, lambda caller, c: caller.get_many(BRIEF)),
    (4, lambda caller, c: caller.get(pick(c, BRIEF))),
    (3, lambda caller, c: caller.get(pick(c, COUNTS))),
    (3, lambda caller, c: caller.get(pick(c, COUNTS), Consistency.QUORUM)),
    (3, lambda caller, c: caller.get(pick(c, COUNTS), Consistency.ALL)),
)


class Worker:
    """The callers of one client."""

    def __init__(self, client: Client, history: History, seed: int, calls_per_second: float) -> None:
        self.client = client
        self._caller = Caller(client, history)
        self._history = history
        self._seed = seed
        # A caller waits between two of its calls; that a call takes time, too, makes it slower still when things are bad.
        self._pause = (WRITERS + READERS) / calls_per_second
        self.writing = True
        """Cleared when writers are to stop; they finish the call they are at."""
        self.reading = True
        self._bursts = 0

    async def write(self, number: int) -> None:
        """Act as writer `number` until `writing` is False."""
        await self._act(f"writer {number}", WRITES, lambda: self.writing)

    async def read(self, number: int) -> None:
        """Act as reader `number` until `reading` is False."""
        await self._act(f"reader {number}", READS, lambda: self.reading)

    async def _act(self, role: str, actions: Sequence[tuple[int, Action]], goes_on: Callable[[], bool]) -> None:
        chooser = random.Random(f"{self._seed} {self.client.name} {role} {self._bursts}")
        weights = [weight for weight, _ in actions]
        choices = [action for _, action in actions]
        while goes_on():
            await chooser.choices(choices, weights)[0](self._caller, chooser)
            await asyncio.sleep(chooser.expovariate(1 / self._pause))

    async def act_for(self, seconds: float, over: asyncio.Event) -> None:
        """Write and read for some seconds, or until `over` is set."""
        self._bursts += 1
        with self.is_active():
            self.writing = self.reading = True
            tasks = [asyncio.ensure_future(self.write(0)), asyncio.ensure_future(self.read(0))]
            try:
                async with asyncio.timeout(seconds):
                    await over.wait()
            except TimeoutError:
                pass
            finally:
                self.writing = self.reading = False
                await asyncio.wait(tasks)
            for task in tasks:
                task.result()

    @contextmanager
    def is_active(self) -> Iterator[None]:
        """Record that the client makes calls."""
        began = self._history.now()
        active = self.client.active
        active.append(Span(began, float("inf")))
        try:
            yield
        finally:
            active[-1] = Span(began, self._history.now())

    async def read_all(self) -> None:
        """Read all keys in turn, repeatedly, by plain reads, until `reading` is False."""
        for key in itertools.cycle(KEYS):
            if not self.reading:
                break
            await self._caller.get(key)
            await asyncio.sleep(ROUND_PAUSE_SECONDS)
