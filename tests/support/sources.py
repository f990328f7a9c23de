"""Sources that tests load from and write to, and checks of the zones and clients afterwards."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from evcache import EVCache, Hooks, StandardCodec, WriteResult
from evcache.values.envelope import unwrap
from evcache.values.flags import FLAG_ABSENT, FLAG_ENVELOPE, FLAG_TOMBSTONE
from evcache.zones.testing.fake_memcached.store import Item as Stored
from tests.support.memory_zones import TOMBSTONE, MemoryZones, full, on_zones
from tests.support.virtual_time import now, settle

ABSENT = "<absent>"
STUB = "<stub>"


class Source:
    """A source that counts its calls, takes `seconds`, and raises `error` if there is one."""

    def __init__(self, value: Any = "v", seconds: float = 0.0, error: BaseException | None = None) -> None:
        self.value = value
        self.seconds = seconds
        self.error = error
        self.calls = 0
        self.running = 0
        self.most = 0
        """The most loaders that have run at once."""
        self.cancelled = 0
        self.asked: list[Any] = []
        """The lists of keys that `load_many` was given."""

    async def load(self) -> Any:
        """A loader. What it returns is what was there when it began."""
        value = self.value
        await self._work()
        return value() if callable(value) else value

    async def load_many(self, keys: list[Any]) -> dict[Any, Any]:
        """A loader of several keys: `value` is a mapping, or is what each of them has."""
        self.asked.append(list(keys))
        value = dict(self.value) if isinstance(self.value, dict) else dict.fromkeys(keys, self.value)
        await self._work()
        return {key: value[key] for key in keys if key in value}

    async def write(self, value: Any) -> None:
        """A writer: it is there when the time is over."""
        await self._work()
        self.value = value

    async def _work(self) -> None:
        self.calls += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if self.seconds:
                await asyncio.sleep(self.seconds)
            if self.error is not None:
                raise self.error
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1


async def load_one(cache: EVCache, source: Source, key: str = "k", **options: Any) -> Any:
    """Load a key by `get_or_load`."""
    return await cache.get_or_load(key, source.load, **options)


async def load_many(cache: EVCache, source: Source, key: str = "k", **options: Any) -> Any:
    """Load a key by `get_or_load_many`. The source has no mapping as its value."""
    return (await cache.get_or_load_many([key], source.load_many, **options)).get(key)


# For rules that hold for one key and for several: the test gets `load_one` or `load_many` as `load`.
one_and_many = pytest.mark.parametrize("load", [load_one, load_many], ids=["one", "many"])


class LoadListener(Hooks):
    """Hooks that record loads."""

    def __init__(self) -> None:
        self.loads: list[tuple[int, float, Exception | None]] = []
        self.stale: list[BaseException | None] = []
        self.misses: list[BaseException] = []

    def loaded(self, keys: int, seconds: float, error: Exception | None) -> None:
        self.loads.append((keys, round(seconds, 6), error))

    def stale_served(self, error: BaseException | None) -> None:
        self.stale.append(error)

    def error_as_miss(self, error: BaseException) -> None:
        self.misses.append(error)


def stubs(zones: MemoryZones) -> dict[str, dict[bytes, int | None]]:
    """The leases that are out: by zone, the names of their stubs, and the seconds that they have left."""
    return {
        zone: {
            key: fake.store.ttl_left(item)
            for fake in fakes
            for key in list(fake.store)
            if (item := fake.store.get(key)) is not None and not item.value and item.win_sent
        }
        for zone, fakes in zones.servers.items()
    }


def no_stubs(zones: MemoryZones) -> bool:
    """Whether no lease is out."""
    return not any(stubs(zones).values())


def seen(zones: MemoryZones, key: str) -> dict[str, Any]:
    """What each zone holds under a key: the value, with or without an envelope; or a constant of this module; or None."""
    found: dict[str, Any] = {}
    for zone, fakes in zones.servers.items():
        items = [item for fake in fakes if (item := fake.store.get(full(key))) is not None]
        found[zone] = _seen(items[0]) if items else None
    return found


def _seen(item: Stored) -> Any:
    if not item.value and item.win_sent:
        return STUB
    if item.flags in (FLAG_TOMBSTONE, FLAG_ABSENT):
        return TOMBSTONE if item.flags == FLAG_TOMBSTONE else ABSENT
    if item.flags == FLAG_ENVELOPE:
        envelope = unwrap(item.value)
        return StandardCodec().decode(envelope.data, envelope.flags)
    return StandardCodec().decode(item.value, item.flags)


def on_releases(*releases: str, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """As `on_zones`, once for each of these releases of memcached."""

    def decorate(test: Callable[..., Any]) -> Callable[..., None]:
        tests = {release: on_zones(versions=release, **options)(test) for release in releases}

        def wrapper(release: str, **fixtures: Any) -> None:
            tests[release](**fixtures)

        own = inspect.Parameter("release", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        others = inspect.signature(tests[releases[0]]).parameters.values()
        wrapper.__signature__ = inspect.Signature([own, *others])  # type: ignore[attr-defined]
        wrapper.__name__, wrapper.__qualname__ = test.__name__, test.__qualname__
        wrapper.__module__, wrapper.__doc__ = test.__module__, test.__doc__
        return pytest.mark.parametrize("release", releases)(wrapper)

    return decorate


async def assert_nothing_left(*clients: EVCache) -> None:
    """No load runs or can be joined, no task, no slot and no flight of the near cache is held."""
    await settle()
    for client in clients:
        stats = client.stats()
        assert (stats.loads.running, stats.loads.waiting, stats.background_tasks) == (0, 0, 0)
        assert not client._runtime.single_flight.by_key  # nothing else would show it before the next load
        assert client._runtime.near is None or not client._runtime.near._fetches
        assert not len(client._runtime.write_through.turns)


async def started(source: Source, calls: int = 1) -> None:
    """Wait until `calls` loaders have been called."""
    for _ in range(1000):
        if source.calls >= calls:
            return
        await asyncio.sleep(0)
    raise AssertionError(f"{source.calls} loaders were called, not {calls}")


async def outcomes(*calls: Awaitable[Any]) -> list[Any]:
    """What each returned, or the exception that it raised."""
    return await asyncio.gather(*calls, return_exceptions=True)


async def cancelled_after(turns: int, make: Callable[[], Awaitable[Any]]) -> Any:
    """Begin a call, cancel it after `turns` turns of the loop, and return its result or exception."""
    task = asyncio.ensure_future(make())
    await settle(turns)
    task.cancel()
    return (await asyncio.gather(task, return_exceptions=True))[0]


DONE = WriteResult(met=True, version=1, zones={})


class Memory:
    """A cache that remembers what it was asked."""

    def __init__(self):
        self.held = {}
        self.asked = []

    async def get_or_load(self, key, loader, *, ttl=None, policy=None, timeout=None, near_cache=True):
        self.asked.append(("get_or_load", key, {"ttl": ttl, "policy": policy, "timeout": timeout, "near_cache": near_cache}))
        if key not in self.held:
            value = await loader()
            if value is None:
                return None
            self.held[key] = value
        return self.held[key]

    async def delete(self, key):
        self.asked.append(("delete", key))
        self.held.pop(key, None)
        return DONE

    async def invalidate(self, key, *, stale_while_revalidate):
        self.asked.append(("invalidate", key, stale_while_revalidate))
        return DONE


class BatchWriter:
    """A writer, and what it was given. `fails`: how many tries fail, or a function of the batch that says whether one does."""

    def __init__(self, *, fails=0, takes=0.0):
        self.fails = fails
        self.takes = takes
        self.tries = []
        self.values = {}
        self.at_once = 0

    @property
    def batches(self):
        return [batch for _, batch, _ in self.tries]

    @property
    def times(self):
        return [round(time, 3) for time, _, _ in self.tries]

    @property
    def ids(self):
        return [batch_id for _, _, batch_id in self.tries]

    async def __call__(self, batch):
        self.tries.append((now(), dict(batch), batch.id))
        self.at_once += 1
        assert self.at_once == 1, "one flush at a time"
        try:
            await asyncio.sleep(self.takes)
        finally:
            self.at_once -= 1
        if callable(self.fails):
            fails = self.fails(batch)
        else:
            fails, self.fails = self.fails > 0, self.fails - 1
        if fails:
            raise OSError("the source is down")
        for key, value in batch.items():
            self.values[key] = self.values.get(key, 0) + value if key in batch.deltas else value
