"""The ordinary read: a read of one key that passes no option, and that the first zone serves.

The compiled core does it without a call of Python (`ordinary_read.pxi`). It passes every other read on to `UnusualReads`: to
`general` if nothing was sent, and to `conclude` after an unusual answer. The core in Python has no form of its own, because
`Reader.get` is as short.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from evcache._cluster_access import ClusterAccess
from evcache.errors import CacheUnavailable, ConsistencyError
from evcache.hooks import HookDispatcher
from evcache.options import Options
from evcache.reads.decoding import Decoding
from evcache.reads.results import SPECIAL_FLAGS, ReadResults
from evcache.reads.zone_reader import ZoneReader
from evcache.replication.hlc import MAX_CAS
from evcache.replication.reconcile import ZoneHit
from evcache.values.keys import Keys
from evcache.zones.errors import CacheError
from evcache.zones.protocol.fields import READ_FIELDS
from evcache.zones.protocol.replies import AnyReply, read_hit
from evcache.zones.snapshot import ClusterSnapshot
from evcache.zones.transport.core import selected
from evcache.zones.transport.core.selected import OrdinaryReads


class UnusualReads:
    """Reads that the core passes on."""

    def __init__(
        self,
        general: Callable[[Any, Any], Coroutine[Any, Any, Any]],
        zones: ZoneReader,
        options: Options,
        decoding: Decoding,
        results: ReadResults,
        hooks: HookDispatcher,
    ) -> None:
        """Bind the parts of one client.

        Args:
            general: Reads a key, in every case. Its arguments are the key and the result of a miss.
            zones: Reads of the zones.
            options: Options of a read that passes none.
            decoding: Decoders of values.
            results: Conversion of items to what callers get.
            hooks: Listeners of the client.
        """
        self.general = general
        self._zones = zones
        self._options = options
        self._decoding = decoding
        self._results = results
        self._hooks = hooks

    def ordinary(self, keys: Keys, access: ClusterAccess, plain: int) -> OrdinaryReads | None:
        """Return the ordinary reads of the client. None if one answer is not enough, or the core has no form of its own.

        Args:
            keys: Full names of keys.
            access: The client's zones.
            plain: Flags of a value that is its own bytes.
        """
        make = selected.SELECTED.ordinary_reads
        if make is None or not self._options.one_answer:
            return None
        return make(
            self,
            self._zones,
            access.cluster,
            access.affinity,
            self._hooks,
            keys.qualify,
            self._decoding.codec.decode,
            self._options.timeout,
            MAX_CAS,
            plain,
            SPECIAL_FLAGS,
        )

    def answer(
        self, view: ClusterSnapshot, full: bytes, recent: int | None, known: int, reply: AnyReply
    ) -> ZoneHit | CacheError | None:
        """Return the answer of the first zone: the item, None for a miss, or the error of the zone.

        Args:
            view: Zones of the read.
            full: Key with its namespace.
            recent: Result of `ZoneReader.recall` at the start of the read.
            known: Version that an answer must not be older than.
            reply: Reply of the zone.
        """
        try:
            return self._zones.judge(view, full, view.readers[0].name, read_hit(reply), recent, known)
        except CacheError as error:  # a reply that no read has
            return error

    async def conclude(
        self,
        view: ClusterSnapshot,
        full: bytes,
        default: Any,
        began_at: float,
        known: int,
        answer: ZoneHit | CacheError | None,
    ) -> Any:
        """Return the value of a read that the first zone has answered.

        Args:
            view: Zones of the read.
            full: Key with its namespace.
            default: Result of a miss.
            began_at: Start of the read, on the event loop's clock.
            known: Version that an answer must not be older than.
            answer: Result of `answer`, or the error of a zone that sent no reply.

        Raises:
            CacheUnavailable: No zone answered. Not with `errors="miss"`.
            DecodeError: The value cannot be decoded.
        """
        options = self._options
        found = answer
        if not isinstance(found, ZoneHit):
            try:
                found = await self._zones.read_on(view, full, READ_FIELDS, options, began_at, view.readers[0], known, found)
            except (CacheUnavailable, ConsistencyError) as error:
                return unavailable(self._hooks, error, options, default)
        if self._hooks.of_reads:
            self._results.report(view, full, found)
        return self._results.value(full, found, default, self._decoding.codec)

    def report_served(self, view: ClusterSnapshot, full: bytes) -> None:
        """Report a value of the first zone to the hooks."""
        self._hooks.looked_up(view, full, view.readers[0].name, hit=True)


def unavailable(hooks: HookDispatcher, error: CacheError, options: Options, default: Any) -> Any:
    """Raise the error of a read, or return the default if errors are misses."""
    if options.errors == "raise":
        raise error
    hooks.error_as_miss(error)
    return default
