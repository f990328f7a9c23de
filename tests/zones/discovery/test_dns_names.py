"""The texts of DNS lookups, and the nodes that each answer of a name server leads to."""

import asyncio
import sys
from typing import NamedTuple

import pytest

from evcache.zones.discovery.lookups.dns_names import DnsLookup, dns_lookup_of
from evcache.zones.errors import DiscoveryError, InvalidArgument, InvalidTopology
from tests.support.fake_dns import FakeDns

HOST = "cache.example"
SERVICE = "_memcached._tcp.cache.example"
PODS = ("pod-0.cache.example", "pod-1.cache.example")


# Texts.


@pytest.mark.parametrize(
    "text", ["cache:11211", "10.0.0.1:11211", "[::1]:1", "unix:/run/dns+x", "/run/dns+x", "a@h:1", "dns:1", "dns-1"]
)
def test_a_text_without_a_prefix_is_no_lookup(text):
    assert dns_lookup_of(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "dns+cache:11211",
        "dns+cache",
        " dns+cache.example.:1 ",
        f"dnssrv+{SERVICE}",
        f"dnssrv+{SERVICE}:1",
        f"dnssrvnoa+{SERVICE}.",
    ],
)
def test_a_text_with_a_prefix_is_a_lookup(text):
    assert repr(dns_lookup_of(text)) == f"DnsLookup({text!r})"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("dnssvr+cache", "dnssrv\\+_service._tcp.host"),
        ("DNS+cache:1", "dns\\+host:port"),
        ("dnsx+cache", "dns\\+host:port"),
        ("pod@dns+cache:1", "dns\\+host:port"),
        ("dns+pod@cache:1", "labels of their own"),
        ("dns+", "a host name has"),
        ("dns+:11211", "a host name has"),
        ("dns+ca che:1", "a host name has"),
        ("dns+cache..example:1", "a host name has"),
        ("dns+.cache:1", "a host name has"),
        ("dns+kä.example:1", "a host name has"),
        ("dns+dns+cache:1", "a host name has"),
        (f"dns+{'a' * 64}:1", "a host name has"),
        (f"dns+{'a.' * 127}a:1", "a host name has"),
        ("dns+cache:", "a port is"),
        ("dns+cache:0", "a port is"),
        ("dns+cache:65536", "a port is"),
        ("dns+cache:x", "a port is"),
        ("dns+cache:1:2", "a port is"),
        ("dns+cache:١", "a port is"),
        ("dnssrv+cache:0", "a port is"),
        ("dns+10.0.0.1:11211", "an address is written without dns\\+"),
        ("dns+::1", "an address is written without dns\\+"),
        ("dns+[::1]:11211", "an address is written without dns\\+"),
    ],
)
def test_a_malformed_text_is_named(text, problem):
    with pytest.raises(InvalidTopology, match=problem) as raised:
        dns_lookup_of(text)
    assert raised.value.argument == "zones"
    assert repr(text) in str(raised.value)


@pytest.mark.parametrize("text", ["cache:11211", "", None, 1])
def test_a_lookup_of_any_other_text_is_refused(text):
    with pytest.raises(InvalidTopology, match="is required"):
        DnsLookup(text)


@pytest.mark.parametrize("resolver", ["127.0.0.1", object, 53])
def test_a_resolver_of_another_type_is_refused(resolver):
    with pytest.raises(InvalidArgument, match=r"^resolver: "):
        DnsLookup("dns+cache", resolver=resolver)


def test_a_lookup_without_dnspython_names_the_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "evcache.zones.discovery.lookups.dns_queries", raising=False)
    for module in [module for module in sys.modules if module.partition(".")[0] == "dns"]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InvalidArgument, match=r"^zones: 'dns\+cache' .*pip install 'evcache\[dns\]'"):
        dns_lookup_of("dns+cache")
    with pytest.raises(InvalidTopology):
        dns_lookup_of("dns+cache:x")
    assert dns_lookup_of("cache:1") is None


# Answers.


