"""Options of a call: its arguments, or else the client's defaults."""

import math
from datetime import timedelta

import pytest

from evcache import Consistency, InvalidArgument
from evcache.options import Defaults

GOOD = {
    "read_consistency": "one",
    "write_consistency": Consistency.ALL,
    "read_timeout": 0.1,
    "write_timeout": 2,
    "ttl": 60,
    "fallback_on_miss": True,
    "errors": "raise",
    "ordering": "newest",
}
DEFAULTS = Defaults(**GOOD)


def shown(options):
    return options.consistency, options.timeout, options.errors


def test_calls_that_say_nothing_get_the_clients_options():
    """Reads and writes have options of their own."""
    assert shown(DEFAULTS.read(None, None, None)) == (Consistency.ONE, 0.1, "raise")
    assert shown(DEFAULTS.write(None, None, None)) == (Consistency.ALL, 2.0, "raise")
    assert DEFAULTS.ttl(None) == 60
    assert DEFAULTS.read(None, None, None).fallback_on_miss is True
    assert DEFAULTS.newest_wins(None) is True


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (("all", None, None), (Consistency.ALL, 0.1, "raise")),
        ((None, 5, None), (Consistency.ONE, 5.0, "raise")),
        ((None, None, "miss"), (Consistency.ONE, 0.1, "miss")),
        ((Consistency.NONE, 0.5, "raise"), (Consistency.NONE, 0.5, "raise")),
    ],
)
def test_argument_of_a_call_replaces_the_default(said, expected):
    """Each option is replaced on its own."""
    assert shown(DEFAULTS.read(*said)) == expected


def test_call_may_pass_options_without_a_default():
    """The other options that calls have."""
    assert DEFAULTS.ttl(timedelta(minutes=1)) == 60
    assert DEFAULTS.ttl(math.inf) == math.inf
    assert DEFAULTS.read(None, None, None, fallback_on_miss=False).fallback_on_miss is False
    assert DEFAULTS.newest_wins("arrival") is False
    assert Defaults(**GOOD | {"ordering": "arrival"}).newest_wins(None) is False
    assert Defaults(**GOOD | {"ordering": "arrival"}).newest_wins("newest") is True
    assert Defaults(**GOOD | {"fallback_on_miss": False}).read("all", 2, None).fallback_on_miss is False
    assert Defaults(**GOOD | {"errors": "miss"}).read(None, None, "raise").errors == "raise"


@pytest.mark.parametrize("consistency", Consistency)
def test_which_policies_one_zone_can_answer(consistency):
    """Reads at `NONE` and `ONE` ask one zone after the other, and all others ask several at once."""
    options = DEFAULTS.read(consistency, None, None)
    assert options.one_answer is (consistency in {Consistency.NONE, Consistency.ONE})


BAD_TIMEOUTS = [0, -1, math.nan, math.inf, True, "1", timedelta(seconds=1), b"1"]


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *(("read_timeout", value) for value in [*BAD_TIMEOUTS, None]),
        *(("write_timeout", value) for value in [*BAD_TIMEOUTS, None]),
        ("read_consistency", "most"),
        ("write_consistency", None),
        ("ttl", 0),
        ("ttl", math.nan),
        ("errors", "ignore"),
        ("errors", None),
        ("errors", ["raise"]),
        ("ordering", "latest"),
    ],
)
def test_invalid_default_is_refused(argument, value):
    """The error names the argument of the constructor."""
    with pytest.raises(InvalidArgument) as caught:
        Defaults(**GOOD | {argument: value})
    assert caught.value.argument == argument


@pytest.mark.parametrize("side", ["read", "write"])
@pytest.mark.parametrize(
    ("said", "argument"),
    [
        *(((None, value, None), "timeout") for value in BAD_TIMEOUTS),
        (("some", None, None), "consistency"),
        ((3, None, None), "consistency"),
        ((None, None, "hide"), "errors"),
    ],
)
def test_invalid_option_of_a_call_is_refused(side, said, argument):
    """The error names the argument of the call."""
    with pytest.raises(InvalidArgument) as caught:
        getattr(DEFAULTS, side)(*said)
    assert caught.value.argument == argument


def test_other_orderings_are_refused():
    """The error names `ordering`."""
    with pytest.raises(InvalidArgument) as caught:
        DEFAULTS.newest_wins("random")
    assert caught.value.argument == "ordering"
