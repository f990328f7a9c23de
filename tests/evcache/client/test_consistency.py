"""Number of zones that each consistency level requires."""

import pytest

from evcache import Consistency, InvalidArgument

REQUIRED = {
    # zones: 1, 2, 3, 4, 5
    Consistency.NONE: (0, 0, 0, 0, 0),
    Consistency.ONE: (1, 1, 1, 1, 1),
    Consistency.QUORUM: (1, 2, 2, 3, 3),
    Consistency.ALL_MINUS_ONE: (1, 1, 2, 3, 4),
    Consistency.ALL: (1, 2, 3, 4, 5),
}


@pytest.mark.parametrize("consistency", Consistency)
@pytest.mark.parametrize("zones", range(1, 6))
def test_required(consistency, zones):
    """The table above."""
    assert consistency.required(zones) == REQUIRED[consistency][zones - 1]


@pytest.mark.parametrize("zones", range(1, 50))
def test_two_quorums_meet(zones):
    """A quorum read and a quorum write have a zone in common, and a quorum is no more than that needs."""
    quorum = Consistency.QUORUM.required(zones)
    assert 2 * quorum > zones
    assert 2 * (quorum - 1) <= zones


@pytest.mark.parametrize("member", Consistency)
def test_names_are_members(member):
    """A policy may be given as its name, in any case."""
    assert member == member.name.lower()
    assert Consistency.parse(member) is member
    assert Consistency.parse(member.value) is member
    assert Consistency.parse(member.value.upper()) is member


@pytest.mark.parametrize("value", ["", "two", "all ", "all-minus-one", b"all", 1, None, 1.0, ["all"]])
def test_other_names_are_refused_with_those_that_there_are(value):
    """The error names the argument and lists the policies."""
    with pytest.raises(InvalidArgument, match="'quorum'") as caught:
        Consistency.parse(value, "write_consistency")
    assert caught.value.argument == "write_consistency"
