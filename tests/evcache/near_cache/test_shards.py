"""No dict and no set of a large near cache is so large that Python takes long to rebuild it."""

import pytest

from evcache.near_cache.s3fifo import SHARDS, Ghosts
from tests.support.near import TTL, Clock, check, discarded, entries_of, make

ENTRIES = 16_000
ALIKE = {
    "at the end": b"user:%d:profile",
    "at the beginning": b"a long prefix of an application:%d",
    "at the end, which is padded": b"%d" + bytes(100),
    "nowhere": b"%016x",
}


def evenly(shards):
    """Whether none has more than half as much again as its share."""
    return max(map(len, shards)) < 1.5 * ENTRIES / SHARDS


@pytest.mark.parametrize("form", ALIKE.values(), ids=ALIKE)
def test_entries_are_spread_whatever_their_keys_have_in_common(form):
    store = make(Clock(), max_entries=ENTRIES)
    for number in range(ENTRIES):
        store.put(form % number, number, 1, TTL)
    assert len(store) == len(entries_of(store)) == ENTRIES
    assert evenly(store._shards)


@pytest.mark.parametrize("form", ALIKE.values(), ids=ALIKE)
def test_ghosts_are_spread_whatever_their_keys_have_in_common(form):
    ghosts = Ghosts()
    for number in range(2 * ENTRIES):
        ghosts.add(form % number, ENTRIES)
    assert len(ghosts) == sum(map(len, ghosts._shards)) == ENTRIES
    assert evenly(ghosts._shards)


def test_what_was_cleared_is_given_back_from_every_shard():
    """Also while others take its place, and when some shards have none."""
    store = make(Clock(), max_entries=ENTRIES)
    for entries in (SHARDS * 10, 3, 0, SHARDS * 10):
        for number in range(entries):
            store.put(b"%d:%d" % (entries, number), number, 1, TTL)
        store.clear()
        check(store, store._settings)
    assert discarded(store) == SHARDS * 10  # those of the last time: puts gave back the others
    while not store.is_empty:
        store.sweep(7)
        check(store, store._settings)
    assert store.stats.cleared == 2 * SHARDS * 10 + 3