def run(scenario):
    """Run a scenario with a name server on a loop of real time. It leaves no task behind."""

    async def main():
        async with FakeDns() as server:
            await scenario(server)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def look_up(prepare, text, seconds=5.0, **options):
    """Return the nodes that a lookup finds as texts, its TTL, and the queries that the server received."""
    result = []

    async def scenario(server):
        prepare(server)
        found = await DnsLookup(text, resolver=server.resolver(seconds=seconds, **options)).nodes()
        result.extend([[str(node) for node in found.nodes], found.lifetime, server.names])

    run(scenario)
    return result


def hosts(server):
    server.put(HOST, "A", "10.0.0.1", "10.0.0.2", ttl=20)
    server.put(HOST, "AAAA", "2001:db8::1", ttl=30)


def service(server, *, ttl=20, address_ttl=30):
    server.put(SERVICE, "SRV", *(f"10 {number} 1121{number} {pod}." for number, pod in enumerate(PODS)), ttl=ttl)
    for number, pod in enumerate(PODS):
        server.put(pod, "A", f"10.0.0.{number}", ttl=address_ttl + number)


def aliases(server):
    server.put("www.example", "CNAME", "other.example.", ttl=60)
    server.put("other.example", "CNAME", f"{HOST}.", ttl=7)
    server.put(SERVICE.replace("cache", "www"), "CNAME", f"{SERVICE}.", ttl=8)
    hosts(server)
    service(server)


def one_of_each_family(server):
    server.put(SERVICE, "SRV", "0 0 1 v6.example.", "0 0 1 both.example.", "0 0 1 v4.example.")
    server.put("v6.example", "AAAA", "2001:db8::2", "2001:db8::1", ttl=9)
    server.put("both.example", "AAAA", "2001:db8::3", ttl=1)
    server.put("both.example", "A", "10.0.0.20", "10.0.0.3", ttl=10)
    server.put("v4.example", "A", "10.0.0.4")
    server.adds_addresses = server.rotates = False


def without_addition(server):
    service(server)
    server.adds_addresses = False


def partly_added(server):
    """Add only the addresses of one target."""
    service(server)
    server.drop(PODS[1])
    server.put(PODS[1], "CNAME", "moved.example.", ttl=5)
    server.put("moved.example", "A", "10.0.0.9", ttl=6)


class Row(NamedTuple):
    prepare: object
    text: str
    nodes: list
    ttl: int
    queries: list
    options: dict = {}  # noqa: RUF012


def put(*records, **attributes):
    """Return a function that puts records into a server, each a name, a type, and values."""

    def prepare(server):
        for name, kind, *values in records:
            server.put(name, kind, *values)
        for name, value in attributes.items():
            setattr(server, name, value)

    return prepare


def failing(fault, name, kind, prepare=hosts):
    def failing(server):
        prepare(server)
        server.fail(fault, name, kind)

    return failing


SEARCH = {"search": ["default.svc.example", "svc.example", "example"]}
SRV = [f"SRV {SERVICE}"]
BOTH = [f"A {HOST}", f"AAAA {HOST}"]

