"""Zones whose nodes are in DNS, while the name server fails and recovers."""

import asyncio
import contextlib
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import dns.resolver
import pytest
from dns.asyncresolver import Resolver

from evcache.zones.discovery import lookup
from evcache.zones.discovery.lookup import LookupDiscovery, LookupZone
from evcache.zones.discovery.lookups import dns_queries
from evcache.zones.discovery.lookups.dns_names import MAX_QUERIES, DnsLookup
from evcache.zones.errors import DiscoveryError
from evcache.zones.topology.model import Topology
from tests.support import virtual_time
from tests.support.fake_dns import FakeDns
from tests.support.watching import Watching

SERVICE = "_memcached._tcp.cache.example"
PAUSE = 0.005
SHORT = 0.03


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(lookup, "SHORTEST_PAUSE_SECONDS", PAUSE)
    monkeypatch.setattr(lookup, "LONGEST_PAUSE_SECONDS", PAUSE)
    monkeypatch.setattr(lookup, "RETRY_SECONDS", PAUSE)


def zone(server, name, text, *, resolver=None):
    return LookupZone(name, (DnsLookup(text, resolver=resolver or server.resolver()),))


def hurry(resolver, seconds=SHORT):
    """Let a resolver wait for a short time only. Answers of a server that works get more time, for a busy machine."""
    resolver.lifetime = resolver.timeout = seconds


def run(scenario, **arguments):
    async def main():
        async with FakeDns() as server:
            server.put("a.example", "A", "10.0.0.1", "10.0.0.2", "10.0.0.3")
            server.put("b.example", "A", "10.0.1.1")
            await scenario(server, **arguments)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def topology(a="10.0.0.1:1,10.0.0.2:1,10.0.0.3:1", b="10.0.1.1:1"):
    return Topology.from_node_list(f"a={a};b={b}")


def messages(caplog):
    return [(record.levelname, record.getMessage()) for record in caplog.records if record.name.startswith("evcache")]


class CountedLooks(LookupDiscovery):
    """A discovery whose looks a test can wait for."""

    def __init__(self, zones, **options):
        super().__init__(zones, **options)
        self._ended = asyncio.Condition()
        self._looks = 0

    async def look(self):
        try:
            return await super().look()
        finally:
            self._looks += 1
            async with self._ended:
                self._ended.notify_all()

    async def looks(self, number):
        """Wait until a number of further looks has ended."""
        until = self._looks + number
        async with self._ended:
            await self._ended.wait_for(lambda: self._looks >= until)
        await asyncio.sleep(0)  # the discovery takes the result


FAULTS = {
    "hang": "no reply",
    "garbage": "no reply",
    "wrong id": "no reply",
    "wrong question": "no reply",
    "servfail": "SERVFAIL",
    "refused": "REFUSED",
    "empty": "the name has no addresses",
    "nxdomain": "the name does not exist",
    "hang on tcp": "no reply",
}


@pytest.mark.parametrize(("fault", "problem"), FAULTS.items(), ids=FAULTS)
def test_a_name_server_that_fails_keeps_the_last_topology_and_recovers(fault, problem, caplog):
    caplog.set_level(logging.INFO, "evcache")

    async def scenario(server):
        resolver = server.resolver()
        discovery = CountedLooks([zone(server, name, f"dns+{name}.example:1", resolver=resolver) for name in "ab"])
        assert await discovery.load() == topology()
        confirmed_at = discovery.status.confirmed_at
        async with Watching(discovery) as watching:
            server.fail(fault)
            hurry(resolver)
            await discovery.looks(2)
            assert discovery.status.error is not None
            ((level, message),) = messages(caplog)
            assert level == "WARNING"
            assert message.startswith("topology update failed: lookup of zones: zone a: A records of a.example: ")
            assert problem in message
            assert "zone b: A records of b.example: " in message
            failed_at = discovery.status.confirmed_at
            await discovery.looks(1)
            assert discovery.status.confirmed_at == failed_at >= confirmed_at
            assert watching.seen == []
            server.put("a.example", "A", "10.0.0.9")
            server.fail(None)
            hurry(resolver, 5.0)
            assert await watching.another() == topology("10.0.0.9:1")
            assert messages(caplog)[1:] == [("INFO", "topology source recovered: lookup of zones")]
            assert discovery.status.error is None
            assert discovery.status.confirmed_at > failed_at

    run(scenario)


