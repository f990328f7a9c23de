"""Node lists of configuration endpoints are read as they are meant, or refused. A stale list does not replace a newer one."""

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evcache.zones.discovery.lookups.cluster_config import (
    CONTRADICTION_SECONDS,
    MAX_CONFIG_BYTES,
    ClusterConfig,
    NewestConfig,
    config_length,
    parse_config,
)
from evcache.zones.errors import DiscoveryError
from evcache.zones.topology.model import Endpoint
from tests.support.config_endpoints import config, reply

quick = settings(derandomize=True, database=None, max_examples=300)
SOURCE = "configuration endpoint cfg:11211"

# From AWS's documentation, with its length.
DOCUMENTED = (
    b"CONFIG cluster 0 136\r\n12\n"
    b"myCluster.pc4ldq.0001.use1.cache.amazonaws.com|10.82.235.120|11211 "
    b"myCluster.pc4ldq.0002.use1.cache.amazonaws.com|10.80.249.27|11211\n\r\nEND\r\n"
)


def read(answer):
    """Read a whole reply."""
    line, _, rest = answer.partition(b"\n")
    return parse_config(rest[: config_length(line + b"\n", SOURCE)], SOURCE)


def nodes(data):
    return [str(node) for node in parse_config(data, SOURCE).nodes]


def test_the_reply_of_the_documentation_is_read():
    found = read(DOCUMENTED)
    assert found.version == 12
    assert [(node.host, node.port, node.label) for node in found.nodes] == [
        (
            f"myCluster.pc4ldq.000{n}.use1.cache.amazonaws.com",
            11211,
            f"myCluster.pc4ldq.000{n}.use1.cache.amazonaws.com:11211",
        )
        for n in (1, 2)
    ]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b"1\nh|10.0.0.1|1\n", ["h:1"], id="one node"),
        pytest.param(b"1\nh|10.0.0.1|1 i|10.0.0.2|2\n", ["h:1", "i:2"], id="several nodes"),
        pytest.param(b"1\nh||1\n", ["h:1"], id="no address"),
        pytest.param(b"1\n|10.0.0.1|1\n", ["10.0.0.1:1"], id="no name"),
        pytest.param(b"1\n10.0.0.1|10.0.0.1|1\n", ["10.0.0.1:1"], id="memorystore"),
        pytest.param(b"1\nh|2001:db8::1|1\n", ["h:1"], id="name and IPv6"),
        pytest.param(b"1\n|2001:db8::1|1\n", ["[2001:db8::1]:1"], id="IPv6 without a name"),
        pytest.param(b"1\n2001:DB8::1|2001:DB8::1|1\n", ["[2001:DB8::1]:1"], id="IPv6 as it is written"),
        pytest.param(b"1\nh|10.0.0.1|1", ["h:1"], id="no line feed at the end"),
        pytest.param(b"1\r\nh|10.0.0.1|1\r\n", ["h:1"], id="carriage returns"),
        pytest.param(b"1\nh|10.0.0.1|1  i|10.0.0.2|2 \n", ["h:1", "i:2"], id="more spaces"),
        pytest.param(b"1\nh|10.0.0.1|1 h|10.0.0.2|1\n", ["h:1"], id="one name twice"),
        pytest.param(b"1\nh|10.0.0.1|1 h|10.0.0.1|2\n", ["h:1", "h:2"], id="two ports of a host"),
    ],
)
def test_nodes_of_a_configuration(data, expected):
    assert nodes(data) == expected


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        pytest.param(b"", "'' is no version", id="nothing"),
        pytest.param(b"\n\n", "'' is no version", id="only lines"),
        pytest.param(b"h|10.0.0.1|1\n", "is no version", id="no version"),
        pytest.param(b"v1\nh|10.0.0.1|1\n", "'v1' is no version", id="version that is no number"),
        pytest.param(b"-1\nh|10.0.0.1|1\n", "'-1' is no version", id="negative version"),
        pytest.param(b"9" * 21 + b"\nh|10.0.0.1|1\n", "is no version", id="endless version"),
        pytest.param(b"12\n", "version 12 of the configuration names no nodes", id="no line of nodes"),
        pytest.param(b"12\n\n", "version 12 of the configuration names no nodes", id="no nodes"),
        pytest.param(b"1\nh\n", r"'h' is not host\|ip\|port", id="name only"),
        pytest.param(b"1\nh:1\n", r"'h:1' is not host\|ip\|port", id="host and port only"),
        pytest.param(b"1\nh|1\n", r"is not host\|ip\|port", id="two parts"),
        pytest.param(b"1\nh|10.0.0.1|1|x\n", r"is not host\|ip\|port", id="four parts"),
        pytest.param(b"1\n||1\n", r"is not host\|ip\|port", id="no name and no address"),
        pytest.param(b"1\nh|10.0.0.1|\n", r"is not host\|ip\|port", id="no port"),
        pytest.param(b"1\nh|10.0.0.1|0\n", r"is not host\|ip\|port", id="port 0"),
        pytest.param(b"1\nh|10.0.0.1|65536\n", r"is not host\|ip\|port", id="port too high"),
        pytest.param(b"1\nh|10.0.0.1|+1\n", r"is not host\|ip\|port", id="port with a sign"),
        pytest.param(b"1\nh|10.0.0.1|1 i|10.0.0.2\n", r"'i\|10.0.0.2' is not host\|ip\|port", id="second node cut off"),
        pytest.param(b"1\n2001:db8::x||1\n", r"is not host\|ip\|port", id="malformed IPv6"),
        pytest.param(b"1\nlabel@h||1\n", r"is not host\|ip\|port", id="label"),
        pytest.param(b"1\nunix:/tmp/s||1\n", r"is not host\|ip\|port", id="path"),
        pytest.param(b"1\n[::1]||1\n", r"is not host\|ip\|port", id="brackets"),
        pytest.param(b"1\nh\xff||1\n", r"is not host\|ip\|port", id="not ASCII"),
        pytest.param(b"1\n" + b"h" * 300 + b"||1\n", r"is not host\|ip\|port", id="endless name"),
        pytest.param(b"\x1f\x8b\x08\x00\n", "is no version", id="garbage"),
    ],
)
def test_malformed_configuration_is_refused(data, problem):
    with pytest.raises(DiscoveryError, match=f"^{SOURCE}: .*{problem}"):
        parse_config(data, SOURCE)


