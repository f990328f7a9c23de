"""What is not kept for a while: by tables, by number, and against a model that forgets nothing."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evcache.near_cache.version_fences import VersionFences

GRACE = 5.0
KEY, OTHER = b"k", b"other"
T = 1000.0


@pytest.mark.parametrize(
    ("puts", "allowed", "refused"),
    [
        ([], [None, 1, 9], []),
        ([7], [7, 8], [None, 1, 6]),
        ([7, 9, 8], [9, 10], [None, 7, 8]),
        ([None], [], [None, 1, 10**18]),
        ([7, None], [], [None, 7, 8]),
        ([None, 7], [], [None, 7, 8]),
        ([None, None], [], [None, 7]),
    ],
)
def test_versions_that_fences_admit(puts, allowed, refused):
    """At once and until the grace is over; then everything. Other keys are not concerned."""
    fences = VersionFences(GRACE)
    for version in puts:
        fences.raise_to(KEY, version, T)
    for now in (T, T + GRACE - 0.001):
        assert [version for version in allowed if not fences.admits(KEY, version, now)] == []
        assert [version for version in refused if fences.admits(KEY, version, now)] == []
    assert all(fences.admits(OTHER, version, T) for version in (None, 1))
    assert all(fences.admits(KEY, version, T + GRACE) for version in (None, *allowed, *refused))


def test_an_older_version_does_not_lower_a_fence():
    fences = VersionFences(GRACE)
    fences.raise_to(KEY, 9, T)
    fences.raise_to(KEY, 7, T + 1)
    assert not fences.admits(KEY, 8, T + 4.9)
    assert fences.admits(KEY, 9, T + 4.9)


def test_a_block_ends_before_a_later_fence():
    fences = VersionFences(GRACE)
    fences.raise_to(KEY, None, T)
    fences.raise_to(KEY, 7, T + 3)
    assert not fences.admits(KEY, 7, T + 4.9)
    assert fences.admits(KEY, 7, T + 5)
    assert not fences.admits(KEY, 6, T + 7.9)
    assert fences.admits(KEY, 6, T + 8)


def test_an_ended_fence_does_not_return_with_the_next():
    """After its grace time, a fence for a version that never arrived has no effect."""
    fences = VersionFences(GRACE)
    for number in range(20):  # of which not all are given back at once
        fences.raise_to(b"%d" % number, 1, T)
    fences.raise_to(KEY, 9, T)
    fences.raise_to(KEY, 7, T + GRACE)
    assert fences.admits(KEY, 7, T + GRACE)
    assert not fences.admits(KEY, 6, T + GRACE)


# Writes of this client's.


def test_a_block_of_an_own_write_ends_with_unblock():
    fences = VersionFences(GRACE)
    token = fences.block(KEY, T)
    assert not fences.admits(KEY, 10**18, T + 1)
    fences.unblock(KEY, token)
    assert fences.admits(KEY, None, T + 1)


def test_a_block_without_unblock_ends_after_the_grace_time():
    fences = VersionFences(GRACE)
    fences.block(KEY, T)
    assert not fences.admits(KEY, 1, T + GRACE - 0.001)
    assert fences.admits(KEY, 1, T + GRACE)


@pytest.mark.parametrize("heard_first", [True, False])
def test_an_own_write_does_not_lift_what_was_announced(heard_first):
    """Another client's write of an unknown version, and one of ours that turned out to write nothing."""
    fences = VersionFences(GRACE)
    if heard_first:
        fences.raise_to(KEY, None, T)
    token = fences.block(KEY, T + 1)
    if not heard_first:
        fences.raise_to(KEY, None, T + 1)
    fences.unblock(KEY, token)
    assert not fences.admits(KEY, 5, T + 4)
    assert fences.admits(KEY, 5, T + 6)


@pytest.mark.parametrize("apart", [0.0, 1.0], ids=["same moment", "apart"])
@pytest.mark.parametrize("first_ends_first", [True, False])
def test_two_own_writes_are_lifted_one_by_one(apart, first_ends_first):
    """A clock may tick seldom: two that began in the same moment are still two."""
    fences = VersionFences(GRACE)
    tokens = [fences.block(KEY, T), fences.block(KEY, T + apart)]
    if not first_ends_first:
        tokens.reverse()
    fences.unblock(KEY, tokens[0])
    assert not fences.admits(KEY, 1, T + 1)
    fences.unblock(KEY, tokens[1])
    assert fences.admits(KEY, 1, T + 1)


def test_lifting_leaves_the_floor():
    fences = VersionFences(GRACE)
    fences.raise_to(KEY, 7, T)
    fences.unblock(KEY, fences.block(KEY, T))
    assert not fences.admits(KEY, 6, T)
    assert fences.admits(KEY, 7, T)


def test_lifting_what_is_not_there_does_nothing():
    fences = VersionFences(GRACE)
    fences.unblock(KEY, T + GRACE)
    fences.raise_to(KEY, None, T)
    fences.unblock(KEY, 0.0)
    fences.unblock(KEY, T + GRACE)
    assert not fences.admits(KEY, 1, T)


# Bounds.


