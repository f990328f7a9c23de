"""The book of what waits to be written: coalescing, batches, halves, and what is given up. No loop and no clock."""

import itertools
import math
import operator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evcache import InvalidArgument, StandardCodec
from evcache.write_behind.batch import Batch, PendingWrite, Saved
from evcache.write_behind.buffer import SPLIT_AFTER, Buffer

NOW = 1000.0


def buffer(**options):
    names = itertools.count(1)
    options = {"max_batch": 4, "interval": 1.0, "max_attempts": 3, "new_id": lambda: f"b{next(names)}", **options}
    return Buffer(**options)


def put(book, key, value, now=NOW):
    return book.put(key, value, is_delta=False, now=now)


def add(book, key, delta, now=NOW):
    return book.put(key, delta, is_delta=True, now=now)


def cut(book, now=NOW + 100):
    """The batch to try next, which there must be."""
    tried = book.next(now)
    assert tried is not None
    return tried


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
def test_values_of_one_key_become_one(steps, value, is_delta):
    """The last value, the sum of deltas, or the value that deltas came on top of; and it says which of them it is."""
    book = buffer()
    for step in steps:
        how, what = STEPS[step]
        how(book, "k", what)
    batch = cut(book).batch
    assert dict(batch) == {"k": value}
    assert batch.deltas == ({"k"} if is_delta else set())
    assert book.stats(NOW).coalesced == len(steps) - 1


@pytest.mark.parametrize("delta", [True, "1", None, math.nan, math.inf, [1]])
def test_a_delta_that_is_no_number_is_refused(delta):
    """And what waits stays as it was."""
    book = buffer()
    add(book, "k", 1)
    with pytest.raises(InvalidArgument) as caught:
        add(book, "k", delta)
    assert caught.value.argument == "delta"
    assert book.values() == {"k": 1}


@pytest.mark.parametrize("in_batch", [False, True])
def test_a_delta_on_a_value_that_is_no_number_is_refused(in_batch):
    """Also while the value is being written."""
    book = buffer()
    put(book, "k", {"a": 1})
    if in_batch:
        cut(book)
    with pytest.raises(InvalidArgument, match="is no number"):
        add(book, "k", 1)
    assert book.values() == {"k": {"a": 1}}


def test_deltas_of_another_kind_are_merged_by_their_own_function():
    book = buffer(merge=lambda older, newer: older | newer)
    add(book, "k", {"a"})
    add(book, "k", {"b"})
    cut(book)
    add(book, "k", {"c"})
    assert book.value("k") == {"a", "b", "c"}
    with pytest.raises(TypeError):
        add(book, "k", 7)
    with pytest.raises(TypeError):  # the sum with what is in the batch is looked at, too
        buffer_with_held = buffer(merge=operator.add)
        add(buffer_with_held, "k", 1)
        cut(buffer_with_held)
        add(buffer_with_held, "k", "text")
    assert book.value("k") == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [((put, 1), (put, 2), 2), ((add, 1), (add, 2), 3), ((put, 1), (add, 2), 3), ((add, 1), (put, 2), 2)],
)
def test_what_comes_while_its_key_is_written_waits_for_the_next_batch(first, second, both):
    """The batch does not change, the newer value is in none, and both together are what the source will have."""
    book = buffer()
    first[0](book, "k", first[1])
    under_way = cut(book)
    second[0](book, "k", second[1])
    second[0](book, "other", 9)
    assert dict(under_way.batch) == {"k": first[1]}
    assert book.value("k") == both
    assert len(book) == 2
    book.failed(under_way)
    again = cut(book)
    assert again is under_way  # whole, under its id, before anything else
    assert dict(again.batch) == {"k": first[1]}
    book.wrote(again)
    last = cut(book)
    assert dict(last.batch) == {"other": 9, "k": second[1]}
    assert last.batch.id != under_way.batch.id
    book.wrote(last)
    assert len(book) == 0
    assert book.value("k", "none") == "none"


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
def test_a_batch_is_due_by_size_and_by_time(puts, now, expected):
    """When enough keys wait, or so long after the first value, however new the last one is."""
    book = buffer()
    for key, at in puts:
        put(book, key, 1, at)
    due = book.due_at()
    assert (due is not None and due <= now) == (expected is not None)
    tried = book.next(now)
    assert (tried and set(tried.batch)) == expected


def test_what_stayed_behind_a_batch_is_due_by_its_own_age():
    book = buffer()
    put(book, "k", 1, NOW)
    under_way = cut(book, NOW + 1)
    put(book, "k", 2, NOW + 1)
    put(book, "new", 1, NOW + 5)
    book.wrote(under_way)
    assert book.due_at() == NOW + 2


