"""Looks at replies, on each core: which hits and values they take, and what they leave to their caller."""

from array import array
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evcache.zones.protocol.fields import NO_FLAGS
from evcache.zones.protocol.replies import Hit, Reply
from evcache.zones.transport.core.looks import Look
from evcache.zones.transport.core.selected import COMPILED, PURE
from tests.support.cores import CORES

MIRROR = 2**64 - 1
LOWEST, HIGHEST = 100, 1_000
TOMBSTONE, PLAIN = 7, 8

each_core = pytest.mark.parametrize("core", CORES, ids=lambda core: core.name)


class Item(NamedTuple):
    hit: Hit
    zone: str
    version: int


LOOK = Look(LOWEST, MIRROR, Item, TOMBSTONE)


def hit(version, *, value=b"v", flags=0, leased=False):
    return Hit(value, flags, MIRROR - version, None, False, leased, b"O1")


def accept(core, replies, keys, known, plain=NO_FLAGS):
    """Return the values, the items and what is left of these replies. The given form of a key is its text."""
    values, found = {}, {}
    cas = array("Q", [MIRROR - known[key] if known[key] else 0 for key in keys])
    given = [key.decode() for key in keys]
    others, newer = core.accept_hits(LOOK, HIGHEST, "a", replies, keys, given, cas, plain, values, found)
    return values, found, others, newer


@each_core
@pytest.mark.parametrize(
    ("reply", "known", "is_taken", "is_newer"),
    [
        (hit(500), 500, True, False),
        (hit(500), 0, True, True),
        (hit(500), 499, True, True),
        (hit(500), 501, False, False),  # stale
        (hit(LOWEST), 0, True, True),
        (hit(LOWEST - 1), 0, False, False),  # no version
        (hit(HIGHEST), 0, True, True),
        (hit(HIGHEST + 1), 0, False, False),  # the clock has to observe it
        (hit(HIGHEST + 1), HIGHEST + 1, True, False),  # a known version, which the clock has passed
        (hit(MIRROR), 0, False, False),
        (hit(-1), 0, False, False),  # a CAS of 2^64
        (hit(MIRROR - 2**70), 0, False, False),
        (hit(500, leased=True), 500, False, False),
        (hit(500, flags=TOMBSTONE), 500, False, False),
        (Reply(b"VA", [b"f0", b"c1"], b"v"), 500, False, False),
        (Reply(b"SERVER_ERROR", [b"busy"], None), 500, False, False),
    ],
)
def test_a_hit_is_taken_or_left(core, reply, known, is_taken, is_newer):
    values, found, others, newer = accept(core, [None, reply], [b"x", b"k"], {b"x": 0, b"k": known})
    assert values == {}
    if is_taken:
        assert found == {b"k": Item(reply, "a", MIRROR - reply[2])}
        assert type(found[b"k"]) is Item
        assert others == [0]
        assert newer == ([(b"k", MIRROR - reply[2])] if is_newer else [])
    else:
        assert (found, others, newer) == ({}, [0, 1], [])


@each_core
@pytest.mark.parametrize(
    ("reply", "known", "value", "is_newer"),
    [
        (b"v", 500, b"v", False),  # the transport says that version and flags are the known ones
        (hit(500, flags=PLAIN), 500, b"v", False),
        (hit(500, flags=PLAIN), 0, b"v", True),
        (hit(500, flags=PLAIN), 499, b"v", True),
        (hit(500, flags=PLAIN), 501, None, False),
        (hit(HIGHEST + 1, flags=PLAIN), 0, None, False),
        (hit(MIRROR, flags=PLAIN), 0, None, False),  # a CAS of 0, from a server that has none
        (hit(500, flags=PLAIN, leased=True), 500, None, False),
    ],
)
def test_a_plain_value_needs_no_item(core, reply, known, value, is_newer):
    values, found, others, newer = accept(core, [reply], [b"k"], {b"k": known}, PLAIN)
    assert found == {}
    assert (values, others) == (({}, [0]) if value is None else ({"k": value}, []))
    assert newer == ([(b"k", 500)] if is_newer else [])


@each_core
def test_the_cas_of_each_key_is_that_of_its_known_version(core):
    cas, unknown = core.cas_of_each({b"a": 1, b"c": 2**60, b"d": 9}, [b"a", b"b", b"c", b"a"], MIRROR)
    assert list(cas) == [MIRROR - 1, 0, MIRROR - 2**60, MIRROR - 1]
    assert cas.typecode == "Q"
    assert unknown == [1]


