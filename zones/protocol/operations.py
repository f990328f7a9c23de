"""Operations as values: the vocabulary that a node and its transport share.

Most operations are methods of `Transport` with plain arguments. This module has the modes of a store, and the guarded store,
which is encoded once and sent to several nodes. The fields of a read are in `fields`.
"""

from __future__ import annotations

from typing import Literal

from evcache.zones.protocol.packet import Packet
from evcache.zones.protocol.requests import guarded_store, guarded_store_once

StoreMode = Literal["set", "add", "replace", "append", "prepend"]
"""Condition and effect of a store. `append` and `prepend` keep the item's flags and TTL."""

# Values up to this size travel three times in a guarded store, larger ones once.
# Measured with `python -m benchmarks.guarded_store`, three zones of memcached 1.6.38, 32 callers. Processor time of client
# and servers for one copy, relative to three copies: 1.03 to 1.13 up to 1 kB, 0.9 at 4 kB, 0.4 from 100 kB on.
# Bytes to each zone: 0.82 at 64, 0.67 at 128, 0.40 at 1,000. One copy names the key four times instead of three times.
# Over 128 bytes it sends less with any key of up to 200 bytes.
THREE_COPIES_MAX_BYTES = 128

# Lifetime of the stub that the one-copy store makes where nothing is. If the connection ends inside the packet, the stub
# stays and holds up leases of its key. Servers count in ticks of one second: 2 lives 1 to 2 seconds, 1 might live none. A
# stub that ends while the value is on its way costs a second round trip.
STUB_SECONDS = 2


class GuardedStore:
    """A store that a server refuses if it holds a newer version. It may be repeated and reordered without harm.

    The first connection that sends it encodes it, and the others send the same encoding.
    """

    __slots__ = ("cas", "data", "exptime", "flags", "key", "packet", "stub")

    def __init__(self, key: bytes, data: bytes, flags: int, exptime: int, *, cas: int, stub: int) -> None:
        """Create a store that is not encoded.

        Args:
            key: Validated key.
            data: Value.
            flags: Client flags.
            exptime: Expiry as memcached takes it. 0 is no expiry.
            cas: CAS of the version, inverted: a newer version has a lower one.
            stub: CAS of the stub that is stored where nothing is. It is older than every version.
        """
        self.key = key
        self.data = data
        self.flags = flags
        self.exptime = exptime
        self.cas = cas
        self.stub = stub
        self.packet: Packet | None = None
        """Commands of the meta protocol. None until `encode`."""

    @property
    def is_one_copy(self) -> bool:
        """True for the form of four commands with one copy of the value, False for that of three stores."""
        return len(self.data) > THREE_COPIES_MAX_BYTES

    def encode(self) -> Packet:
        """Set `packet` to the form that suits the size of the value, and return it."""
        if self.is_one_copy:
            self.packet = guarded_store_once(
                self.key,
                self.data,
                cas=self.cas,
                ttl=self.exptime,
                flags=self.flags,
                stub=self.stub,
                stub_seconds=STUB_SECONDS,
            )
        else:
            self.packet = guarded_store(self.key, self.data, cas=self.cas, ttl=self.exptime, flags=self.flags)
        return self.packet
