"""Judges of sampled keys: placement on the ring, and namespaces."""

import pytest

from evcache.admin.doctor.facts import SampledKey
from evcache.admin.doctor.judges import namespaces, placement
from evcache.zones import Mode
from tests.support.doctor_facts import facts, names, node, sample


def zone(**owners):
    """Return facts about one zone whose nodes hold keys of these owners."""
    return facts(*(node("a", label, sample=sample(*each)) for label, each in owners.items()))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (zone(x=["x"] * 20, y=["y"] * 20), []),
        (zone(x=["y"] * 20, y=["x"] * 20), ["labels-swapped"]),
        (zone(x=["y"] * 15 + ["x"] * 5, y=["x"] * 20), ["labels-swapped"]),
        (zone(x=["y"] * 20, y=["z"] * 20, z=["x"] * 20), ["label-wrong"] * 3),
        (zone(x=["y"] * 20, y=["y"] * 20), ["label-wrong"]),
        (zone(x=["x"] * 15 + ["y"] * 5, y=["y"] * 20), ["keys-misplaced"]),
        # Another client, with other labels, places keys at random.
        (zone(x=["x", "y"] * 10, y=["x", "y"] * 10), ["keys-misplaced"] * 2),
        (zone(x=["x"] * 99 + ["y"], y=["y"] * 20), []),
        (zone(x=["y"] * 9, y=["x"] * 9), []),  # too few
        (zone(x=["y"] * 20, y=["x"] * 20, z=["z"] * 10 + ["x"] * 10), ["labels-swapped", "keys-misplaced"]),
        (zone(x=["x"] * 20), []),
    ],
)
def test_placement(given, expected):
    assert names(placement.judge(given)) == expected


def test_swapped_labels_are_both_named():
    (found,) = placement.judge(zone(x=["y"] * 20, y=["x"] * 20))
    assert "x at a-x:11211 in a has 100% keys of y, and y at a-y:11211 in a has 100% keys of x" in found.text


def test_leases_beside_a_key_are_not_placed():
    """They live on the node of their key, and their own name would lead to another node."""
    leases = tuple(SampledKey(b"ns:%d\x7f1" % at, "y", None) for at in range(20))
    assert names(placement.judge(facts(node("a", "x", sample=leases), node("a", "y")))) == []


def spaces(modes=None, namespace=None, **zones):
    """Return facts about zones of one node with a number of keys of each namespace."""
    nodes = []
    for name, counts in zones.items():
        keys = tuple(item for space, number in counts.items() for item in sample(*["n1"] * number, namespace=space))
        nodes.append(node(name, sample=keys))
    return facts(*nodes, modes=modes, namespace=namespace)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (spaces(a={"s": 50}, b={"s": 50}), []),
        (spaces(a={"s": 50}, b={"s": 50}, c={"t": 50}), ["namespaces-foreign"]),
        (spaces(a={"s": 50}, b={"t": 50}), ["namespaces-foreign"]),
        (spaces(a={"s": 50}, b={"t": 19}), []),  # too few
        (spaces(a={"s": 50}, b={"s": 40, "t": 10}), ["namespaces-differ"]),
        (spaces(a={"s": 50}, b={"s": 41, "t": 9}), []),
        (spaces(a={"s": 50}, b={"s": 40, "t": 10}, modes={"a": Mode.WRITE_ONLY}), []),
        (spaces(a={"s": 50}, b={"s": 50}, namespace="s"), []),
        (spaces(a={"s": 50, "t": 1}, b={"t": 50}, namespace="s"), ["namespaces-differ", "namespace-missing"]),
        (spaces(a={"s": 50}, b={"t": 50}, namespace="s"), ["namespaces-foreign", "namespace-missing"]),
        (spaces(a={"s": 50}, b={"s": 50}, namespace="other"), ["namespace-unknown"]),
        (spaces(a={}, b={}, namespace="s"), []),
    ],
)
def test_namespaces(given, expected):
    assert names(namespaces.judge(given)) == expected


def test_a_zone_of_another_cache_is_named_with_both_namespaces():
    (found,) = namespaces.judge(spaces(a={"s": 50}, b={"s": 50}, c={"t": 50}))
    assert found.zone == "c"
    assert found.text == "no common namespace: c has t; a, b have s"


@pytest.mark.parametrize(
    ("key", "shown"),
    [(b"\x1b[2J:x", r"\x1b[2J"), (b"\xff\xfe:x", r"\xff\xfe"), (b"plain", "(no namespace)"), (b"x" * 99 + b":y", "x" * 40)],
)
def test_a_namespace_is_shown_without_control_characters(key, shown):
    keys = tuple(SampledKey(key, "n1", None) for _ in range(30))
    (found,) = namespaces.judge(facts(node(sample=keys)))
    assert found.text == f"{shown} in 30 sampled keys"
