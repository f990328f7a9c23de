"""Copies of batches of keys from one zone to another. What is copied is decided in `decision`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from evcache.admin.copying.decision import Change, Copy, Skip, change_after, decide, is_held, is_wanted
from evcache.admin.copying.stores import STEP_TIMEOUT_SECONDS, adjust, store_on
from evcache.replication.commands.node_requests import Peeked, capabilities_of, read_peek
from evcache.replication.hlc import HybridLogicalClock
from evcache.results import Outcome
from evcache.zones.errors import CacheError, NodeError
from evcache.zones.nodes.node import Node
from evcache.zones.protocol.fields import INSPECT_FIELDS, INSPECT_VALUE_FIELDS, Fields
from evcache.zones.protocol.replies import AnyReply
from evcache.zones.routing.ketama import ring_position
from evcache.zones.zone_pool import ZonePool


@dataclass(slots=True)
class CopyTally:
    """Numbers of keys by the outcome of their copy."""

    copied: int = 0
    """Keys that the target has stored."""
    superseded: int = 0
    """Keys for which the target held a newer version when the copy arrived."""
    refused: int = 0
    """Keys that the target refused, for lack of memory for example."""
    skipped: dict[Skip, int] = field(default_factory=lambda: dict.fromkeys(Skip, 0))
    failed: int = 0
    """Keys of nodes that did not answer. They may have been copied."""
    value_bytes: int = 0
    """Bytes of the copied values."""

    @property
    def keys(self) -> int:
        """Number of keys in all."""
        return self.copied + self.superseded + self.refused + self.failed + sum(self.skipped.values())


class Copier:
    """Copies from zone to zone."""

    def __init__(self, tally: CopyTally, unix_time: Callable[[], float] = time.time) -> None:
        """Make it.

        Args:
            tally: Receives the numbers.
            unix_time: Returns the unix time.
        """
        self._tally = tally
        self._unix_time = unix_time
        self._hlc = HybridLogicalClock()  # observes, and makes no version

    async def copy(self, keys: Sequence[bytes], source: ZonePool, target: ZonePool) -> list[bytes]:
        """Copy the items of keys that the target lacks, or holds in an older version.

        A repeated copy changes nothing, and so does one that was cancelled.

        Args:
            keys: Different keys.
            source: Zone that the items are read from.
            target: Zone that stores them.

        Returns:
            The keys of nodes that did not answer. They are not in the tally.
        """
        held = await look(target, keys, INSPECT_FIELDS)
        # A key that the target holds is usually in place, so its value is not read before its version is known.
        absent = [key for key, item in held.items() if not is_held(item)]
        present = [key for key, item in held.items() if is_held(item)]
        began = asyncio.get_running_loop().time()
        items, versions = await asyncio.gather(
            look(source, absent, INSPECT_VALUE_FIELDS), look(source, present, INSPECT_FIELDS)
        )
        newer = [key for key, item in versions.items() if is_wanted(item, held[key])]
        items |= await look(source, newer, INSPECT_VALUE_FIELDS)
        for key in versions.keys() - items.keys() - set(newer):
            self._tally.skipped[Skip.GONE if not is_held(versions[key]) else Skip.PRESENT] += 1
        answered = items.keys() | (versions.keys() - set(newer))
        spent = asyncio.get_running_loop().time() - began + STEP_TIMEOUT_SECONDS
        copies = self._decide(items, held, target, spent)
        unstored = await self._store(copies, source, target)
        return [key for key in keys if key not in answered or key in unstored]

    def _decide(
        self, items: Mapping[bytes, Peeked | None], held: Mapping[bytes, Peeked | None], target: ZonePool, spent: float
    ) -> list[Copy]:
        """Return the copies of items, and count those that are not copied."""
        now = self._unix_time()
        copies: list[Copy] = []
        for key, item in items.items():
            largest = capabilities_of(target.node(ring_position(key))).largest_value(key)
            decided = decide(key, item, held[key], spent=spent, unix_time=now, largest=largest)
            if isinstance(decided, Copy):
                copies.append(decided)
            else:
                self._tally.skipped[decided] += 1
        return copies

    async def _store(self, copies: Sequence[Copy], source: ZonePool, target: ZonePool) -> set[bytes]:
        """Store copies, and count the outcomes. Return the keys whose node did not answer."""
        groups = target.batches([copy.key for copy in copies], copies)
        outcomes: dict[bytes, Outcome | Skip] = {}
        for stored in await asyncio.gather(*(store_on(node, some, self._hlc) for node, _, some in groups)):
            outcomes |= stored
        # The original may have changed since the look. What has changed is decided after the store, because a change before
        # the store would otherwise be missed.
        stored_copies = [copy for copy in copies if outcomes.get(copy.key) is Outcome.STORED]
        outcomes |= await self._adjust(stored_copies, source, target)
        for copy in copies:
            if copy.key in outcomes:
                self._count(copy, outcomes[copy.key])
        return {copy.key for copy in copies} - outcomes.keys()

    async def _adjust(self, copies: Sequence[Copy], source: ZonePool, target: ZonePool) -> dict[bytes, Skip]:
        """Shorten or remove the copies whose original has changed. Return the keys of the removed copies."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        originals = await look(source, [copy.key for copy in copies], INSPECT_FIELDS)
        spent = loop.time() - began + STEP_TIMEOUT_SECONDS
        now = self._unix_time()
        changes: list[tuple[Copy, Change]] = []
        for copy in copies:
            if copy.key in originals:
                change = change_after(copy, originals[copy.key], spent=spent, unix_time=now)
                if change is not None:
                    changes.append((copy, change))
        nodes = [target.node(ring_position(copy.key)) for copy, _ in changes]
        await asyncio.gather(*(adjust(node, *changed) for node, changed in zip(nodes, changes, strict=True)))
        return {
            copy.key: Skip.EXPIRING if is_held(originals[copy.key]) else Skip.GONE
            for copy, change in changes
            if change.exptime is None
        }

    def _count(self, copy: Copy, outcome: Outcome | Skip) -> None:
        if isinstance(outcome, Skip):
            self._tally.skipped[outcome] += 1
        elif outcome is Outcome.STORED:
            self._tally.copied += 1
            self._tally.value_bytes += len(copy.data)
        elif outcome is Outcome.SUPERSEDED:
            self._tally.superseded += 1
        else:
            self._tally.refused += 1


async def look(pool: ZonePool, keys: Sequence[bytes], fields: Fields) -> dict[bytes, Peeked | None]:
    """Return what a zone holds under the keys, without those whose node did not answer. Cancellation abandons the reads."""
    found: dict[bytes, Peeked | None] = {}
    for answered in await asyncio.gather(*(_look_at(node, some, fields) for node, some, _ in pool.batches(keys, keys))):
        found |= answered
    return found


async def _look_at(node: Node, keys: Sequence[bytes], fields: Fields) -> dict[bytes, Peeked | None]:
    loop = asyncio.get_running_loop()
    replies: asyncio.Future[list[AnyReply | None]] = loop.create_future()
    found: dict[bytes, Peeked | None] = {}
    with suppress(CacheError):
        connection, deadline = await node.connected_by(loop.time() + STEP_TIMEOUT_SECONDS)
        connection.get_many(keys, fields, replies, deadline)
        for key, reply in zip(keys, await replies, strict=True):
            with suppress(NodeError):  # the server refuses this key
                found[key] = None if reply is None else read_peek(reply)
    return found