@pytest.mark.parametrize(
    ("line", "length"),
    [
        (b"CONFIG cluster 0 136\r\n", 136),
        (b"VALUE AmazonElastiCache:cluster 0 136\r\n", 136),
        (b"CONFIG cluster 0 136\n", 136),
        (b"CONFIG cluster 0 0\r\n", 0),
        (b"CONFIG cluster 0 %d\r\n" % MAX_CONFIG_BYTES, MAX_CONFIG_BYTES),
        (b"ERROR\r\n", None),
        (b"END\r\n", None),
    ],
)
def test_first_line_of_a_reply(line, length):
    assert config_length(line, SOURCE) == length


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"\r\n", "unexpected reply: ''"),
        (b"CONFIG cluster 0\r\n", "unexpected reply: 'CONFIG cluster 0'"),
        (b"CONFIG cluster 0 x\r\n", "unexpected reply"),
        (b"CONFIG cluster 0 -1\r\n", "unexpected reply"),
        (b"CONFIG other 0 5\r\n", "unexpected reply"),
        (b"CONFIG cluster 0 5 7\r\n", "unexpected reply"),
        (b"VALUE other 0 5\r\n", "unexpected reply"),
        (
            b"CONFIG cluster 0 %d\r\n" % (MAX_CONFIG_BYTES + 1),
            "unexpected reply: a configuration of 1048577 bytes, above 1048576",
        ),
        (b"CONFIG cluster 0 " + b"9" * 50 + b"\r\n", "unexpected reply"),
        (b"SERVER_ERROR busy\r\n", "unexpected reply: 'SERVER_ERROR busy'"),
        (b"CLIENT_ERROR unauthenticated\r\n", "unexpected reply: 'CLIENT_ERROR unauthenticated'"),
        (b"ERROR Too many open connections\r\n", "unexpected reply: 'ERROR Too many open connections'"),
        (b"HTTP/1.1 400 Bad Request\r\n", "unexpected reply: 'HTTP/1.1 400 Bad Request'"),
        (b"-ERR unknown command\r\n", "unexpected reply: '-ERR unknown command'"),
        (b"\xff\x00\r\n", r"unexpected reply: '\\xff\\x00'"),
    ],
)
def test_another_first_line_is_refused_with_its_text(line, problem):
    with pytest.raises(DiscoveryError, match=f"^{SOURCE}: {problem}"):
        config_length(line, SOURCE)


def test_an_error_shows_the_beginning_of_a_long_text():
    with pytest.raises(DiscoveryError) as caught:
        config_length(b"<html>" + b"x" * 1000 + b"\n", SOURCE)
    assert caught.value.problem == f"unexpected reply: '<html>{'x' * 54}'..."


# Any bytes.

pieces = st.lists(
    st.sampled_from(
        [b"1", b"0", b"h", b"|", b" ", b"\n", b"\r\n", b":", b"@", b"[", b"]", b"/", b"%", b"::1", b"11211", b"\xff"]
    )
)
anything = st.one_of(st.binary(max_size=200), pieces.map(b"".join), pieces.map(lambda parts: b"1\n" + b"".join(parts)))


