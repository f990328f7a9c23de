"""Checks of `LoadPolicy` and `Loaded`. An error names the field."""

import dataclasses
import math

import pytest

from evcache import InvalidArgument
from evcache.load_policy import Loaded, LoadPolicy


def test_the_defaults():
    """Part of what is promised: nothing is served after its `ttl` unless one says so."""
    assert dataclasses.asdict(LoadPolicy()) == {
        "refresh_after": 0.8,
        "stale_while_revalidate": 0,
        "stale_if_error": 0,
        "failure_backoff": 30,
        "negative_ttl": 10,
        "jitter": 0.1,
        "lease": True,
        "lease_seconds": 10,
        "lease_wait": 2,
        "xfetch_beta": 1.0,
        "soft_timeout": None,
        "hard_timeout": 10,
        "load_timeout": 30,
    }
    assert LoadPolicy().max_staleness == 0


BAD = {
    "refresh_after": [-0.1, 1.1, math.nan, math.inf, True, "0.8", None],
    "jitter": [-0.1, 1.1, math.nan, True, "0.1", None],
    "stale_while_revalidate": [-1, math.nan, math.inf, True, "1", None],
    "stale_if_error": [-1, math.nan, math.inf, True, "1", None],
    "failure_backoff": [-1, math.nan, math.inf, True, "1", None],
    "negative_ttl": [-1, math.nan, math.inf, True, "1", None],
    "lease": [None, 1, 0, "yes"],
    "lease_seconds": [0, -1, math.nan, math.inf, True, "10", None],
    "lease_wait": [-1, math.nan, math.inf, True, "2", None],
    "xfetch_beta": [-1, math.nan, math.inf, True, "1", None],
    "soft_timeout": [0, -1, math.nan, math.inf, True, "1"],
    "hard_timeout": [0, -1, math.nan, math.inf, True, "1", None],
    "load_timeout": [0, -1, math.nan, math.inf, True, "1", None],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_invalid_field_is_refused_by_name(name, value):
    with pytest.raises(InvalidArgument) as caught:
        LoadPolicy(**{name: value})
    assert caught.value.argument == name


def test_every_setting_is_checked():
    assert set(BAD) == {field.name for field in dataclasses.fields(LoadPolicy)}


@pytest.mark.parametrize(
    "settings",
    [
        {"refresh_after": 1},
        {"jitter": 0},
        {"refresh_after": 0, "jitter": 1},
        {
            "stale_while_revalidate": 0,
            "stale_if_error": 0,
            "failure_backoff": 0,
            "negative_ttl": 0,
            "lease_wait": 0,
            "xfetch_beta": 0,
        },
        {"soft_timeout": 0.001, "hard_timeout": 0.001, "load_timeout": 0.001},
        {"lease": False},
    ],
)
def test_edge_values_are_accepted(settings):
    policy = LoadPolicy(**settings)
    assert {name: getattr(policy, name) for name in settings} == settings


@pytest.mark.parametrize(("seconds", "whole"), [(0.1, 2), (1, 2), (2, 2), (2.1, 3), (10, 10), (10.5, 11)])
def test_leases_are_of_whole_seconds(seconds, whole):
    """Two at least: a server's clock ticks once a second, so one second may be none."""
    assert LoadPolicy(lease_seconds=seconds).whole_lease_seconds == whole


@pytest.mark.parametrize(
    ("stale_while_revalidate", "stale_if_error", "kept"), [(0, 0, 0), (5, 0, 5), (0, 7, 7), (5, 7, 7), (7, 5, 7)]
)
def test_an_item_is_kept_for_the_longer_of_the_two(stale_while_revalidate, stale_if_error, kept):
    assert LoadPolicy(stale_while_revalidate=stale_while_revalidate, stale_if_error=stale_if_error).max_staleness == kept


@pytest.mark.parametrize("ttl", [-1, math.nan, True, "10", b"10"])
def test_a_time_to_live_that_cannot_be_meant_is_refused(ttl):
    with pytest.raises(InvalidArgument) as caught:
        Loaded(1, ttl=ttl)
    assert caught.value.argument == "ttl"


@pytest.mark.parametrize("ttl", [None, 0, 0.5, 10, math.inf])
def test_a_time_to_live_is_taken(ttl):
    """0 disables storing, and infinity disables expiry."""
    assert Loaded(1, ttl=ttl).ttl == ttl
