"""Store of hints: what it holds for a zone, in which order, and what it drops over its limits."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evcache import Hints, InvalidArgument
from evcache.replication.handoff.hints import ENTRY_BYTES, Hint, HintStore, Kind

DELETE, SET, CHECK, TOUCH = Kind


def hint(key=b"k", version=1, kind=SET, *, zone="a", data=b"data", expires_at=100.0, made_at=0.0):
    """A hint; only a set has data."""
    return Hint(zone, key, kind, version, data if kind is SET else b"", 0, 60, made_at, expires_at)


def book(**limits):
    return HintStore(Hints(**limits))


def filled(*hints, **limits):
    """A book with these, for which nothing had to go."""
    full = book(**limits)
    for one in hints:
        assert full.put(one) == []
    return full


def as_check(set_hint):
    """What a set lives on as when it can't be kept."""
    return set_hint._replace(kind=CHECK, data=b"", expires_at=math.inf)


# What is kept.


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [
        ((1, SET), (2, SET), (2, SET)),
        ((2, SET), (1, SET), (2, SET)),
        ((1, SET), (2, DELETE), (2, DELETE)),
        ((2, SET), (1, DELETE), (2, SET)),
        ((1, DELETE), (2, SET), (2, SET)),
        ((2, DELETE), (1, SET), (2, DELETE)),
        ((2, CHECK), (2, SET), (2, SET)),
        ((2, SET), (2, CHECK), (2, SET)),
        ((2, CHECK), (1, SET), (2, CHECK)),
        ((2, SET), (0, CHECK), (2, SET)),
        ((0, CHECK), (1, SET), (1, SET)),
        ((0, CHECK), (0, CHECK), (0, CHECK)),
    ],
)
def test_the_newest_is_kept_for_each_key(before, after, kept):
    """An older write could not replace it anyway; of one version, what says more is kept."""
    for_one = filled(hint(version=before[0], kind=before[1]))
    assert for_one.put(hint(version=after[0], kind=after[1])) == []
    assert len(for_one) == 1
    got = for_one.get("a", b"k")
    assert (got.version, got.kind) == kept
    assert for_one.size == got.size


def test_zones_and_keys_are_apart():
    """What one zone missed says nothing about another zone, nor about another key."""
    kept = filled(hint(version=1), hint(version=2, zone="b"), hint(b"other", 3))
    assert len(kept) == 3
    assert kept.get("a", b"k").version == 1
    assert kept.get("b", b"k").version == 2
    assert kept.get("a", b"other").version == 3
    assert kept.get("b", b"other") is None


def test_deletes_come_first_then_sets_then_checks():
    """The oldest of each first: until a delete is delivered, the zone shows a value that is gone."""
    kept = filled(
        hint(b"1", kind=CHECK),
        hint(b"2", kind=SET),
        hint(b"3", kind=DELETE),
        hint(b"4", kind=SET),
        hint(b"5", kind=DELETE),
        hint(b"6", kind=CHECK),
    )
    assert [one.key for one in kept] == [b"3", b"5", b"2", b"4", b"1", b"6"]


def test_a_key_that_is_written_again_is_young_again():
    """Its age is that of the latest write."""
    kept = filled(hint(b"1"), hint(b"2"), hint(b"1", 2))
    assert [one.key for one in kept] == [b"2", b"1"]


def test_the_book_may_change_while_it_is_gone_through():
    """Deliveries end hints, and calls bring new ones."""
    kept = filled(*[hint(b"%d" % number) for number in range(10)])
    for number, one in enumerate(kept):
        assert kept.remove(one)
        kept.put(hint(b"new %d" % number))
    assert len(kept) == 10


def test_removing_what_is_not_kept_any_more_has_no_effect():
    """A delivery that ends late must not take the newer write with it."""
    old, new = hint(version=1), hint(version=2)
    kept = filled(old, new)
    assert not kept.remove(old)
    assert kept.get("a", b"k") is new
    assert kept.remove(new)
    assert not kept.remove(new)
    assert (len(kept), kept.size) == (0, 0)


