"""`evcache set` and `delete`: the report says which zones have the write, and `--wait` delivers what zones missed."""

import json

import pytest
from click.testing import CliRunner

from evcache import CacheUnavailable, Consistency
from evcache.cli.commands import evcache as command_line
from evcache.cli.write_commands import WAITING, Report, ZoneProgress, lines, report, write_and_wait
from evcache.results import ACKNOWLEDGED, ACKNOWLEDGED_DELETE, Outcome, WriteResult
from evcache.testing import LocalZones
from evcache.zones import Topology
from tests.support.memory_zones import TOMBSTONE, Stopwatch, on_zones, pass_time

STORED, PENDING, TIMEOUT, UNAVAILABLE, REFUSED, NOT_FOUND = (
    Outcome.STORED,
    Outcome.PENDING,
    Outcome.TIMEOUT,
    Outcome.UNAVAILABLE,
    Outcome.NOT_STORED,
    Outcome.NOT_FOUND,
)
ALL, MOST, ONE, NONE = Consistency.ALL, Consistency.ALL_MINUS_ONE, Consistency.ONE, Consistency.NONE
TOPOLOGY = Topology.from_node_list("a=h1;b=h2;c=h3;d!=h4")  # d is write-only


# What is reported.


@pytest.mark.parametrize(
    ("result", "late", "ends", "level", "met", "zones"),
    [
        # All zones have it when the call returns.
        ([STORED] * 4, {}, {}, ALL, True, [STORED] * 4),
        # Zones that were late when the call returned.
        ([STORED, PENDING, STORED, PENDING], dict.fromkeys("abcd", STORED), {}, ALL, True, [STORED] * 4),
        (
            [STORED, PENDING, STORED, PENDING],
            {"b": TIMEOUT, "d": STORED},
            {},
            ALL,
            False,
            [STORED, TIMEOUT, STORED, STORED],
        ),
        ([STORED, PENDING, STORED, STORED], {}, {}, ALL, False, [STORED, PENDING, STORED, STORED]),
        # What an earlier round of the call reported late does not replace the result.
        ([STORED, STORED, STORED, STORED], {"b": TIMEOUT}, {}, ALL, True, [STORED] * 4),
        # The level decides, and write-only zones do not count.
        ([STORED, TIMEOUT, STORED, STORED], {}, {}, MOST, True, [STORED, TIMEOUT, STORED, STORED]),
        ([TIMEOUT, TIMEOUT, STORED, STORED], {}, {}, MOST, False, [TIMEOUT, TIMEOUT, STORED, STORED]),
        ([TIMEOUT, TIMEOUT, TIMEOUT, STORED], {}, {}, ONE, False, [TIMEOUT, TIMEOUT, TIMEOUT, STORED]),
        ([STORED, STORED, STORED, UNAVAILABLE], {}, {}, ALL, True, [STORED, STORED, STORED, UNAVAILABLE]),
        ([TIMEOUT] * 4, {}, {}, NONE, True, [TIMEOUT] * 4),
        # Hints that were delivered, or were not.
        ([STORED, TIMEOUT, STORED, STORED], {}, {"b": "delivered"}, ALL, True, [STORED] * 4),
        (
            [STORED, UNAVAILABLE, STORED, STORED],
            {},
            {"b": "superseded"},
            ALL,
            True,
            [STORED, Outcome.SUPERSEDED, STORED, STORED],
        ),
        *(
            ([STORED, TIMEOUT, STORED, STORED], {}, {"b": end}, ALL, False, [STORED, TIMEOUT, STORED, STORED])
            for end in ("refused", "expired", "overflow", "closed")
        ),
        # A hint that compared the zones does not store what a server refused.
        ([STORED, REFUSED, STORED, STORED], {}, {"b": "delivered"}, ALL, False, [STORED, REFUSED, STORED, STORED]),
        # The call raised, since no zone answered.
        (None, dict.fromkeys("abcd", UNAVAILABLE), {"a": "delivered"}, ALL, False, [STORED] + [UNAVAILABLE] * 3),
        (
            None,
            dict.fromkeys("abcd", UNAVAILABLE),
            dict.fromkeys("abc", "delivered"),
            ALL,
            True,
            [STORED] * 3 + [UNAVAILABLE],
        ),
    ],
)
def test_report(result, late, ends, level, met, zones):
    progress = ZoneProgress()
    for zone, outcome in late.items():
        progress.zone_wrote(zone, outcome, late=True)
    for zone, end in ends.items():
        progress.hint_ended(zone, end)
    returned = None if result is None else WriteResult(met=False, version=7, zones=dict(zip("abcd", result, strict=True)))
    found = report(returned, progress, TOPOLOGY, level, ACKNOWLEDGED)
    assert (found.met, found.version) == (met, None if result is None else 7)
    assert found.zones == dict(zip("abcd", zones, strict=True))
    assert found.missed == [zone for zone, outcome in found.zones.items() if outcome not in ACKNOWLEDGED]


