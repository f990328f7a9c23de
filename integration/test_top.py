"""`evcache top` on real servers: rates under traffic, while one node is dead and another one lags behind."""

import asyncio
import json
import threading

from click.testing import CliRunner

from evcache import EVCache
from evcache.admin.load import watch
from evcache.cli.commands import evcache as command_line
from evcache.testing.blocking import LoopThread
from evcache.zones.testing.fault_proxy.proxy import FaultProxy
from integration.patience import PATIENT, PATIENT_SECONDS

TOGETHER = 20  # callers, so that each sample has traffic at each node on a busy machine
LAG_SECONDS = 0.2


def tables(zones, *args, count=3, interval=0.5):
    at = ";".join(f"{zone}={','.join(nodes)}" for zone, nodes in zones.items())
    env = {"EVCACHE_NODES": at, "EVCACHE_ZONE": "eu-1a"}
    options = ["--count", str(count), "--interval", str(interval), "--json", "--timeout", str(PATIENT_SECONDS), *args]
    done = CliRunner().invoke(command_line, ["top", *options], env=env)
    assert (done.exit_code, done.stderr) == (0, ""), done.output
    return [json.loads(line)["zones"] for line in done.stdout.splitlines()]


class Traffic:
    """Writes and reads of a client in another thread: two hits and a miss for each write."""

    def __init__(self, zones, namespace):
        self._zones, self._namespace = zones, namespace
        self._began = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))
        self.writes = 0

    def __enter__(self):
        self._thread.start()
        assert self._began.wait(30)
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()

    async def _main(self):
        async with EVCache(self._namespace, self._zones, local_zone="eu-1a", **PATIENT) as cache:
            while not self._ended.is_set():
                await asyncio.gather(*(self._call(cache, self.writes + number) for number in range(TOGETHER)))
                self.writes += TOGETHER
                self._began.set()
                await asyncio.sleep(0.02)

    @staticmethod
    async def _call(cache, number):
        key = f"k{number % 100}"
        await cache.set(key, "x" * 100, consistency="one")
        await cache.get(key)
        await cache.get(key)
        await cache.get(f"none{number}", fallback_on_miss=False)


def test_rates_of_live_dead_and_lagging_nodes(each_kind, namespace, monkeypatch):
    monkeypatch.setattr(watch, "PATIENCE_SECONDS", PATIENT_SECONDS)  # no live node is too slow for a table

    with each_kind.local_zones({"eu-1a": 2, "eu-1b": 2, "eu-1c": 1}).running() as zones, LoopThread() as thread:

        async def lag():
            proxy = FaultProxy(zones.zones["eu-1c"][0])
            await proxy.start()
            proxy.delay = LAG_SECONDS
            return proxy

        proxy = thread.call(lag())
        try:
            zones.kill("eu-1b", node=1)
            with Traffic(zones.zones, namespace):
                found = tables({**zones.zones, "eu-1c": [proxy.address]})
        finally:
            thread.call(proxy.stop())
    assert len(found) == 3
    for a, b, c in found:
        for node in [*a["nodes"], b["nodes"][0], *c["nodes"]]:
            assert (node["error"], node["circuit"]) == (None, "closed")
            assert 0 < node["memory_used"] < node["memory_limit"]
            assert 0 < node["connections"] < node["connection_limit"]
        dead = b["nodes"][1]
        assert dead["error"] is not None
        assert dead["circuit"] in ("open", "half-open")
        assert (dead["gets"], dead["memory_used"]) == (None, None)
        (lagging,) = c["nodes"]
        assert lagging["latency"] >= LAG_SECONDS
    for a, b, c in found[1:]:  # the sample of the first table may begin before that of a lagging node
        total = a["total"]
        assert total["gets"] > 0
        assert total["sets"] > 0
        assert 0.5 < total["hit_ratio"] < 0.8
        assert total["bytes_in"] > 0
        assert total["bytes_out"] > 0
        assert b["nodes"][0]["sets"] > 0
        assert c["nodes"][0]["sets"] > 0


def test_a_restarted_node_has_no_negative_rates(zones, namespace):
    async def fill():
        async with EVCache(namespace, zones.zones, **PATIENT) as cache:
            for number in range(300):
                await cache.set(f"k{number}", "x", consistency="all")

    asyncio.run(fill())
    restarting = threading.Timer(0.7, lambda: zones.restart("eu-1a"))
    restarting.start()
    try:
        found = tables(zones.zones, count=4)
    finally:
        restarting.join()
    for table in found:
        for zone in table:
            for node in zone["nodes"]:
                for name in ("gets", "sets", "evictions", "bytes_in", "bytes_out"):
                    assert node[name] is None or node[name] >= 0
    sets = [[node["sets"] for node in table[0]["nodes"]] for table in found]
    assert [None, None] in sets
