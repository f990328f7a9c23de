"""Expected outcomes and values of writes, and the zone that decides about a key."""

from evcache import Outcome

STORED = dict.fromkeys("abc", Outcome.STORED)
NOWHERE = dict.fromkeys("abc")
OLD = {"a": "1.6.18", "b": "1.6.38", "c": "1.6.38"}
"""Releases of three zones, of which one keeps no versions."""


def everywhere(value):
    """Return the values of three zones that hold the same one."""
    return dict.fromkeys("abc", value)


async def coordinator_of(zones, cache, key):
    """Return the zone that decides about a key, which no zone may hold."""
    held = {zone: zones.held(key, zone) for zone in zones.names}
    assert held == dict.fromkeys(zones.names), "the key must be absent in all zones"
    (zone,) = (await cache.replace(key, "never stored")).zones
    zones.forget()
    return zone
