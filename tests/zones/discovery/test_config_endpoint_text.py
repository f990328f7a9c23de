"""Arguments of a configuration endpoint, and its text forms in node lists."""

import ssl

import pytest

from evcache.zones.discovery.lookups.config_endpoint import ConfigEndpoint, config_endpoint_of
from evcache.zones.errors import InvalidArgument, InvalidTopology
from evcache.zones.topology.model import Topology
from evcache.zones.transport.dialer import SocketDialer
from tests.support import virtual_time
from tests.support.config_endpoints import ConfigServer, config, endpoint

NAMES = [f"cache.abc.000{n}.euw1.cache.amazonaws.com" for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"address": ""}, "address"),
        ({"address": None}, "address"),
        ({"address": 11211}, "address"),
        ({"address": "h:x"}, "address"),
        ({"address": "h:1:2"}, "address"),
        ({"address": "/tmp/socket"}, "address"),  # noqa: S108
        ({"address": "unix:/tmp/socket"}, "address"),
        ({"address": "label@h:1"}, "address"),
        ({"tls": True}, "tls"),
        ({"tls": ssl.create_default_context(), "dialer": SocketDialer()}, "tls"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": "1"}, "timeout"),
        ({"dialer": 1}, "dialer"),
    ],
)
def test_wrong_arguments_are_named(arguments, named):
    with pytest.raises(InvalidArgument) as caught:
        ConfigEndpoint(**{"address": "cfg:11211", **arguments})
    assert caught.value.argument == named


def test_a_tls_context_is_the_one_of_the_connection():
    context = ssl.create_default_context()
    assert ConfigEndpoint("cfg:11211", tls=context)._dialer._tls is context
    assert ConfigEndpoint("cfg:11211")._dialer._tls is None


@pytest.mark.parametrize(
    ("node", "address"),
    [
        ("elasticache+my.abc.cfg.euw1.cache.amazonaws.com:11211", "my.abc.cfg.euw1.cache.amazonaws.com:11211"),
        ("memorystore+10.1.2.3:11211", "10.1.2.3:11211"),
        ("elasticache+h", "h:11211"),
        ("memorystore+[2001:db8::1]:11212", "[2001:db8::1]:11212"),
        (" elasticache+h:1 ", "h:1"),
    ],
)
def test_text_form_of_an_endpoint(node, address):
    assert repr(config_endpoint_of(node)) == f"ConfigEndpoint({address!r})"


@pytest.mark.parametrize(
    "node", ["", "h:1", "10.1.2.3:1", "unix:/tmp/elasticache+", "dns+h:1", "elasticache", "a@h:1", "x-elasticache+h:1"]
)
def test_other_texts_are_no_endpoint(node):
    assert config_endpoint_of(node) is None


@pytest.mark.parametrize(
    ("node", "problem"),
    [
        ("elasticache+", "has no host"),
        ("memorystore+:11211", "has no host"),
        ("elasticache+h:x", "a port is a number from 1 to 65535"),
        ("elasticache+h:0", "a port is a number from 1 to 65535"),
        ("elasticache+2001:db8::1", "an IPv6 address is written"),
        ("elasticache+/tmp/socket", "host:port is required"),
        ("a@elasticache+h:1", "a configuration endpoint has no label"),
        ("elasticache+a@h:1", "host:port is required"),
    ],
)
def test_malformed_text_form_is_an_invalid_topology(node, problem):
    with pytest.raises(InvalidTopology) as caught:
        config_endpoint_of(node)
    assert caught.value.argument == "zones"
    assert caught.value.problem.startswith(f"node {node!r}: ")
    assert problem in caught.value.problem


def test_labels_of_nodes_are_those_of_a_node_list():
    """A node list of the same hosts has the same ring."""
    names = [f"{name}:11211" for name in NAMES]
    source = endpoint(ConfigServer(config(1, *NAMES)))
    found = virtual_time.run(source.nodes())
    assert found.nodes == Topology.from_mapping({"a": names}).zones[0].nodes
