"""Tests of `evcache check`: output, JSON and exit statuses."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from evcache.cli.check import lines, status
from evcache.cli.commands import evcache as command_line
from evcache.readiness.judgement import judge, judge_zone
from evcache.readiness.report import NodeCheck
from evcache.zones import Mode, Topology
from evcache.zones.nodes.capabilities import Capabilities
from tests.support.cli_servers import DEAD, servers

PAGE = (Path(__file__).parents[3] / "docs" / "command-line.md").read_text("utf-8")
REFUSED = "[Errno 111] Connect call failed ('127.0.0.1', 1)"


@pytest.fixture(scope="module")
def at():
    """Return addresses of servers by name."""
    kinds = {"new": {"version": "1.6.40"}, "newer": {"version": "1.6.41"}, "old": {"version": "1.6.18"}}
    with servers(**kinds) as addresses:
        yield addresses | {"dead": DEAD}


def check(at, zones, *args, **environment):
    """Run the command on a node list in which servers have names."""
    env = {"EVCACHE_NODES": zones.format(**at), "EVCACHE_ZONE": "", "EVCACHE_NAMESPACE": "", **environment}
    return CliRunner().invoke(command_line, ["check", "--timeout", "20", *args], env=env)


@pytest.mark.parametrize(
    ("zones", "args", "exit_status", "verdict"),
    [
        ("a={new};b={newer}", [], 0, "ready: 2 of 2 zones can be read"),
        ("a={new};b!={newer}", [], 0, "ready: 1 of 1 zones can be read"),
        ("a={new},{dead}", [], 1, "ready: 1 of 1 zones can be read"),
        ("a={new};b={dead}", [], 1, "ready: 1 of 2 zones can be read"),
        ("a={new};b!={dead}", [], 1, "ready: 1 of 1 zones can be read"),
        ("a={old}", [], 1, "ready: 1 of 1 zones can be read"),
        ("a={old}", ["--ordering", "arrival"], 0, "ready: 1 of 1 zones can be read"),
        ("a={new}", ["--transport", "classic"], 1, "ready: 1 of 1 zones can be read"),
        ("a={dead}", [], 3, "not ready: 0 of 1 zones can be read"),
        ("a={dead};b!={new}", [], 3, "not ready: 0 of 1 zones can be read"),
        ("/no/such/file.toml", [], 3, "not ready: the topology is unknown"),
    ],
)
def test_exit_status_and_first_line(at, zones, args, exit_status, verdict):
    done = check(at, zones, *args)
    assert (done.exit_code, done.stderr) == (exit_status, "")
    assert done.stdout.splitlines()[0] == verdict
    assert ("\nproblems\n" in done.stdout) is (exit_status > 0)
    found = json.loads(check(at, zones, "--json", *args).stdout)
    assert (found["ready"], found["problems"] == []) == (exit_status < 3, exit_status == 0)


def test_json_has_the_fields_of_the_result(at):
    done = check(at, "eu-1a={new};eu-1b!=b-1@{old};eu-1c={dead}", "--json", "--local-zone", "eu-1a")
    found = json.loads(done.stdout)
    for zone in found["zones"]:
        for node in zone["nodes"]:
            assert 0 <= node.pop("seconds") < 20
    older = "memcached 1.6.18 is older than 1.6.27"
    assert found["zones"][1]["missing"].pop("conditional reads") == "memcached 1.6.18 is older than 1.6.40"
    assert set(found["zones"][1]["missing"].values()) == {older}
    assert found["zones"][1].pop("missing")["versions"] == older
    assert found == {
        "ready": True,
        "local_zone": "eu-1a",
        "zones": [
            {
                "name": "eu-1a",
                "mode": "read-write",
                "is_local": True,
                "is_ejected": False,
                "is_usable": True,
                "nodes": [
                    {
                        "node": at["new"],
                        "address": at["new"],
                        "ok": True,
                        "error": None,
                        "server": "1.6.40",
                        "transport": "meta",
                    }
                ],
                "missing": {},
            },
            {
                "name": "eu-1b",
                "mode": "write-only",
                "is_local": False,
                "is_ejected": False,
                "is_usable": True,
                "nodes": [
                    {
                        "node": "b-1",
                        "address": at["old"],
                        "ok": True,
                        "error": None,
                        "server": "1.6.18",
                        "transport": "meta",
                    }
                ],
            },
            {
                "name": "eu-1c",
                "mode": "read-write",
                "is_local": False,
                "is_ejected": True,
                "is_usable": False,
                "nodes": [{"node": DEAD, "address": DEAD, "ok": False, "error": REFUSED, "server": None, "transport": None}],
                "missing": {},
            },
        ],
        "missing_zones": [],
        "gutter": [],
        "problems": [
            f"zone eu-1b keeps no versions: {older}",
            f"zone eu-1c unusable: 1 of 1 nodes failed, the first is {DEAD}: {REFUSED}",
        ],
    }


def test_labels_are_shown_with_their_address_in_columns(at):
    done = check(at, "a=a-1@{new},{newer}", "--local-zone", "a")
    title, first, second = done.stdout.splitlines()[2:5]
    assert title == "a  read-write, local"
    assert first.startswith(f"  a-1 at {at['new']}  ok      memcached 1.6.40, meta protocol, ")
    assert second.index("ok") == first.index("ok")


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["--timeout", "0"], "timeout"),
        (["--timeout", "nan"], "timeout"),
        (["--ordering", "oldest"], "--ordering"),
        (["--zones", "nonsense"], "zones"),
        (["--namespace", "n"], "--namespace"),
    ],
)
def test_arguments_that_cannot_be_used_end_with_status_2(at, args, named):
    done = check(at, "a={dead}", *args)
    assert done.exit_code == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr


def reply(address, version, milliseconds):
    """Return the reply of a node, and the capabilities of its server."""
    node = NodeCheck(address, address, True, None, milliseconds / 1000, version, "meta")
    return node, Capabilities(server=version, explicit_cas=version != "1.6.18", cas=True)


def failure(address, error):
    return NodeCheck(address, address, False, error, 0.0, None, None), None


def test_the_output_on_the_page_is_that_of_the_command():
    refused = "[Errno 111] Connect call failed ('10.0.3.4', 11211)"
    replies = {
        "eu-1a": [reply("10.0.1.4:11211", "1.6.40", 0.7), failure("10.0.1.5:11211", "no connection in 2 s")],
        "eu-1b": [reply("10.0.2.4:11211", "1.6.18", 1.1), reply("10.0.2.5:11211", "1.6.18", 1.2)],
        "eu-1c": [failure("10.0.3.4:11211", refused)],
    }
    topology = Topology.from_mapping({zone: [node.address for node, _ in nodes] for zone, nodes in replies.items()})
    assert all(zone.mode is Mode.READ_WRITE for zone in topology.zones)
    zones = [
        judge_zone(
            zone,
            [node for node, _ in replies[zone.name]],
            [known for _, known in replies[zone.name] if known is not None],
            local_zone="eu-1a",
            ejected={"eu-1c"},
        )
        for zone in topology.zones
    ]
    found = judge(zones, (), local_zone="eu-1a", needs_versions=True)
    text = "\n".join(lines(found))
    assert f"```\n$ evcache check\n{text}\n$ echo $?\n{status(found).value}\n```" in PAGE