@pytest.mark.parametrize(
    ("having", "met", "first_line"),
    [
        ("abcd", True, "done, version 7"),
        ("ac", True, "done, version 7"),
        ("ab", False, "not done: too few standby zones acknowledged"),
        ("cd", False, "not done: too few zones acknowledged"),
        ("", False, "not done: too few zones acknowledged"),
    ],
)
def test_a_report_with_standby_zones_counts_both_sets(having, met, first_line):
    topology = Topology.from_node_list("a=h1;b=h2;c?=h3;d?=h4")
    outcomes = {zone: STORED if zone in having else TIMEOUT for zone in "abcd"}
    found = report(WriteResult(met=met, version=7, zones=outcomes), ZoneProgress(), topology, ONE, ACKNOWLEDGED)
    assert (found.met, lines(found, 0)[0]) == (met, first_line)


def test_a_deleted_key_that_was_not_there_is_absent():
    returned = WriteResult(met=True, version=None, zones=dict.fromkeys("abcd", NOT_FOUND))
    found = report(returned, ZoneProgress(), TOPOLOGY, ALL, ACKNOWLEDGED_DELETE)
    assert (found.met, found.missed) == (True, [])


def test_the_end_of_a_comparison_does_not_count_as_a_delivery():
    """A set that is too old to be delivered becomes a comparison of the zones."""
    progress = ZoneProgress()
    progress.hint_ended("b", "expired")
    progress.hint_ended("b", "delivered")
    assert progress.hint_ends == {"b": "expired"}


ZONES = {"eu-1a": STORED, "eu-1b": TIMEOUT, "eu-1c": REFUSED}
HINT = "with --wait SECONDS the command delivers the write when the zones return, if they keep versions"
REFUSAL = "refused by {}: too large for the server's items, or no memory is left"


@pytest.mark.parametrize(
    ("found", "wait", "expected"),
    [
        (Report(met=True, version=5, zones={"a": STORED}, missed=[]), 0, ["done, version 5", "  a  stored"]),
        (Report(met=True, version=None, zones={"a": STORED}, missed=[]), 9, ["done", "  a  stored"]),
        (
            Report(met=False, version=5, zones=ZONES, missed=["eu-1b", "eu-1c"]),
            0,
            [
                "not done: too few zones acknowledged",
                "  eu-1a  stored",
                "  eu-1b  timeout",
                "  eu-1c  not_stored",
                "missed by eu-1b, eu-1c: reads from there may return the earlier value",
                REFUSAL.format("eu-1c"),
                HINT,
            ],
        ),
        (
            Report(met=False, version=5, zones={"a": TIMEOUT}, missed=["a"], waited=2.54),
            20,
            [
                "not done: too few zones acknowledged",
                "  a  timeout",
                "missed by a after 2.5 s of waiting: reads from there may return the earlier value",
            ],
        ),
        (  # the zone came back during the wait, and could not take the write
            Report(
                met=False,
                version=5,
                zones={"a": TIMEOUT},
                missed=["a"],
                waited=4,
                failed_deliveries={"a": "refused"},
            ),
            20,
            [
                "not done: too few zones acknowledged",
                "  a  timeout",
                "missed by a after 4.0 s of waiting: reads from there may return the earlier value",
                "not delivered to a: its server keeps no versions, or refuses the write; repeat the command",
            ],
        ),
        (  # a write-only zone serves no reads
            Report(met=True, version=5, zones={"a": STORED, "d": TIMEOUT}, missed=["d"], write_only=frozenset("d")),
            0,
            [
                "done, version 5",
                "  a  stored",
                "  d  timeout",
                "missed by d: write-only; the earlier value may remain there",
                HINT,
            ],
        ),
        (  # nothing that waiting would change
            Report(met=False, version=5, zones={"a": REFUSED}, missed=["a"]),
            0,
            [
                "not done: too few zones acknowledged",
                "  a  not_stored",
                "missed by a: reads from there may return the earlier value",
                REFUSAL.format("a"),
            ],
        ),
    ],
)
def test_lines(found, wait, expected):
    assert lines(found, wait) == expected


