"""How long values live, and what may be done with them: decided by plain functions of times and chance."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evcache.errors import DecodeError
from evcache.load_policy import LoadPolicy
from evcache.read_through.freshness import State, state_of
from evcache.replication.reconcile import ZoneHit
from evcache.values.envelope import Envelope, wrap
from evcache.values.flags import FLAG_ENVELOPE
from evcache.values.lifetime import Lifetime, content_of
from evcache.zones.protocol.replies import Hit

NOW = 1_800_000_000.0
NEVER = 1.0  # a draw that begins nothing early
VERSION_AT_NOW = int(NOW * 1000) << 20


def life(made=NOW, lives=10.0, stale=0.0, took=0.0):
    expires_at = NOW + lives if made is None else made + lives
    return Lifetime(made, expires_at, expires_at + stale, took)


def found(value=b"v", flags=0, ttl=10, version=VERSION_AT_NOW):
    return ZoneHit(Hit(value, flags, 7, ttl, stale=False, leased=False), "a", version)


AGES = [
    # seconds since it was made, policy, what may be done; it lives 10 s
    (0, {}, State.FRESH),
    (7.9, {}, State.FRESH),
    (8, {}, State.REFRESH_DUE),
    (9.9, {}, State.REFRESH_DUE),
    (10, {}, State.EXPIRED),
    (4.9, {"refresh_after": 0.5}, State.FRESH),
    (5, {"refresh_after": 0.5}, State.REFRESH_DUE),
    (0, {"refresh_after": 0}, State.REFRESH_DUE),
    (9.999, {"refresh_after": 1}, State.FRESH),
    (9.999, {"lease": False}, State.FRESH),  # by chance alone, and it took no time to load
    (12.9, {"stale_if_error": 3}, State.STALE_IF_ERROR),
    (13, {"stale_if_error": 3}, State.EXPIRED),
    (8, {"stale_if_error": 3}, State.REFRESH_DUE),
]


@pytest.mark.parametrize(("age", "settings", "state"), AGES)
def test_what_may_be_done_by_age(age, settings, state):
    assert state_of(life(), NOW + age, LoadPolicy(**settings), 10, NEVER) is state


@pytest.mark.parametrize(
    ("age", "settings", "state"),
    [
        (9.9, {}, State.REFRESH_DUE),
        (10, {}, State.STALE),
        (14.9, {}, State.STALE),
        (15, {}, State.EXPIRED),
        (15, {"stale_if_error": 8}, State.STALE_IF_ERROR),
        (18, {"stale_if_error": 8}, State.EXPIRED),
        (10, {"stale_if_error": 8, "stale_while_revalidate": 0}, State.STALE),  # the client that stored it allowed this
    ],
)
def test_a_value_may_say_that_it_is_served_when_out_of_date(age, settings, state):
    """Five seconds, here: what is stored with it counts, whatever the policy of who reads it."""
    assert state_of(life(stale=5.0), NOW + age, LoadPolicy(**settings), 10, NEVER) is state


@pytest.mark.parametrize(("left", "state"), [(3, State.FRESH), (2, State.REFRESH_DUE), (0, State.EXPIRED)])
def test_without_a_birthday_the_ttl_of_the_call_says_how_long_it_was_to_live(left, state):
    """As on servers without versions."""
    assert state_of(life(made=None, lives=left), NOW, LoadPolicy(), 10, NEVER) is state


def test_what_does_not_expire_is_fresh_for_ever():
    endless = Lifetime(NOW, math.inf, math.inf, 5.0)
    for policy in (LoadPolicy(refresh_after=0), LoadPolicy(lease=False, xfetch_beta=1000)):
        assert state_of(endless, NOW + 1e9, policy, math.inf, 1e-300) is State.FRESH


@given(
    draw=st.floats(0, 1, exclude_min=True),
    left=st.floats(0.001, 100),
    took=st.floats(0, 10),
    beta=st.floats(0, 10),
)
def test_early_loads_are_drawn_as_xfetch_says(draw, left, took, beta):
    """When `now - took * beta * ln(draw)` is past its end."""
    state = state_of(life(lives=left, took=took), NOW, LoadPolicy(lease=False, xfetch_beta=beta), 10, draw)
    assert state is (State.REFRESH_DUE if NOW - took * beta * math.log(draw) >= NOW + left else State.FRESH)


def test_nobody_draws_where_there_are_leases():
    assert state_of(life(took=9), NOW + 1, LoadPolicy(refresh_after=1), 10, 1e-300) is State.FRESH


@given(age=st.floats(0, 100), stale=st.floats(0, 20), refresh_after=st.floats(0, 1), stale_if_error=st.floats(0, 20))
def test_states_follow_one_another(age, stale, refresh_after, stale_if_error):
    """A value never gets better by getting older."""
    order = [State.FRESH, State.REFRESH_DUE, State.STALE, State.STALE_IF_ERROR, State.EXPIRED]
    policy = LoadPolicy(refresh_after=refresh_after, stale_if_error=stale_if_error)
    states = [state_of(life(stale=stale), NOW + seconds, policy, 10, NEVER) for seconds in (age, age + 1, age + 7)]
    assert [order.index(state) for state in states] == sorted(order.index(state) for state in states)


def content_of_found(one, read_at, key=b""):
    return content_of(one.hit, one.written_at, read_at, key=key, zone=one.zone)


@pytest.mark.parametrize(
    ("ttl", "version", "expected"),
    [
        (10, VERSION_AT_NOW, Lifetime(NOW, NOW + 12, NOW + 12, 0.0, 1)),
        (10, None, Lifetime(None, NOW + 12, NOW + 12, 0.0, 1)),
        (-1, VERSION_AT_NOW, Lifetime(NOW, math.inf, math.inf, 0.0, 1)),
        (None, VERSION_AT_NOW, Lifetime(NOW, math.inf, math.inf, 0.0, 1)),  # a classic server does not tell
    ],
)
def test_the_life_of_a_plain_value(ttl, version, expected):
    """It was made when its version says, and lives as long as its server does."""
    content = content_of_found(found(ttl=ttl, version=version), NOW + 2)
    assert (content.data, content.flags, content.life, content.zone) == (b"v", 0, expected, "a")


def test_the_life_of_a_value_in_an_envelope():
    """It is what the envelope says, whatever the server."""
    stored = wrap(Envelope(b"v", 5, NOW, NOW + 3, NOW + 6, 0.5))
    content = content_of_found(found(stored, FLAG_ENVELOPE, ttl=99), NOW + 50)
    assert (content.data, content.flags, content.life) == (b"v", 5, Lifetime(NOW, NOW + 3, NOW + 6, 0.5))


def test_an_envelope_that_cannot_be_read_says_which():
    with pytest.raises(DecodeError) as caught:
        content_of_found(found(b"x", FLAG_ENVELOPE), NOW, b"t:k")
    assert (caught.value.key, caught.value.zone, caught.value.flags) == (b"t:k", "a", FLAG_ENVELOPE)


@pytest.mark.parametrize(
    ("ttl", "refresh_after", "due_after"),
    [(100, 0.8, 0.8 * 99), (4, 0.8, 0.8 * 3), (2, 0.5, 0.5), (1, 0.5, 0.25)],
)
@pytest.mark.parametrize("versioned", [True, False])
def test_a_plain_value_is_due_before_its_server_may_let_go_of_it(ttl, refresh_after, due_after, versioned):
    """A server that says "1 second left" means one that has begun: the share is of the life that is left for certain."""
    life = content_of_found(found(b"v", ttl=ttl, version=VERSION_AT_NOW if versioned else None), NOW).life
    policy = LoadPolicy(refresh_after=refresh_after)
    assert state_of(life, NOW + due_after - 0.01, policy, ttl, 1.0) is State.FRESH
    assert state_of(life, NOW + due_after + 0.01, policy, ttl, 1.0) is State.REFRESH_DUE
