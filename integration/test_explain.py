"""`evcache explain` on real servers: a zone that is dead, a zone that lags behind, and a tombstone in one zone."""

import asyncio
import json
from dataclasses import replace

from click.testing import CliRunner

from evcache import EVCache
from evcache.cli.commands import evcache as command_line
from integration.patience import PATIENT, PATIENT_CALLS, PATIENT_NODES


def explained(zones, namespace):
    """Return the JSON of `evcache explain k`."""
    at = ";".join(f"{zone}={','.join(nodes)}" for zone, nodes in zones.zones.items())
    env = {"EVCACHE_NODES": at, "EVCACHE_ZONE": "eu-1a", "EVCACHE_NAMESPACE": namespace}
    done = CliRunner().invoke(command_line, ["explain", "k", "--json", "--timeout", "5"], env=env)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def write(zones, namespace, names, call):
    """Run `call(cache)` with a client that knows the zones in `names` alone."""

    async def main():
        some = {name: zones.zones[name] for name in names}
        async with EVCache(namespace, some, **PATIENT, ttl=600) as cache:
            await call(cache)

    asyncio.run(main())


def relations(found):
    return [zone["relation"] for zone in found["zones"].values()]


def test_dead_lagging_and_deleted_zones_of_a_key(versioned_zones, namespace):
    zones = versioned_zones
    every = list(zones.zones)
    write(zones, namespace, every, lambda cache: cache.set("k", "Ada", consistency="all"))
    same = explained(zones, namespace)
    assert (same["agreement"], same["decider"], same["served_by"], same["repairs"]) == ("same version", "eu-1a", "eu-1a", [])
    for zone in same["zones"].values():
        item = zone["item"]
        assert (item["content"], item["bytes"], item["meaning"], item["was_read"]) == ("value", 3, "str", False)
        assert 590 < item["ttl"] <= 600
        assert item["idle_seconds"] < 60
        assert -60 < item["version"]["age"] < 60

    write(zones, namespace, ["eu-1b", "eu-1c"], lambda cache: cache.set("k", "Grace", consistency="all"))
    behind = explained(zones, namespace)
    assert (behind["agreement"], behind["served_by"], behind["repairs"]) == ("different", "eu-1a", ["eu-1a"])
    assert relations(behind) == ["older version", "same version", "same version"]

    write(zones, namespace, ["eu-1b"], lambda cache: cache.delete("k"))
    deleted = explained(zones, namespace)
    assert (deleted["decider"], deleted["repairs"]) == ("eu-1b", ["eu-1a", "eu-1c"])
    assert [zone["item"]["content"] for zone in deleted["zones"].values()] == ["value", "tombstone", "value"]
    assert relations(deleted) == ["older version", "same version", "older version"]

    zones.kill("eu-1a")
    dead = explained(zones, namespace)
    assert dead["zones"]["eu-1a"]["problem"] is not None
    assert (dead["decider"], dead["repairs"], relations(dead)[0]) == ("eu-1b", ["eu-1c"], "unknown")
    assert dead["served_by"] == next(zone for zone in dead["read_order"] if zone != "eu-1a")


def test_zones_without_versions_are_compared_by_value(each_kind, namespace):
    """Over the classic protocol the items of every release have no version."""
    with each_kind.local_zones({"eu-1a": 1, "eu-1b": 1, "eu-1c": 1}).running() as zones:
        classic = replace(PATIENT_NODES, transport="classic")

        async def main(names, value):
            some = {name: zones.zones[name] for name in names}
            async with EVCache(namespace, some, nodes=classic, **PATIENT_CALLS, ordering="arrival") as cache:
                await cache.set("k", value, consistency="all")

        asyncio.run(main(list(zones.zones), "Ada"))
        same = explained(zones, namespace)
        asyncio.run(main(["eu-1a"], "Grace"))
        other = explained(zones, namespace)
    assert (same["agreement"], relations(same)) == ("same value", ["same value"] * 3)
    assert (other["agreement"], other["served_by"], other["repairs"]) == ("different, order unknown", "eu-1a", [])
    assert relations(other) == ["other value", "same value", "same value"]