# Waiting.


async def set_new(cache, level):
    return await cache.set("k", "new", consistency=level, timeout=0.5)


async def delete(cache, level):
    return await cache.delete("k", consistency=level, timeout=0.5)


WRITES = [(set_new, "new", ACKNOWLEDGED), (delete, TOMBSTONE, ACKNOWLEDGED_DELETE)]


async def command(zones, write, wait, acknowledged, level=ALL):
    """Do what the command does, with the same limits."""
    progress = ZoneProgress()
    cache = zones.client(hooks=progress, circuit=WAITING)
    return await write_and_wait(cache, progress, write, level, wait, acknowledged)


async def old_value(zones):
    async with zones.client() as cache:
        assert await cache.set("k", "old", consistency="all")
    await pass_time(1)  # virtual time would give the next client's write a version of the same millisecond


async def go(zones, how, *names):
    if how == "dies":
        await zones.kill(*names)
    else:
        zones.pause(*names)


def come_back(zones, how, *names):
    if how == "dies":
        zones.restart(*names)
    else:
        zones.resume(*names)


@pytest.mark.parametrize("how", ["dies", "hangs"])
@pytest.mark.parametrize(("write", "held", "acknowledged"), WRITES)
@on_zones()
async def test_without_waiting_the_outage_is_reported(zones, write, held, acknowledged, how):
    await old_value(zones)
    await go(zones, how, "a")
    found = await command(zones, write, 0, acknowledged)
    assert (found.met, found.missed) == (False, ["a"])
    assert found.zones["a"] in (TIMEOUT, UNAVAILABLE)
    come_back(zones, how, "a")
    await pass_time(30)  # no background work is left that would deliver it
    assert zones.values("k") == {"a": "old" if how == "hangs" else None, "b": held, "c": held}


@pytest.mark.parametrize("names", ["a", "ab", "abc"])
@pytest.mark.parametrize("how", ["dies", "hangs"])
@pytest.mark.parametrize(("write", "held", "acknowledged"), WRITES)
@on_zones()
async def test_zones_that_return_in_time_get_the_write(zones, write, held, acknowledged, how, names, capsys):
    await old_value(zones)
    await go(zones, how, *names)
    back_after = 20.0
    zones._loop.call_later(back_after, come_back, zones, how, *names)
    watch = Stopwatch()
    found = await command(zones, write, 60, acknowledged)
    assert (found.met, found.missed) == (True, [])
    assert back_after < watch.seconds < back_after + 7  # up to 5.5 s between two attempts to deliver
    assert zones.values("k") == dict.fromkeys(zones.names, held)
    assert capsys.readouterr().err == "waiting up to 60 s for zones that missed the write\n"


@on_zones()
async def test_waiting_ends_with_its_time_and_says_what_is_left(zones):
    await old_value(zones)
    await zones.kill("a", "b")
    zones._loop.call_later(5, zones.restart, "b")
    watch = Stopwatch()
    found = await command(zones, set_new, 10, ACKNOWLEDGED)
    assert (found.met, found.missed, found.zones["b"], found.waited) == (False, ["a"], STORED, 10)
    assert 10 <= watch.seconds < 13  # and the end of the client
    assert (await command(zones, set_new, 1, ACKNOWLEDGED, level=MOST)).met


@on_zones()
async def test_nothing_is_waited_for_when_all_zones_have_it(zones, capsys):
    watch = Stopwatch()
    found = await command(zones, set_new, 60, ACKNOWLEDGED)
    assert (found.met, found.missed) == (True, [])
    assert watch.seconds < 1
    assert capsys.readouterr().err == ""


@on_zones(versions={"a": "1.6.18", "b": "1.6.38", "c": "1.6.38"})
async def test_a_zone_without_versions_cannot_get_it_later(zones):
    await zones.kill("a")
    zones._loop.call_later(5, zones.restart, "a")
    watch = Stopwatch()
    found = await command(zones, set_new, 60, ACKNOWLEDGED)
    assert (found.met, found.missed) == (False, ["a"])
    assert watch.seconds < 15  # the wait ends when nothing is left to deliver
    assert found.waited < watch.seconds  # the report has the seconds that it waited, and not the option
    assert found.failed_deliveries == {"a": "refused"}


