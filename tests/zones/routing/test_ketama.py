"""Keys are on the nodes where libketama, spymemcached and EVCache for the JVM look for them."""

import ast
import gc
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import evcache.zones.routing.ketama
from evcache.zones.routing.ketama import POINTS_PER_NODE, Ring, points, ring_in_steps, ring_of, ring_position

quick = settings(deadline=None, derandomize=True, database=None, max_examples=60)

# Computed by the JVM's implementation, for three nodes, in these forms:
#
#     POINT <label>-<i> [the four points of this digest]
#     RING size <points> first <point>-><label> last <point>-><label>
#     KEY <key> <position> <label>
#   DIST [keys of key:0 ... key:99999 on each node]
VECTORS = [
    line.split(" ", 1) for line in (Path(__file__).parents[2] / "data/ketama_vectors.txt").read_text("utf-8").splitlines()
]
LABELS = [f"10.0.0.{number}/10.0.0.{number}:11211" for number in (1, 2, 3)]
LAST_PLACE = 2**32 - 1


def vectors(kind):
    found = [rest for name, rest in VECTORS if name == kind]
    assert found
    return found


def ring_ends():
    (line,) = vectors("RING")
    _, size, _, first, _, last = line.split(" ")
    return int(size), [(int(point), label) for point, label in (end.split("->") for end in (first, last))]


@pytest.fixture(scope="module")
def ring():
    return Ring(LABELS)


def test_every_vector_is_of_a_known_kind():
    assert {kind for kind, _ in VECTORS} == {"POINT", "RING", "KEY", "DIST"}


@pytest.mark.parametrize("vector", vectors("POINT"))
def test_points_of_a_node(vector):
    name, expected = vector.split(" ", 1)
    label, _, number = name.rpartition("-")
    assert points(label)[4 * int(number) :][:4] == ast.literal_eval(expected)


def test_a_node_has_160_points():
    assert POINTS_PER_NODE == 160
    assert [len(points(label)) for label in LABELS] == [160, 160, 160]


def test_the_ring_has_all_points_between_the_first_and_the_last(ring):
    size, [first, last] = ring_ends()
    assert len(ring) == size
    everything = sorted((point, label) for label in LABELS for point in points(label))
    assert (everything[0], everything[-1]) == (first, last)


@pytest.mark.parametrize("vector", vectors("KEY"))
def test_a_keys_position_and_node(ring, vector):
    key, place, label = vector.rsplit(" ", 2)
    assert ring_position(key.encode()) == int(place)
    assert LABELS[ring.owner(int(place))] == label


def test_the_split_of_many_keys(ring):
    (expected,) = vectors("DIST")
    counts = [0, 0, 0]
    for number in range(100_000):
        counts[ring.owner(ring_position(b"key:%d" % number))] += 1
    assert counts == ast.literal_eval(expected)


def test_a_point_belongs_to_its_node_and_the_place_after_it_to_the_next(ring):
    everything = sorted((point, label) for label in LABELS for point in points(label))
    for (point, label), (_, following) in zip(everything, everything[1:], strict=False):
        assert LABELS[ring.owner(point)] == label
        assert LABELS[ring.owner(point + 1)] == following


def test_past_the_last_point_the_ring_begins_again(ring):
    _, [(first, label), (last, _)] = ring_ends()
    for place in (last + 1, LAST_PLACE, 0, first):
        assert LABELS[ring.owner(place)] == label


