"""What the near cache keeps of what was found, in which form, and for how long."""

import dataclasses
import math

import pytest

from evcache import NearCache
from evcache.near_cache.coherence import CoherentNearCache
from evcache.near_cache.entry import UNDECODED
from evcache.near_cache.settings import CHANNEL_TTL_SECONDS, TTL_SECONDS
from evcache.replication.commands.guarded_store import StoreCommand
from evcache.replication.hlc import HybridLogicalClock, cas_of
from evcache.replication.reconcile import ZoneHit
from evcache.values.codec import StandardCodec
from evcache.values.envelope import Envelope, wrap
from evcache.values.flags import FLAG_ABSENT, FLAG_ENVELOPE, FLAG_TOMBSTONE
from evcache.values.ttl import to_exptime
from evcache.zones.protocol.replies import Hit
from tests.support.near import WALL, Clock, entry_of

KEY = b"ns:key"
VERSIONS = HybridLogicalClock(writer=1, wall_ms=lambda: 1_800_000_000_000)
CODEC = StandardCodec()


@pytest.fixture
def clock():
    return Clock()


def near_of(clock, has_channel=False, **settings):
    return CoherentNearCache(NearCache(**settings), clock, unix_time=clock.wall, has_channel=has_channel, sweeps=False)


def found(value=b"v", version=None, ttl=100, flags=0, stale=False, leased=False):
    return ZoneHit(Hit(value, flags, 5 if version is None else cas_of(version), ttl, stale, leased), "eu-1a", version)


def fetch(near, item):
    near.complete(near.begin_fetch(KEY), item)


def seconds_kept(near, clock, limit=1000.0):
    """For how long what is kept is served, to a tenth of a second."""
    begin = clock.now
    while entry_of(near, KEY) is not None and clock.now < begin + limit:
        clock.now += 0.1
    return round(clock.now - begin, 1)


# The longest that anything is kept.


@pytest.mark.parametrize(
    ("ttl", "has_channel", "while_up", "while_down"),
    [
        (None, True, CHANNEL_TTL_SECONDS, TTL_SECONDS),
        (1.0, True, 1.0, 1.0),
        (30.0, True, 30.0, TTL_SECONDS),
        (300.0, True, 300.0, TTL_SECONDS),
        (None, False, None, TTL_SECONDS),
        (1.0, False, None, 1.0),
        (300.0, False, None, 300.0),
    ],
)
def test_the_near_ttl_follows_the_channel(clock, ttl, has_channel, while_up, while_down):
    """With a channel, the user relies on it, so the setting is limited while it is down. Without one, the setting applies."""
    near = near_of(clock, has_channel, ttl=ttl)
    fetch(near, found(ttl=-1))
    assert seconds_kept(near, clock) == pytest.approx(while_down, abs=0.2), "before it is up"
    if while_up is None:
        return
    near.set_channel_up(True)
    fetch(near, found(ttl=-1))
    assert seconds_kept(near, clock) == pytest.approx(while_up, abs=0.2)
    near.set_channel_up(False)
    fetch(near, found(ttl=-1))
    assert seconds_kept(near, clock) == pytest.approx(while_down, abs=0.2)


def test_a_lost_channel_drops_entries_with_a_longer_ttl(clock):
    """And nothing is kept for a while: in between, anything may have been written."""
    near = near_of(clock, has_channel=True)
    near.set_channel_up(True)
    fetch(near, found(ttl=-1))
    token = near.begin_fetch(KEY)
    near.set_channel_up(False)
    near.invalidate_all()
    assert entry_of(near, KEY) is None
    near.complete(token, found())
    assert entry_of(near, KEY) is None, "the fetch began before"
    fetch(near, found(version=VERSIONS.tick()))
    assert entry_of(near, KEY) is None, "blocked"
    assert near._fetches == {}
    clock.now += 5.0
    fetch(near, found())
    assert seconds_kept(near, clock) == pytest.approx(TTL_SECONDS, abs=0.2)


@pytest.mark.parametrize("callers", [1, 3])
def test_fetches_from_before_a_gap_are_not_stored(clock, callers):
    """Each caller ends its own fetch, beside a fetch that began later."""
    near = near_of(clock)
    old = [near.begin_fetch(KEY) for _ in range(callers)]
    near.invalidate_all()
    clock.now += 5.0
    new = near.begin_fetch(KEY)
    assert new not in old
    for token in old:
        near.complete(token, found(b"old"))
    assert entry_of(near, KEY) is None
    near.complete(new, found(b"new"))
    assert entry_of(near, KEY).data == b"new"
    assert near._fetches == {}


# What is kept.


@pytest.mark.parametrize(
    "item",
    [
        None,
        found(ttl=None),
        found(leased=True),
        found(stale=True),
        found(flags=FLAG_ENVELOPE, value=b"cut"),
        found(ttl=1),
    ],
    ids=["nothing", "no ttl", "a lease's stub", "a stale item", "no envelope", "a last second"],
)
def test_items_that_are_not_stored(clock, item):
    near = near_of(clock)
    fetch(near, item)
    assert entry_of(near, KEY) is None
    assert near._fetches == {}


