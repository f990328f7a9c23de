"""Batches of the buffer: repeated, split and given up, without a loop or a clock."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evcache.write_behind.batch import Batch
from evcache.write_behind.buffer import SPLIT_AFTER
from tests.support.write_behind_buffer import NOW, add, make_buffer, next_batch, put


def test_ids_of_a_half_contain_the_ids_of_its_batches():
    assert Batch("b1", {}).ids == ("b1",)
    assert Batch("b1/0/1", {}).ids == ("b1", "b1/0", "b1/0/1")


def work(buffer, source, tries):
    """Try up to `tries` batches and return the values that the buffer gave up.

    `source(batch)` returns the keys that it did not write, or None for a failure.
    """
    given_up = {}
    for _ in range(tries):
        tried = buffer.next_batch(NOW + 100)
        if tried is None:
            break
        unwritten = source(tried.batch)
        if unwritten is None or len(unwritten) == len(tried.batch):
            given_up |= buffer.failed(tried)
        else:
            buffer.succeeded(tried, unwritten)
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
def test_entry_that_the_source_never_accepts_is_given_up(poison):
    """The source receives all other keys exactly once."""
    buffer = make_buffer(max_batch=8)
    for key in map(str, range(8)):
        put(buffer, key, key)
    written = {}
    given_up = work(buffer, refusing(written, *poison), 20)
    for number in range(100):  # other keys show that the source works
        put(buffer, f"more{number}", "")
        given_up |= work(buffer, refusing(written, *poison), 3)
    assert given_up == {key: key for key in poison}
    assert written == dict.fromkeys({*"01234567", *(f"more{number}" for number in range(100))} - set(poison), 1)
    assert len(buffer) == 0
    assert buffer.stats(NOW).given_up == len(poison)


def test_nothing_is_given_up_while_the_source_is_down():
    buffer = make_buffer()
    for key in map(str, range(20)):
        put(buffer, key, key)
    assert work(buffer, lambda _: None, 5000) == {}
    assert len(buffer) == 20
    written = {}
    assert work(buffer, refusing(written), 100) == {}
    assert written.keys() == set(map(str, range(20)))


def test_batch_is_repeated_whole_before_it_is_split():
    buffer = make_buffer()
    for key in "abc":
        put(buffer, key, key)
    seen = []
    work(buffer, lambda batch: seen.append((batch.id, "".join(batch))), SPLIT_AFTER + 2)
    assert seen == [("b1", "abc")] * SPLIT_AFTER + [("b1/0", "a"), ("b1/1", "bc")]
    assert buffer.stats(NOW).splits == 1


def test_other_keys_are_written_between_attempts_of_a_suspect():
    """An entry that always fails takes every second attempt."""
    buffer = make_buffer(max_batch=1, max_attempts=100)
    for key in ["bad", *"abc"]:
        put(buffer, key, key)
    seen = []

    def source(batch):
        seen.extend(batch)
        return None if "bad" in batch else ()

    work(buffer, source, SPLIT_AFTER + 6)
    assert seen == ["bad"] * SPLIT_AFTER + ["bad", "a", "bad", "b", "bad", "c"]


def test_success_since_the_failure_of_a_batch_counts_for_its_halves():
    """The first half succeeded, so the first failure of the second half counts."""
    buffer = make_buffer(max_batch=2, max_attempts=1)
    put(buffer, "good", 1)
    put(buffer, "bad", 2)
    for _ in range(SPLIT_AFTER):
        assert buffer.failed(next_batch(buffer)) == {}
    buffer.succeeded(next_batch(buffer))
    assert buffer.failed(next_batch(buffer)) == {"bad": 2}


def test_newer_value_of_a_given_up_key_is_written():
    buffer = make_buffer(max_batch=1, max_attempts=1)
    put(buffer, "k", "bad")
    for number in range(10):
        put(buffer, f"other{number}", "")

    def source(batch):
        return None if batch.get("k") == "bad" else ()

    work(buffer, source, 2)
    put(buffer, "k", "good")
    assert work(buffer, source, 100) == {"k": "bad"}
    assert len(buffer) == 0


def test_unwritten_keys_are_repeated_under_a_new_id():
    """The rest of the batch has other content and so another id. Newer values of its keys wait for it."""
    buffer = make_buffer()
    for key in "abc":
        put(buffer, key, 1)
    first = next_batch(buffer)
    put(buffer, "a", 2)
    put(buffer, "b", 2)
    buffer.succeeded(first, ["b"])
    rest = {}
    while (tried := buffer.next_batch(NOW + 100)) is not None:
        rest[tried.batch.id] = dict(tried.batch)
        buffer.succeeded(tried)
    assert rest == {"b2": {"b": 1}, "b3": {"a": 2, "b": 2}}
    assert list(rest) == ["b2", "b3"]


class Model:
    """A source that fails in each possible way, and ignores batches that it has applied."""

    def __init__(self):
        self.values = {}
        self.applied = set()

    def apply(self, batch, skip=()):
        if self.applied.isdisjoint(batch.ids):
            self.applied.add(batch.id)
            for key, value in batch.items():
                if key not in skip:
                    self.values[key] = self.values.get(key, 0) + value if key in batch.deltas else value


# Outcomes of an attempt: success; failure before or after the source applied it; some keys unwritten.
HOW = st.sampled_from(["ok", "before", "after", "some"])
KEYS = st.sampled_from(["s0", "s1", "s2", "c0", "c1", "c2"])


@settings(max_examples=400, deadline=None)
@given(st.lists(st.one_of(KEYS, HOW), max_size=80), st.integers(1, 4))
def test_no_value_is_lost_overtaken_or_applied_twice(steps, max_batch):
    """After any sequence of failures the source holds the last values and exact sums, if it ignores known ids."""
    rows = {}

    def record(batch, key, entry):
        assert (entry is not None) or (batch, key) in rows
        if entry is None:
            del rows[batch, key]
        else:
            rows[batch, key] = entry

    buffer, model, expected, shown = make_buffer(max_batch=max_batch, max_attempts=10**9, on_change=record), Model(), {}, {}
    for number, step in enumerate(steps, 1):
        if step in ("ok", "before", "after", "some"):
            try_once(buffer, model, step)
        elif step[0] == "s":
            put(buffer, step, number)
            expected[step] = number
        else:
            add(buffer, step, number)
            expected[step] = expected.get(step, 0) + number
        assert {place[1] for place in rows} == set(buffer.values())  # the journal holds the keys of the buffer
        for key, value in model.values.items():  # the source never returns to an older value
            assert key[0] == "c" or value >= shown.get(key, 0)
            shown[key] = value
    while buffer.next_batch(NOW + 100) is not None:
        try_once(buffer, model, "ok")
    assert model.values == expected
    assert rows == {}
    assert len(buffer) == 0


def try_once(buffer, model, how):
    tried = buffer.next_batch(NOW + 100)
    if tried is None:
        return
    if how == "some" and model.applied.isdisjoint(tried.batch.ids) and len(tried.batch) > 1:
        unwritten = sorted(tried.batch)[::2]
        model.apply(tried.batch, unwritten)
        buffer.succeeded(tried, unwritten)
        return
    if how != "before":
        model.apply(tried.batch)
    if how == "ok":
        buffer.succeeded(tried)
    else:
        assert buffer.failed(tried) == {}
