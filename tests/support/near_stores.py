"""Stores of a near cache, with a clock that the tests move, and what must hold of them at any time."""

from evcache.near_cache.settings import NearCache
from evcache.near_cache.store import NearStore

TTL = 60.0  # seconds
WALL = 1_800_000_000.0  # unix time when a clock begins


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def wall(self):
        """Return the unix time."""
        return WALL + self.now - 1000.0


def make(clock, max_entries=100, max_bytes=2**30, ttl=TTL, negative_share=0.1, on_remove=None):
    return NearStore(NearCache(max_bytes, max_entries, ttl, negative_share), clock, on_remove)


def entries_of(store):
    """By key, expired ones too."""
    return {key: entry for shard in store._shards for key, entry in shard.items()}


def discarded(store):
    """How many entries were cleared and not given back yet."""
    return sum(map(len, store._discarded))


def entry_of(near, key):
    """Return the item of a key in a near cache, or None."""
    entry = near.look_up(key)
    return None if entry is None else entry.value


def keys_of(queue):
    """From the oldest to the newest."""
    found = []
    entry = queue._end.newer
    while entry is not queue._end:
        assert entry.newer.older is entry
        found.append(entry.key)
        entry = entry.newer
    return found


def check(store, settings_):
    """What holds after every call."""
    entries = entries_of(store)
    queues = [store._values.small, store._values.main, store._absences]
    for queue in queues:
        keys = keys_of(queue)
        assert queue.count == len(keys)
        assert queue.bytes == sum(entries[key].size for key in keys)
        assert all(entries[key].queue is queue for key in keys)
    assert sum(queue.count for queue in queues) == len(store) <= settings_.max_entries
    assert store.bytes == sum(entry.size for entry in entries.values())
    assert store.bytes + store._discarded_bytes <= settings_.max_bytes
    assert store._absences.count <= settings_.max_entries * settings_.negative_share
    assert store._absences.bytes <= settings_.max_bytes * settings_.negative_share
    assert store.stats.insertions == len(store) + store.stats.removals
    left = [entry for shard in store._discarded for entry in shard.values()]
    assert store._discarded_bytes == sum(entry.size for entry in left)
    assert all(store._discarded)
    assert store.is_empty is (not entries and not left)
