"""Sources of zones fail under the traffic of real servers, and no read fails or misses."""

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from evcache import (
    CacheError,
    CacheUnavailable,
    ConfigEndpoint,
    DnsLookup,
    EVCache,
    KubernetesDiscovery,
    LookupDiscovery,
    LookupZone,
)
from evcache.zones.discovery import lookup
from evcache.zones.discovery.kubernetes import Timing
from evcache.zones.topology.model import NOT_FOUND
from integration.patience import LOYAL_NODES, PATIENT_CALLS, PATIENT_SECONDS
from tests.support.config_endpoints import ConfigServer, config
from tests.support.endpoint_slices import endpoint, endpoint_slice, error_event
from tests.support.fake_dns import FakeDns
from tests.support.fake_kubernetes import FakeKubernetes

ZONES = ("eu-1a", "eu-1b", "eu-1c")
CALLERS = 8
KEYS = 200
FAULT_SECONDS = 0.25  # several looks of a source; fewer on a busy machine
TIMING = Timing(timeout=0.2, watch=1.0, margin=0.1, proof=0.01, debounce=0.01, first_retry=0.05, longest_retry=0.05)


class RecordingExecutor(ThreadPoolExecutor):
    """The default executor of a service. It notes what uses it."""

    def __init__(self):
        super().__init__(max_workers=1)
        self.used = []

    def submit(self, function, /, *arguments, **options):
        self.used.append(function)
        return super().submit(function, *arguments, **options)


class Readers:
    """Callers that read keys which every zone has."""

    def __init__(self, cache):
        self._cache = cache
        self.reads = 0
        self.failed = []
        self.running = True

    async def call(self, number):
        key = number
        while self.running:
            key = (key + 7) % KEYS
            try:
                value = await self._cache.get(f"key-{key}")
            except CacheError as error:
                self.failed.append(error)
                await asyncio.sleep(0)  # a call that fails at once gives the others no turn
                continue
            self.reads += 1
            if value != key:
                self.failed.append((key, value))


async def faults_of_dns(zones, dead) -> AsyncIterator:
    """A name server that hangs, lies, answers nothing, refuses, names servers that are dead, and works again."""
    async with FakeDns() as server:

        def put(addresses):
            for zone, (address,) in addresses.items():
                host, port = address.split(":")
                server.put(f"_memcached._tcp.{zone}.example", "SRV", f"0 0 {port} cache-{zone}.example.", ttl=1)
                server.put(f"cache-{zone}.example", "A", host, ttl=1)

        put(zones)
        source = LookupDiscovery(
            [
                LookupZone(
                    zone, (DnsLookup(f"dnssrv+_memcached._tcp.{zone}.example", resolver=server.resolver(seconds=0.1)),)
                )
                for zone in ZONES
            ],
            timeout=0.2,
        )
        yield source
        for fault in ("hang", "garbage", "wrong id", "wrong question", "empty", "nxdomain", "servfail", "always truncated"):
            server.fail(fault)
            yield fault
            server.fail(None)
            yield None
        put(zones | {"eu-1b": dead})
        yield "names a dead node"
        put(zones)
        yield None


async def faults_of_kubernetes(zones, dead) -> AsyncIterator:
    """An API server that restarts in the middle of a watch, forgets versions, sends errors, loses half, hangs, and works."""
    slices = [slice_of(zone, address) for zone, (address,) in zones.items()]
    async with FakeKubernetes(*slices) as server:
        yield KubernetesDiscovery(
            "memcached",
            namespace="cache",
            api_server=server.url,
            token_path=None,
            ca_path=None,
            linger=0,
            timing=TIMING,
        )
        server.cut()
        yield "cuts the watch"
        await server.stop()
        yield "is down"
        await server.start()
        yield None
        server.advance()
        server.compact()
        server.cut()
        yield "410 Gone"
        server.send(error_event(500, "InternalError", "etcd is away"))
        yield "error event"
        server.send(b"{")
        yield "malformed event"
        server.hanging = True
        yield "hangs"
        server.hanging = False
        yield None
        for zone in ZONES[1:]:
            server.remove(zone)
        yield "names one zone only"
        for made in slices[1:]:
            server.put(made)
        yield None
        server.put(slice_of("eu-1b", dead[0]))
        yield "names a dead node"
        server.put(slices[1])
        yield None


