"""Loading what the cache does not have: one load for each key and process, and with leases one for each zone.

`ReadThrough.get` is the story: what the zones hold is returned if it is fresh; if it is about to go out of date, or may be
served although it has, somebody loads it anew in the background; otherwise the caller waits for a load (`loader`).

A cache that can't be reached is no reason to fail: then the loader is called, as always no more of them at once than the
client allows.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from evcache._background import BackgroundTasks
from evcache._steps import STEP_KEYS
from evcache.errors import CacheUnavailable, ConsistencyError, DecodeError, LoadAborted
from evcache.hooks import HookDispatcher
from evcache.read_through.freshness import State, state_of
from evcache.read_through.loader import Loader
from evcache.read_through.request import LoadRequest
from evcache.read_through.single_flight import Call, SingleFlight
from evcache.reads.decoding import Decoding
from evcache.reads.zone_reader import ZoneReader
from evcache.replication.reconcile import ZoneHit
from evcache.stats import LoadStats
from evcache.values.flags import FLAG_ABSENT, FLAG_TOMBSTONE
from evcache.values.lifetime import Content, Lifetime, content_of
from evcache.zones._tasks import name_of
from evcache.zones.cluster import ClusterSnapshot
from evcache.zones.errors import CacheError
from evcache.zones.protocol.requests import COPY_FLAGS

# Keys that are loaded in the background at once, nobody waiting for them. Those over that are left to a later reader.
MAX_REFRESHES = 64

# How often a call loads a key whose value it cannot decode. More than once, because it may join a load that a caller of
# another type began, or that ends with what another process stored.
_MAX_UNREADABLE = 3


class ReadThrough:
    """How one client gets what has to be loaded if the cache does not have it."""

    def __init__(
        self,
        reads: ZoneReader,
        decoding: Decoding,
        loads: Loader,
        flights: SingleFlight,
        background: BackgroundTasks,
        hooks: HookDispatcher,
        *,
        wall: Callable[[], float],
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`wall`: the unix time. `draw`: uniform from 0 up to 1."""
        self._reads = reads
        self._decoding = decoding
        self._loads = loads
        self._flights = flights
        self._background = background
        self._hooks = hooks
        self._wall = wall
        self._draw = draw
        self._refreshing: set[Call] = set()  # in the background
        self.stale_served = 0
        """Values that were served after they had gone out of date."""

    def reopen(self) -> None:
        """Forget the loads of the last opening, whose tasks have ended."""
        self._flights.reopen()
        self._loads.reopen()
        self._refreshing = set()  # a loader that goes on after its cancellation takes its flights out of the former one

    def close(self) -> None:
        """Fail the loads that go on although they were cancelled: their callers do not wait for them any longer."""
        self._flights.fail_all(LoadAborted("the client is closed"))

    def stats(self) -> LoadStats:
        """What has been done so far."""
        loads = self._loads
        return LoadStats(
            running=loads.running,
            waiting=len(self._flights),
            loads=loads.loads,
            failed=loads.failed,
            leases_won=loads.leases_won,
            leases_lost=loads.leases_lost,
            stale_served=self.stale_served,
        )

    def serve(self, view: ClusterSnapshot | None, key: bytes, flags: int, life: Lifetime, asked: LoadRequest) -> bool:
        """Whether what was found may be served. If it ought to be loaded anew, that is begun in the background."""
        state = self._state(flags, life, asked)
        if state is State.FRESH:
            return True
        if state is State.REFRESH_DUE or state is State.STALE:
            self._refresh(view, [key], asked)
            if state is State.STALE:
                self._was_stale(None)
            return True
        return False

    async def get(self, view: ClusterSnapshot | None, key: bytes, asked: LoadRequest) -> Content | None:
        """What is there, or else what the loader returns; None: it says that there is nothing.

        Raises what the loader raises; `LoadTimeout`, `LoadAborted`; `EncodeError` for a value that can't be stored.
        """
        ended = self._flights.ended
        found, reachable = await self._read(view, key, asked)
        if reachable and self._is_outrun(key, found, ended):
            found, reachable = await self._read(view, key, asked)
        if found is not None and view is not None and self.serve(view, key, found.flags, found.life, asked):
            return None if found.flags == FLAG_ABSENT else found
        fallback = found if found is not None and self._is_last_resort(found, asked) else None
        if fallback is not None and self._loads.is_throttled(key):
            self._was_stale(None)
            return fallback
        flight = self._flights.get(key)
        if flight is None:
            flight = self._begin(view, [key], asked)[0]
        else:
            self._loads.hurry(flight)
        flight.needed = flight.needed or fallback is None
        try:
            await self._flights.wait([flight], asked.patience(fallback is not None))
            return flight.outcome()
        except Exception as error:
            if fallback is None:
                raise
            self._was_stale(error)
            return fallback

    async def get_many(
        self, view: ClusterSnapshot | None, wanted: Sequence[bytes], kept: Mapping[bytes, Lifetime], asked: LoadRequest
    ) -> dict[bytes, Content | None]:
        """What is there, and what the loader returns for the others; None: there is nothing. Raises as `get`, for all of
        them.

        `kept`: those that the near cache has, and how long they live; the ones that may be served are not in the result.
        """
        held: dict[bytes, Content | None] = {}
        fallbacks: dict[bytes, Content] = {}
        due: list[bytes] = []
        states = {key: self._state(0, life, asked) for key, life in kept.items()}
        due += [key for key, state in states.items() if state is State.REFRESH_DUE]
        unknown = [key for key in wanted if states.get(key) not in (State.FRESH, State.REFRESH_DUE)]
        ended = self._flights.ended
        found, reachable = await self._read_many(view, unknown, asked)
        outrun = [key for key in unknown if self._is_outrun(key, found.get(key), ended)]
        if reachable and outrun:
            found |= (await self._read_many(view, outrun, asked))[0]
        for number, (key, content) in enumerate(found.items(), 1):
            if not number % STEP_KEYS:
                await asyncio.sleep(0)
            state = self._state(content.flags, content.life, asked)
            if state is State.EXPIRED:
                continue
            if state is State.STALE_IF_ERROR and not self._loads.is_throttled(key):
                fallbacks[key] = content
                continue
            held[key] = content
            if state is State.REFRESH_DUE or state is State.STALE:
                due.append(key)
            if state is State.STALE or state is State.STALE_IF_ERROR:
                self._was_stale(None)
        if due:
            self._refresh(view, due, asked)
        missing = [key for key in unknown if key not in held]
        if missing:
            await self._load_many(view, missing, asked, held, fallbacks)
        return {key: None if content is None or content.flags == FLAG_ABSENT else content for key, content in held.items()}

    # What the caller cannot decode.

    async def get_over(self, view: ClusterSnapshot | None, key: bytes, asked: LoadRequest) -> Content | None:
        """Load a key again, because the caller cannot decode what is there, and store the result over it.

        Returns:
            A value, which the caller may still be unable to decode if another process keeps storing such values; None if
            there is nothing.
        """
        asked = asked.only_readable()
        for _ in range(_MAX_UNREADABLE - 1):
            content = await self.get(view, key, asked)
            if content is None or asked.can_read(content):
                return content
        return await self.get(view, key, asked)

    async def get_many_over(
        self, view: ClusterSnapshot | None, keys: Sequence[bytes], asked: LoadRequest
    ) -> dict[bytes, Content | None]:
        """Do for several keys what `get_over` does for one."""
        asked = asked.only_readable()
        contents = await self.get_many(view, keys, {}, asked)
        for _ in range(_MAX_UNREADABLE - 1):
            unread = [key for key, content in contents.items() if content is not None and not asked.can_read(content)]
            if not unread:
                break
            contents |= await self.get_many(view, unread, {}, asked)
        return contents

    async def _load_many(
        self,
        view: ClusterSnapshot | None,
        missing: Sequence[bytes],
        asked: LoadRequest,
        held: dict[bytes, Content | None],
        fallbacks: dict[bytes, Content],
    ) -> None:
        flights = {key: flight for key in missing if (flight := self._flights.get(key)) is not None}
        for flight in flights.values():
            self._loads.hurry(flight)
        new = [key for key in missing if key not in flights]
        if new:
            flights.update(zip(new, self._begin(view, new, asked), strict=True))
        for key, flight in flights.items():
            flight.needed = flight.needed or key not in fallbacks
        late: CacheError | None = None
        try:
            await self._flights.wait(list(flights.values()), asked.patience(len(fallbacks) == len(missing)))
        except CacheError as error:
            if fallbacks.keys() != flights.keys():
                raise
            late = error
        failures: dict[bytes, Exception] = {}
        for key, flight in flights.items():
            if late is not None and not flight.landed:
                failures[key] = late
                continue
            try:
                held[key] = flight.outcome()
            except Exception as error:
                if key not in fallbacks:
                    raise
                failures[key] = error
        for key, failure in failures.items():
            held[key] = fallbacks[key]
            self._was_stale(failure)

    # Reading.

    async def _read(self, view: ClusterSnapshot | None, key: bytes, asked: LoadRequest) -> tuple[Content | None, bool]:
        """What is there, a known absence too, and whether the zones could be asked."""
        if view is None:
            return None, False
        try:
            found = await self._reads.get(view, key, asked.reads, flags=COPY_FLAGS)
        except (CacheUnavailable, ConsistencyError) as error:
            self._hooks.error_as_miss(error)
            return None, isinstance(error, ConsistencyError)
        if self._hooks.of_reads:
            self._hooks.looked_up(view, key, "" if found is None else found.zone, hit=found is not None and found.is_value)
        if found is None or found.hit.flags == FLAG_TOMBSTONE:
            return None, True
        return self._content(found, self._wall(), key, asked), True

    async def _read_many(
        self, view: ClusterSnapshot | None, keys: Sequence[bytes], asked: LoadRequest
    ) -> tuple[dict[bytes, Content], bool]:
        if view is None or not keys:
            return {}, view is not None
        found, failures, answered = await self._reads.get_many(view, keys, asked.reads, flags=COPY_FLAGS)
        if self._hooks.of_reads:
            for key in keys:
                item = found.get(key)
                zone = "" if item is None else item.zone
                self._hooks.looked_up(view, key, zone, hit=item is not None and item.is_value)
        required = asked.reads.consistency.required(len(view.readers))
        unavailable = not answered and len(failures) == len(view.readers)  # else some zone was not waited for
        if unavailable:
            self._hooks.error_as_miss(CacheUnavailable("get_or_load_many", failures))
        elif answered < required:
            self._hooks.error_as_miss(ConsistencyError("get_or_load_many", answered, required, failures))
        now = self._wall()
        contents: dict[bytes, Content] = {}
        for number, (key, item) in enumerate(found.items(), 1):
            content = self._content(item, now, key, asked)
            if content is not None:
                contents[key] = content
            if not number % STEP_KEYS:
                await asyncio.sleep(0)
        return contents, not unavailable

    def _content(self, found: ZoneHit, now: float, key: bytes, asked: LoadRequest) -> Content | None:
        """Return what was found; None to load it again, if it cannot be read. The error would help no caller."""
        try:
            content = content_of(found.hit, found.written_at, now, key=key, zone=found.zone)
        except DecodeError as error:  # an envelope of a later release, while processes of both run
            self._decoding.failed(error, key, found.hit.flags, found.zone)
            return None
        return content if asked.readable is None or asked.can_read(content) else None

    # Deciding.

    def _is_outrun(self, key: bytes, found: Content | None, ended: int) -> bool:
        """Whether the key was loaded while it was being read, and the read saw nothing of it. Without another look, those
        whose reads were slow would load once more, one such group after another.
        """
        return self._flights.has_ended_since(key, ended) and (found is None or self._wall() >= found.life.expires_at)

    def _state(self, flags: int, life: Lifetime, asked: LoadRequest) -> State:
        now = self._wall()
        state = state_of(life, now, asked.policy, asked.ttl, 1.0 - self._draw())
        if state is State.REFRESH_DUE and flags == FLAG_ABSENT:
            return State.FRESH  # it lives for seconds only
        return state

    def _is_last_resort(self, content: Content, asked: LoadRequest) -> bool:
        return self._state(content.flags, content.life, asked) is State.STALE_IF_ERROR

    def _was_stale(self, error: BaseException | None) -> None:
        self.stale_served += 1
        self._hooks.stale_served(error)

    # Beginning loads.

    def _begin(self, view: ClusterSnapshot | None, keys: Sequence[bytes], asked: LoadRequest) -> list[Call]:
        flights = self._flights.begin(keys)
        task = self._background.spawn(self._loads.run(view, flights, asked), partial(_described, flights, asked))
        if task is None:
            self._flights.settle(flights, None)
            raise LoadAborted("too much background work, or the client is closing")
        self._flights.own(flights, task)
        return flights

    def _refresh(self, view: ClusterSnapshot | None, keys: Sequence[bytes], asked: LoadRequest) -> None:
        """Load in the background what nobody is loading, and whose loader has not just failed."""
        if view is None:
            return
        keys = [key for key in keys if self._flights.get(key) is None and not self._loads.is_throttled(key)]
        keys = keys[: MAX_REFRESHES - len(self._refreshing)]
        if not keys or self._loads.is_busy:
            return
        flights = self._flights.begin(keys, background=True)
        task = self._background.spawn(self._loads.run(view, flights, asked), partial(_described, flights, asked))
        if task is None:
            self._flights.settle(flights, None)
            return
        self._flights.own(flights, task)
        refreshing = self._refreshing
        refreshing.update(flights)
        task.add_done_callback(lambda _: refreshing.difference_update(flights))


def _described(flights: Sequence[Call], asked: LoadRequest) -> str:
    keys = ", ".join(repr(flight.key) for flight in flights[:3])
    more = f" and {len(flights) - 3} more keys" if len(flights) > 3 else ""
    return f"the loader {name_of(asked.source)} of {keys}{more}"
