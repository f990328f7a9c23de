"""`EVCache.check` on real servers: features of each release, dead zones and zones that hang."""

import asyncio
import time

from evcache import EVCache
from integration.conftest import LEAST_VERSION
from integration.patience import PATIENT, PATIENT_NODES, PATIENT_SECONDS

NEED_VERSIONS = {
    "versions",
    "tombstones",
    "latest version wins at QUORUM and ALL",
    "read repair, hints, session guarantees",
    "cas with a version",
}


def expected_missing(version):
    """Return the features that this release lacks, with the reason."""
    numbers = tuple(map(int, version.split(".")))
    assert numbers >= (1, 6, 18), "older releases are reached over the classic protocol"
    missing = {} if numbers >= LEAST_VERSION else dict.fromkeys(NEED_VERSIONS, f"memcached {version} is older than 1.6.27")
    return missing if numbers >= (1, 6, 40) else missing | {"conditional reads": f"memcached {version} is older than 1.6.40"}


def test_missing_features_are_those_of_the_release(zones_of_each_kind, namespace):
    """The feature that matters most is also tried: a write gets a version, or it does not."""
    zones = zones_of_each_kind

    async def main():
        async with EVCache(namespace, zones.zones, local_zone="eu-1a", **PATIENT) as cache:
            result = await cache.check(timeout=PATIENT_SECONDS)
            await cache.set("k", "v", consistency="all")
            return result, await cache.get_item("k")

    result, item = asyncio.run(main())
    missing = expected_missing(zones.version)
    assert result.ready
    assert [zone.name for zone in result.zones] == ["eu-1a", "eu-1b", "eu-1c"]
    for zone in result.zones:
        assert zone.missing == missing
        assert {(node.ok, node.error, node.server, node.transport) for node in zone.nodes} == {
            (True, None, zones.version, "meta")
        }
    assert ("versions" in missing) is (item.version is None)
    assert bool(result.problems) is (item.version is None)


def test_zones_of_different_releases_have_their_own_features(memcached_addresses, namespace):
    releases = {name.split()[-1]: address for name, address in memcached_addresses.items()}

    async def main():
        zones = {f"zone-{release}": [address] for release, address in releases.items()}
        async with EVCache(namespace, zones, **PATIENT) as cache:
            return await cache.check(timeout=PATIENT_SECONDS)

    result = asyncio.run(main())
    assert result.ready
    assert {zone.name: zone.missing for zone in result.zones} == {
        f"zone-{release}": expected_missing(release) for release in releases
    }


def test_client_is_ready_while_one_zone_is_dead_and_another_hangs(zones, namespace):
    async def main():
        async with EVCache(namespace, zones.zones, local_zone="eu-1a", nodes=PATIENT_NODES) as cache:
            assert (await cache.check(timeout=PATIENT_SECONDS)).ready
            zones.kill("eu-1a")
            zones.pause("eu-1b")
            began = time.monotonic()
            result = await cache.check(timeout=1)
            took = time.monotonic() - began
            down = cache.stats().nodes_down
            zones.resume("eu-1b")
            return result, took, down, await cache.check(timeout=PATIENT_SECONDS)

    result, took, down, after = asyncio.run(main())
    assert result.ready
    assert {zone.name: zone.is_usable for zone in result.zones} == {"eu-1a": False, "eu-1b": False, "eu-1c": True}
    assert {node.error for node in result.zones[1].nodes} == {"no answer in 1 s"}
    assert took < 4
    assert down == 2  # the refused connects of eu-1a, and no node of eu-1b
    assert {zone.name: zone.is_usable for zone in after.zones} == {"eu-1a": False, "eu-1b": True, "eu-1c": True}