def test_has_delete_is_about_any_zone():
    """As long as one zone has not got the delete of a key."""
    first, second = hint(kind=DELETE), hint(kind=DELETE, zone="b")
    kept = filled(first, second, hint(b"other"))
    assert kept.has_delete(b"k")
    assert not kept.has_delete(b"other")
    kept.remove(first)
    assert kept.has_delete(b"k")
    kept.put(hint(version=2, zone="b"))  # written again
    assert not kept.has_delete(b"k")


# What expires.


def test_a_set_that_expires_lives_on_as_a_check():
    """Later a delete may have come and gone, so the value goes; that the zone missed something is still known."""
    old, young = hint(b"1", 7, expires_at=10), hint(b"2", expires_at=11)
    kept = filled(old, young)
    assert kept.demote_expired(9.9) == []
    assert kept.demote_expired(10) == [old]
    assert kept.get("a", b"1") == as_check(old)
    assert kept.get("a", b"2") is young
    assert kept.size == as_check(old).size + young.size
    assert kept.demote_expired(10) == []


def test_a_delete_stays_whatever_end_it_has():
    """A file of an earlier release gives deletes an end."""
    one = hint(kind=DELETE, expires_at=10)
    kept = filled(one)
    assert kept.demote_expired(10) == []
    assert list(kept) == [one]


def test_checks_and_what_never_expires_stay():
    """Whatever the time."""
    kept = filled(hint(b"1", kind=CHECK, expires_at=math.inf), hint(b"2", kind=DELETE, expires_at=math.inf))
    assert kept.demote_expired(1e300) == []
    assert len(kept) == 2


def test_one_that_lives_long_does_not_keep_those_behind_it():
    """Hints of a former process, which had other settings, or made before a clock was set back, may outlive later ones."""
    long, short = hint(b"long", expires_at=1000), hint(b"short", expires_at=10)
    kept = filled(long, short, hint(b"for ever", kind=DELETE, expires_at=math.inf))
    assert kept.demote_expired(10) == [short]
    assert kept.get("a", b"short") == as_check(short)
    assert kept.get("a", b"long") is long


@pytest.mark.parametrize(
    ("before", "after", "kept_kind"),
    [
        (SET, TOUCH, SET),
        (CHECK, TOUCH, CHECK),
        (DELETE, TOUCH, DELETE),
        (TOUCH, TOUCH, TOUCH),
        (TOUCH, CHECK, CHECK),
        (TOUCH, DELETE, DELETE),
        (CHECK, SET, SET),
        (SET, SET, SET),
    ],
)
def test_of_one_version_the_stronger_kind_or_the_later_touch_is_kept(before, after, kept_kind):
    """A touch adds nothing to a value that is still to be delivered; the last of two touches counts."""
    first, second = hint(kind=before, made_at=1.0), hint(kind=after, made_at=2.0)
    kept = filled(first, second)
    (one,) = kept
    assert one.kind is kept_kind
    if before is after:
        assert one is second


# What goes when there is too much.


def test_over_max_keys_checks_go_first_then_sets_then_deletes():
    """The oldest of each: a delete that is lost shows a value that is gone, a set one that is old, a check perhaps none."""
    hints = [hint(b"%d%d" % (kind, number), kind=kind) for kind in (DELETE, SET, CHECK) for number in range(2)]
    kept = filled(*hints, max_keys=6)
    went = [kept.put(hint(b"new %d" % number, kind=DELETE)) for number in range(6)]
    assert [[one.key for one in gone] for gone in went] == [[b"20"], [b"21"], [b"10"], [b"11"], [b"00"], [b"01"]]
    assert len(kept) == 6