def test_what_is_demanded_is_due_and_what_comes_later_is_not():
    book = buffer(max_batch=2)
    for key in "abc":
        put(book, key, 1)
    number = book.demand()
    assert book.has_until(number)
    book.wrote(cut(book, NOW))
    book.wrote(cut(book, NOW))
    assert not book.has_until(number)
    put(book, "late", 1)
    assert book.next(NOW) is None


def test_a_put_is_taken_back_unless_it_is_old():
    book = buffer()
    put(book, "k", 1)
    book.take_back(put(book, "k", 2))
    assert book.values() == {"k": 1}
    book.take_back(put(book, "new", 2))
    assert book.values() == {"k": 1}
    old = put(book, "k", 3)
    put(book, "k", 4)
    book.take_back(old)
    assert book.values() == {"k": 4}
    gone = put(book, "k", 5)
    cut(book)
    book.take_back(gone)
    assert book.values() == {"k": 5}
    book.take_back(put(book, "k", 6))
    assert book.values() == {"k": 5}


def test_ids_say_what_a_batch_is_a_half_of():
    assert Batch("b1", {}).ids == ("b1",)
    assert Batch("b1/0/1", {}).ids == ("b1", "b1/0", "b1/0/1")


def work(book, source, tries):
    """So many tries; `source(batch)` returns the keys that it did not write, or None when it failed. What was given up."""
    given_up = {}
    for _ in range(tries):
        tried = book.next(NOW + 100)
        if tried is None:
            break
        unwritten = source(tried.batch)
        if unwritten is None or len(unwritten) == len(tried.batch):
            given_up |= book.failed(tried)
        else:
            book.wrote(tried, unwritten)
    return given_up


def refusing(written, *poison):
    def source(batch):
        if not batch.keys().isdisjoint(poison):
            return None
        for key in batch:
            written[key] = written.get(key, 0) + 1
        return ()

    return source


@pytest.mark.parametrize("poison", [["0"], ["7"], ["0", "7"], ["3", "4"], ["0", "1", "2"]])
def test_what_the_source_never_takes_is_found_and_given_up(poison):
    """It alone: all others are written, once each."""
    book = buffer(max_batch=8)
    for key in map(str, range(8)):
        put(book, key, key)
    written = {}
    given_up = work(book, refusing(written, *poison), 20)
    for number in range(100):  # others, which show that the source works
        put(book, f"more{number}", "")
        given_up |= work(book, refusing(written, *poison), 3)
    assert given_up == {key: key for key in poison}
    assert written == dict.fromkeys({*"01234567", *(f"more{number}" for number in range(100))} - set(poison), 1)
    assert len(book) == 0
    assert book.stats(NOW).given_up == len(poison)


def test_nothing_is_given_up_while_the_source_is_down():
    """However long: what fails when everything does is no fault of its own. Afterwards all is written, in its order."""
    book = buffer()
    for key in map(str, range(20)):
        put(book, key, key)
    assert work(book, lambda _: None, 5000) == {}
    assert len(book) == 20
    written = {}
    assert work(book, refusing(written), 100) == {}
    assert written.keys() == set(map(str, range(20)))


def test_a_batch_is_tried_whole_before_it_is_taken_apart():
    book = buffer()
    for key in "abc":
        put(book, key, key)
    seen = []
    work(book, lambda batch: seen.append((batch.id, "".join(batch))), SPLIT_AFTER + 2)
    assert seen == [("b1", "abc")] * SPLIT_AFTER + [("b1/0", "a"), ("b1/1", "bc")]
    assert book.stats(NOW).splits == 1


def test_others_are_written_between_tries_of_what_fails():
    """One bad entry holds up one batch out of two."""
    book = buffer(max_batch=1, max_attempts=100)
    for key in ["bad", *"abc"]:
        put(book, key, key)
    seen = []

    def source(batch):
        seen.extend(batch)
        return None if "bad" in batch else ()

    work(book, source, SPLIT_AFTER + 6)
    assert seen == ["bad"] * SPLIT_AFTER + ["bad", "a", "bad", "b", "bad", "c"]


def test_what_was_written_since_a_batch_failed_counts_for_its_halves():
    """One of them was, so the first failure of the other is its own."""
    book = buffer(max_batch=2, max_attempts=1)
    put(book, "good", 1)
    put(book, "bad", 2)
    for _ in range(SPLIT_AFTER):
        assert book.failed(cut(book)) == {}
    book.wrote(cut(book))
    assert book.failed(cut(book)) == {"bad": 2}