def test_over_the_limit_nothing_is_kept_until_the_forgotten_floor_would_have_ended():
    fences = VersionFences(GRACE, limit=2)
    for number, key in enumerate((b"a", b"b", b"c")):
        fences.raise_to(key, 7, T + number)
    assert len(fences) == 2
    for key in (b"a", b"b", b"c", OTHER):
        assert not fences.admits(key, 10**18, T + GRACE - 0.001)
    assert fences.admits(b"a", None, T + GRACE)  # its time is over, with or without the limit
    assert not fences.admits(b"b", 6, T + GRACE)
    assert fences.admits(b"b", 6, T + 1 + GRACE)


def test_floors_that_are_used_again_are_not_the_ones_to_go():
    fences = VersionFences(GRACE, limit=2)
    fences.raise_to(b"a", 7, T)
    fences.raise_to(b"b", 7, T + 1)
    fences.raise_to(b"a", 8, T + 2)
    fences.raise_to(b"c", 7, T + 3)  # b goes
    assert not fences.admits(OTHER, 1, T + 1 + GRACE - 0.001)
    assert fences.admits(OTHER, 1, T + 1 + GRACE)
    assert not fences.admits(b"a", 7, T + 2 + GRACE - 0.001)


def test_a_floor_that_has_ended_goes_without_a_hold_off():
    fences = VersionFences(GRACE, limit=1)
    fences.raise_to(b"a", 7, T)
    fences.raise_to(b"b", 7, T + GRACE)
    assert fences.admits(OTHER, 1, T + GRACE)


def test_ended_floors_are_given_back_as_others_come():
    fences = VersionFences(GRACE)
    for number in range(1000):
        fences.raise_to(b"%d" % number, 1, T)
    assert len(fences) == 1000
    for number in range(300):
        fences.raise_to(b"later %d" % number, 1, T + GRACE)
    assert len(fences) == 300


def test_starting_again_keeps_nothing_for_the_whole_grace():
    """All keys are blocked, also those without a fence. Later fences apply again."""
    fences = VersionFences(GRACE)
    fences.raise_to(KEY, 7, T)
    fences.block_all(T + 1)
    assert len(fences) == 0
    fences.raise_to(OTHER, 7, T + 2)
    for key in (KEY, OTHER, b"third"):
        assert not fences.admits(key, 10**18, T + 1 + GRACE - 0.001)
    assert fences.admits(KEY, 1, T + 1 + GRACE)
    assert not fences.admits(OTHER, 6, T + 1 + GRACE)


def test_starting_again_covers_own_writes_that_are_under_way():
    fences = VersionFences(GRACE)
    token = fences.block(KEY, T)
    fences.block_all(T)
    fences.unblock(KEY, token)
    assert not fences.admits(KEY, 1, T + GRACE - 0.001)


class Model:
    """Record of every invalidation and own write, without a limit."""

    def __init__(self):
        self.rules = []  # key (None: all), least version (None: nothing), end
        self.held = {}  # token: (key, end)

    def refuses(self, key, version, now):
        rules = [rule for rule in self.rules if rule[0] in (None, key) and now < rule[2]]
        rules += [(key, None, end) for held, end in self.held.values() if held == key and now < end]
        return any(least is None or version is None or version < least for _, least, _ in rules)


KEYS = st.sampled_from([b"a", b"b", b"c"])
VERSIONS = st.none() | st.integers(1, 9)
STEPS = st.one_of(
    st.tuples(st.just("put"), KEYS, VERSIONS),
    st.tuples(st.just("hold"), KEYS),
    st.tuples(st.just("lift"), st.integers(0, 5)),
    st.tuples(st.just("start again")),
    st.tuples(st.just("pass"), st.sampled_from([0.0, 0.5, 2.0, GRACE])),
)


@given(st.lists(STEPS, max_size=40), st.sampled_from([1, 2, 3, 100]))
def test_nothing_is_kept_that_a_model_without_bounds_refuses(steps, limit):
    """For any limit. A grace time after the last step, all versions are admitted."""
    fences, model, now = VersionFences(GRACE, limit), Model(), T
    tokens = []
    last = -math.inf
    for kind, *arguments in steps:
        match kind:
            case "put":
                fences.raise_to(*arguments, now)
                model.rules.append((*arguments, now + GRACE))
                last = now
            case "hold":
                tokens.append((len(model.held), arguments[0], fences.block(arguments[0], now)))
                model.held[len(model.held)] = (arguments[0], now + GRACE)
                last = now
            case "lift" if arguments[0] < len(tokens):
                name, key, token = tokens.pop(arguments[0])
                fences.unblock(key, token)
                model.held[name] = (key, -math.inf)
            case "start again":
                fences.block_all(now)
                model.rules.append((None, None, now + GRACE))
                last = now
            case "pass":
                now += arguments[0]
        assert len(fences) <= limit
        for key in (b"a", b"b", b"c"):
            for version in (None, *range(1, 11)):
                if fences.admits(key, version, now):
                    assert not model.refuses(key, version, now)
                else:
                    assert now < last + GRACE
                    # If no fence was dropped, only a block of all versions refuses the latest version.
                    assert version != 10 or limit < 3 or model.refuses(key, version, now)