def test_over_max_bytes_the_oldest_sets_become_checks():
    """Values take the room: they go first, and that something was missed is still known."""
    large = [hint(b"%d" % number, data=b"x" * 1000) for number in range(3)]
    limit = sum(one.size for one in large)
    kept = filled(*large, max_bytes=limit)
    assert kept.put(hint(b"new", data=b"x" * 1500)) == large[:2]
    assert [one.key for one in kept] == [b"2", b"new", b"0", b"1"]
    assert kept.get("a", b"0") == as_check(large[0])
    assert kept.size <= limit


def test_when_checks_take_too_much_too_they_go():
    """Without values to drop, the oldest checks go."""
    small = [hint(b"%d" % number, kind=CHECK) for number in range(4)]
    kept = filled(*small, max_bytes=4 * (ENTRY_BYTES + 1))
    assert kept.put(hint(b"5", kind=DELETE)) == [small[0]]
    assert [one.key for one in kept] == [b"5", b"1", b"2", b"3"]


def test_a_value_over_the_whole_limit_is_kept_as_a_check():
    """Only the oldest hint goes."""
    kept = book(max_bytes=1000)
    large = hint(data=b"x" * 2000)
    assert kept.put(large) == [large]
    assert kept.get("a", b"k") == as_check(large)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_keys", 0),
        ("max_keys", 1.5),
        ("max_keys", True),
        ("max_bytes", 0),
        ("max_bytes", "1"),
        ("rate", 0),
        ("rate", -1),
        ("rate", math.nan),
        ("rate", math.inf),
        ("path", ""),
        ("path", b"hints"),
        ("path", 1),
    ],
)
def test_settings_that_make_no_sense_are_refused(name, value):
    """The error names the setting."""
    with pytest.raises(InvalidArgument) as caught:
        Hints(**{name: value})
    assert caught.value.argument == name
    assert "seconds" not in str(caught.value), "none of them is a duration"


# Any history.

hints_ = st.builds(
    hint,
    st.sampled_from([b"a", b"bb", b"ccc", b"dddd"]),
    st.integers(0, 5),
    st.sampled_from(Kind),
    zone=st.sampled_from(["a", "b"]),
    data=st.binary(max_size=300),
    expires_at=st.integers(0, 20) | st.just(math.inf),
)
steps_ = st.lists(
    st.tuples(st.just("put"), hints_)
    | st.tuples(st.just("remove"), st.integers(0, 7))
    | st.tuples(st.just("expire"), st.integers(0, 20)),
    max_size=60,
)


@given(steps_, st.integers(1, 8), st.integers(1, 3000))
def test_after_any_history_it_adds_up(steps, max_keys, max_bytes):
    """The size is the sum of the hints, and the limits hold. Each zone has one hint for a key, in order of age. A dropped hint
    is returned unchanged. The version of a stored key never falls."""
    kept = book(max_keys=max_keys, max_bytes=max_bytes)
    for step, what in steps:
        before = {(one.zone, one.key): one.version for one in kept}
        gone = []
        if step == "put":
            gone = kept.put(what)
        elif step == "expire":
            gone = kept.demote_expired(what)
            assert all(one.expires_at <= what for one in gone)
            assert all(one.kind is not SET or one.expires_at > what for one in kept)
        elif len(kept):
            one = list(kept)[what % len(kept)]
            assert kept.remove(one)
            assert kept.get(one.zone, one.key) is None
        now = list(kept)
        assert kept.size == sum(one.size for one in now) <= max_bytes
        assert len(kept) == len(now) == len({(one.zone, one.key) for one in now}) <= max_keys
        assert +kept.by_zone == Counter(one.zone for one in now)
        assert [one.kind for one in now] == sorted(one.kind for one in now)
        assert all(kept.get(one.zone, one.key) is one for one in now)
        assert all(not any(one is other for other in now) for one in gone)
        assert all(one.version >= before.get((one.zone, one.key), 0) for one in now)
        for key in (b"a", b"bb", b"ccc", b"dddd"):
            assert kept.has_delete(key) == any(one.kind is DELETE and one.key == key for one in now)
