"""The nodes of keys, on each core: the first word of MD5, and the first point at or behind it."""

from array import array
from bisect import bisect_left
from hashlib import md5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cores import CORES

each_core = pytest.mark.parametrize("core", CORES, ids=lambda core: core.name)
words = st.integers(0, 2**32 - 1)


def first_word(key):
    return int.from_bytes(md5(key, usedforsecurity=False).digest()[:4], "little")


@each_core
@pytest.mark.parametrize("size", [0, 1, 54, 55, 56, 57, 63, 64, 65, 119, 120, 121, 127, 128, 129, 250])
def test_the_position_is_the_first_word_of_md5_for_each_length_of_the_last_block(core, size):
    assert is_at(core, (bytes(range(33, 33 + 90)) * 3)[:size])


@each_core
@given(st.binary(max_size=300))
def test_the_position_of_any_key(core, key):
    assert is_at(core, key)


def is_at(core, key):
    """Return True if the core finds the key at exactly the first word of its MD5."""
    word = first_word(key)
    points = sorted({(word - 1) % 2**32, word, (word + 1) % 2**32})
    return core.group_by_owner([key], ["k"], array("I", points), array("I", range(3))) == {
        points.index(word): ([key], ["k"])
    }


@each_core
@given(st.lists(st.binary(max_size=20), max_size=20), st.lists(words, min_size=1, max_size=8, unique=True).map(sorted))
def test_each_key_goes_to_the_first_point_at_or_behind_it(core, keys, points):
    owners = [point % 3 for point in points]
    groups = core.group_by_owner(keys, range(len(keys)), array("I", points), array("I", owners))
    expected = {}
    for number, key in enumerate(keys):
        some, numbers = expected.setdefault(owners[bisect_left(points, first_word(key)) % len(owners)], ([], []))
        some.append(key)
        numbers.append(number)
    assert list(groups.items()) == list(expected.items())


@each_core
@pytest.mark.parametrize("key", ["k", None, 1])
def test_a_key_is_bytes(core, key):
    with pytest.raises(TypeError):
        core.group_by_owner([key], [key], array("I", [1]), array("I", [0]))


@each_core
@pytest.mark.parametrize("given", [[], ["a"], ["a", "b", "c"]])
def test_each_key_has_one_item(core, given):
    with pytest.raises(ValueError):
        core.group_by_owner([b"k", b"l"], given, array("I", [1]), array("I", [0]))
