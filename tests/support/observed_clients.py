"""Clients whose spans are recorded, and the parts of expected spans."""

from evcache import LoadPolicy
from tests.support.memory_zones import pass_time
from tests.support.near import follow_loop

ONE = {"evcache.consistency": "one"}
MOST = {"evcache.consistency": "all_minus_one"}
HOME = {"evcache.zone": "a", "server.address": "a0", "server.port": 11211}
NEXT = {"evcache.zone": "b", "server.address": "b0", "server.port": 11211}
LOCAL_HIT = {**ONE, "evcache.hit": True, "evcache.source": "local", **HOME}
DOWN = "[Errno 111] the server is not running"

STALE = LoadPolicy(jitter=0, refresh_after=1, stale_if_error=20, failure_backoff=5)


def left(zone, why):
    """Return the event of a read that leaves a zone."""
    return "evcache.fallback", {"evcache.zone": zone, "evcache.fallback.reason": why}


async def observed_client(zones, bench, **options):
    """Return a connected client without recorded spans, which reads the zones in the order of their names."""
    settings = bench.settings(**options.pop("telemetry", {}))
    cache = await zones.ready(telemetry=settings, **options)
    view = cache._runtime.cluster.view
    while [pool.name for pool in view.readers] != sorted(pool.name for pool in view.readers):
        await cache.close()
        cache = await zones.ready(telemetry=settings, **options)
        view = cache._runtime.cluster.view
    if options.get("near_cache") is not None:
        follow_loop(cache)
        await pass_time(6)  # the near cache stores nothing in the first seconds
    bench.take()
    return cache
