"""Pending writes of the buffer: coalescing, due times and undo, without a loop or a clock."""

import math
import operator

import pytest

from evcache import InvalidArgument, StandardCodec
from evcache.write_behind.batch import PendingWrite, SavedWrite
from tests.support.write_behind_buffer import NOW, add, make_buffer, next_batch, put

STEPS = {"set 1": (put, 1), "set 5": (put, 5), "add 2": (add, 2), "add 3": (add, 3)}


@pytest.mark.parametrize(
    ("steps", "value", "is_delta"),
    [
        (["set 1", "set 5"], 5, False),
        (["add 2", "add 3"], 5, True),
        (["set 1", "add 2"], 3, False),
        (["set 1", "add 2", "add 3"], 6, False),
        (["add 2", "set 1"], 1, False),
        (["add 2", "set 1", "add 3"], 4, False),
    ],
)
def test_values_of_one_key_are_coalesced(steps, value, is_delta):
    """The batch holds the last value, the sum of deltas, or a value with deltas added, and says if it is a delta."""
    buffer = make_buffer()
    for step in steps:
        how, what = STEPS[step]
        how(buffer, "k", what)
    batch = next_batch(buffer).batch
    assert dict(batch) == {"k": value}
    assert batch.deltas == ({"k"} if is_delta else set())
    assert buffer.stats(NOW).coalesced == len(steps) - 1


@pytest.mark.parametrize("delta", [True, "1", None, math.nan, math.inf, [1]])
def test_delta_that_is_not_a_number_is_refused(delta):
    """The pending value is unchanged."""
    buffer = make_buffer()
    add(buffer, "k", 1)
    with pytest.raises(InvalidArgument) as caught:
        add(buffer, "k", delta)
    assert caught.value.argument == "delta"
    assert buffer.values() == {"k": 1}


@pytest.mark.parametrize("in_batch", [False, True])
def test_delta_on_a_value_that_is_not_a_number_is_refused(in_batch):
    buffer = make_buffer()
    put(buffer, "k", {"a": 1})
    if in_batch:
        next_batch(buffer)
    with pytest.raises(InvalidArgument, match="is not a number"):
        add(buffer, "k", 1)
    assert buffer.values() == {"k": {"a": 1}}


def test_deltas_of_another_type_use_the_merge_function():
    buffer = make_buffer(merge=lambda older, newer: older | newer)
    add(buffer, "k", {"a"})
    add(buffer, "k", {"b"})
    next_batch(buffer)
    add(buffer, "k", {"c"})
    assert buffer.value("k") == {"a", "b", "c"}
    with pytest.raises(TypeError):
        add(buffer, "k", 7)
    with pytest.raises(TypeError):  # the merge with the batched value is checked too
        other = make_buffer(merge=operator.add)
        add(other, "k", 1)
        next_batch(other)
        add(other, "k", "text")
    assert buffer.value("k") == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [((put, 1), (put, 2), 2), ((add, 1), (add, 2), 3), ((put, 1), (add, 2), 3), ((add, 1), (put, 2), 2)],
)
def test_newer_value_of_a_batched_key_waits_for_the_next_batch(first, second, both):
    buffer = make_buffer()
    first[0](buffer, "k", first[1])
    under_way = next_batch(buffer)
    second[0](buffer, "k", second[1])
    second[0](buffer, "other", 9)
    assert dict(under_way.batch) == {"k": first[1]}
    assert buffer.value("k") == both
    assert len(buffer) == 2
    buffer.failed(under_way)
    again = next_batch(buffer)
    assert again is under_way  # unchanged, under its id, before any other batch
    assert dict(again.batch) == {"k": first[1]}
    buffer.succeeded(again)
    last = next_batch(buffer)
    assert dict(last.batch) == {"other": 9, "k": second[1]}
    assert last.batch.id != under_way.batch.id
    buffer.succeeded(last)
    assert len(buffer) == 0
    assert buffer.value("k", "none") == "none"


