"""Reads of a key from the zone that decides its conditional writes."""

from __future__ import annotations

from evcache.errors import CacheUnavailable
from evcache.options import Options
from evcache.reads.zone_reader import ZoneReader
from evcache.replication.reconcile import ZoneHit
from evcache.writes.conditional.coordinator import Coordinator
from evcache.zones.errors import NodeError
from evcache.zones.snapshot import ClusterSnapshot


async def read_for_update(
    coordinator: Coordinator, zones: ZoneReader, view: ClusterSnapshot, key: bytes, options: Options
) -> ZoneHit | None:
    """Return the coordinator's item of a key, or None for a miss.

    A later `cas` can name this item also on servers without versions.

    Raises:
        CacheUnavailable: No coordinator could be reached, or it did not answer.
    """
    deadline = view.loop.time() + options.timeout
    pool, node = await coordinator.elect("get_item", view, key, deadline)
    try:
        seen = await coordinator.look(view, key, pool, node, deadline)
        if seen is None or seen.absent:
            return None
        return await zones.get_from(pool, node, key, deadline)
    except NodeError as error:
        raise CacheUnavailable("get_item", {pool.name: error}) from error
