"""Append and prepend: the value is extended on the coordinator's node and copied to the other zones."""

from __future__ import annotations

import asyncio
import math
from typing import Any

from evcache.errors import DecodeError
from evcache.replication.commands.node_requests import Peeked, capabilities_of, get, peek, store
from evcache.results import Outcome
from evcache.values.codec import Codec
from evcache.values.flags import FLAG_ENVELOPE
from evcache.values.lifetime import content_of
from evcache.values.ttl import TTL_GRANULARITY_SECONDS
from evcache.writes.conditional.compare_and_set import CompareAndSet, Decision, refusal
from evcache.writes.draft import Draft
from evcache.zones.errors import InvalidArgument, Unsupported
from evcache.zones.nodes.node import Node
from evcache.zones.protocol.fields import COPY_FIELDS, READ_FIELDS
from evcache.zones.protocol.operations import StoreMode
from evcache.zones.protocol.replies import Hit, read_hit


class Concat:
    """Extension of a str or bytes value, at its end or at its beginning. The value keeps its TTL."""

    __slots__ = ("codec", "extra", "is_prepend", "key", "ttl")

    draft = None
    peeks_value = False

    def __init__(self, key: bytes, extra: str | bytes, codec: Codec, *, is_prepend: bool, ttl: int) -> None:
        """Make the write.

        Args:
            key: Qualified key.
            extra: The str or bytes to add.
            codec: Codec of the client.
            is_prepend: Add at the beginning of the value. If False, at its end.
            ttl: Exptime of the copies in other zones, if the server cannot report the TTL that the value has left.

        Raises:
            InvalidArgument: `extra` is neither str nor bytes.
            EncodeError: `extra` cannot be stored.
        """
        if type(extra) not in (str, bytes):
            raise InvalidArgument("value", f"a str or bytes is needed, not {type(extra).__name__}")
        codec.encode(extra)  # a part that cannot be stored makes a value that cannot be: raise before anything is sent
        self.key = key
        self.extra = extra
        self.codec = codec
        self.is_prepend = is_prepend
        self.ttl = ttl

    async def decide(
        self, stores: CompareAndSet, zone: str, node: Node, seen: Peeked | None, deadline: float
    ) -> Decision | Outcome:
        """Extend the value, or return `NOT_STORED` if the key is absent (see `ConditionalWrite`).

        Raises:
            InvalidArgument: The value is of another type than the added part.
            Unsupported: The value is compressed, and the server cannot report its TTL.
        """
        key, mode = self.key, self._mode
        while True:
            if seen is None or seen.absent:
                return Outcome.NOT_STORED
            asked_at = asyncio.get_running_loop().time()
            hit = read_hit(await get(node, key, COPY_FIELDS, deadline))
            if hit is None or hit.cas != seen.cas:
                seen = await peek(node, key, deadline)
                continue  # the item was written, or expired, after the look
            if hit.flags == FLAG_ENVELOPE:  # its content is a value like any other, while it is fresh
                now = stores.unix_time()
                content = content_of(hit, None, now, key=key, zone=zone)
                left = math.floor(content.life.expires_at - now)
                if left <= 0:
                    return Outcome.NOT_STORED
                hit = hit._replace(value=content.data, flags=content.flags, ttl=left + TTL_GRANULARITY_SECONDS)
            data, flags, is_plain = self._joined(hit, zone)
            exptime = self.ttl if hit.ttl is None else stores.exptime_of_copies(hit.ttl, asked_at, deadline)
            draft = Draft(key, data, flags, exptime)
            if hit.ttl is None:
                return await self._join_on_server(stores, node, draft, hit, deadline, is_plain=is_plain)
            if seen.flags != FLAG_ENVELOPE and is_plain:
                # The server joins the bytes itself, which keeps the TTL exactly.
                decision = await stores.replace(node, draft, seen, deadline, sent=_plain(self.extra), mode=mode)
            else:
                decision = await stores.replace(node, draft, seen, deadline)
            if decision is not None:
                return decision
            seen = await peek(node, key, deadline)

    @property
    def _mode(self) -> StoreMode:
        return "prepend" if self.is_prepend else "append"

    def _joined(self, hit: Hit, zone: str) -> tuple[bytes, int, bool]:
        """Return the bytes and flags of the whole value, and True if its stored bytes are joined as they are."""
        extra, old = self.extra, self._old(hit, zone)
        if hit.value == _plain(old):
            more = _plain(extra)
            return (more + hit.value if self.is_prepend else hit.value + more), hit.flags, True
        return *self.codec.encode(extra + old if self.is_prepend else old + extra), False

    def _old(self, hit: Hit, zone: str) -> Any:
        """Return the present value: a str if the added part is one, bytes if that is bytes."""
        try:
            value = self.codec.decode(hit.value, hit.flags)
        except DecodeError as error:
            raise error.located(self.key, zone, hit.flags) from error
        if type(value) is not type(self.extra):
            kinds = f"{type(self.extra).__name__} to a {type(value).__name__}"
            raise InvalidArgument("value", f"can't join a {kinds}: both must be str, or both bytes")
        return value

    async def _join_on_server(
        self, stores: CompareAndSet, node: Node, draft: Draft, hit: Hit, deadline: float, *, is_plain: bool
    ) -> Decision | Outcome:
        """Join on a server that cannot report the TTL, and does not compare when it joins."""
        if not is_plain:  # bytes behind a compressed value would be lost, or make it unreadable
            raise Unsupported("joining to a compressed value", node.label)
        if len(draft.data) > capabilities_of(node).largest_value(draft.key):
            return Outcome.NOT_STORED
        more = _plain(self.extra)
        reply = await store(node, draft.key, more, hit.flags, 0, deadline, mode=self._mode)
        if reply.status == b"NS":
            return Outcome.NOT_STORED
        if reply.status != b"HD":
            return refusal(reply)
        # The other zones get the present value, which may contain later joins of other clients.
        joined = read_hit(await get(node, draft.key, READ_FIELDS, deadline))
        if joined is None:
            return Outcome.NOT_STORED  # evicted, or expired
        return Decision(stores.copy(draft._replace(data=joined.value, flags=joined.flags), None))


def _plain(value: str | bytes) -> bytes:
    """Return the bytes that a codec without any transformation writes for a str or bytes value."""
    return value.encode() if isinstance(value, str) else value
