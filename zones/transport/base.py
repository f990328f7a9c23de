"""Interface between a node and its server: a `Transport` carries operations, whichever protocol the server speaks.

A compiled class can implement it. Keys and values are bytes, flags and times are numbers, fields and modes are constants,
and a waiter has three methods. Results are replies of the meta protocol.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Awaitable, Sequence
from typing import Literal, Protocol, overload

from evcache.zones.protocol.fields import NO_FLAGS, Fields
from evcache.zones.protocol.operations import EncodedStore, StoreMode
from evcache.zones.protocol.replies import AnyReply
from evcache.zones.transport.in_flight import Waiter

TransportName = Literal["meta", "classic"]
TransportChoice = Literal["auto", "meta", "classic"]
"""Transport of a node. With `auto`, each connect asks the server which one it supports."""


def peers_of(transport: asyncio.BaseTransport | None) -> frozenset[tuple[str, int]]:
    """Return the IP address and port that a socket is connected to. Empty for a unix socket and for None."""
    peer = None if transport is None else transport.get_extra_info("peername")
    return frozenset({(peer[0], peer[1])}) if isinstance(peer, tuple) else frozenset()


class Transport(Protocol):
    """Connection to one node, open or ended.

    Each operation raises `QueueFull` or `ConnectionLost` if there is no room or no connection, and `Unsupported` if the
    server cannot do it. Nothing is sent then. `deadline` is on the loop's clock. The waiter gets the result or a
    `NodeError`. A cancelled waiter costs nothing: its reply is read and dropped.
    """

    name: str
    """Label of the node, for errors."""

    @property
    def heard_at(self) -> float:
        """Time of the last byte, on the loop's clock."""
        ...

    @property
    def quiet_since(self) -> float:
        """Time of the last byte, or of the first request since nothing waited, if that is later."""
        ...

    @property
    def renews_itself(self) -> bool:
        """True if it replaces sockets that the network has forgotten. The times of bytes then prove nothing."""
        ...

    def peers(self) -> frozenset[tuple[str, int]]:
        """Return the IP addresses and ports that it is connected to."""
        ...

    @property
    def is_open(self) -> bool:
        """True if it takes requests."""
        ...

    @property
    def pending(self) -> int:
        """Number of requests without a reply, those of cancelled callers included."""
        ...

    @property
    def unanswered(self) -> int:
        """Number of requests whose caller still waits."""
        ...

    @property
    def requests(self) -> int:
        """Number of requests since it was made."""
        ...

    def forgive(self) -> None:
        """Reset the number of timeouts in a row."""
        ...

    async def probe(self, deadline: float) -> None:
        """Send a harmless request. Raises a `NodeError` if the server does not answer by the deadline."""
        ...

    def get(self, key: bytes, fields: Fields, waiter: Waiter, deadline: float, latest: float | None = None) -> None:
        """Read an item. The waiter gets a `Hit` or a `Reply`.

        Args:
            key: Validated key.
            fields: Fields that the reply has.
            waiter: See the class.
            deadline: See the class.
            latest: End of the call, if another zone can serve the read as well. The waiter then may get a `NodeSilent`
                before the deadline. While the server is in the middle of a reply, the read waits beyond the deadline. If
                None, no other zone can serve the read.
        """
        ...

    @overload
    def read(self, key: bytes, fields: Fields, deadline: float, latest: float | None = None) -> Awaitable[AnyReply]: ...
    @overload
    def read(
        self, key: bytes, fields: Fields, deadline: float, latest: float | None, cas: int, flags: int
    ) -> Awaitable[AnyReply | bytes]: ...
    def read(
        self,
        key: bytes,
        fields: Fields,
        deadline: float,
        latest: float | None = None,
        cas: int = 0,
        flags: int = NO_FLAGS,
    ) -> Awaitable[AnyReply | bytes]:
        """Read an item, and return the awaitable of the reply, which may be awaited once.

        It is the quickest form of a read. A caller that does not await it, or is cancelled, costs nothing.

        Args:
            key: See `get`.
            fields: See `get`.
            deadline: See `get`.
            latest: See `get`.
            cas: CAS that the caller knows. 0 is the CAS of no item.
            flags: Client flags that the caller expects. The reply to `READ_FIELDS` with this CAS and these flags may be the
                value alone, because it says no more.
        """
        ...

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
        """Read several items. The waiter gets the list of replies in the order of the keys, with None for a miss.

        The arguments are those of `get`, with the CAS and the flags of `read`: `cas` has the CAS of each key, as unsigned
        64-bit numbers. Without flags, no reply is the value alone.
        """
        ...

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
        """Store a value. The waiter gets a `Reply`: `HD` stored, `NS` not stored, `EX` another CAS, `NF` no item.

        Args:
            key: Validated key.
            data: Value.
            flags: Client flags.
            exptime: Expiry as memcached takes it. 0 is no expiry.
            waiter: See the class.
            deadline: See the class.
            mode: Condition and effect.
            compare: CAS that the item must have. 0 is a CAS. If None, the server does not compare.
            cas: CAS that the item gets. If None, the server chooses it.
        """
        ...

    def send_store(self, store: EncodedStore, waiter: Waiter, deadline: float) -> None:
        """Send a store that is sent to other nodes as well. The waiter gets the list of replies to its commands."""
        ...

    def replace_older(self, key: bytes, data: bytes, flags: int, cas: int, waiter: Waiter, deadline: float) -> None:
        """Replace an item that is not newer than `cas`, and keep its TTL.

        The waiter gets a list. Its first reply is `HD` if the item was replaced.
        """
        ...

    def delete(self, key: bytes, waiter: Waiter, deadline: float, compare: int | None = None) -> None:
        """Delete an item, only one with the CAS `compare` unless that is None.

        The waiter gets a `Reply`: `HD` deleted, `EX` another CAS, `NF` no item.
        """
        ...

    def touch(self, key: bytes, exptime: int, waiter: Waiter, deadline: float) -> None:
        """Set the TTL of an item. The waiter gets a `Reply`: `HD`, with client flags if the server shows them, or `EN`."""
        ...

    def guarded_touch(self, key: bytes, exptime: int, cas: int, waiter: Waiter, deadline: float) -> None:
        """Set the TTL of exactly the item with this CAS.

        The waiter gets a list. Its first reply is `HD` set, `EX` another CAS or `NF` no item.
        """
        ...

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
        """Add to a counter, or subtract from it, not below 0.

        The waiter gets a `Reply`: `VA` with the digits, `EX` another CAS, `NF` no counter.

        Args:
            key: Validated key.
            delta: Number to add or subtract.
            waiter: See the class.
            deadline: See the class.
            decrement: Subtract.
            compare: CAS that the item must have. If None, the server does not compare.
            cas: CAS that the item gets. If None, the server chooses it.
        """
        ...

    def lease(self, key: bytes, seconds: int, waiter: Waiter, deadline: float, cas: int | None = None) -> None:
        """Read an item with `COPY_FIELDS`. Where there is none, create a stub that lives `seconds`.

        The reply has the token `W` for the reader whose request created the stub, and `Z` for later readers. The stub gets
        the CAS `cas`. If None, the server chooses it.
        """
        ...

    def retire(self) -> None:
        """Take no more requests, and close once no caller waits for an answer."""
        ...

    def abort(self, why: str = ...) -> None:
        """Close now. Waiting callers get `ConnectionLost`. A second call has no effect."""
        ...