def test_a_zone_that_fails_keeps_its_nodes_and_the_others_change(caplog):
    async def scenario(server):
        resolver = server.resolver()
        zones = [zone(server, "a", "dns+a.example:1", resolver=resolver), zone(server, "b", "dns+b.example:1")]
        discovery = LookupDiscovery(zones)
        await discovery.load()
        async with Watching(discovery) as watching:
            server.fail("hang", "a.example")
            hurry(resolver)
            server.put("b.example", "A", "10.0.1.2")
            assert await watching.another() == topology(b="10.0.1.2:1")
            assert len(messages(caplog)) == 1
            assert "zone b" not in caplog.text

    run(scenario)


def test_an_answer_that_rotates_is_no_change():
    async def scenario(server):
        discovery = CountedLooks([zone(server, name, f"dns+{name}.example:1") for name in "ab"])
        assert await discovery.load() == topology()
        async with Watching(discovery) as watching:
            await discovery.looks(7)
            assert watching.seen == []

    run(scenario)


def test_a_pod_that_moves_keeps_its_label():
    async def scenario(server):
        server.put(SERVICE, "SRV", "0 0 11211 pod-0.example.", "0 0 11211 pod-1.example.")
        server.put("pod-0.example", "A", "10.0.0.1")
        server.put("pod-1.example", "A", "10.0.0.2")
        discovery = LookupDiscovery([zone(server, "a", f"dnssrv+{SERVICE}")])
        first = await discovery.load()
        async with Watching(discovery) as watching:
            server.put("pod-0.example", "A", "10.0.0.9")
            moved = await watching.another()
        assert [node.label for node in moved.zones[0].nodes] == [node.label for node in first.zones[0].nodes]
        assert [node.host for node in first.zones[0].nodes] == ["10.0.0.1", "10.0.0.2"]
        assert [node.host for node in moved.zones[0].nodes] == ["10.0.0.9", "10.0.0.2"]

    run(scenario)


def test_a_target_without_an_address_keeps_the_last_nodes(caplog):
    """Without it, the keys of one node would move to the others for as long as its name has no address."""

    async def scenario(server):
        server.put(SERVICE, "SRV", "0 0 11211 pod-0.example.", "0 0 11211 pod-1.example.")
        server.put("pod-0.example", "A", "10.0.0.1")
        server.put("pod-1.example", "A", "10.0.0.2")
        discovery = CountedLooks([zone(server, "a", f"dnssrv+{SERVICE}")])
        await discovery.load()
        async with Watching(discovery) as watching:
            server.drop("pod-1.example")
            await discovery.looks(3)
            assert watching.seen == []
            assert "A records of pod-1.example: the name does not exist" in caplog.text

    run(scenario)


def test_a_first_load_without_a_name_server_is_an_error():
    async def scenario(server):
        server.fail("servfail")
        discovery = LookupDiscovery([zone(server, "a", "dns+a.example")])
        with pytest.raises(DiscoveryError, match=r"^lookup of zones: zone a: A records of a\.example: .*SERVFAIL"):
            await discovery.load()

    run(scenario)


# What a lookup occupies.


class RecordingExecutor(ThreadPoolExecutor):
    def __init__(self):
        super().__init__(1)
        self.submitted = []

    def submit(self, call, *arguments, **options):
        self.submitted.append(call)
        return super().submit(call, *arguments, **options)


@pytest.mark.parametrize("fault", ["hang", "hang on tcp", None])
def test_a_lookup_uses_no_thread_and_delays_no_other_work(fault):
    async def scenario(server):
        loop = asyncio.get_running_loop()
        executor = RecordingExecutor()
        loop.set_default_executor(executor)
        threads = threading.active_count()
        server.fail(fault)
        task = asyncio.create_task(DnsLookup("dns+a.example", resolver=server.resolver(seconds=0.06)).nodes())
        turns = 0
        while not task.done():
            await asyncio.sleep(0)
            turns += 1
        with contextlib.suppress(DiscoveryError):
            await task
        assert executor.submitted == []
        assert threading.active_count() == threads
        assert turns > (20 if fault else 2)

    run(scenario)


@pytest.mark.parametrize("fault", ["hang", "hang on tcp"])
def test_a_cancelled_lookup_leaves_no_task_and_no_socket(fault):
    async def scenario(server):
        server.put(SERVICE, "SRV", *(f"0 0 1 pod-{number}.example." for number in range(30)))
        server.fail(fault, kind="A")
        task = asyncio.create_task(DnsLookup(f"dnssrv+{SERVICE}", resolver=server.resolver()).nodes())
        await server.queries(1 + MAX_QUERIES)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len([name for name in server.names if name.startswith("A ")]) <= 2 * MAX_QUERIES
        assert {task.get_name() for task in asyncio.all_tasks() if "dns" in task.get_name()} == set()

    run(scenario)