@pytest.mark.parametrize("flags", [FLAG_ABSENT, FLAG_TOMBSTONE])
def test_absences_are_stored_as_absences(clock, flags):
    near = near_of(clock)
    fetch(near, found(b"", VERSIONS.tick(), flags=flags))
    kept = entry_of(near, KEY)
    assert not kept.is_value
    assert kept.flags == flags
    near = near_of(clock, negative_share=0)
    fetch(near, found(b"", VERSIONS.tick(), flags=flags))
    assert entry_of(near, KEY) is None


@pytest.mark.parametrize("ttl", [math.inf, 5, 31 * 24 * 3600])
def test_an_own_write_is_stored_for_its_ttl(clock, ttl):
    """The TTL is a number of seconds, a date, or none."""
    near = near_of(clock, ttl=60)
    store = StoreCommand(VERSIONS, KEY, b"v", 0, ttl=to_exptime(ttl, clock.wall()), version=VERSIONS.tick())
    near.complete_write(KEY, store, "eu-1a", 0.0)
    assert seconds_kept(near, clock) == pytest.approx(min(60, ttl - 1), abs=0.2)


def test_an_entry_from_the_time_of_an_own_write_is_dropped_at_its_end(clock):
    """The write took longer than the grace time, and its own value is not stored, because all keys are blocked."""
    near = near_of(clock, ttl=60, has_channel=True)
    old, new = VERSIONS.tick(), VERSIONS.tick()
    near.set_channel_up(True)
    near.begin_write(KEY, new)
    clock.now += 6.0
    fetch(near, found(b"old", old))
    assert entry_of(near, KEY).data == b"old"
    near._fences._all_blocked_until = clock.now + 1.0  # as after too many fences
    near.complete_write(KEY, StoreCommand(VERSIONS, KEY, b"new", 0, ttl=100, version=new), "eu-1a", 0.0)
    assert entry_of(near, KEY) is None


# In which form.


SHARED = [0, 1, -(2**40), True, False, None, "", "abc", b"", b"abc", b"\xff" * 1000, "x" * 1000, 1.5, "äö€"]
NOT_SHARED = [{"a": 1}, [1], (1, 2), bytearray(b"x"), "ö" * 1000, "ö" + "x" * 1000]


@dataclasses.dataclass(frozen=True)
class Frozen:
    number: int = 1


def kept_of(near, value):
    data, flags = CODEC.encode(value) if not isinstance(value, Frozen | bytearray) else (b"any", 0)
    fetch(near, found(data, VERSIONS.tick(), flags=flags))
    kept = entry_of(near, KEY)
    near.store_decoded(kept, value)
    return kept


@pytest.mark.parametrize("value", SHARED, ids=lambda value: repr(value)[:20])
def test_immutable_values_are_stored_decoded(clock, value):
    """The bytes go: it is one or the other."""
    kept = kept_of(near_of(clock), value)
    assert kept.value is value
    assert kept.data is None
    assert kept.is_value


@pytest.mark.parametrize("value", NOT_SHARED, ids=lambda value: repr(value)[:20])
def test_other_values_are_stored_as_bytes(clock, value):
    """And so are large texts beyond ASCII, which take up to four times as much in memory."""
    kept = kept_of(near_of(clock), value)
    assert kept.value is UNDECODED
    assert kept.data


def test_declared_types_are_shared_and_their_subclasses_are_not(clock):
    class Loose(Frozen):
        pass

    near = near_of(clock, immutable=(Frozen, tuple))
    value = Frozen(7)
    assert kept_of(near, value).value is value
    assert kept_of(near, Loose(7)).value is UNDECODED
    assert kept_of(near, (1, [2])).value == (1, [2])


# Envelopes.


def envelope(clock, made=0.0, fresh=10.0, stale=10.0, data=b"inner", flags=0):
    now = clock.wall()
    return wrap(Envelope(data, flags, now + made, now + fresh, now + stale, 0.1))


@pytest.mark.parametrize(("fresh", "ttl", "kept"), [(10, 100, 10), (10, -1, 10), (100, 100, 60), (100, 30, 29), (0, 100, 0)])
def test_a_value_in_an_envelope_is_served_until_it_expires(clock, fresh, ttl, kept):
    """Though its server keeps it for longer; and no longer than anything else."""
    near = near_of(clock, ttl=60)
    fetch(near, found(envelope(clock, fresh=fresh, stale=fresh + 1000), VERSIONS.tick(), ttl, FLAG_ENVELOPE))
    if kept:
        assert entry_of(near, KEY).data == b"inner"
        assert entry_of(near, KEY).flags == 0
    assert seconds_kept(near, clock) == pytest.approx(kept, abs=0.2)


# Revalidation.


