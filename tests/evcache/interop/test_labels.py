"""Labels of nodes in interop mode, and the node lists of the JVM client."""

import asyncio

import pytest

from evcache import EVCache, InvalidArgument, InvalidTopology
from evcache.interop import Interop
from evcache.interop.labels import jvm_labelled, with_jvm_labels
from evcache.zones import Topology
from tests.support.memory_zones import ChangingTopology


def labels(topology):
    return {zone.name: [node.label for node in zone.nodes] for zone in topology.zones}


def addresses(topology):
    return {zone.name: [node.address for node in zone.nodes] for zone in topology.zones}


def test_the_node_list_of_the_jvm_client_is_read_as_it_is():
    topology = Topology.from_node_list("g0=10.0.0.1/10.0.0.1:11212,cache-b/10.0.0.2:11300;g1=x/10.0.0.3")
    assert labels(topology) == {"g0": ["10.0.0.1/10.0.0.1:11211", "cache-b/10.0.0.2:11211"], "g1": ["x/10.0.0.3:11211"]}
    assert addresses(topology) == {"g0": ["10.0.0.1:11212", "10.0.0.2:11300"], "g1": ["10.0.0.3:11211"]}
    assert with_jvm_labels(topology) == topology


@pytest.mark.parametrize(
    ("node", "label"),
    [
        ("10.0.0.1:11212", "10.0.0.1/10.0.0.1:11211"),
        ("10.0.0.1", "10.0.0.1/10.0.0.1:11211"),
        ("[fd00::1]:11212", "fd00::1/fd00::1:11211"),
        ("own@10.0.0.1:11212", "own"),
        ("cache-b/10.0.0.1:11212", "cache-b/10.0.0.1:11211"),
        ("own@cache-b/10.0.0.1:11212", "own"),
        ("unix:/run/memcached", "/run/memcached"),
    ],
)
def test_a_node_gets_the_label_of_the_jvm_client_unless_it_has_its_own(node, label):
    assert labels(with_jvm_labels(Topology.from_mapping({"g0": [node, "10.9.9.9"]})))["g0"][0] == label


def test_a_name_alone_is_refused_where_the_label_matters():
    """The JVM client would look the address up. A zone of one node needs no label."""
    assert labels(with_jvm_labels(Topology.from_mapping({"g0": ["cache-a:11211"]}))) == {"g0": ["cache-a:11211"]}
    with pytest.raises(InvalidTopology, match="'g0'.*cache-b/ADDRESS:11212"):
        with_jvm_labels(Topology.from_mapping({"g0": ["10.0.0.1", "cache-b:11212"]}))


def test_two_nodes_on_one_address_are_refused():
    with pytest.raises(InvalidTopology, match=r"10\.0\.0\.1:11211 and 10\.0\.0\.1:11212.*ignore ports"):
        with_jvm_labels(Topology.from_mapping({"g0": ["10.0.0.1:11211", "10.0.0.1:11212"]}))
    with pytest.raises(InvalidTopology, match="ignore ports"):
        EVCache("p", {"g0": ["10.0.0.1:11211", "10.0.0.1:11212"]}, interop=True)


def test_a_source_that_changes_is_labelled_each_time():
    before, after = (Topology.from_mapping({"g0": [f"10.0.0.{number}"]}) for number in (1, 2))

    async def main():
        source = ChangingTopology(before)
        labelled = jvm_labelled(source)
        assert labels(await labelled.load()) == {"g0": ["10.0.0.1/10.0.0.1:11211"]}
        source.change(after)
        assert labels(await anext(labelled.watch())) == {"g0": ["10.0.0.2/10.0.0.2:11211"]}

    asyncio.run(main())


def test_the_variable_of_the_app_is_read():
    async def main():
        environment = {"EVCACHE_USER-NODES": "g0=a/10.0.0.1:11211;g1=b/10.0.0.2:11211"}
        source = Interop(app="EVCache_user").nodes_from_environment(environment)
        assert labels(await source.load()) == {"g0": ["a/10.0.0.1:11211"], "g1": ["b/10.0.0.2:11211"]}

    asyncio.run(main())
    with pytest.raises(InvalidArgument, match="app"):
        Interop().nodes_from_environment()