class FailingResolver(Resolver):
    """A resolver whose query fails, while its caller is being cancelled."""

    def __init__(self):
        super().__init__(configure=False)

    async def resolve(self, *arguments, **options):
        asyncio.get_running_loop().call_soon(self.caller.cancel)
        raise dns.resolver.NXDOMAIN


@virtual_time.in_virtual_time
async def test_a_lookup_that_is_cancelled_as_its_query_fails_leaves_no_error():
    resolver = FailingResolver()
    resolver.caller = asyncio.create_task(DnsLookup("dns+a.example", resolver=resolver).nodes())
    await asyncio.wait([resolver.caller])
    assert resolver.caller.cancelled()


def test_a_target_that_fails_ends_the_other_queries():
    async def scenario(server):
        server.put(SERVICE, "SRV", "0 0 1 slow.example.", "0 0 1 unknown.example.")
        server.fail("hang", "slow.example")
        with pytest.raises(DiscoveryError, match="unknown.example: the name does not exist"):
            await DnsLookup(f"dnssrv+{SERVICE}", resolver=server.resolver(seconds=60)).nodes()

    run(scenario)


def test_a_name_server_that_hangs_ends_the_lookup_of_a_zone_in_time():
    async def main():
        async with FakeDns() as server:
            server.fail("hang")
            # dnspython measures its own limit on another clock, which is almost stopped here.
            discovery = LookupDiscovery([zone(server, "a", "dns+a.example")], timeout=5)
            with pytest.raises(DiscoveryError, match=r"zone a: no answer in 5 s$"):
                await discovery.load()
            assert virtual_time.now() == pytest.approx(5)

    virtual_time.run(main())


# The name servers of the system.


@pytest.fixture
def resolv_conf(tmp_path, monkeypatch):
    """Return a function that writes the configuration of the system, for a server on another port than 53."""
    path = tmp_path / "resolv.conf"
    read = dns.resolver.BaseResolver.read_resolv_conf

    def write(server, text="", *, name_servers=("127.0.0.1",)):
        path.write_text("\n".join([*(f"nameserver {address}" for address in name_servers), text, ""]))

        def read_it(resolver, file):
            assert file == "/etc/resolv.conf"
            read(resolver, path)
            resolver.port = server.port

        monkeypatch.setattr(dns.resolver.BaseResolver, "read_resolv_conf", read_it)

    return write


def test_the_name_servers_of_the_system_are_read_again_for_each_lookup(resolv_conf):
    async def scenario(server):
        lookup = DnsLookup("dns+cache:1")
        server.put("cache.one.example", "A", "10.0.0.1")
        server.put("cache.two.example", "A", "10.0.0.2")
        for suffix, address in (("one", "10.0.0.1:1"), ("two", "10.0.0.2:1")):
            resolv_conf(server, f"search {suffix}.example")
            assert [str(node) for node in (await lookup.nodes()).nodes] == [address]

    run(scenario)


def test_a_name_server_that_is_down_does_not_end_the_lookup(resolv_conf, monkeypatch):
    """Also if the system waits for longer, and the search list leads to several queries."""
    monkeypatch.setattr(dns_queries, "TRY_SECONDS", 0.01)

    async def scenario(server):
        # No server listens at this address, and datagrams to it are lost.
        resolv_conf(
            server, "search x.example y.example example\noptions timeout:30 ndots:5", name_servers=["127.0.0.9", "127.0.0.1"]
        )
        found = await DnsLookup("dns+a:1").nodes()
        assert len(found.nodes) == 3

    run(scenario)


@pytest.mark.parametrize("text", [None, b"", b"nameserver here\n", b"\xff\n", b"nameserver 127.0.0.1\nsearch a..b\n"])
def test_a_system_without_usable_name_servers_is_an_error(text, tmp_path, monkeypatch):
    path = tmp_path / "resolv.conf"
    if text is not None:
        path.write_bytes(text)
    read = dns.resolver.BaseResolver.read_resolv_conf
    monkeypatch.setattr(dns.resolver.BaseResolver, "read_resolv_conf", lambda resolver, file: read(resolver, path))
    with pytest.raises(DiscoveryError, match=r"^name servers of the system: ."):
        asyncio.run(DnsLookup("dns+cache").nodes())
