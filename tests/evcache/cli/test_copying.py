"""Commands `evcache warm` and `evcache compare` on fake servers."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner

from evcache import EVCache
from evcache.cli.commands import evcache as command_line
from tests.support.cli_servers import DEAD, servers
from tests.support.zones_of_fakes import SETTINGS


def run(zones, *args, **environment):
    return CliRunner().invoke(command_line, args, env={"EVCACHE_NODES": zones, **environment})


def fill(zones, number, **options):
    async def main():
        async with EVCache("ns", zones, nodes=SETTINGS) as cache:
            await cache.set_many({f"k{place}": place for place in range(number)}, ttl=1000, timeout=10, **options)

    asyncio.run(main())


@pytest.fixture
def zones():
    """Three zones, of which the first has 300 items."""
    with servers(a1={}, a2={}, b={}, c={"may_list_keys": False}) as at:
        fill(f"a={at['a1']},{at['a2']}", 300)
        yield f"a={at['a1']},{at['a2']};b!={at['b']};c={at['c']}"


def test_warm_copies_and_reports(zones):
    done = run(zones, "warm", "--from", "a", "--to", "b")
    assert done.exit_code == 0, done.output
    assert re.fullmatch(
        r"done: 300 keys of a in [\d.]+ s, [\d,]+ keys/s\n"
        r"  copied to b: 300 keys, 0.0 MB of values\n"
        r"  sample: 300 of 300 keys in place\n"
        r"  items: 300 in a, 300 in b\n",
        done.stdout,
    )
    again = run(zones, "warm", "--from", "a", "--to", "b")
    assert "  in place before, in b: 300\n" in again.stdout


def test_warm_as_json(zones):
    found = json.loads(run(zones, "warm", "--from", "a", "--to", "b", "--json").stdout)
    assert (found["complete"], found["copied"], found["keys"], found["failed"]) == (True, 300, 300, 0)
    assert found["sample"] == {"keys": 300, "in_place": 300}
    assert found["items"] == {"a": 300, "b": 300}
    assert found["skipped"]["present"] == 0


def test_a_refused_list_of_keys_names_the_alternatives(zones, tmp_path):
    refused = run(zones, "warm", "--from", "c", "--to", "b")
    assert refused.exit_code == 2
    assert "metadump not allowed" in refused.stderr
    assert "--keys FILE" in refused.stderr
    path = tmp_path / "keys"
    path.write_text("k1\nk2\n", "utf-8")
    done = run(zones, "warm", "--from", "a", "--to", "c", "--namespace", "ns", "--keys", str(path))
    assert done.exit_code == 0, done.output
    assert "copied to c: 2 keys" in done.stdout


def test_compare_finds_and_repairs(zones):
    before = run(zones, "compare", "a", "b", "--all")
    assert before.exit_code == 1
    assert before.stdout.startswith("300 keys compared: 300 differ (100.00%)\n  missing in b: 300, for example\n    ns:k")
    assert before.stdout.endswith("with --repair the command copies the newer versions\n")
    repaired = run(zones, "compare", "a", "b", "--all", "--repair")
    assert (repaired.exit_code, repaired.stdout.splitlines()[-1]) == (0, "300 repaired")
    after = run(zones, "compare", "a", "b", "--all", "--json")
    assert json.loads(after.stdout) == {
        "compared": 300,
        "different": 0,
        "repaired": 0,
        "unanswered": 0,
        "differences": [],
        "unlisted_nodes": {},
    }


def test_compare_as_json_names_kind_zone_and_examples(zones):
    found = json.loads(run(zones, "compare", "a", "b", "--json").stdout)
    (difference,) = found["differences"]
    assert (difference["kind"], difference["stale"], difference["keys"]) == ("missing", "b", 300)
    assert len(difference["examples"]) == 5


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (["warm", "--from", "a", "--to", "a"], "same zone"),
        (["warm", "--from", "x", "--to", "b"], "--from: there is no zone 'x', the topology has a, b, c"),
        (["warm", "--from", "a", "--to", "x"], "--to: there is no zone 'x'"),
        (["warm", "--from", "a", "--to", "b", "--rate", "0"], "--rate"),
        (["warm", "--from", "a", "--to", "b", "--megabytes", "-1"], "--megabytes"),
        (["warm", "--from", "a", "--to", "b", "--namespace", "two words"], "namespace"),
        (["warm", "--from", "a", "--to", "b", "--keys", "/no/such/file"], "--keys"),
        (["compare", "a", "a"], "the two zones are the same"),
        (["compare", "a", "x"], "ZONE: there is no zone 'x'"),
        (["compare", "a", "b", "--sample", "0"], "--sample"),
    ],
)
def test_bad_arguments_are_named(zones, args, problem):
    done = run(zones, *args)
    assert done.exit_code == 2
    assert problem in done.stderr


@pytest.mark.parametrize("args", [["warm", "--from", "a", "--to", "b"], ["compare", "a", "b"]])
def test_a_dead_source_is_no_answer(args):
    done = run(f"a={DEAD};b={DEAD}", *args)
    assert done.exit_code == 3
    assert DEAD in done.stderr


def test_an_interrupted_warm_up_says_how_to_go_on(zones):
    process = subprocess.Popen(
        [sys.executable, "-c", "from evcache.cli import main; main()"]
        + ["warm", "--zones", zones, "--from", "a", "--to", "b", "--rate", "20"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    while run(zones, "compare", "a", "b", "--json", "--all").stdout.count('"different":300'):
        assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGINT)
    _, problems = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.search(r"interrupted: [1-9]\d* keys copied; run the same command again", problems)
    done = json.loads(run(zones, "warm", "--from", "a", "--to", "b", "--json").stdout)
    assert done["complete"]
    assert 0 < done["copied"] < 300
