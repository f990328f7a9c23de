"""The versions that a client remembers: which are known, forgotten, or never forgotten."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evcache.replication.seen_versions import REMEMBERED_KEYS, SeenVersions, known_version

KEYS = st.sampled_from([b"a", b"b", b"c", b"d", b"e"])
VERSIONS = st.integers(1, 9)


def filled(limit, keys):
    """Return a memory with version 5 of keys 0, 1, 2 and so on, noted in this order."""
    remembered = SeenVersions(limit)
    note_others(remembered, keys)
    return remembered


def note_others(remembered, keys):
    for number in range(keys):
        remembered.note(b"%d" % number, 5)


def test_the_latest_version_noted_is_known():
    """The order in which versions are noted does not matter."""
    remembered = SeenVersions()
    assert remembered.latest(b"k") == 0
    for version, newest in [(5, 5), (4, 5), (5, 5), (6, 6), (5, 6)]:
        remembered.note(b"k", version)
        assert remembered.latest(b"k") == newest
    assert remembered.latest(b"another") == 0


@given(st.lists(st.tuples(KEYS, VERSIONS), max_size=60))
def test_under_the_limit_every_key_is_remembered(noted):
    remembered = SeenVersions(limit=5)
    model = {}
    for key, version in noted:
        remembered.note(key, version)
        model[key] = max(version, model.get(key, 0))
        assert {key: remembered.latest(key) for key in model} == model
        assert len(remembered) == len(model)


@given(st.integers(0, 4), st.lists(st.tuples(st.integers(0, 30), VERSIONS), max_size=120))
def test_over_the_limit_the_memory_is_bounded_and_true(limit, noted):
    """At most two generations remain. The version of a key never falls while it is known, and is never higher than noted."""
    remembered = SeenVersions(limit)
    model = {}
    for number, version in noted:
        key = b"%d" % number
        known = remembered.latest(key)
        remembered.note(key, version)
        model[key] = max(version, model.get(key, 0))
        assert len(remembered) <= 2 * limit
        assert remembered.latest(key) == (max(known, version) if limit else 0)
        assert all(remembered.latest(other) <= best for other, best in model.items())


PINS = st.lists(st.tuples(st.sampled_from(["note", "pin", "unpin"]), KEYS, VERSIONS), max_size=80)


@given(st.integers(0, 2), PINS)
def test_a_pinned_key_keeps_its_version_after_any_steps(limit, steps):
    """Pins alone exceed the limit."""
    remembered = SeenVersions(limit)
    pins = {}
    for step, key, version in steps:
        if step == "note":
            remembered.note(key, version)
        elif step == "pin":
            remembered.pin(key, version)
            pins[key] = max(version, pins.get(key, 0))
        else:
            remembered.unpin(key)
            pins.pop(key, None)
        assert all(remembered.latest(key) >= version for key, version in pins.items())
        assert len(remembered) <= 2 * limit + len(pins)


def test_a_key_that_is_not_used_is_forgotten():
    """After two generations of other keys."""
    remembered = filled(3, 1)
    for number in range(1, 7):
        assert remembered.latest(b"0") == 5
        remembered.note(b"%d" % number, 5)
    assert remembered.latest(b"0") == 0
    remembered.note(b"0", 1)
    assert remembered.latest(b"0") == 1


def test_a_key_in_use_is_kept():
    """A key that is noted repeatedly, in an old version too, outlives any number of others."""
    remembered = filled(3, 1)
    for number in range(1, 1000):
        remembered.note(b"0", 4)
        remembered.note(b"%d" % number, 5)
    assert remembered.latest(b"0") == 5


def test_a_pinned_version_is_not_forgotten_until_it_is_unpinned():
    remembered = SeenVersions(3)
    remembered.pin(b"k", 5)
    note_others(remembered, 100)
    assert remembered.latest(b"k") == 5
    remembered.note(b"k", 4)
    assert remembered.latest(b"k") == 5
    remembered.note(b"k", 6)
    assert remembered.latest(b"k") == 6
    remembered.unpin(b"k")
    assert remembered.latest(b"k") == 6
    note_others(remembered, 100)
    assert remembered.latest(b"k") == 0


def test_a_limit_of_0_remembers_pins_only():
    remembered = SeenVersions(0)
    remembered.note(b"k", 5)
    assert remembered.latest(b"k") == 0
    remembered.pin(b"k", 5)
    remembered.note(b"k", 6)
    assert remembered.latest(b"k") == 5
    remembered.unpin(b"k")
    assert (remembered.latest(b"k"), len(remembered)) == (0, 0)


def test_unpin_of_a_key_without_a_pin_does_nothing():
    remembered = filled(3, 2)
    remembered.unpin(b"0")
    remembered.unpin(b"nothing")
    assert remembered.latest(b"0") == 5


@pytest.mark.parametrize("keys", [REMEMBERED_KEYS, 5 * REMEMBERED_KEYS])
def test_the_default_limit_bounds_two_generations(keys):
    assert len(filled(REMEMBERED_KEYS, keys)) <= 2 * REMEMBERED_KEYS


# Versions from invalidation messages of other clients.


def test_a_version_from_a_peer_is_known():
    """The latest version counts, in any order, as for versions that the client read."""
    remembered = SeenVersions()
    for step, version, newest in [
        ("note_from_peer", 5, 5),
        ("note_from_peer", 4, 5),
        ("note", 4, 5),
        ("note", 6, 6),
        ("note_from_peer", 7, 7),
        ("note_from_peer", 6, 7),
    ]:
        getattr(remembered, step)(b"k", version)
        assert remembered.latest(b"k") == newest
        assert remembered.latest_of_each([b"k", b"other"]) == {b"k": newest, b"other": 0}
        assert [known_version(cas) for cas in remembered.cas_of_each([b"k", b"other"])] == [newest, 0]
    assert len(remembered) == 1


def test_a_read_of_an_older_version_does_not_hide_the_one_from_a_peer():
    """`recall` looks into the young generation alone."""
    remembered = SeenVersions()
    remembered.note_from_peer(b"k", 5)
    remembered.note(b"k", 3)
    assert remembered.recall(b"k") == 5


@pytest.mark.parametrize("messages", [100, 5_000])
def test_versions_from_peers_never_evict_own_ones(messages):
    """Of either generation. The versions from peers have a bound of their own."""
    remembered = filled(50, 75)
    known = {key: remembered.latest(key) for key in (b"%d" % number for number in range(75))}
    assert set(known.values()) == {5}
    for number in range(messages):
        remembered.note_from_peer(b"other:%d" % number, 9)
    assert {key: remembered.latest(key) for key in known} == known
    assert len(remembered) <= 75 + 2 * 50
    assert remembered.latest(b"other:%d" % (messages - 50)) == 9


def test_a_version_from_a_peer_of_a_known_key_takes_no_room():
    """It replaces the version in the generation that holds the key."""
    remembered = filled(3, 5)
    for number in range(5):
        remembered.note_from_peer(b"%d" % number, 8)
    assert [remembered.latest(b"%d" % number) for number in range(5)] == [8] * 5
    assert len(remembered) == 5
    assert not remembered._peers


def test_a_limit_of_0_remembers_nothing_from_peers():
    remembered = SeenVersions(0)
    remembered.note_from_peer(b"k", 5)
    assert (remembered.latest(b"k"), len(remembered)) == (0, 0)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["note", "note_from_peer", "pin", "unpin"]), st.integers(0, 12).map(lambda n: b"%d" % n), VERSIONS
    ),
    max_size=120,
)


@given(st.integers(0, 4), STEPS)
def test_with_peers_the_memory_is_bounded_and_true(limit, steps):
    """A version from a peer never lowers the one known, and nothing is known that was not noted."""
    remembered = SeenVersions(limit)
    model = {}
    pins = set()
    for step, key, version in steps:
        known = remembered.latest(key)
        if step == "unpin":
            remembered.unpin(key)
            pins.discard(key)
            continue
        getattr(remembered, step)(key, version)
        model[key] = max(version, model.get(key, 0))
        if step == "pin":
            pins.add(key)
        if limit:
            assert remembered.latest(key) == max(known, version)
        assert all(remembered.latest(other) <= best for other, best in model.items())
        assert len(remembered) <= 4 * limit + len(pins)