@each_core
@pytest.mark.parametrize("version", [-1, MIRROR + 1, "v"])
def test_a_version_is_a_number_of_64_bits(core, version):
    with pytest.raises((OverflowError, TypeError)):
        core.cas_of_each({b"k": version}, [b"k"], MIRROR)


versions = st.integers(-5, 5) | st.integers(LOWEST - 2, HIGHEST + 2) | st.integers(MIRROR - 3, 2**70)
replies = st.builds(hit, versions, flags=st.sampled_from([0, TOMBSTONE]), leased=st.booleans()) | st.just(
    Reply(b"EN", [], None)
)


@pytest.mark.skipif(COMPILED is None, reason="evcache was built without a compiler")
@given(
    st.lists(replies | st.none() | st.binary(max_size=3), min_size=6, max_size=6),
    st.lists(st.integers(0, HIGHEST + 2), min_size=6, max_size=6),
    st.sampled_from([NO_FLAGS, 0]),
)
def test_both_cores_take_the_same_hits(answers, latest, plain):
    keys = [b"%d" % number for number in range(6)]
    known = dict(zip(keys, latest, strict=True))
    assert accept(COMPILED, answers, keys, known, plain) == accept(PURE, answers, keys, known, plain)


@each_core
@pytest.mark.parametrize(
    ("reply", "version", "expected"),
    [
        (hit(500), 500, True),
        (hit(500), 501, False),
        (hit(500), None, False),
        (hit(0), 0, True),
        (hit(500, leased=True), 500, False),
        (hit(500, flags=TOMBSTONE), 500, True),
        (hit(-1), 500, False),  # a CAS of 2^64
        (hit(MIRROR), MIRROR, True),
        (Reply(b"VA", [b"f0", b"c1"], b"v"), MIRROR - 1, False),
        (Reply(b"EN", [], None), None, False),
        (None, None, False),
    ],
)
def test_a_hit_of_the_same_version(core, reply, version, expected):
    assert core.is_same(reply, version, MIRROR) is expected


@pytest.mark.skipif(COMPILED is None, reason="evcache was built without a compiler")
@given(replies, versions.filter(lambda version: 0 <= version <= MIRROR) | st.none())
def test_both_cores_find_the_same_version(reply, version):
    assert COMPILED.is_same(reply, version, MIRROR) == PURE.is_same(reply, version, MIRROR)


def decode(data, flags):
    if flags == 13:
        raise ValueError(data)
    return data.decode(), flags


def values_of(core, items, *, budget=1_000, start=0):
    names = [b"n%d" % number for number in range(len(items))]
    given = [f"g{number}" for number in range(len(items))]
    found = {name: Item(item, "a", 1) for name, item in zip(names, items, strict=True) if item is not None}
    values = {}
    position, error = core.decode_values(
        names, given, found, start, budget, 4, decode, PLAIN, frozenset({TOMBSTONE}), values
    )
    return position, None if error is None else (type(error), error.args), list(values.items())


@each_core
@pytest.mark.parametrize(
    ("items", "position", "error", "values"),
    [
        ([], 0, None, []),
        ([None, None], 2, None, []),
        ([hit(1, value=b"a"), None, hit(1, flags=PLAIN)], 3, None, [("g0", ("a", 0)), ("g2", b"v")]),
        ([hit(1, flags=PLAIN), hit(1, flags=TOMBSTONE), hit(1, flags=PLAIN)], 1, None, [("g0", b"v")]),
        ([hit(1), hit(1, flags=13), hit(1)], 1, (ValueError, (b"v",)), [("g0", ("v", 0))]),
    ],
)
def test_values_are_decoded_up_to_the_first_that_needs_a_closer_look(core, items, position, error, values):
    assert values_of(core, items) == (position, error, values)


@each_core
@pytest.mark.parametrize(
    ("sizes", "budget", "position"),
    [([0, 0, 0], 2, 2), ([3, 4, 0], 3, 2), ([40, 0], 10, 0), ([0, 40], 10, 1), ([0, 0, 0], 3, 3)],
)
def test_the_budget_counts_items_and_bytes(core, sizes, budget, position):
    items = [hit(1, value=bytes(size), flags=PLAIN) for size in sizes]
    assert values_of(core, items, budget=budget)[0] == position


@each_core
def test_decoding_goes_on_behind_the_item_that_was_left(core):
    items = [hit(1, flags=TOMBSTONE), hit(1, flags=PLAIN)]
    assert values_of(core, items, start=1) == (2, None, [("g1", b"v")])
