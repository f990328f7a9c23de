"""Every asyncio contender of `make bench` does each kind of work, on servers in this process."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.__main__ import Pace, compare
from benchmarks.blocking_peers import VARIANTS
from benchmarks.contenders import Contender, contenders
from benchmarks.measuring import BOUND, BOUND_META, CannotTakePartError
from benchmarks.works import NODES, Work
from evcache.testing import LocalZones

SHORTEST = Pace(seconds=0, rounds=1, trials=0)
PEERS = {"aiomcache", "emcache"}
WORKS = {
    Work("get hit"): PEERS | {BOUND},
    Work("get hit", callers=32): PEERS | {BOUND, "emcache, autobatching"},
    Work("get miss"): PEERS | {BOUND},
    Work("set", zones=3, callers=32): PEERS | {BOUND, "evcache, arrival"},
    Work("set", size=1_000_000): PEERS | {BOUND},
    Work("get_many", keys=10): PEERS | {BOUND, BOUND_META},
    Work("get_many", keys=30, nodes=NODES): PEERS | {BOUND, BOUND_META},
    Work("set_many", keys=10, zones=3): PEERS | {BOUND, "evcache, arrival"},
    Work("near hit"): {BOUND},
}


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.title)
def test_the_contenders_do_each_kind_of_work(work):
    """Each answer is checked, and so is what a write has stored."""
    clients = [contender for contender in contenders("no server") if contender.name not in VARIANTS]

    async def main():
        async with LocalZones({"nodes": NODES}, backend="embedded") as servers:
            ports = [int(address.rpartition(":")[2]) for address in servers.zones["nodes"]]
            return await compare(work, clients, ports, SHORTEST)

    results, skipped = asyncio.run(main())
    assert WORKS[work] | {"evcache"} <= set(results)
    assert set(results) | set(skipped) == {client.name for client in clients}


def test_a_contender_that_cannot_do_the_work_on_these_servers_is_skipped_with_its_reason():
    async def opener(stack, work, ports):
        raise CannotTakePartError("these servers are too old")

    contender = Contender("old", lambda _: {"": opener})
    results, skipped = asyncio.run(compare(Work("get hit"), [contender], [], SHORTEST))
    assert not results
    assert skipped == {"old": "these servers are too old"}
