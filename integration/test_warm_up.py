"""Copies and comparisons of zones on real servers."""

import asyncio
import json

import pytest
from click.testing import CliRunner

from evcache import EVCache
from evcache.cli.commands import evcache as command_line
from integration.warm_up import SETTINGS, Run

KEYS = 10_000


def command(zones, *args):
    node_list = ";".join(f"{name}={','.join(nodes)}" for name, nodes in zones.items())
    return CliRunner().invoke(command_line, args, env={"EVCACHE_NODES": node_list})


def test_a_zone_is_filled_under_traffic_although_the_first_run_is_killed(servers):
    """The short form of `make warm-up`."""
    result = asyncio.run(Run(servers.best, KEYS, rate=4_000, baseline=1.0).run())
    assert result.overwritten == []
    assert result.in_place == KEYS
    assert result.before.failed == result.during.failed == 0
    (last,) = result.reports
    assert last["complete"]
    assert 0 < last["copied"] < KEYS


def test_zones_are_compared_and_repaired_on_each_kind_of_server(zones_of_each_kind):
    zones = zones_of_each_kind.zones
    names = {f"k{number}": f"value {number}" for number in range(500)}

    async def write():
        async with EVCache("ns", {"eu-1a": zones["eu-1a"]}, nodes=SETTINGS) as cache:
            await cache.set_many(names, ttl=1000, timeout=10)
        async with EVCache("ns", {name: zones[name] for name in ("eu-1a", "eu-1b")}, nodes=SETTINGS) as cache:
            await cache.set_many({"both": 1, "gone": 2}, ttl=1000)
            await cache.delete("gone")

    asyncio.run(write())
    found = json.loads(command(zones, "compare", "eu-1a", "eu-1b", "--all", "--json").stdout)
    assert (found["compared"], found["different"]) == (501 if has_no_tombstones(zones_of_each_kind) else 502, 500)
    done = json.loads(command(zones, "warm", "--from", "eu-1a", "--to", "eu-1b", "--rate", "1e9", "--json").stdout)
    assert done["complete"], done
    assert done["copied"] == 500
    assert command(zones, "compare", "eu-1a", "eu-1b", "--all").exit_code == 0

    async def read():
        async with EVCache("ns", {"eu-1b": zones["eu-1b"]}, nodes=SETTINGS) as cache:
            assert await cache.get_many([*names, "gone"], timeout=10) == names
            item = await cache.get_item("k1")
            assert 0 < item.ttl <= 1000

    asyncio.run(read())


def has_no_tombstones(running):
    return running.version.startswith("1.6.18")


def test_a_server_that_lists_no_keys_is_named(servers):
    zones = servers.best.local_zones({"a": 1, "b": 1}, ["-X"])
    with zones.running() as running:
        done = command(running.zones, "warm", "--from", "a", "--to", "b")
    assert done.exit_code == 2
    assert "does not support lists of keys (ERROR metadump not allowed)" in done.stderr
    assert "--keys FILE" in done.stderr


@pytest.mark.parametrize("command_name", ["compare", "warm"])
def test_a_node_that_dies_in_the_run_is_reported(servers, command_name):
    zones = servers.best.local_zones({"a": 2, "b": 2})
    with zones.running() as running:

        async def write():
            async with EVCache("ns", {"a": running.zones["a"]}, nodes=SETTINGS) as cache:
                await cache.set_many({f"k{number}": number for number in range(2_000)}, ttl=1000, timeout=10)

        asyncio.run(write())
        running.kill("b", node=1)
        args = ["a", "b", "--all"] if command_name == "compare" else ["--from", "a", "--to", "b"]
        done = command(running.zones, command_name, *args, "--timeout", "1", "--json")
        found = json.loads(done.stdout)
        dead = running.zones["b"][1]
    assert done.exit_code == 1
    if command_name == "warm":
        assert found["failed"] > 0
        assert found["copied"] + found["failed"] == 2_000
        assert not found["complete"]
    else:
        assert found["compared"] + found["unanswered"] == 2_000
        assert list(found["unlisted_nodes"]) == [dead]
