"""Outbox: one change for each key, consecutive numbers, and a gap where changes were dropped."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evcache.invalidation.messages import MAX_CHANGES, MAX_KEY_BYTES, MAX_MESSAGE_BYTES, MAX_VERSION, Kind, encode
from evcache.invalidation.outbox import MAX_PENDING, Outbox
from evcache.zones.errors import InvalidArgument

KEYS = st.sampled_from([b"a", b"b", b"c"])
VERSIONS = st.none() | st.integers(0, 4)


def batches(outbox):
    """All that waits, as messages."""
    found = []
    while (batch := outbox.take_batch()) is not None:
        found.append(batch)
    return found


def effect(changes):
    """What receivers do about each key: the floor below which nothing is kept, and whether what is held goes anyway."""
    result = {}
    for key, version in changes:
        floor, drop = result.get(key, (0, False))
        known = version is not None
        floor = None if floor is None or not known else max(floor, version)
        result[key] = (floor, drop or not version)
    return result


@pytest.mark.parametrize(
    ("published", "sent"),
    [
        ([5], {5}),
        ([5, 7], {7}),
        ([7, 5], {7}),
        ([5, None], {None}),
        ([None, 5], {None}),
        ([0, None], {None}),
        ([None, 0], {None}),
        ([0, 0], {0}),
        ([0, 5], {0, 5}),
        ([5, 0], {0, 5}),
        ([5, 0, 6, 0], {0, 6}),
        ([5, 0, None, 7, 0], {None}),
    ],
)
def test_changes_of_one_key_that_wait_become_one(published, sent):
    """The newest wins, unknown is unknown, and a touch is not swallowed by a write."""
    outbox = Outbox()
    for version in published:
        assert outbox.add(b"k", version)
    (batch,) = batches(outbox)
    assert {version for _, version in batch.changes} == sent
    assert len(batch.changes) == len(sent)
    assert {key for key, _ in batch.changes} == {b"k"}


@given(st.lists(st.tuples(KEYS, VERSIONS), max_size=30), st.data())
def test_merged_changes_have_the_effect_of_single_ones(published, data):
    """For any order of merging and sending, receivers do the same about each key. The exception is a block of all versions,
    which covers the rest. Numbers are consecutive."""
    outbox = Outbox()
    sent = []
    for key, version in published:
        assert outbox.add(key, version)
        if data.draw(st.booleans()):
            sent += batches(outbox)
    sent += batches(outbox)
    assert [batch.number for batch in sent] == list(range(1, len(sent) + 1))
    wanted, said = effect(published), effect([change for batch in sent for change in batch.changes])
    assert wanted.keys() == said.keys()
    for key, (floor, drop) in wanted.items():
        assert said[key] == ((None, True) if floor is None else (floor, drop))


def test_messages_are_bounded():
    """In changes and in bytes, and nothing is lost between them."""
    outbox = Outbox()
    keys = [b"%04d" % number + bytes(number % 240) for number in range(MAX_CHANGES * 2 + 7)]
    for number, key in enumerate(keys):
        outbox.add(key, number % 3 or None)
    messages = batches(outbox)
    assert len(outbox) == 0
    assert [key for message in messages for key, _ in message.changes] == keys
    assert all(len(message.changes) <= MAX_CHANGES and len(encode(message)) <= MAX_MESSAGE_BYTES for message in messages)

    long = [bytes([number]) * MAX_KEY_BYTES for number in range(9)]
    for key in long:
        outbox.add(key, MAX_VERSION)
    messages = batches(outbox)
    assert [key for message in messages for key, _ in message.changes] == long
    assert [len(message.changes) for message in messages] == [3, 3, 3]
    assert all(len(encode(message)) <= MAX_MESSAGE_BYTES for message in messages)


@pytest.mark.parametrize("version", [7, 0, None])
def test_an_overflow_drops_changes_and_skips_a_number(version):
    """All waiting changes are dropped, once. A later change has a number that shows the gap."""
    outbox = Outbox(limit=3)
    outbox.add(b"first", 1)
    assert outbox.take_batch().number == 1
    for key in (b"a", b"b", b"c"):
        assert outbox.add(key, version)
    assert outbox.add(b"a", version)  # takes no more room
    assert not outbox.add(b"d", version)
    assert len(outbox) == 1
    (batch,) = batches(outbox)
    assert (batch.number, [key for key, _ in batch.changes]) == (3, [b"d"])
    outbox.add(b"e", 1)
    assert outbox.take_batch().number == 4


@given(st.integers(1, 5), st.lists(st.tuples(st.integers(0, 20), VERSIONS), max_size=60))
def test_waiting_changes_are_bounded(limit, published):
    """For any number of keys. A key with a version and a 0 takes two slots."""
    outbox = Outbox(limit)
    for number, version in published:
        outbox.add(b"%d" % number, version)
        assert len(outbox) <= limit + 1


def test_a_skipped_number_outlives_the_end_of_a_session():
    """What was dropped while the last BYE was on its way is missed by the next spell's receivers."""
    outbox = Outbox(limit=1)
    outbox.add(b"a", 1)
    outbox.take_batch()
    outbox.add(b"b", 1)
    outbox.add(b"c", 1)
    outbox.end_session()
    assert outbox.take_batch().number == 2


def test_each_session_has_an_id():
    """And numbers from 1; all of them are known as own, and those of another client are not."""
    outbox, other = Outbox(), Outbox()
    seen = []
    for _ in range(3):
        outbox.add(b"k", 1)
        batch = outbox.take_batch()
        heartbeat, bye = outbox.heartbeat(), outbox.bye()
        assert (batch.kind, heartbeat.kind, bye.kind) == (Kind.CHANGES, Kind.HEARTBEAT, Kind.BYE)
        assert batch.number == heartbeat.number == bye.number == 1
        assert batch.publisher == heartbeat.publisher == bye.publisher == outbox.publisher
        assert outbox.is_own(outbox.publisher)
        assert not other.is_own(outbox.publisher)
        seen.append(outbox.publisher)
        outbox.end_session()
        assert outbox.number == 0
    assert len(set(seen)) == 3


def test_ids_stay_within_64_bits():
    outbox = Outbox(process=2**48 - 1)
    for _ in range(2**16 + 1):
        outbox.end_session()
    outbox.add(b"k", 1)
    encode(outbox.take_batch())
    assert outbox.is_own(outbox.publisher)


@pytest.mark.parametrize(
    ("key", "version", "argument"),
    [(bytes(MAX_KEY_BYTES + 1), 1, "key"), (b"k", -1, "version"), (b"k", MAX_VERSION + 1, "version")],
)
def test_a_change_that_cannot_be_sent_is_refused_at_once(key, version, argument):
    """The caller gets the error, and not the task that sends."""
    outbox = Outbox()
    with pytest.raises(InvalidArgument) as raised:
        outbox.add(key, version)
    assert raised.value.argument == argument
    assert len(outbox) == 0


def test_the_default_limit_allows_many_changes():
    outbox = Outbox()
    assert all(outbox.add(b"%d" % number, 1) for number in range(MAX_PENDING))
    assert not outbox.add(b"one more", 1)