def test_a_newer_value_of_what_was_given_up_is_tried():
    book = buffer(max_batch=1, max_attempts=1)
    put(book, "k", "bad")
    for number in range(10):
        put(book, f"other{number}", "")

    def source(batch):
        return None if batch.get("k") == "bad" else ()

    work(book, source, 2)
    put(book, "k", "good")
    assert work(book, source, 100) == {"k": "bad"}
    assert len(book) == 0


def test_keys_that_the_writer_names_are_tried_again_under_a_new_id():
    """What was written of a batch is not in it any more, so it is another one; newer values wait for it all the same."""
    book = buffer()
    for key in "abc":
        put(book, key, 1)
    first = cut(book)
    put(book, "a", 2)
    put(book, "b", 2)
    book.wrote(first, ["b"])
    rest = {}
    while (tried := book.next(NOW + 100)) is not None:
        rest[tried.batch.id] = dict(tried.batch)
        book.wrote(tried)
    assert rest == {"b2": {"b": 1}, "b3": {"a": 2, "b": 2}}
    assert list(rest) == ["b2", "b3"]


class Model:
    """A source that fails in every way, and refuses batches that it has applied."""

    def __init__(self):
        self.values = {}
        self.applied = set()

    def apply(self, batch, skip=()):
        if self.applied.isdisjoint(batch.ids):
            self.applied.add(batch.id)
            for key, value in batch.items():
                if key not in skip:
                    self.values[key] = self.values.get(key, 0) + value if key in batch.deltas else value


# What a try does: written; failed before, or after, it was applied; some keys were not written.
HOW = st.sampled_from(["ok", "before", "after", "some"])
KEYS = st.sampled_from(["s0", "s1", "s2", "c0", "c1", "c2"])


@settings(max_examples=400, deadline=None)
@given(st.lists(st.one_of(KEYS, HOW), max_size=80), st.integers(1, 4))
def test_nothing_is_lost_overtaken_or_counted_twice(steps, max_batch):
    """Whatever fails and however: the source ends with the last values and exact sums, if it refuses ids that it knows."""
    rows = {}

    def note(batch, key, entry):
        assert (entry is not None) or (batch, key) in rows
        if entry is None:
            del rows[batch, key]
        else:
            rows[batch, key] = entry

    book, model, expected, shown = buffer(max_batch=max_batch, max_attempts=10**9, note=note), Model(), {}, {}
    for number, step in enumerate(steps, 1):
        if step in ("ok", "before", "after", "some"):
            try_once(book, model, step)
        elif step[0] == "s":
            put(book, step, number)
            expected[step] = number
        else:
            add(book, step, number)
            expected[step] = expected.get(step, 0) + number
        assert {place[1] for place in rows} == set(book.values())  # a file has what the book has
        for key, value in model.values.items():  # a source never goes back
            assert key[0] == "c" or value >= shown.get(key, 0)
            shown[key] = value
    while book.next(NOW + 100) is not None:
        try_once(book, model, "ok")
    assert model.values == expected
    assert rows == {}
    assert len(book) == 0


def try_once(book, model, how):
    tried = book.next(NOW + 100)
    if tried is None:
        return
    if how == "some" and model.applied.isdisjoint(tried.batch.ids) and len(tried.batch) > 1:
        unwritten = sorted(tried.batch)[::2]
        model.apply(tried.batch, unwritten)
        book.wrote(tried, unwritten)
        return
    if how != "before":
        model.apply(tried.batch)
    if how == "ok":
        book.wrote(tried)
    else:
        assert book.failed(tried) == {}


def test_what_a_file_kept_is_taken_over_batches_first():
    """Under their ids, with newer values behind them, and numbers that go on."""
    book = buffer(codec=StandardCodec())
    rows = [("x/0", "a", True, 1, 5), ("", "a", True, 3, 6), ("", "b", False, 2, "text")]
    book.load(
        [Saved(batch, key, delta, number, *StandardCodec().encode(value)) for batch, key, delta, number, value in rows], NOW
    )
    assert book.values() == {"a": 11, "b": "text"}
    first = cut(book, NOW)
    assert (first.batch.id, dict(first.batch), first.batch.deltas) == ("x/0", {"a": 5}, {"a"})
    book.wrote(first)
    assert put(book, "c", 1).entry.number == 4
    assert book.next(NOW) is None  # the others wait their time anew
    assert dict(cut(book, NOW + 1).batch) == {"b": "text", "a": 6, "c": 1}


def test_with_a_file_values_are_what_the_next_process_would_see():
    book = buffer(codec=StandardCodec())
    put(book, "k", (1, 2))
    assert book.value("k") == [1, 2]
    entry = put(book, "k", "x").entry
    assert isinstance(entry, PendingWrite)
    assert StandardCodec().decode(entry.data, entry.flags) == "x"