def large(clock, version, ttl=100):
    fetch(near := near_of(clock, revalidate_over=10_000), found(b"x" * 20_000, version, ttl))
    return near


def test_a_large_value_is_renewed_for_as_long_as_it_lives(clock):
    version = VERSIONS.tick()
    near = large(clock, version)
    kept = entry_of(near, KEY)
    clock.now += TTL_SECONDS
    assert entry_of(near, KEY) is None
    assert near.expired_entry(KEY) is kept
    token = near.begin_fetch(KEY)
    assert near.renew(token, kept, 2)
    near.abandon(token)
    assert entry_of(near, KEY) is kept
    assert near.seconds_left(kept) == 1
    assert seconds_kept(near, clock) == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("left", [-1, 100])
def test_a_renewed_value_has_its_remaining_ttl(clock, left):
    near = large(clock, VERSIONS.tick())
    kept = entry_of(near, KEY)
    clock.now += TTL_SECONDS
    assert near.renew(near.begin_fetch(KEY), kept, left)
    assert near.seconds_left(kept) == (None if left < 0 else 99)
    assert kept.life.expires_at == (math.inf if left < 0 else clock.wall() + left)


def invalidated(near, token, kept):
    near.invalidate(KEY, None)


def invalidated_by_a_gap(near, token, kept):
    near.invalidate_all()


def fenced(near, token, kept):
    near._fences.raise_to(KEY, kept.version + 1, near._clock())


def blocked(near, token, kept):
    near._fences.raise_to(KEY, None, near._clock())


def replaced(near, token, kept):
    fetch(near, found(b"y" * 20_000, VERSIONS.tick()))


def last_second(near, token, kept):
    return 1


@pytest.mark.parametrize("what", [invalidated, invalidated_by_a_gap, fenced, blocked, replaced, last_second])
def test_entries_that_are_not_renewed(clock, what):
    """It has to be read: the zone that still has it may lack what came since."""
    near = large(clock, VERSIONS.tick())
    kept = entry_of(near, KEY)
    clock.now += TTL_SECONDS
    token = near.begin_fetch(KEY)
    left = what(near, token, kept)
    assert not near.renew(token, kept, left or 100)
    near.abandon(token)
    assert entry_of(near, KEY) is not kept


@pytest.mark.parametrize("version", [None, VERSIONS.tick()])
@pytest.mark.parametrize("size", [100, 20_000])
@pytest.mark.parametrize("limit", [None, 10_000, 0])
def test_only_large_values_with_a_version_are_revalidated(clock, version, size, limit):
    near = near_of(clock, revalidate_over=limit)
    fetch(near, found(b"x" * size, version))
    clock.now += TTL_SECONDS
    worth = version is not None and limit is not None and size >= limit
    assert (near.expired_entry(KEY) is not None) == worth


@pytest.mark.parametrize("stale", [10.0, 500.0], ids=["not served stale", "served stale"])
def test_an_expired_envelope_is_not_renewed(clock, stale):
    """For when it can't be loaded, or while it is: that is not for plain reads."""
    near = near_of(clock, revalidate_over=0)
    data = envelope(clock, fresh=10.0, stale=stale, data=b"x" * 100)
    fetch(near, found(data, VERSIONS.tick(), 1000, FLAG_ENVELOPE))
    kept = entry_of(near, KEY)
    clock.now += 9.0
    assert near.renew(near.begin_fetch(KEY), kept, 991)
    assert kept.life.expires_at - WALL == pytest.approx(10.0, abs=0.01)
    assert seconds_kept(near, clock) == pytest.approx(1.0, abs=0.2)
    clock.now += 5.0
    assert not near.renew(near.begin_fetch(KEY), kept, 985)
    assert entry_of(near, KEY) is None


# Hot keys.


def test_own_writes_are_stored_without_hot_reads(clock):
    """Own writes are kept at once: they cost nothing more."""
    near = near_of(clock, hot_reads=3)
    for _ in range(2):
        fetch(near, found(version=VERSIONS.tick()))
        assert entry_of(near, KEY) is None
    fetch(near, found(version=VERSIONS.tick()))
    assert entry_of(near, KEY) is not None
    near.drop(KEY)
    clock.now += 10
    fetch(near, found(version=VERSIONS.tick()))
    assert entry_of(near, KEY) is None
    near.complete_write(KEY, StoreCommand(VERSIONS, KEY, b"v", 0, ttl=100, version=VERSIONS.tick()), "eu-1a", 0.0)
    assert entry_of(near, KEY) is not None


def test_failed_and_invalidated_fetches_are_not_counted(clock):
    near = near_of(clock, hot_reads=2)
    near.abandon(near.begin_fetch(KEY))
    near.complete(near.begin_fetch(KEY), None)
    token = near.begin_fetch(KEY)
    near.invalidate(KEY, 1)
    near.complete(token, found())
    fetch(near, found(version=VERSIONS.tick()))
    assert entry_of(near, KEY) is None