def slice_of(zone, address):
    host, _, port = address.partition(":")
    return endpoint_slice(zone, endpoint(f"memcached-{zone}-0", host, zone), ports=(("memcached", int(port)),))


async def faults_of_config_endpoints(zones, dead) -> AsyncIterator:
    """Configuration endpoints that hang, send garbage, are gone, go back in version, and name dead nodes."""
    servers = {zone: ConfigServer() for zone in ZONES}
    version = 1

    def put(addresses):
        nonlocal version
        version += 1
        for zone, (address,) in addresses.items():
            host, _, port = address.partition(":")
            servers[zone].data = config(version, f"{host}|{host}|{port}")

    put(zones)
    for server in servers.values():
        await server.start()
    try:
        yield LookupDiscovery(
            [LookupZone(zone, (ConfigEndpoint(server.address, timeout=0.1),)) for zone, server in servers.items()],
            interval=0.02,
            timeout=0.2,
        )
        for says in (
            b"<html>",
            b"END\r\n",
            b"ERROR\r\n",
            b"CONFIG cluster 0 9\r\n1\n\r\nEND\r\n",
            b"CONFIG cluster 0 99999999\r\n",
        ):
            for server in servers.values():
                server.says = says
            yield says.decode()
        for server in servers.values():
            server.says = None
            server.pause()
        yield "hangs"
        for server in servers.values():
            server.resume()
        yield None
        put(zones | {"eu-1b": dead})
        yield "names a dead node"
        put(zones)
        yield None
        for zone, (address,) in zones.items():
            host, _, port = address.partition(":")
            servers[zone].data = config(1, f"{host}|{host}|1")
        yield "goes back in version"
        put(zones)
        yield None
    finally:
        for server in servers.values():
            await server.stop()


FAULTS = {"dns": faults_of_dns, "kubernetes": faults_of_kubernetes, "config endpoint": faults_of_config_endpoints}


async def until(holds):
    async with asyncio.timeout(PATIENT_SECONDS):
        while not holds():
            await asyncio.sleep(0.01)


async def enter_when_known(stack, source):
    """Open a client. On a busy machine the short timeouts of the source end its first looks before the answers arrive."""
    async with asyncio.timeout(PATIENT_SECONDS):
        while True:
            try:
                return await stack.enter_async_context(
                    EVCache("sources", source, local_zone="eu-1b", nodes=LOYAL_NODES, **PATIENT_CALLS)
                )
            except CacheUnavailable:
                await asyncio.sleep(0.1)


@asynccontextmanager
async def reading(source):
    async with AsyncExitStack() as stack:
        cache = await enter_when_known(stack, source)
        await until(lambda: not any(NOT_FOUND in zone.nodes for zone in cache.topology.zones))
        assert all((await cache.set_many({f"key-{key}": key for key in range(KEYS)}, consistency="all")).values())
        readers = Readers(cache)
        tasks = [asyncio.create_task(readers.call(number)) for number in range(CALLERS)]
        try:
            yield cache, readers
        finally:
            readers.running = False
            await asyncio.gather(*tasks)


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
def test_no_read_fails_or_misses_while_the_source_of_zones_fails(servers, monkeypatch, faults):
    for name in ("SHORTEST_PAUSE_SECONDS", "LONGEST_PAUSE_SECONDS", "RETRY_SECONDS"):
        monkeypatch.setattr(lookup, name, 0.02)

    async def main():
        executor = RecordingExecutor()
        asyncio.get_running_loop().set_default_executor(executor)
        kind = servers.best
        async with kind.local_zones(dict.fromkeys((*ZONES, "dead"), 1)) as running:
            await running.kill("dead")
            addresses = {zone: running.zones[zone] for zone in ZONES}
            script = faults(addresses, running.zones["dead"])
            executor.used.clear()
            source = await anext(script)
            async with reading(source) as (cache, readers):
                topology = cache.topology
                assert len(topology.zones) == len(ZONES)
                async for fault in script:
                    before = readers.reads
                    await asyncio.sleep(FAULT_SECONDS)
                    if fault is None:  # the servers of the source end with the script, so this is the place to wait
                        await until(lambda: cache.topology == topology and cache.stats().topology_error is None)
                    await until(lambda before=before: readers.reads > before)
                    assert readers.failed == [], fault
                assert executor.used == []
            await script.aclose()
        assert threading.active_count() < 50

    asyncio.run(main())