@quick
@given(anything)
def test_any_configuration_is_read_or_refused_with_a_discovery_error(data):
    try:
        found = parse_config(data, SOURCE)
    except DiscoveryError as error:
        assert error.source == SOURCE
    else:
        assert found.nodes
        assert all(Endpoint.parse(node.label) == node for node in found.nodes)


@quick
@given(st.one_of(anything, anything.map(lambda data: b"CONFIG cluster 0 " + data)))
def test_any_first_line_is_read_or_refused_with_a_discovery_error(line):
    try:
        length = config_length(line, SOURCE)
    except DiscoveryError as error:
        assert error.source == SOURCE
    else:
        assert length is None or 0 <= length <= MAX_CONFIG_BYTES


labels = st.text("abcdefghijklmnopqrstuvwxyzABC0123456789-_", min_size=1, max_size=12)
names = st.lists(labels, min_size=1, max_size=5).map(".".join)
addresses = st.one_of(st.ip_addresses().map(str), st.just(""))
ports = st.integers(1, 65535)


@quick
@given(st.integers(0, 10**19), st.lists(st.tuples(st.one_of(names, st.just("")), addresses, ports), min_size=1, max_size=8))
def test_a_generated_list_is_read_as_it_was_meant(version, listed):
    listed = [(name, address or "10.0.0.1" if not name else address, port) for name, address, port in listed]
    found = read(reply(config(version, *(f"{name}|{address}|{port}" for name, address, port in listed))))
    expected = dict.fromkeys((name or address, port) for name, address, port in listed)
    assert found.version == version
    assert [(node.host, node.port) for node in found.nodes] == list(expected)
    assert all(node.label == f"[{node.host}]:{node.port}" for node in found.nodes if is_ipv6(node.host))


def is_ipv6(host):
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False


# Newer and older lists.


def listed(version, *hosts):
    return ClusterConfig(version, tuple(Endpoint.parse(host) for host in hosts))


STALE = "stale configuration: version {} after version {}"


@pytest.mark.parametrize(
    ("new", "reason", "newest"),
    [
        pytest.param(listed(8, "h", "i"), None, listed(8, "h", "i"), id="higher version"),
        pytest.param(listed(8, "h"), None, listed(8, "h"), id="higher version, same nodes"),
        pytest.param(listed(7, "h"), None, listed(7, "h"), id="same version"),
        pytest.param(
            listed(7, "i"),
            "stale configuration: version 7 names other nodes than before",
            listed(7, "h"),
            id="same version, other nodes",
        ),
        pytest.param(listed(6, "i"), STALE.format(6, 7), listed(7, "h"), id="lower version"),
        pytest.param(listed(6, "h"), None, listed(7, "h"), id="lower version, same nodes"),
    ],
)
def test_a_configuration_after_version_7(new, reason, newest):
    known = NewestConfig()
    assert known.update(listed(7, "h"), 0.0) is None
    assert known.update(new, 30.0) == reason
    assert known.config == newest


def test_the_order_of_nodes_is_no_contradiction():
    known = NewestConfig()
    known.update(listed(7, "h", "i"), 0.0)
    assert known.update(listed(7, "i", "h"), 30.0) is None


def test_a_lower_version_that_stays_is_believed():
    known = NewestConfig()
    known.update(listed(7, "h"), 0.0)
    assert known.update(listed(1, "i"), 100.0) == STALE.format(1, 7)
    assert known.update(listed(2, "j"), 99.9 + CONTRADICTION_SECONDS) == STALE.format(2, 7)
    assert known.update(listed(2, "j"), 100.0 + CONTRADICTION_SECONDS) is None
    assert known.config == listed(2, "j")
    assert known.update(listed(3, "k"), 500.0) is None


def test_a_lower_version_that_alternates_with_the_newest_one_is_never_believed():
    known = NewestConfig()
    known.update(listed(7, "h"), 0.0)
    for at in range(0, 3600, 60):
        assert known.update(listed(6, "i"), at) == STALE.format(6, 7)
        assert known.update(listed(7, "h"), at + 30.0) is None
    assert known.config == listed(7, "h")


def test_a_higher_version_ends_a_contradiction():
    known = NewestConfig()
    known.update(listed(7, "h"), 0.0)
    known.update(listed(6, "i"), 10.0)
    assert known.update(listed(8, "k"), 20.0) is None
    assert known.update(listed(6, "i"), 20.0 + CONTRADICTION_SECONDS) == STALE.format(6, 8)


def test_the_clock_of_another_event_loop_starts_the_time_again():
    known = NewestConfig()
    known.update(listed(7, "h"), 5000.0)
    known.update(listed(6, "i"), 5000.0)
    assert known.update(listed(6, "i"), 10.0) == STALE.format(6, 7)
    assert known.update(listed(6, "i"), 9.9 + CONTRADICTION_SECONDS) == STALE.format(6, 7)
    assert known.update(listed(6, "i"), 10.0 + CONTRADICTION_SECONDS) is None
