"""What is copied, and what differs: tables of two items."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evcache.admin.copying.decision import Copy, Skip, decide, is_wanted
from evcache.admin.copying.difference import Difference, Kind, difference, needs_values
from evcache.replication.commands.node_requests import Peeked
from evcache.replication.hlc import MILLISECONDS_SHIFT, cas_of
from evcache.values.flags import FLAG_ABSENT, FLAG_TOMBSTONE

NOW = 1_800_000_000.0
OLD, NEW = (int(NOW * 1000) - 5_000) << MILLISECONDS_SHIFT, int(NOW * 1000) << MILLISECONDS_SHIFT


def value(version=OLD, *, ttl=100, data=b"v", flags=0):
    return Peeked(flags, cas_of(version), ttl, absent=False, value=data)


def tombstone(version=OLD, *, ttl=50):
    return Peeked(FLAG_TOMBSTONE, cas_of(version), ttl, absent=True, value=b"")


STUB = Peeked(0, 2**64 - 5, 3, absent=True, value=b"")
UNVERSIONED = Peeked(0, 17, 100, absent=False, value=b"u")


@pytest.mark.parametrize(
    ("source", "target", "result"),
    [
        (None, None, Skip.GONE),
        (STUB, None, Skip.GONE),
        (value(), None, Copy(b"k", b"v", 0, 96, OLD, cas_of(OLD))),
        (value(), STUB, Copy(b"k", b"v", 0, 96, OLD, cas_of(OLD), STUB.cas)),
        (value(NEW), value(OLD), Copy(b"k", b"v", 0, 96, NEW, cas_of(NEW), cas_of(OLD))),
        (value(OLD), value(OLD), Skip.PRESENT),
        (value(OLD), value(NEW), Skip.PRESENT),
        (value(OLD), tombstone(NEW), Skip.PRESENT),
        (tombstone(NEW), value(OLD), Copy(b"k", b"", FLAG_TOMBSTONE, 46, NEW, cas_of(NEW), cas_of(OLD))),
        (UNVERSIONED, None, Copy(b"k", b"u", 0, 96, None, UNVERSIONED.cas)),
        (UNVERSIONED, UNVERSIONED, Skip.PRESENT),
        (UNVERSIONED, value(), Skip.PRESENT),
        (value(), UNVERSIONED, Skip.PRESENT),
        (value(ttl=-1), None, Copy(b"k", b"v", 0, 0, OLD, cas_of(OLD))),
        (value(ttl=4), None, Skip.EXPIRING),
        (value(ttl=None), None, Skip.UNKNOWN_LIFETIME),
        (value(data=b"x" * 101), None, Skip.TOO_LARGE),
    ],
)
def test_the_copy_of_a_key(source, target, result):
    assert decide(b"k", source, target, spent=3.0, unix_time=NOW, largest=100) == result


items = st.one_of(
    st.none(),
    st.just(STUB),
    st.just(UNVERSIONED),
    st.builds(value, st.sampled_from([OLD, NEW])),
    st.builds(tombstone, st.sampled_from([OLD, NEW])),
)


@given(items, items)
def test_no_two_zones_want_each_others_item(first, second):
    assert not (is_wanted(first, second) and is_wanted(second, first))


@given(items, items)
def test_a_difference_is_the_same_from_both_sides(first, second):
    one, other = difference((first, second)), difference((second, first))
    turned = None if other is None else Difference(other.kind, None if other.stale is None else 1 - other.stale)
    assert one == turned


@given(items, items)
def test_a_repair_writes_what_the_stale_zone_lacks(first, second):
    found = difference((first, second))
    if found is not None and found.stale is not None:
        pair = (first, second)
        assert is_wanted(pair[1 - found.stale], pair[found.stale])


@pytest.mark.parametrize(
    ("first", "second", "kind", "stale"),
    [
        (value(), None, Kind.MISSING, 1),
        (None, value(), Kind.MISSING, 0),
        (value(), STUB, Kind.MISSING, 1),
        (UNVERSIONED, None, Kind.MISSING, 1),
        (value(NEW), value(OLD), Kind.OLDER, 1),
        (value(NEW), tombstone(OLD), Kind.OLDER, 1),
        (value(OLD), tombstone(NEW), Kind.NOT_DELETED, 0),
        (value(), value(data=b"w"), Kind.VALUE, None),
        (value(), value(flags=256), Kind.VALUE, None),
        (UNVERSIONED, value(data=b"w"), Kind.VALUE, None),
        (value(ttl=100), value(ttl=80), Kind.LIFETIME, None),
        (value(ttl=-1), value(ttl=80), Kind.LIFETIME, None),
    ],
)
def test_each_kind_of_difference(first, second, kind, stale):
    assert difference((first, second)) == Difference(kind, stale)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (None, None),
        (value(), value()),
        (value(ttl=100), value(ttl=91)),
        (value(ttl=None), value(ttl=91)),
        (tombstone(), None),
        (None, tombstone()),
        (tombstone(OLD), tombstone(NEW)),
        (Peeked(FLAG_ABSENT, cas_of(NEW), 9, absent=True, value=b""), None),
        (STUB, None),
        (UNVERSIONED, UNVERSIONED._replace(cas=18)),
        (UNVERSIONED._replace(value=None), value()),
    ],
)
def test_what_readers_see_the_same_is_no_difference(first, second):
    assert difference((first, second)) is None


def test_values_are_needed_where_an_item_has_no_version():
    assert needs_values((UNVERSIONED, value()))
    assert needs_values((value(), UNVERSIONED))
    assert not needs_values((value(), value(NEW)))
    assert not needs_values((UNVERSIONED, None))
