"""Judges of `evcache doctor`: tables of facts and the findings that they give."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evcache.admin.doctor.examination import can_be_read, judge_all
from evcache.admin.doctor.facts import HintsDisk, Identity, TlsProbe
from evcache.admin.doctor.findings import Subject, Verdict, without
from evcache.admin.doctor.judges import (
    balance,
    capacity,
    clocks,
    hints,
    proxies,
    reachability,
    servers,
    settings,
    topology,
)
from evcache.admin.doctor.judges.texts import duration, listed
from evcache.zones import Mode
from evcache.zones.nodes.capabilities import Capabilities
from tests.support.doctor_facts import NOW_MS, down, facts, names, node, written_at

THREE = [node(zone) for zone in "abc"]


def test_healthy_zones_give_no_fault_and_each_subject_with_facts_is_ok():
    found = judge_all(facts(*THREE, hints=HintsDisk("h.db", free_bytes=1 << 40)))
    assert names(found) == []
    assert {finding.verdict for finding in found} == {Verdict.OK}
    # Nothing was sampled, so there is no word on placement and namespaces.
    assert [finding.subject for finding in found] == [
        subject for subject in Subject if subject not in (Subject.PLACEMENT, Subject.NAMESPACES)
    ]


def test_findings_come_in_the_order_of_the_subjects():
    found = judge_all(facts(down("a"), node("b", options={"item_size_max": 1}), node("c", clock_offset=60.0)))
    order = list(Subject)
    assert [order.index(finding.subject) for finding in found] == sorted(order.index(finding.subject) for finding in found)


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (facts(*THREE), []),
        (facts(node("a"), node("b", address="a-n1:11211")), ["address-shared"]),
        (facts(node("a", "x"), node("a", "y", address="a-x:11211")), ["address-shared"]),
        (
            facts(node("a", peers=frozenset({("10.0.0.1", 1)})), node("b", peers=frozenset({("10.0.0.1", 1)}))),
            ["address-shared"],
        ),
        (facts(node("a", "x"), node("a", "y"), node("b")), ["node-counts-differ"]),
        (facts(*(node("a", f"n{n}") for n in range(3)), *(node("b", f"n{n}") for n in range(2))), []),
        (facts(*THREE, local_zone="b"), []),
        (facts(*THREE, local_zone="z"), ["local-zone-missing"]),
    ],
)
def test_topology(known, expected):
    assert names(topology.judge(known)) == expected


@pytest.mark.parametrize(
    ("known", "expected", "text"),
    [
        (facts(*THREE), [], "3 of 3 nodes answer"),
        (facts(node("a"), down("b")), ["zone-down"], "b: 1 of 1 nodes failed, the first is n1: refused"),
        (facts(node("a", "x"), down("a", "y")), ["node-down"], "y at a-y:11211 in a: refused"),
        (
            facts(node("a"), node("b"), down("c", tls=TlsProbe(answers_tls=True))),
            ["tls-required"],
            "answers with TLS only; 2 nodes answer without TLS",
        ),
        (
            facts(node("a"), down("b", tls=TlsProbe(answers_plain=True)), uses_tls=True),
            ["tls-missing"],
            "answers without TLS only; 1 node answers with TLS",
        ),
        (facts(down("b", tls=TlsProbe(answers_tls=True)), uses_tls=True), ["certificate-refused"], "refused"),
        (facts(node("a", is_complete=False)), ["examination-incomplete"], "did not answer all questions in 2 s"),
    ],
)
def test_reachability(known, expected, text):
    found = reachability.judge(known)
    assert names(found) == expected
    assert text in found[0].text


def test_many_failed_nodes_of_a_zone_give_one_line():
    zone = [node("a", "up"), *(down("a", f"n{place}") for place in range(30))]
    (found,) = reachability.judge(facts(*zone))
    assert found.text.endswith("and 25 more")


@pytest.mark.parametrize(
    ("releases", "expected"),
    [
        ({"a": ["1.6.40"], "b": ["1.6.40"]}, []),
        ({"a": ["1.6.40"], "b": ["1.6.38"]}, ["versions-differ-between-zones"]),
        ({"a": ["1.6.40", "1.6.38"], "b": ["1.6.38", "1.6.38"]}, ["versions-differ-in-zone"]),
        ({"a": ["1.6.38"], "b": ["1.6.18"]}, ["versions-differ-between-zones", "no-versions"]),
        ({"a": ["1.6.18"]}, ["no-versions"]),
    ],
)
def test_versions(releases, expected):
    nodes = [node(zone, f"n{at}", version=one) for zone, each in releases.items() for at, one in enumerate(each)]
    assert names(servers.judge_versions(facts(*nodes))) == expected
    arrival = servers.judge_versions(facts(*nodes, needs_versions=False))
    assert names(arrival) == [name for name in expected if name != "no-versions"]


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        (Capabilities("1.6.40", explicit_cas=True, cas=True), []),
        (Capabilities("1.6.38", explicit_cas=True, cas=True), []),
        (Capabilities("1.4.5", explicit_cas=False, cas=True, transport="classic"), ["classic-protocol"]),
        (Capabilities("1.6.38", explicit_cas=True, cas=False), ["cas-disabled"]),
    ],
)
def test_features(capabilities, expected):
    found = servers.judge_features(facts(node(capabilities=capabilities)))
    assert names(found) == expected


def test_features_that_are_off_are_shown_with_their_reason():
    (found,) = servers.judge_features(facts(node(version="1.6.38")))
    assert found.text == "conditional reads off: memcached 1.6.38 is older than 1.6.40"


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (node(), []),
        (node(clients=None), []),
        (node(clients=("tcp:10.0.0.7:5000",)), ["connection-relayed"]),
        (node(clients=("tcp:10.0.0.9:5001",)), ["connection-relayed"]),
        (node(clients=("tcp6:[::ffff:10.0.0.9]:5000",)), []),
        (node(local_address="[fd00::1]:7", clients=("tcp6:[fd00:0::1]:7",)), []),
        (node(local_address="", clients=("unix:/run/x",)), []),
        (node(identities=(Identity(1, 50), Identity(1, 51))), []),
        (node(identities=(Identity(1, 50), Identity(1, 90))), ["several-servers"]),
        (node(identities=(Identity(1, 50), Identity(2, 50))), ["several-servers"]),
        (node(options={"proxy_enabled": True}), ["built-in-proxy"]),
        (node(refusal="ERROR", statistics=None, settings=None, clients=None), ["statistics-refused"]),
    ],
)
def test_proxies(one, expected):
    assert names(proxies.judge(facts(one, node("b")))) == expected


@given(st.text())
def test_any_text_of_a_server_is_compared_as_an_address(text):
    assert proxies.plain_address(text) == proxies.plain_address(proxies.plain_address(text))


def test_a_translation_before_all_nodes_is_one_finding():
    (found,) = proxies.judge(facts(*(node(zone, clients=("tcp:10.0.0.1:1",)) for zone in "abc")))
    assert found.text == "connection relayed: address is not in the client list of a, b, c, which are all nodes"


@pytest.mark.parametrize(
    ("stats", "expected"),
    [
        ({}, []),
        ({"curr_connections": 799}, []),
        ({"curr_connections": 800}, ["connections-near-limit"]),
        ({"curr_connections": 31, "max_connections": 64}, ["connection-limit-low"]),
        ({"curr_connections": 32, "max_connections": 64}, ["connections-near-limit", "connection-limit-low"]),
        ({"rejected_connections": 3}, ["connections-refused"]),
        ({"listen_disabled_num": 3}, ["connections-refused"]),
        ({"max_connections": None}, []),
        ({"curr_connections": 5, "max_connections": 10}, ["connections-near-limit", "connection-limit-low"]),
    ],
)
def test_connections(stats, expected):
    assert names(capacity.judge_connections(facts(node(stats=stats, own_descriptors=24)))) == expected


@pytest.mark.parametrize(("own", "expected"), [(24, 39), (28, 35), (None, 35)])
def test_usable_connections_are_those_behind_the_descriptors_of_the_server(own, expected):
    assert capacity.usable_connections(node(stats={"max_connections": 64}, own_descriptors=own)) == expected


@pytest.mark.parametrize(
    "one",
    [down(error="ERROR Too many open connections"), node(refusal="ERROR Too many open connections", statistics=None)],
)
def test_a_refused_examination_is_a_fault_of_the_limit(one):
    assert names(capacity.judge_connections(facts(one))) == ["connections-near-limit"]


@pytest.mark.parametrize(
    ("stats", "expected"),
    [
        ({}, []),
        ({"limit_maxbytes": 1 << 30}, ["memory-differs"]),
        ({"evictions": 999, "uptime": 10}, []),
        ({"evictions": 50_000, "uptime": 86_400}, []),
        ({"evictions": 500_000, "uptime": 86_400}, ["evictions-fast"]),
        ({"evictions": 2_000, "evicted_unfetched": 1_000}, []),
        ({"evictions": 2_000, "evicted_unfetched": 1_001}, ["evicted-unread"]),
    ],
)
def test_memory(stats, expected):
    assert names(capacity.judge_memory(facts(node("a", stats=stats), node("b")))) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, []),
        ({"options": {"item_size_max": 2 << 20}}, ["item-size-differs"]),
        ({"options": {"evictions": False}}, ["evictions-disabled"]),
        ({"options": {"dump_enabled": False}, "sample_refusal": "ERROR"}, ["lists-disabled"]),
        ({"sample_refusal": "ERROR"}, ["lists-disabled"]),
        ({"options": {"idle_timeout": 59}}, ["idle-timeout-short"]),
        ({"options": {"idle_timeout": 60}}, []),
        ({"stats": {"curr_items": 1_572_864}}, []),
        ({"stats": {"curr_items": 1_572_865}}, ["hash-table-small"]),
        ({"stats": {"curr_items": 1_572_865}, "options": {"hashpower_init": 20}}, []),
    ],
)
def test_settings(fields, expected):
    assert names(settings.judge(facts(node("a", **fields), node("b")))) == expected


def test_the_hash_table_that_is_named_holds_the_items():
    (found,) = settings.judge(facts(node(stats={"curr_items": 20_000_000})))
    assert "hashpower=24" in found.text
    assert 1.5 * 2**23 < 20_000_000 < 1.5 * 2**24


@pytest.mark.parametrize(
    ("offsets", "expected"),
    [
        ([0.4, -1.2, 2.0], []),
        ([0.0, 0.0, 9.0], ["server-clock"]),
        ([0.0, -9.0, 9.0], ["server-clock", "server-clock"]),
        ([60.0], ["server-clock"]),
        ([60.0, 61.0, 59.5], ["host-clock"]),
        ([-60.0, -61.0], ["host-clock"]),
    ],
)
def test_clocks(offsets, expected):
    nodes = [node(f"z{at}", clock_offset=offset) for at, offset in enumerate(offsets)]
    assert names(clocks.judge(facts(*nodes))) == expected


@pytest.mark.parametrize(
    ("ahead_ms", "offset", "expected"),
    [
        (-1_000, 0.0, []),
        (4_900, 0.0, []),
        (5_100, 0.0, ["item-versions-ahead"]),
        (60_000, 0.0, ["item-versions-ahead"]),
        (90_000, 0.0, ["item-versions-refused"]),
        # The clock of this host is behind, not that of the writer.
        (90_000, 90.0, ["host-clock"]),
    ],
)
def test_item_versions(ahead_ms, offset, expected):
    item = written_at(NOW_MS + ahead_ms)
    nodes = [node(zone, clock_offset=offset, sample=(item,)) for zone in "ab"]
    assert names(clocks.judge(facts(*nodes))) == expected


def test_each_writer_ahead_is_named_once_with_its_zones():
    ahead = [written_at(NOW_MS + 90_000, 7), written_at(NOW_MS + 70_000, 7), written_at(NOW_MS + 6_000, 8)]
    found = clocks.judge(facts(node("a", sample=tuple(ahead)), node("b", sample=(ahead[0],))))
    assert [finding.text for finding in found] == [
        "item versions ahead: 3 sampled items in a, b by writer 7, up to 90 s ahead",
        "item versions ahead: 1 sampled item in a by writer 8, up to 6 s ahead",
    ]


@pytest.mark.parametrize(
    ("of_b", "expected"),
    [
        ({}, []),
        ({"curr_items": 2_501, "bytes": 4_000_000}, []),
        ({"curr_items": 2_500, "bytes": 4_000_000}, ["zones-uneven"]),
        ({"bytes": 2_000_000}, ["zones-uneven"]),
        ({"curr_items": 0, "bytes": 0}, ["zones-uneven"]),
        ({"get_hits": 6_001, "get_misses": 3_999}, []),
        ({"get_hits": 5_999, "get_misses": 4_001}, ["hit-ratios-differ"]),
        ({"get_hits": 0, "get_misses": 999}, []),
    ],
)
def test_balance_between_zones(of_b, expected):
    assert names(balance.judge(facts(node("a"), node("b", stats=of_b)))) == expected


def test_a_zone_that_is_filled_may_have_fewer_items():
    nodes = [node("a"), node("b", stats={"curr_items": 0, "bytes": 0, "get_hits": 0})]
    assert names(balance.judge(facts(*nodes, modes={"b": Mode.WRITE_ONLY}))) == []


def test_small_zones_are_not_compared():
    nodes = [node("a", stats={"curr_items": 999, "bytes": 9}), node("b", stats={"curr_items": 0, "bytes": 0})]
    assert names(balance.judge(facts(*nodes))) == []


@pytest.mark.parametrize(
    ("items", "expected"),
    [([5_000, 4_000, 6_000], []), ([5_000, 5_000, 1_000], ["nodes-uneven"]), ([1_000, 1_000, 9_000], ["nodes-uneven"] * 3)],
)
def test_balance_of_nodes(items, expected):
    nodes = [node("a", f"n{at}", stats={"curr_items": number}) for at, number in enumerate(items)]
    assert names(balance.judge(facts(*nodes))) == expected


@pytest.mark.parametrize(
    ("disk", "expected"),
    [
        (None, []),
        (HintsDisk("p", free_bytes=1 << 30), []),
        (HintsDisk("p", free_bytes=1 << 20), ["hints-disk-low"]),
        (HintsDisk("p", free_bytes=0, write_error="No space left on device", is_full=True), ["hints-disk-full"]),
        (HintsDisk("p", free_bytes=0, write_error="Permission denied"), ["hints-unwritable"]),
        (HintsDisk("p", is_read_only=True), ["hints-read-only"]),
        (HintsDisk("p", has_folder=False), ["hints-no-folder"]),
        (HintsDisk("p", is_foreign=True), ["hints-no-journal"]),
    ],
)
def test_hints(disk, expected):
    assert names(hints.judge(facts(node(), hints=disk))) == expected


@pytest.mark.parametrize(
    ("known", "readable"),
    [
        (facts(node("a"), down("b")), True),
        (facts(down("a"), down("b")), False),
        (facts(down("a"), node("b"), modes={"b": Mode.WRITE_ONLY}), False),
        (facts(node("a", "x"), down("a", "y")), True),
        (facts(node("a", "x"), down("a", "y"), down("a", "z")), False),
    ],
)
def test_zones_can_be_read_by_the_rule_of_the_client(known, readable):
    assert can_be_read(known) is readable


def test_an_ignored_fault_is_ok_and_keeps_its_text():
    found = reachability.judge(facts(node("a", "x"), down("a", "y")))
    (ignored,) = without(found, ["node-down"])
    assert (ignored.verdict, ignored.text, ignored.fix) == (Verdict.OK, found[0].text, None)
    assert without(found, ["zone-down"]) == found


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.5, "0.5 s"), (90, "90 s"), (119, "119 s"), (120, "2 min"), (7_200, "2 h"), (172_800, "2 days")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_a_long_list_is_cut():
    assert listed(["a", "b"]) == "a, b"
    assert listed(list("abcdefgh")) == "a, b, c, d, e and 3 more"