@pytest.mark.parametrize("wait", [0, 5])
@on_zones()
async def test_no_zone_at_all(zones, wait):
    await zones.kill("a", "b", "c")
    with pytest.raises(CacheUnavailable):
        await command(zones, set_new, wait, ACKNOWLEDGED)


@pytest.mark.parametrize("level", [ALL, NONE])
@on_zones()
async def test_a_write_without_any_answer_is_no_partial_write(zones, level):
    zones.pause("a", "b", "c")
    try:
        found = await command(zones, set_new, 0, ACKNOWLEDGED, level=level)
    except CacheUnavailable:
        return
    assert not found.is_answered


async def only_zone_c_lives(zones):
    await zones.kill("a", "b")
    found = await command(zones, set_new, 0, ACKNOWLEDGED)
    assert (found.met, found.missed, found.zones["c"]) == (False, ["a", "b"], STORED)
    assert zones.values("k")["c"] == "new"


@on_zones(write_only="c")
async def test_a_write_that_only_a_write_only_zone_has_is_reported(zones):
    await only_zone_c_lives(zones)


@on_zones(standby="c")
async def test_a_write_that_only_a_standby_zone_has_is_reported(zones):
    await only_zone_c_lives(zones)


# The commands.


@pytest.fixture(scope="module")
def half():
    """One zone that lives, and one that does not."""
    with LocalZones(["eu-1a"], backend="embedded").running() as zones:
        yield f"eu-1a={zones.zones['eu-1a'][0]};eu-1b=127.0.0.1:1"


@pytest.mark.parametrize(
    ("options", "status", "first"),
    [
        ([], 1, "not done: too few zones acknowledged"),
        (["--consistency", "all"], 1, "not done: too few zones acknowledged"),
        (["--consistency", "one"], 0, "done, version "),
    ],
)
@pytest.mark.parametrize("args", [["set", "k", "v"], ["delete", "k"]])
def test_exit_status_says_if_enough_zones_have_it(half, args, options, status, first):
    result = CliRunner().invoke(command_line, [*args, *options, "--zones", half, "--namespace", "tests"])
    assert result.exit_code == status
    told = result.stdout.splitlines()
    assert told[0].startswith(first.rstrip())
    assert told[1:] == [
        "  eu-1a  stored",
        "  eu-1b  unavailable",
        "missed by eu-1b: reads from there may return the earlier value",
        HINT,
    ]
    as_json = CliRunner().invoke(command_line, [*args, *options, "--zones", half, "--namespace", "tests", "--json"])
    found = json.loads(as_json.stdout)
    assert (as_json.exit_code, found["met"], found["missed"]) == (status, status == 0, ["eu-1b"])


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf"])
@pytest.mark.parametrize("args", [["set", "k", "v"], ["delete", "k"]])
def test_wait_that_is_no_time_is_refused(half, args, seconds):
    result = CliRunner().invoke(command_line, [*args, "--wait", seconds, "--zones", half, "--namespace", "tests"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "wait: a number of at least 0 is required" in result.stderr


def test_each_command_documents_its_exit_statuses_and_the_wait():
    for name in ("set", "delete"):
        text = CliRunner().invoke(command_line, [name, "--help"]).stdout
        for needed in ("Exit status 0:", "1:", "3:", "--wait SECONDS", "By default all"):
            assert needed in " ".join(text.split()), (name, needed)


@pytest.fixture(scope="module")
def silent():
    """Two zones that accept connections and never answer."""
    with LocalZones(["eu-1a", "eu-1b"], backend="embedded").running() as zones:
        for zone in zones.zones:
            zones.pause(zone)
        yield ";".join(f"{zone}={nodes[0]}" for zone, nodes in zones.zones.items())


@pytest.mark.parametrize("level", ["all", "one", "none"])
@pytest.mark.parametrize("args", [["set", "k", "v"], ["delete", "k"]])
def test_no_answer_from_any_zone_is_status_3_at_each_level(silent, args, level):
    """At `all` the first timeout decides the call, before the other zones have failed. No level makes it a partial write."""
    for zones in (silent, "eu-1a=127.0.0.1:1;eu-1b=127.0.0.1:1"):
        options = ["--consistency", level, "--timeout", "0.3", "--zones", zones, "--namespace", "tests"]
        result = CliRunner().invoke(command_line, [*args, *options])
        assert (result.exit_code, result.stdout) == (3, "")
        assert "no zone " in result.stderr
