"""Reads go to the local zone first and then spread by client; decisions are in one order for all, and spread by key.

Zones that are out come last.
"""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evcache.zones.routing.zone_order import coordinator_order, is_ejected, move_to_end, read_order

quick = settings(deadline=None, derandomize=True, database=None, max_examples=100)
ZONES = ("eu-1a", "eu-1b", "eu-1c", "eu-1d")
names = st.lists(st.text(min_size=1, max_size=10), max_size=8, unique=True)


def seeds(count):
    return [number.to_bytes(8, "big") for number in range(count)]


@quick
@given(names, st.binary(max_size=8), st.data())
def test_read_order_is_every_zone_once_with_the_local_one_first(zones, seed, data):
    local = data.draw(st.sampled_from([None, *zones]))
    order = read_order(local, zones, seed)
    assert sorted(order) == sorted(zones)
    assert local is None or order[0] == local


@quick
@given(names, st.binary(max_size=8), st.randoms())
def test_read_order_depends_on_the_client_and_not_on_how_zones_are_listed(zones, seed, random):
    shuffled = random.sample(zones, len(zones))
    assert read_order(None, shuffled, seed) == read_order(None, zones, seed)


def test_a_local_zone_that_is_not_there_is_not_asked():
    assert sorted(read_order("us-1a", ZONES, b"seed")) == sorted(ZONES)


def test_there_may_be_no_zone():
    assert read_order(None, (), b"seed") == ()
    assert read_order("eu-1a", (), b"seed") == ()
    assert coordinator_order(b"key", ()) == ()


def test_the_neighbours_of_a_zone_share_its_reads_when_it_dies():
    """Each about a third: with one order for all clients, one neighbour would get them all."""
    second = Counter(read_order("eu-1a", ZONES, seed)[1] for seed in seeds(3_000))
    assert set(second) == set(ZONES) - {"eu-1a"}
    assert all(800 < count < 1_200 for count in second.values())


def test_clients_without_a_local_zone_spread_over_all():
    first = Counter(read_order(None, ZONES, seed)[0] for seed in seeds(4_000))
    assert set(first) == set(ZONES)
    assert all(800 < count < 1_200 for count in first.values())


@quick
@given(names, st.binary(max_size=20), st.randoms())
def test_coordinators_are_every_zone_once_and_the_same_however_zones_are_listed(zones, key, random):
    order = coordinator_order(key, zones)
    assert sorted(order) == sorted(zones)
    assert coordinator_order(key, random.sample(zones, len(zones))) == order


@quick
@given(names, st.binary(max_size=20), st.data())
def test_when_a_zone_leaves_the_others_keep_their_order(zones, key, data):
    """So that only the keys that it decided about get another coordinator."""
    order = coordinator_order(key, zones)
    gone = data.draw(st.sampled_from(["", *zones]))
    left = [name for name in zones if name != gone]
    assert coordinator_order(key, left) == tuple(name for name in order if name != gone)


def test_keys_spread_over_coordinators():
    first = Counter(coordinator_order(b"key:%d" % number, ZONES)[0] for number in range(4_000))
    assert set(first) == set(ZONES)
    assert all(800 < count < 1_200 for count in first.values())


def test_coordinators_are_the_same_in_every_release():
    """Clients of different releases that disagree would decide about one key in two places."""
    assert coordinator_order(b"user:1", ZONES) == ("eu-1c", "eu-1a", "eu-1b", "eu-1d")
    assert coordinator_order(b"user:2", ZONES) == ("eu-1c", "eu-1b", "eu-1a", "eu-1d")
    assert coordinator_order("schlüssel".encode(), ("b", "ab", "a")) == ("ab", "b", "a")


@pytest.mark.parametrize(
    ("nodes", "fewest"), [(1, 1), (2, 2), (3, 2), (4, 2), (5, 2), (6, 3), (7, 3), (9, 4), (10, 4), (12, 5), (300, 101)]
)
def test_a_zone_is_out_when_more_than_a_third_of_its_nodes_are_down_and_more_than_one(nodes, fewest):
    """One node is no zone, unless it is all there is."""
    assert [is_ejected(down, nodes) for down in range(nodes + 1)] == [down >= fewest for down in range(nodes + 1)]


@pytest.mark.parametrize("nodes", range(3, 301, 3))
def test_exactly_a_third_is_not_more_than_a_third(nodes):
    assert not is_ejected(nodes // 3, nodes)
    assert is_ejected(nodes // 3 + 1, nodes)


@pytest.mark.parametrize(
    ("names", "order", "expected"),
    [
        ((), "abc", "abc"),
        ("a", "abc", "bca"),
        ("ac", "abcd", "bdac"),
        ("ca", "abcd", "bdac"),
        ("abc", "abc", "abc"),
        ("x", "abc", "abc"),
        ("x", "", ""),
    ],
)
def test_names_that_come_last_keep_their_order_and_so_do_the_others(names, order, expected):
    assert move_to_end(names, order) == tuple(expected)


@quick
@given(st.lists(st.text(max_size=3), max_size=8, unique=True), st.data())
def test_nothing_is_lost_by_being_last(order, data):
    names = data.draw(st.sets(st.sampled_from(order))) if order else set()
    found = move_to_end(names, order)
    assert sorted(found) == sorted(order)
    assert not names & set(found[: len(order) - len(names)])
