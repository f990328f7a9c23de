"""The Compose recipe: clients on both sides of its network see one topology, and its nodes are alike and closed to others."""

import pytest

from evcache.zones.topology.model import Topology
from tests.support.recipes import COMPOSE_FILE, compose, memcached_services

SERVICES = memcached_services()


def topologies():
    """Return the topology within the network of Compose, and the one of the machine."""
    inside = Topology.from_node_list(compose({})["services"]["shop"]["environment"]["EVCACHE_ZONES"])
    outside = Topology.from_toml(COMPOSE_FILE.with_name("zones.toml").read_text("utf-8"))
    return inside, outside


def test_both_topologies_place_keys_on_the_same_nodes():
    inside, outside = topologies()
    labels = [{zone.name: [node.label for node in zone.nodes] for zone in topology.zones} for topology in (inside, outside)]
    assert labels[0] == labels[1]
    assert {name: len(nodes) for name, nodes in labels[0].items()} == {"eu-1a": 2, "eu-1b": 2, "eu-1c": 2}


def test_topology_of_the_machine_has_the_published_ports():
    inside, outside = topologies()
    for zone_inside, zone_outside in zip(inside.zones, outside.zones, strict=True):
        for node_inside, node_outside in zip(zone_inside.nodes, zone_outside.nodes, strict=True):
            ports = [f"{node_outside.address}:{node_inside.port}"]
            assert SERVICES[node_inside.host]["ports"] == ports
            assert node_inside.host.startswith(f"{zone_inside.name}-")


@pytest.mark.parametrize("name", compose({})["services"])
def test_ports_are_open_on_loopback_only(name):
    assert all(port.startswith("127.0.0.1:") for port in compose({})["services"][name]["ports"])


def test_nodes_differ_in_their_ports_only():
    assert len(SERVICES) == 6
    alike = [{key: value for key, value in service.items() if key != "ports"} for service in SERVICES.values()]
    assert all(service == alike[0] for service in alike)


def test_every_port_can_be_moved():
    moved = {f"{name.upper().replace('-', '_')}_PORT": str(30000 + place) for place, name in enumerate([*SERVICES, "shop"])}
    services = compose(moved)["services"]
    assert {service["ports"][0].split(":")[1] for service in services.values()} == set(moved.values())
