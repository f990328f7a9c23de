"""Judgement of what the zones hold under one key, in tables."""

import pytest

from evcache.admin.key.report import Agreement, Relation, ZoneRoles, answer_of, judge_key
from evcache.replication.hlc import HybridLogicalClock, cas_of
from evcache.replication.reconcile import ZoneHit
from evcache.values.flags import FLAG_TOMBSTONE
from evcache.zones.errors import NodeTimeout, ServerError
from evcache.zones.nodes.capabilities import Capabilities
from evcache.zones.protocol.replies import Hit, Reply

NOW = 1_800_000_000.0
LATE = NodeTimeout("no reply in time", "n")
NEW = Capabilities("1.6.38", explicit_cas=True, cas=True)
OLD = Capabilities("1.6.18", explicit_cas=False, cas=True)

SAME, OLDER, NEWER = Relation.SAME_VERSION, Relation.OLDER, Relation.NEWER
EQUAL, OTHER, MISSING = Relation.SAME_VALUE, Relation.OTHER_VALUE, Relation.MISSING
NOTHING, UNKNOWN = Relation.NOTHING, Relation.UNKNOWN

NO_VERSIONS = "its server keeps no versions"
NO_VERSION = "the item has no version"
NEVER_REPLACED = "an item without a version is never replaced"


def item(value, version=None, *, flags=0, ttl=100):
    """Return an answer without its zone, which `judge` adds."""
    return lambda zone: ZoneHit(Hit(value, flags, 0, ttl, stale=False, leased=False), zone, version)


V1, V2, V3 = item(b"1", 1), item(b"2", 2), item(b"3", 3)
X, Y = item(b"x"), item(b"y")
GONE = item(b"", 9, flags=FLAG_TOMBSTONE)


def judge(*answers, servers=None, standby=(), write_only=()):
    """Judge the answers of zones a, b, c and so on."""
    names = "abcdef"[: len(answers)]
    by_zone = {zone: answer(zone) if callable(answer) else answer for zone, answer in zip(names, answers, strict=True)}
    readable = [zone for zone in names if zone not in standby and zone not in write_only]
    capabilities = dict.fromkeys(names, NEW) | (servers or {})
    return judge_key(by_zone, ZoneRoles(readable, tuple(standby), tuple(write_only)), capabilities, NOW)


@pytest.mark.parametrize(
    ("answers", "agreement", "decider", "served_by", "relations"),
    [
        ([None, None, None], Agreement.NOTHING, None, None, [NOTHING, NOTHING, NOTHING]),
        ([V2, V2, V2], Agreement.SAME_VERSION, "a", "a", [SAME, SAME, SAME]),
        ([V1, V2, V1], Agreement.DIFFERENT, "b", "a", [OLDER, SAME, OLDER]),
        ([None, V2, V2], Agreement.DIFFERENT, "b", "b", [MISSING, SAME, SAME]),
        ([V1, GONE, V1], Agreement.DIFFERENT, "b", "a", [OLDER, SAME, OLDER]),
        ([X, X, X], Agreement.SAME_VALUE, "a", "a", [EQUAL, EQUAL, EQUAL]),
        ([X, Y, Y], Agreement.UNORDERED, "b", "a", [OTHER, EQUAL, EQUAL]),
        ([X, Y, None], Agreement.UNORDERED, "a", "a", [EQUAL, OTHER, MISSING]),
        ([X, None, X], Agreement.DIFFERENT, "a", "a", [EQUAL, MISSING, EQUAL]),
        ([item(b"2"), V2, V2], Agreement.SAME_VALUE, "b", "a", [EQUAL, SAME, SAME]),
        ([X, V2, V2], Agreement.UNORDERED, "b", "a", [OTHER, SAME, SAME]),
        ([LATE, V2, V2], Agreement.SAME_VERSION, "b", "b", [UNKNOWN, SAME, SAME]),
        ([LATE, LATE, V2], Agreement.UNKNOWN, "c", "c", [UNKNOWN, UNKNOWN, SAME]),
        ([LATE, LATE, LATE], Agreement.UNKNOWN, None, None, [UNKNOWN, UNKNOWN, UNKNOWN]),
        ([V2], Agreement.UNKNOWN, "a", "a", [SAME]),
    ],
)
def test_agreement_and_decider_of_readable_zones(answers, agreement, decider, served_by, relations):
    found = judge(*answers)
    assert (found.agreement, found.decider, found.served_by) == (agreement, decider, served_by)
    assert list(found.relations.values()) == relations


