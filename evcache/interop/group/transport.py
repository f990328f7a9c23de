"""Transport of a server group: the operations of a connection, on canonical keys and encoded values.

A connection belongs to one node. A key of EVCache for the JVM may be hashed in one group and not in another, and a value may
lie on several nodes. So this object stands in front of all nodes of a group, and no other part of the client knows about
hashes, envelopes and chunks. It has no versions.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, NoReturn

from evcache._helpers.background import BackgroundTasks
from evcache.interop.forms.group_rules import GroupRules, WireKey
from evcache.interop.group.chunked_items import ChunkedItems
from evcache.interop.group.limits import chunk_bytes_of
from evcache.interop.group.requests import GroupRequests, Loaded
from evcache.values.flags import FLAG_INT
from evcache.zones.errors import CacheError, NodeError, NodeTimeout, QueueFull, Unsupported
from evcache.zones.protocol.fields import NO_FLAGS, Fields
from evcache.zones.protocol.operations import EncodedStore, StoreMode
from evcache.zones.protocol.replies import AnyReply, Reply
from evcache.zones.transport.in_flight import Waiter
from evcache.zones.zone_pool import ZonePool

# Calls of one group that run at once, for each of its nodes: as many requests as one connection accepts
# (`ConnectionLimits`). Each call has a task, so the usual limit of background tasks would refuse calls that need none
# without interop mode.
MAX_CALLS_PER_NODE = 16_384

_MISS = Reply(b"EN", [], None)


class GroupTransport:
    """Operations on one group. The methods are those of `Transport`. Each runs as a task of the client."""

    def __init__(
        self, name: str, nodes: ZonePool, rules: GroupRules, background: BackgroundTasks, unix_time: Callable[[], float]
    ) -> None:
        """Bind the parts of a group.

        Args:
            name: Name of the group, for errors.
            nodes: Its nodes.
            rules: Forms of its keys and values.
            background: Owner of the tasks.
            unix_time: Returns seconds since 1970.
        """
        self.name = name
        self._rules = rules
        self._background = background
        self._unix_time = unix_time
        self._running = 0
        self._most_running = MAX_CALLS_PER_NODE * len(nodes.nodes)
        self._requests = GroupRequests(nodes)
        self._chunked = None
        if rules.chunk_bytes is not None:
            of_nodes = partial(chunk_bytes_of, rules.chunk_bytes, nodes.nodes)
            self._chunked = ChunkedItems(self._requests, of_nodes, name)

    # Reads. The fields that a caller asks for are all there, because an envelope has to be read whole.

    def get(self, key: bytes, fields: Fields, waiter: Waiter, deadline: float, latest: float | None = None) -> None:
        """Do what `Transport.get` describes."""
        del fields
        self._start(waiter, self._get(key, deadline, latest))

    def read(
        self, key: bytes, fields: Fields, deadline: float, latest: float | None = None, *_: object, **__: object
    ) -> Awaitable[AnyReply]:
        """Do what `Transport.read` describes. A known CAS has no effect."""
        answer: asyncio.Future[AnyReply] = asyncio.get_running_loop().create_future()
        self.get(key, fields, answer, deadline, latest)
        return answer

    def get_many(
        self,
        keys: Sequence[bytes],
        fields: Fields,
        waiter: Waiter,
        deadline: float,
        latest: float | None = None,
        cas: array[int] | None = None,
        flags: int = NO_FLAGS,
    ) -> None:
        """Do what `Transport.get_many` describes. A known CAS has no effect."""
        del fields, cas, flags
        self._start(waiter, self._get_many(keys, deadline, latest))

    async def _get(self, key: bytes, deadline: float, latest: float | None) -> AnyReply:
        (loaded,) = await self._load([key], deadline, latest)
        if isinstance(loaded, NodeError):
            raise loaded
        return _MISS if loaded is None else loaded

    async def _get_many(self, keys: Sequence[bytes], deadline: float, latest: float | None) -> list[AnyReply | None]:
        found = await self._load(keys, deadline, latest)
        errors = [loaded for loaded in found if isinstance(loaded, NodeError)]
        if errors and len(errors) == len(found):
            raise errors[0]
        return [
            Reply(b"SERVER_ERROR", [str(loaded).encode()], None) if isinstance(loaded, NodeError) else loaded
            for loaded in found
        ]

    async def _load(self, keys: Sequence[bytes], deadline: float, latest: float | None) -> list[Loaded]:
        wires = [self._rules.wire_key(key) for key in keys]
        read = self._requests.read if self._chunked is None else self._chunked.read
        loaded = await read([wire.key for wire in wires], deadline, latest)
        return [self._own(key, wire, loaded[wire.key]) for key, wire in zip(keys, wires, strict=True)]

    def _own(self, key: bytes, wire: WireKey, loaded: Loaded) -> Loaded:
        return loaded if loaded is None or isinstance(loaded, NodeError) else self._rules.loaded(key, wire, loaded)

    # Writes.

    def store(
        self,
        key: bytes,
        data: bytes,
        flags: int,
        exptime: int,
        waiter: Waiter,
        deadline: float,
        *,
        mode: StoreMode = "set",
        compare: int | None = None,
        cas: int | None = None,
    ) -> None:
        """Do what `Transport.store` describes. JVM clients refuse nearly the same, or lose the data."""
        if cas is not None:
            self._refuse("versions")
        wire = self._rules.wire_key(key)
        if mode in ("append", "prepend") and (wire.is_hashed or self._chunked is not None):
            self._refuse(f"{mode} (the group hashes the key, or stores chunks)")
        now_ms = int(self._unix_time() * 1000)
        stored, stored_flags = self._rules.stored(key, wire, data, flags, exptime, now_ms)
        if self._chunked is None or flags == FLAG_INT:
            work = self._requests.store(wire.key, stored, stored_flags, exptime, deadline, mode=mode, compare=compare)
        elif mode != "set" or compare is not None:
            self._refuse("add, replace and cas (the group stores chunks)")
        else:
            work = self._chunked.store(wire.key, stored, stored_flags, exptime, deadline)
        self._start(waiter, work)

    def send_store(self, store: EncodedStore, waiter: Waiter, deadline: float) -> None:
        """Refuse a store with a version."""
        del store, waiter, deadline
        self._refuse("versions")

    def replace_older(self, key: bytes, data: bytes, flags: int, cas: int, waiter: Waiter, deadline: float) -> None:
        """Refuse a store with a version."""
        del key, data, flags, cas, waiter, deadline
        self._refuse("versions")

    def delete(self, key: bytes, waiter: Waiter, deadline: float, compare: int | None = None) -> None:
        """Do what `Transport.delete` describes."""
        wire = self._rules.wire_key(key)
        if self._chunked is None:
            self._start(waiter, self._requests.delete(wire.key, deadline, compare))
        elif compare is not None:
            self._refuse("a delete that compares (the group stores chunks)")
        else:
            self._start(waiter, self._chunked.delete(wire.key, deadline))

    def touch(self, key: bytes, exptime: int, waiter: Waiter, deadline: float) -> None:
        """Do what `Transport.touch` describes."""
        wire = self._rules.wire_key(key)
        items = self._requests if self._chunked is None else self._chunked
        self._start(waiter, items.touch(wire.key, exptime, deadline))

    def guarded_touch(self, key: bytes, exptime: int, cas: int, waiter: Waiter, deadline: float) -> None:
        """Refuse a touch of a version."""
        del key, exptime, cas, waiter, deadline
        self._refuse("versions")

    def count(
        self,
        key: bytes,
        delta: int,
        waiter: Waiter,
        deadline: float,
        *,
        decrement: bool,
        compare: int | None = None,
        cas: int | None = None,
    ) -> None:
        """Do what `Transport.count` describes. A counter has no envelope and no chunks."""
        if compare is not None or cas is not None:
            self._refuse("versions")
        wire = self._rules.wire_key(key)
        self._start(waiter, self._requests.count(wire.key, delta, deadline, decrement=decrement))

    def lease(self, key: bytes, seconds: int, waiter: Waiter, deadline: float, cas: int | None = None) -> None:
        """Refuse a lease. JVM clients would read its stub as an empty string."""
        del key, seconds, waiter, deadline, cas
        self._refuse("leases")

    def _refuse(self, feature: str) -> NoReturn:
        raise Unsupported(feature, f"zone {self.name} in interop mode")

    def _start(self, waiter: Waiter, work: Coroutine[Any, Any, Any]) -> None:
        delivery = _Delivery(waiter, self.name)
        if self._running >= self._most_running:
            work.close()
            raise QueueFull(f"{self._running} calls are running already", self.name)
        task = self._background.spawn(delivery.run(work), limited=False)
        if task is None:
            work.close()
            raise QueueFull("the client is closing", self.name)
        self._running += 1

        def end(_: asyncio.Task[None]) -> None:
            self._running -= 1
            work.close()  # a task that is cancelled before its first step has not begun to await it
            delivery.give_up()

        task.add_done_callback(end)


class _Delivery:
    """Delivery of the result of some work to a waiter."""

    def __init__(self, waiter: Waiter, name: str) -> None:
        self._waiter = waiter
        self._name = name

    async def run(self, work: Coroutine[Any, Any, Any]) -> None:
        try:
            result = await work
        except CacheError as error:
            if not self._waiter.done():
                self._waiter.set_exception(error)
        else:
            if not self._waiter.done():
                self._waiter.set_result(result)

    def give_up(self) -> None:
        """End the waiter of a task that was cancelled by the close of the client, or has met a bug."""
        if not self._waiter.done():
            self._waiter.set_exception(NodeTimeout("given up", self._name))
