"""Output and exit statuses of `evcache bench`. Runs and results are tested in tests/evcache/admin."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from evcache.admin.bench.estimate import Estimate, ZoneCost
from evcache.admin.bench.plan import Operation, Plan
from evcache.admin.bench.record import NodeTimes, Record
from evcache.admin.bench.report import bench_report, plan_report
from evcache.cli.bench.view import LiveScreen, PlainScreen, plan_lines, report_lines
from evcache.cli.commands import evcache as command_line
from evcache.testing import LocalZones
from tests.support.cli_servers import DEAD

QUICK = ["--seconds", "0.2", "--rate", "200", "--keys", "20", "--max-p99", "0", "--timeout", "5"]


@pytest.fixture(scope="module")
def cluster():
    with LocalZones(["eu-1a", "eu-1b"], backend="embedded").running() as zones:
        yield ";".join(f"{zone}={','.join(nodes)}" for zone, nodes in zones.zones.items())


def bench(zones, *args, **environment):
    # The environment of a user names the namespace of a service, which the command must not use.
    env = {"EVCACHE_NODES": zones, "EVCACHE_ZONE": "eu-1a", "EVCACHE_NAMESPACE": "service", **environment}
    return CliRunner().invoke(command_line, ["bench", *args], env=env)


def test_a_run_prints_its_plan_and_its_results(cluster):
    done = bench(cluster, *QUICK, "--write-share", "0.5")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith("zones       eu-1a (read-write, local), eu-1b (read-write)")
    assert "20 of 100 bytes in namespace evcache-bench" in lines[1]
    results = lines[lines.index("done") :]
    assert results[1] == "operations  40 of 40 in 0.2 s"
    for name in ("get", "set", "sent late", "ping (mn)", "sources", "errors", "traffic", "cross-zone"):
        assert any(line.startswith(name) for line in results), name
    assert "errors      none" in results
    assert done.stderr.splitlines() == ["pinging the nodes", "storing the keys", "measuring", "deleting the keys"]


def test_json_is_one_document_with_plan_and_results(cluster):
    done = bench(cluster, *QUICK, "--json", "--near-cache", "--consistency", "one")
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert (found["completed"], found["stopped"], found["errors"], found["keys_left"]) == (40, None, {}, 0)
    assert found["plan"]["namespace"] == "evcache-bench"
    assert (found["plan"]["near_cache"], found["plan"]["consistency"], found["plan"]["max_p99"]) == (True, "one", None)
    assert found["reads"]["count"] + found["writes"]["count"] == 40
    assert set(found["traffic"]) == {"eu-1a", "eu-1b"}
    assert [node["before"]["count"] > 0 for node in found["nodes"]] == [True, True]


def test_a_dry_run_sends_nothing():
    zones = f"eu-1a={DEAD};eu-1b={DEAD}"
    done = bench(zones, "--dry-run")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "cross-zone  about " in done.stdout
    found = json.loads(bench(zones, "--dry-run", "--json", "--rate", "100000").stdout)
    assert (found["operations"], found["rate"]) == (1_000_000, 100_000)
    assert found["cross_zone"] == found["estimate"]["zones"][1]["sent"] + found["estimate"]["zones"][1]["received"]


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["--rate", "20001"], "--force is required: --rate 20001"),
        (["--keys", "1000000"], "--keys 1000000"),
        (["--rate", "0"], "--rate"),
        (["--seconds", "0"], "--seconds"),
        (["--seconds", "nan"], "--seconds"),
        (["--rate", "nan"], "--rate"),
        (["--rate", "inf"], "--rate"),
        (["--write-share", "nan"], "--write-share"),
        (["--max-p99", "nan"], "--max-p99"),
        (["--timeout", "inf"], "--timeout"),
        (["--callers", "0"], "--callers"),
        (["--size", "0"], "--size"),
        (["--keys", "0"], "--keys"),
        (["--write-share", "1.1"], "--write-share"),
        (["--max-errors", "-1"], "--max-errors"),
        (["--max-p99", "-1"], "--max-p99"),
        (["--timeout", "0"], "--timeout"),
        (["--namespace", "a b"], "namespace: "),
        (["--local-zone", "mars"], "'mars' is not one of the zones"),
    ],
)
def test_arguments_that_cannot_be_used(args, named):
    done = bench(f"eu-1a={DEAD}", *args)
    assert done.exit_code == 2
    assert named in done.stderr


def test_force_allows_a_higher_rate(cluster):
    done = bench(cluster, *QUICK, "--rate", "30000", "--seconds", "0.01", "--force", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["plan"]["operations"] == 300


def test_no_zone_answers():
    done = bench(f"eu-1a={DEAD};eu-1b={DEAD}", *QUICK, "--json")
    assert (done.exit_code, done.stdout) == (3, "")
    assert "bench: no zone could answer (eu-1a: " in done.stderr


def test_a_limit_ends_the_command_with_status_1(cluster):
    done = bench(cluster, *QUICK, "--max-p99", "0.0001", "--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert found["stopped"] is not None
    assert found["completed"] < 40


@pytest.mark.parametrize("args", [["--json"], []])
def test_a_signal_ends_the_load_deletes_the_keys_and_prints_the_results(cluster, args):
    command = ["bench", "--seconds", "600", "--keys", "20", "--max-p99", "0", *args]
    with subprocess.Popen(
        [sys.executable, "-c", "from evcache.cli import main; main()", *command],
        env={**os.environ, "EVCACHE_NODES": cluster, "EVCACHE_ZONE": "eu-1a"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while "measuring" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate()
    assert process.returncode == 130
    assert "deleting the keys" in errors
    assert "Traceback" not in errors
    if args:
        found = json.loads(output)
        assert (found["stopped"], found["keys_left"]) == ("by a signal", 0)
    else:
        assert "\nstopped: by a signal\n" in output


# Text.


class StatsNow:
    traffic = {}
    writes_resent = failovers = failovers_denied = repairs = repairs_skipped = decode_errors = 0


def results(plan):
    """Return the lines of a run with one of everything."""
    record = Record(plan)
    record.nodes = [NodeTimes("eu-1a", "10.0.1.4:11211", error="10.0.1.4:11211: no reply")]
    record.nodes[0].before.add(0.001)
    record.begin(10.0, StatsNow())
    operation = Operation(0.0, is_write=False, number=0)
    for _ in range(3):
        since = record.sent(operation, 10.0, slept=False)
    record.read_ended("eu-1a", "local", since, since + 0.002)
    record.failed(operation, "CacheUnavailable", "no zone could answer", since, since + 0.1)
    record.fell_back("eu-1a", None)
    record.never_sent(operation, 10.5)
    record.end(11.0, StatsNow())
    record.left = 3
    costs = Estimate((ZoneCost("eu-1a", "read-write", 1, True, 10, 20), ZoneCost("b", "write-only", 1, False, 5, 6)), 999)
    return record, plan_report(plan, "ns", costs, near_cache=True)


def test_the_text_names_what_was_not_measured():
    record, plan = results(Plan("run", keys=3))
    text = "\n".join(report_lines(bench_report(plan, record)))
    for needed in (
        "done",
        "1 were due and not sent: the callers were busy",
        "1 were under way at the stop",
        "p50 is 2.",
        "errors      CacheUnavailable 1\n            no zone could answer",
        "fallbacks   reads left the zone: eu-1a: miss 1",
        "10.0.1.4:11211  failed: 10.0.1.4:11211: no reply",
        f"3 keys were not deleted in all zones: they expire within {plan.ttl} s",
    ):
        assert needed in text, needed


def test_the_plan_names_its_costs_and_limits():
    _, plan = results(Plan("run"))
    text = "\n".join(plan_lines(plan))
    for needed in ("eu-1a (read-write, local), b (write-only)", "with a near cache", "about 11 bytes", "exceeds 250 ms"):
        assert needed in text, needed
    _, without = results(Plan("run", max_p99=None))
    assert "p99" not in "\n".join(plan_lines(without))


def test_plain_progress_prints_each_phase_and_each_second_once():
    record, _ = results(Plan("run"))
    lines, now = [], [10.0]
    with PlainScreen(record, lines.append, lambda: now[0]) as screen:
        for phase, time in (("ping", 9), ("fill", 9.5), ("fill", 9.7), ("load", 10.2), ("load", 11.1), ("load", 11.2)):
            now[0] = time
            screen.refresh(phase)
    assert lines[:3] == ["pinging the nodes", "storing the keys", "measuring"]
    assert lines[3:] == ["   1 s  3 operations, 1 errors, 0 misses, p99 of reads 505 ms"]


def test_the_bar_of_a_terminal_fits_80_columns():
    record, _ = results(Plan("run"))
    with Path(os.devnull).open("w") as nowhere:
        console = Console(file=nowhere, force_terminal=True, width=80, height=24, record=True)
        with LiveScreen(record, console) as screen:
            for phase in ("ping", "fill", "load", "delete"):
                screen.refresh(phase)
    shown = console.export_text()
    assert "measuring" in shown
    assert "1 errors" in shown
    assert "…" not in shown