@pytest.mark.parametrize(
    ("answers", "roles", "agreement", "decider", "served_by", "relations"),
    [
        pytest.param(
            [V2, V2, V3],
            {"write_only": "c"},
            Agreement.SAME_VERSION,
            "a",
            "a",
            [SAME, SAME, NEWER],
            id="a write-only zone decides nothing",
        ),
        pytest.param(
            [None, None, V3],
            {"write_only": "c"},
            Agreement.NOTHING,
            None,
            None,
            [NOTHING, NOTHING, UNKNOWN],
            id="a write-only zone serves nothing",
        ),
        pytest.param(
            [None, V3, V3],
            {"standby": "bc"},
            Agreement.DIFFERENT,
            "b",
            "b",
            [MISSING, SAME, SAME],
            id="standby zones decide if no other zone has an item",
        ),
        pytest.param(
            [None, V3, LATE, LATE],
            {"standby": "bcd"},
            Agreement.DIFFERENT,
            None,
            "b",
            [NOTHING, UNKNOWN, UNKNOWN, UNKNOWN],
            id="too few standby zones answered",
        ),
        pytest.param(
            [V2, V3, V3],
            {"standby": "bc"},
            Agreement.DIFFERENT,
            "a",
            "a",
            [SAME, NEWER, NEWER],
            id="a readable zone decides before standby zones",
        ),
    ],
)
def test_agreement_and_decider_with_other_modes(answers, roles, agreement, decider, served_by, relations):
    found = judge(*answers, **roles)
    assert (found.agreement, found.decider, found.served_by) == (agreement, decider, served_by)
    assert list(found.relations.values()) == relations


@pytest.mark.parametrize(
    ("answers", "options", "repairs", "unrepaired"),
    [
        ([None, None], {}, "", {}),
        ([V2, V2], {}, "", {}),
        ([V1, V2, None], {}, "ac", {}),
        ([GONE, V1], {}, "b", {}),
        ([LATE, V2, V1], {}, "c", {}),
        ([None, V2], {"servers": {"a": OLD}}, "", {"a": NO_VERSIONS}),
        ([None, V2], {"servers": {"a": None}}, "", {"a": NO_VERSIONS}),
        ([X, V2], {}, "", {"a": NEVER_REPLACED}),
        ([item(b"2"), V2], {}, "", {}),
        ([X, None, X], {}, "", {"b": NO_VERSION}),
        ([X, Y], {}, "", {"b": NEVER_REPLACED}),
        ([None, item(b"2", 2, ttl=1)], {}, "", {"a": "the item is about to expire"}),
        ([V1, item(b"2", 2, ttl=1)], {}, "a", {}),
        ([None, item(b"2", 2, ttl=-1)], {}, "a", {}),
        ([None, item(b"2", 2, ttl=None)], {}, "", {"a": "the seconds left of the item are unknown"}),
        ([V2, V2, None], {"write_only": "c"}, "c", {}),
        ([V2, V2, V3], {"write_only": "c"}, "ab", {}),
        ([None, V3, None, LATE], {"standby": "bcd"}, "ac", {}),
        (
            [None, V3, LATE, LATE],
            {"standby": "bcd"},
            "",
            {"a": "too few standby zones answered"},
        ),
    ],
)
def test_zones_that_a_repair_changes(answers, options, repairs, unrepaired):
    found = judge(*answers, **options)
    assert (list(found.repairs), dict(found.unrepaired)) == (list(repairs), unrepaired)


def test_a_lease_stub_is_a_miss_and_an_error_reply_is_an_error():
    clock = HybridLogicalClock(wall_ms=lambda: int(NOW * 1000))
    version = int(NOW * 1000) << 20
    hit = Hit(b"v", 0, cas_of(version), 5, stale=False, leased=False)
    assert answer_of("a", hit, clock) == ZoneHit(hit, "a", version)
    assert answer_of("a", hit._replace(value=b"", leased=True), clock) is None
    assert answer_of("a", hit._replace(cas=77), clock).version is None
    assert answer_of("a", hit._replace(cas=cas_of(version + (70_000 << 20))), clock).version is None, "70 s ahead"
    assert answer_of("a", Reply(b"EN", [], None), clock) is None
    with pytest.raises(ServerError):
        answer_of("a", Reply(b"CLIENT_ERROR", [b"bad"], None), clock)