ANSWERS = {
    "all addresses of both families": Row(
        hosts, f"dns+{HOST}:1", ["10.0.0.1:1", "10.0.0.2:1", "[2001:db8::1]:1"], 20, BOTH
    ),
    "the default port": Row(put((HOST, "A", "10.0.0.1")), f"dns+{HOST}", ["10.0.0.1:11211"], 30, BOTH),
    "IPv4 only": Row(put((HOST, "A", "10.0.0.1")), f"dns+{HOST}.:1", ["10.0.0.1:1"], 30, BOTH),
    "IPv6 only": Row(put((HOST, "AAAA", "2001:db8::1")), f"dns+{HOST}:1", ["[2001:db8::1]:1"], 30, BOTH),
    "a server that denies names of the other family": Row(
        failing("nxdomain", HOST, "AAAA"), f"dns+{HOST}:1", ["10.0.0.1:1", "10.0.0.2:1"], 20, BOTH
    ),
    "an IPv4 address in the form of IPv6": Row(
        put((HOST, "A", "10.0.0.1"), (HOST, "AAAA", "::ffff:10.0.0.1", "::ffff:10.0.0.2")),
        f"dns+{HOST}:1", ["10.0.0.1:1", "10.0.0.2:1"], 30, BOTH,
    ),
    "a chain of aliases, whose TTL counts": Row(
        aliases, "dns+www.example:1", ["10.0.0.1:1", "10.0.0.2:1", "[2001:db8::1]:1"], 7, ["A www.example", "AAAA www.example"],
    ),
    "a TTL of 0": Row(lambda server: server.put(HOST, "A", "10.0.0.1", ttl=0), f"dns+{HOST}:1", ["10.0.0.1:1"], 0, BOTH),
    "a truncated answer": Row(
        failing("truncated", None, None), f"dns+{HOST}:1", ["10.0.0.1:1", "10.0.0.2:1", "[2001:db8::1]:1"], 20,
        [BOTH[0], BOTH[0], BOTH[1], BOTH[1]],
    ),
    "an answer that is too large for a datagram": Row(
        put((HOST, "A", *(f"10.0.1.{number}" for number in range(60)))), f"dns+{HOST}:1",
        [f"10.0.1.{number}:1" for number in range(60)], 30, [BOTH[0], BOTH[0], BOTH[1]],
    ),
    "other datagrams before the answer": Row(
        failing("lies first", None, None), f"dns+{HOST}:1", ["10.0.0.1:1", "10.0.0.2:1", "[2001:db8::1]:1"], 20, BOTH
    ),
    "a name of the search list": Row(
        put(("cache.svc.example", "A", "10.0.0.1")), "dns+cache:1", ["10.0.0.1:1"], 30,
        ["A cache.default.svc.example", "A cache.svc.example", "AAAA cache.svc.example"], SEARCH,
    ),
    "a short name of Kubernetes": Row(
        put(("cache.default.svc.cluster.local", "A", "10.0.0.1")), "dns+cache.default.svc:1", ["10.0.0.1:1"], 30,
        ["A cache.default.svc.default.svc.cluster.local", "A cache.default.svc.cluster.local", "AAAA cache.default.svc.cluster.local"],
        {"search": ["default.svc.cluster.local", "cluster.local"], "ndots": 5},
    ),
    "a full name before the search list": Row(
        put(("cache.example", "A", "10.0.0.1"), ("cache.example.example", "A", "10.0.0.2")), "dns+cache.example:1",
        ["10.0.0.1:1"], 30, BOTH, SEARCH,
    ),
    "one name for both families, also if the search list has IPv6 at another": Row(
        put(("cache.svc.example", "A", "10.0.0.1"), ("cache.example", "AAAA", "2001:db8::1")), "dns+cache:1", ["10.0.0.1:1"], 30,
        ["A cache.default.svc.example", "A cache.svc.example", "AAAA cache.svc.example"], SEARCH,
    ),
    "a service with its addresses": Row(
        service, f"dnssrv+{SERVICE}",
        ["pod-0.cache.example:11210@10.0.0.0:11210", "pod-1.cache.example:11211@10.0.0.1:11211"], 20, SRV,
    ),
    "a service whose addresses have the shortest TTL": Row(
        lambda server: service(server, address_ttl=3), f"dnssrv+{SERVICE}",
        ["pod-0.cache.example:11210@10.0.0.0:11210", "pod-1.cache.example:11211@10.0.0.1:11211"], 3, SRV,
    ),
    "a service without its addresses": Row(
        without_addition, f"dnssrv+{SERVICE}",
        ["pod-0.cache.example:11210@10.0.0.0:11210", "pod-1.cache.example:11211@10.0.0.1:11211"], 20,
        [*SRV, *(f"A {pod}" for pod in PODS)],
    ),
    "a service with one of its addresses": Row(
        partly_added, f"dnssrv+{SERVICE}",
        ["pod-0.cache.example:11210@10.0.0.0:11210", "pod-1.cache.example:11211@10.0.0.9:11211"], 5, [*SRV, f"A {PODS[1]}"],
    ),
    "one address for each target, the lowest of IPv4 first": Row(
        one_of_each_family, f"dnssrv+{SERVICE}",
        ["both.example:1@10.0.0.3:1", "v4.example:1@10.0.0.4:1", "v6.example:1@[2001:db8::1]:1"], 9,
        [*SRV, "A both.example", "A v4.example", "A v6.example", "AAAA v6.example"],
    ),
    "a port in place of that of the records": Row(
        service, f"dnssrv+{SERVICE}:5", ["pod-0.cache.example:5@10.0.0.0:5", "pod-1.cache.example:5@10.0.0.1:5"], 20, SRV
    ),
    "a service by another name": Row(
        aliases, f"dnssrvnoa+{SERVICE.replace('cache', 'www')}", ["pod-0.cache.example:11210", "pod-1.cache.example:11211"], 8,
        [f"SRV {SERVICE.replace('cache', 'www')}"],
    ),
    "names of a service": Row(
        service, f"dnssrvnoa+{SERVICE}", ["pod-0.cache.example:11210", "pod-1.cache.example:11211"], 20, SRV
    ),
    "names of a service, which need no address": Row(
        put((SERVICE, "SRV", "0 0 1 Pod.Example."), ("pod.example", "A", "0.0.0.0")), f"dnssrvnoa+{SERVICE}:7", ["pod.example:7"], 30,
        SRV,
    ),
    "records of several priorities for one target": Row(
        put((SERVICE, "SRV", "0 0 1 pod.example.", "9 0 1 POD.example."), ("pod.example", "A", "10.0.0.1")), f"dnssrv+{SERVICE}",
        ["pod.example:1@10.0.0.1:1"], 30, SRV,
    ),
    "a service of the search list": Row(
        put(("_memcached._tcp.cache.svc.example", "SRV", "0 0 1 pod.example.")), "dnssrvnoa+_memcached._tcp.cache", ["pod.example:1"], 30,
        ["SRV _memcached._tcp.cache.default.svc.example", "SRV _memcached._tcp.cache.svc.example"], {**SEARCH, "ndots": 5},
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", ANSWERS.values(), ids=ANSWERS)
def test_the_nodes_of_an_answer(row):
    nodes, ttl, queries = look_up(row.prepare, row.text, **row.options)
    assert (sorted(nodes), ttl, sorted(queries)) == (sorted(row.nodes), row.ttl, sorted(row.queries))


class Refused(NamedTuple):
    prepare: object
    text: str
    problem: str
    seconds: float = 5.0


DNS = f"dns+{HOST}:1"
SHORT = 0.08
NO_ANSWER = r"^A records of cache\.example: no name server answered \(127\.0\.0\.1@\d+: "

FAILURES = {
    "an unknown name": Refused(put(), DNS, "^A records of cache.example: the name does not exist$"),
    "an unknown service": Refused(put(), f"dnssrv+{SERVICE}", "^SRV records of _memcached.*: the name does not exist$"),
    "a name without addresses": Refused(put((HOST, "TXT", "x")), DNS, "the name has no addresses$"),
    "a name without services": Refused(hosts, f"dnssrv+{HOST}", "the name has no SRV records$"),
    "an empty answer": Refused(failing("empty", None, None), DNS, "the name has no addresses$"),
    "an alias of an unknown name": Refused(put((HOST, "CNAME", "gone.example.")), DNS, "the name does not exist$"),
    "an alias of itself": Refused(put((HOST, "CNAME", f"{HOST}.")), DNS, NO_ANSWER),
    "SERVFAIL": Refused(failing("servfail", None, None), DNS, NO_ANSWER + r"SERVFAIL\)$"),
    "REFUSED": Refused(failing("refused", None, None), DNS, NO_ANSWER + r"REFUSED\)$"),
    "SERVFAIL for one family": Refused(failing("servfail", HOST, "AAAA"), DNS, r"^AAAA records of .*SERVFAIL\)$"),
    "SERVFAIL for one family of an IPv6 host": Refused(
        failing("servfail", HOST, "A", put((HOST, "AAAA", "2001:db8::1"))), DNS, r"^A records of .*SERVFAIL\)$"
    ),
    "no reply": Refused(failing("hang", None, None), DNS, NO_ANSWER + r"no reply\)$", SHORT),
    "no reply for one family": Refused(failing("hang", HOST, "AAAA"), DNS, r"^AAAA records of .*no reply\)$", 0.25),
    "no reply over TCP": Refused(failing("hang on tcp", None, None), DNS, NO_ANSWER, SHORT),
    "garbage": Refused(failing("garbage", None, None), DNS, NO_ANSWER + r"no reply\)$", SHORT),
    "empty datagrams": Refused(failing("no bytes", None, None), DNS, NO_ANSWER + r"no reply\)$", SHORT),
    "a message that is cut off": Refused(failing("unreadable", None, None), DNS, NO_ANSWER + r"no reply\)$", SHORT),
    "the number of another query": Refused(failing("wrong id", None, None), DNS, NO_ANSWER + r"no reply\)$", SHORT),
    "the answer to another question": Refused(failing("wrong question", None, None), DNS, NO_ANSWER + r"no reply\)$", SHORT),
    "an echo": Refused(failing("an echo", None, None), DNS, NO_ANSWER + r"no reply\)$", SHORT),
    "a truncated answer over TCP": Refused(failing("always truncated", None, None), DNS, "the answer is truncated over TCP too$"),
    "the address 0.0.0.0": Refused(put((HOST, "A", "10.0.0.1", "0.0.0.0")), DNS, r"unusable address: 0\.0\.0\.0$"),
    "the address ::": Refused(put((HOST, "AAAA", "::")), DNS, r"^AAAA records of cache\.example: unusable address: ::$"),
    "the address 0.0.0.0 in the form of IPv6": Refused(put((HOST, "AAAA", "::ffff:0.0.0.0")), DNS, r"unusable address: 0\.0\.0\.0$"),
    "a multicast address": Refused(put((HOST, "A", "224.0.0.1")), DNS, r"unusable address: 224\.0\.0\.1$"),
    "a multicast address of IPv6": Refused(put((HOST, "AAAA", "ff02::1")), DNS, r"unusable address: ff02::1$"),
    "the broadcast address": Refused(put((HOST, "A", "255.255.255.255")), DNS, r"unusable address: 255\.255\.255\.255$"),
    "an address that needs a scope": Refused(put((HOST, "AAAA", "fe80::1")), DNS, r"unusable address: fe80::1$"),
    "a service that is not available": Refused(put((SERVICE, "SRV", "0 0 0 .")), f"dnssrv+{SERVICE}", r"not available: the target is '\.'$"),
    "names of a service that is not available": Refused(
        put((SERVICE, "SRV", "0 0 0 .")), f"dnssrvnoa+{SERVICE}", r"not available: the target is '\.'$"
    ),
    "port 0": Refused(
        put((SERVICE, "SRV", "0 0 1 a.example.", "0 0 0 b.example.")), f"dnssrvnoa+{SERVICE}", "unusable target: 'b.example' port 0$"
    ),
    "a target that is no host name": Refused(
        put((SERVICE, "SRV", r"0 0 1 a\@b.example.")), f"dnssrvnoa+{SERVICE}", "unusable target: .*b.example' port 1$"
    ),
    "a target without an address": Refused(
        put((SERVICE, "SRV", "0 0 1 a.example.", "0 0 1 b.example."), ("a.example", "A", "10.0.0.1"), ("b.example", "TXT", "x")),
        f"dnssrv+{SERVICE}", "^A records of b.example: the name has no addresses$",
    ),
    "a target that is unknown": Refused(
        put((SERVICE, "SRV", "0 0 1 a.example.", "0 0 1 b.example."), ("a.example", "A", "10.0.0.1")), f"dnssrv+{SERVICE}",
        "^A records of b.example: the name does not exist$",
    ),
    "a target whose lookup fails": Refused(
        failing("servfail", PODS[1], "A", without_addition), f"dnssrv+{SERVICE}", r"^A records of pod-1.*SERVFAIL\)$"
    ),
    "an unusable address of a target": Refused(
        put((SERVICE, "SRV", "0 0 1 a.example."), ("a.example", "A", "0.0.0.0")), f"dnssrv+{SERVICE}", r"unusable address: 0\.0\.0\.0$"
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", FAILURES.values(), ids=FAILURES)
def test_an_answer_without_nodes_is_an_error(row):
    with pytest.raises(DiscoveryError, match=row.problem):
        look_up(row.prepare, row.text, row.seconds)


def test_repetitions_that_fail_for_one_reason_are_named_once():
    async def scenario(server):
        server.fail("hang")
        resolver = server.resolver(seconds=0.25)
        resolver.timeout = 0.01
        with pytest.raises(DiscoveryError, match=NO_ANSWER + r"no reply\)$"):
            await DnsLookup(DNS, resolver=resolver).nodes()
        assert len(server.asked) > 1

    run(scenario)