@pytest.mark.parametrize(
    ("puts", "now", "expected"),
    [
        ([], NOW + 100, None),
        ([("a", NOW)], NOW + 0.99, None),
        ([("a", NOW)], NOW + 1, {"a"}),
        ([("a", NOW), ("a", NOW + 0.9)], NOW + 1, {"a"}),
        ([("a", NOW), ("b", NOW + 0.9)], NOW + 1, {"a", "b"}),
        ([(key, NOW) for key in "abcd"], NOW, set("abcd")),
        ([(key, NOW) for key in "abc"], NOW, None),
        ([(key, NOW) for key in "abcdef"], NOW, set("abcd")),
    ],
)
def test_batch_is_due_by_size_and_by_time(puts, now, expected):
    """A batch is due with enough keys, or one interval after its first value."""
    buffer = make_buffer()
    for key, at in puts:
        put(buffer, key, 1, at)
    due = buffer.due_at()
    assert (due is not None and due <= now) == (expected is not None)
    tried = buffer.next_batch(now)
    assert (tried and set(tried.batch)) == expected


def test_newer_value_after_its_batch_is_due_by_its_own_age():
    buffer = make_buffer()
    put(buffer, "k", 1, NOW)
    under_way = next_batch(buffer, NOW + 1)
    put(buffer, "k", 2, NOW + 1)
    put(buffer, "new", 1, NOW + 5)
    buffer.succeeded(under_way)
    assert buffer.due_at() == NOW + 2


def test_flush_all_makes_present_writes_due_and_later_ones_not():
    buffer = make_buffer(max_batch=2)
    for key in "abc":
        put(buffer, key, 1)
    number = buffer.flush_all()
    assert buffer.has_writes_up_to(number)
    buffer.succeeded(next_batch(buffer, NOW))
    buffer.succeeded(next_batch(buffer, NOW))
    assert not buffer.has_writes_up_to(number)
    put(buffer, "late", 1)
    assert buffer.next_batch(NOW) is None


def test_undo_removes_a_put_unless_it_is_replaced_or_batched():
    buffer = make_buffer()
    put(buffer, "k", 1)
    buffer.undo(put(buffer, "k", 2))
    assert buffer.values() == {"k": 1}
    buffer.undo(put(buffer, "new", 2))
    assert buffer.values() == {"k": 1}
    old = put(buffer, "k", 3)
    put(buffer, "k", 4)
    buffer.undo(old)
    assert buffer.values() == {"k": 4}
    gone = put(buffer, "k", 5)
    next_batch(buffer)
    buffer.undo(gone)
    assert buffer.values() == {"k": 5}
    buffer.undo(put(buffer, "k", 6))
    assert buffer.values() == {"k": 5}


def test_loaded_batches_come_before_loaded_writes():
    """Batches keep their ids, newer values wait behind them, and sequence numbers continue."""
    buffer = make_buffer(codec=StandardCodec())
    rows = [("x/0", "a", True, 1, 5), ("", "a", True, 3, 6), ("", "b", False, 2, "text")]
    buffer.load(
        [SavedWrite(batch, key, delta, number, *StandardCodec().encode(value)) for batch, key, delta, number, value in rows],
        NOW,
    )
    assert buffer.values() == {"a": 11, "b": "text"}
    first = next_batch(buffer, NOW)
    assert (first.batch.id, dict(first.batch), first.batch.deltas) == ("x/0", {"a": 5}, {"a"})
    buffer.succeeded(first)
    assert put(buffer, "c", 1).entry.number == 4
    assert buffer.next_batch(NOW) is None  # the interval of the others starts again
    assert dict(next_batch(buffer, NOW + 1).batch) == {"b": "text", "a": 6, "c": 1}


def test_value_with_a_codec_is_its_decoded_form():
    buffer = make_buffer(codec=StandardCodec())
    put(buffer, "k", (1, 2))
    assert buffer.value("k") == [1, 2]
    entry = put(buffer, "k", "x").entry
    assert isinstance(entry, PendingWrite)
    assert StandardCodec().decode(entry.data, entry.flags) == "x"