def test_one_node_holds_everything():
    alone = Ring(["only"])
    assert {alone.owner(place) for place in (0, 1, LAST_PLACE // 2, LAST_PLACE)} == {0}


def test_the_order_of_nodes_does_not_matter(ring):
    turned = Ring(LABELS[::-1])
    for number in range(1_000):
        place = ring_position(b"key:%d" % number)
        assert LABELS[::-1][turned.owner(place)] == LABELS[ring.owner(place)]


def test_the_later_of_two_nodes_gets_a_point_that_they_share():
    shared, one, other = 1420838185, "node-379:11211", "node-889:11211"
    assert shared in points(one)
    assert shared in points(other)
    for labels in ([one, other], [other, one]):
        both = Ring(labels)
        assert both.owner(shared) == 1
        assert len(both) == 2 * POINTS_PER_NODE - 1


labels = st.from_regex(r"[a-z0-9.]{1,20}:[0-9]{1,5}", fullmatch=True)
places = st.lists(st.integers(0, LAST_PLACE), min_size=1, max_size=200)


@quick
@given(st.lists(labels, min_size=2, max_size=6, unique=True), places)
def test_a_new_node_takes_keys_and_moves_no_other(nodes, at):
    before, after = Ring(nodes[:-1]), Ring(nodes)
    new = len(nodes) - 1
    for place in at:
        assert after.owner(place) in {before.owner(place), new}


@quick
@given(st.lists(labels, min_size=1, max_size=6, unique=True), st.integers(0, LAST_PLACE))
def test_the_owner_is_the_node_of_the_nearest_point_ahead(nodes, place):
    def distance(node):
        return min((point - place) % 2**32 for point in points(node))

    nearest = min(map(distance, nodes))
    assert distance(nodes[Ring(nodes).owner(place)]) == nearest


def test_a_new_node_takes_its_share(ring):
    """Of four nodes, about a quarter of the keys."""
    more = Ring([*LABELS, "10.0.0.4/10.0.0.4:11211"])
    taken = sum(more.owner(ring_position(b"key:%d" % number)) == 3 for number in range(10_000))
    assert 2_000 < taken < 3_000


@pytest.mark.parametrize("nodes", [249, 250, 1_000])
def test_large_rings_are_as_small_ones(nodes):
    """Of a thousand nodes some share a point, and they are kept in another form."""
    labels = [f"node-{number}:11211" for number in range(nodes)]
    owners = {point: number for number, label in enumerate(labels) for point in points(label)}
    places = sorted(owners)
    assert (len(places) < nodes * POINTS_PER_NODE) is (nodes == 1_000)
    large = Ring(labels)
    assert [large.owner(place) for place in places] == [owners[place] for place in places]
    following = [(places[index] + 1, places[(index + 1) % len(places)]) for index in range(len(places))]
    for between, place in random.Random(1).sample(following, 2_000):
        assert large.owner(min(between, LAST_PLACE)) == owners[place]
    assert large.owner(LAST_PLACE) == large.owner(0) == owners[places[0]]
    assert len(large) == len(places)


@pytest.mark.parametrize("nodes", [2, 99, 100, 101, 350])
def test_a_ring_that_is_made_in_steps_is_the_same(nodes):
    labels = [f"step-{nodes}-{number}:11211" for number in range(nodes)]
    *steps, ring = ring_in_steps(labels)
    assert len(steps) >= nodes // 100
    assert set(steps) <= {None}
    at_once = Ring(labels)
    for place in [ring_position(b"key:%d" % number) for number in range(1_000)]:
        assert ring.owner(place) == at_once.owner(place)
    assert [*ring_in_steps(labels)] == [ring]
    assert ring_of(labels) is ring


def test_a_ring_that_was_begun_is_no_ring():
    labels = [f"begun-{number}:11211" for number in range(250)]
    steps = ring_in_steps(labels)
    next(steps)
    assert len(ring_of(labels)) == 250 * POINTS_PER_NODE
    steps.close()
    assert len(ring_of(labels)) == 250 * POINTS_PER_NODE


def test_equal_rings_are_one_for_as_long_as_it_is_used():
    labels = ["shared-1:11211", "shared-2:11211"]
    ring = ring_of(labels)
    assert ring_of(tuple(labels)) is ring
    assert ring_of(labels[::-1]) is not ring
    del ring
    gc.collect()
    made = evcache.zones.routing.ketama._rings, evcache.zones.routing.ketama._runs
    assert not [key for kept in made for key in kept if "shared-1:11211" in key]
