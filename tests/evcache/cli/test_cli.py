"""Exit statuses and output of the commands, and their behaviour at signals."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

import evcache.cli
from evcache.cli import output, runner
from evcache.cli.commands import evcache as command_line
from evcache.cli.up import directions
from evcache.errors import CacheUnavailable, ConsistencyError, DecodeError, InvalidKey
from evcache.testing import BackendUnavailable, LocalZones
from evcache.zones.topology.model import Topology
from evcache.zones.transport.core import selected

ZONES = ["eu-1a", "eu-1b", "eu-1c"]

# No server listens on port 1 of the loopback address.
DEAD = "eu-1a=127.0.0.1:1;eu-1b=127.0.0.1:1"


@pytest.fixture(scope="module")
def cluster():
    with LocalZones(ZONES, backend="embedded").running() as zones:
        yield zones


@pytest.fixture
def call(cluster):
    """Run a command against the cluster, without the environment of this process."""

    def run(*args, **environment):
        node_list = ";".join(f"{zone}={','.join(nodes)}" for zone, nodes in cluster.zones.items())
        env = {"EVCACHE_NODES": node_list, "EVCACHE_ZONE": "eu-1a", "EVCACHE_NAMESPACE": "tests", **environment}
        return CliRunner().invoke(command_line, args, env=env)

    return run


# --- get, set, delete ---------------------------------------------------------------------------------------------------


def test_a_value_is_set_read_and_deleted(call):
    done = call("set", "round", "trip with ünicode")
    assert (done.exit_code, done.stderr) == (0, "")
    assert re.fullmatch(r"done, version \d+\n  eu-1a  stored\n  eu-1b  stored\n  eu-1c  stored\n", done.stdout)

    read = call("get", "round")
    assert (read.exit_code, read.stdout, read.stderr) == (0, "trip with ünicode\n", "")

    gone = call("delete", "round")
    assert gone.exit_code == 0
    assert "eu-1c  stored" in gone.stdout

    missing = call("get", "round")
    assert (missing.exit_code, missing.stdout, missing.stderr) == (1, "", "no value for round\n")


def test_json_output(call):
    written = json.loads(call("set", "--json", "--ttl", "60", "json", "text").stdout)
    assert written["met"] is True
    assert written["zones"] == dict.fromkeys(ZONES, "stored")

    read = json.loads(call("get", "--json", "json").stdout)
    assert read.pop("ttl") in (59, 60)
    assert read == {
        "value": "text",
        "type": "str",
        "version": written["version"],
        "zone": "eu-1a",
        "source": "local",
    }

    missing = call("get", "--json", "nothing")
    assert (missing.exit_code, json.loads(missing.stdout)) == (1, None)


@pytest.mark.parametrize(
    ("given", "printed"),
    [
        ('{"name": "Ada", "tags": [1, null]}', '{"name":"Ada","tags":[1,null]}'),
        ("42", "42"),
        ("null", "null"),
        ('"text"', "text"),
    ],
)
def test_values_given_as_json(call, given, printed):
    assert call("set", "--json-value", "as-json", given).exit_code == 0
    read = call("get", "as-json")
    assert (read.exit_code, read.stdout) == (0, printed + "\n")
    assert json.loads(call("get", "--json", "as-json").stdout)["value"] == json.loads(given)


def test_without_expiry(call):
    assert call("set", "no-expiry", "x", "--ttl", "inf").exit_code == 0
    assert json.loads(call("get", "--json", "no-expiry").stdout)["ttl"] is None


def test_bytes_are_printed_unchanged():
    assert output.format_value(b"\x00\xff") == b"\x00\xff"
    assert output.to_json({"value": b"\x00\xff"}) == '{"value":"AP8="}'
    assert output.to_json({"value": object}) == json.dumps({"value": repr(object)}, separators=(",", ":"))


def test_the_zones_can_come_from_a_file(call, cluster, tmp_path):
    path = tmp_path / "zones.toml"
    path.write_text("".join(f"[zones.{zone}]\nnodes = {nodes}\n" for zone, nodes in cluster.zones.items()))
    assert call("set", "from-file", "x", "--zones", str(path)).exit_code == 0
    read = call("get", "from-file", "--zones", str(path), "--local-zone", "eu-1b", "--consistency", "ALL")
    assert (read.exit_code, read.stdout) == (0, "x\n")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["get", "a b"], "key: 'a b' has a space"),
        (["get", "k", "--namespace", "a:b"], "namespace: "),
        (["get", "k", "--timeout", "0"], "timeout: a number of seconds above 0 is required"),
        (["get", "k", "--timeout", "soon"], "'--timeout'"),
        (["get", "k", "--consistency", "most"], "'--consistency'"),
        (["get", "k", "--local-zone", "mars"], "'mars' is not one of the zones"),
        (["get", "k", "--zones", "nonsense"], "neither zone=host:port"),
        (["get", "k", "--zones", "missing.toml"], "missing.toml"),
        (["get"], "KEY"),
        (["set", "k"], "VALUE"),
        (["set", "k", "v", "--ttl", "0"], "ttl: more than 0 seconds is required, not 0.0"),
        (["set", "k", "v", "--ttl", "nan"], "ttl: "),
        (["set", "k", "{", "--json-value"], "not JSON"),
        (["set", "k", "18446744073709551616", "--json-value"], "cannot be stored"),
        (["set", "k", "x" * 2_000_000], "value: 2000000 bytes"),
        (["demo", "--backend", "cloud"], "'--backend'"),
        (["demo", "--seconds", "0"], "'--seconds'"),
        (["demo", "--callers", "0"], "'--callers'"),
        (["up", "--zones", "0"], "'--zones'"),
        (["up", "--nodes", "0"], "'--nodes'"),
        (["dance"], "dance"),
    ],
)
def test_arguments_that_cannot_be_used(call, args, said):
    result = call(*args)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert said in result.stderr
    assert isinstance(result.exception, SystemExit)


@pytest.mark.parametrize("missing", ["EVCACHE_NODES", "EVCACHE_NAMESPACE"])
def test_missing_required_option_names_its_environment_variable(call, missing):
    result = call("get", "k", **{missing: ""})
    assert result.exit_code == 2
    assert missing in result.stderr


@pytest.mark.parametrize("args", [["get", "k"], ["set", "k", "v"], ["delete", "k"]])
def test_no_zone_answers(call, args):
    result = call(*args, "--zones", DEAD)
    assert (result.exit_code, result.stdout) == (3, "")
    assert re.match(r"Error: \w+: no zone could answer \(eu-1.: 127\.0\.0\.1:1: ", result.stderr)


@pytest.mark.parametrize("args", [["set", "k", "v"], ["delete", "k"]])
def test_too_few_zones_take_a_write(call, cluster, args):
    half = f"eu-1a={cluster.zones['eu-1a'][0]};eu-1b=127.0.0.1:1"
    result = call(*args, "--zones", half, "--consistency", "all")
    assert result.exit_code == 1
    assert result.stdout.startswith(
        "not done: too few zones acknowledged\n  eu-1a  stored\n  eu-1b  unavailable\nmissed by eu-1b"
    )
    assert json.loads(call(*args, "--zones", half, "--consistency", "all", "--json").stdout)["met"] is False


def test_too_few_zones_answer_a_read(call, cluster):
    half = f"eu-1a={cluster.zones['eu-1a'][0]};eu-1b=127.0.0.1:1"
    result = call("get", "k", "--zones", half, "--consistency", "all")
    assert result.exit_code == 3
    assert "eu-1b: 127.0.0.1:1: it is down" in result.stderr


def test_version():
    result = CliRunner().invoke(command_line, ["--version"])
    assert result.exit_code == 0
    assert re.fullmatch(rf"evcache \d+\.\d+\.\d+, {selected.SELECTED.name} core\n", result.stdout)


def test_every_command_has_help():
    for args in ([], *([name] for name in command_line.commands)):
        assert CliRunner().invoke(command_line, [*args, "--help"]).exit_code == 0


def test_the_list_of_commands_has_whole_sentences():
    shown = CliRunner().invoke(command_line, ["--help"], terminal_width=80).stdout
    listed = re.findall(r"^  (\w+)  +(\S.*)$", shown.partition("Commands:")[2], re.MULTILINE)
    assert [name for name, _ in listed] == sorted(command_line.commands)
    assert [line for _, line in listed if not line.endswith(".") or line.endswith("...")] == []


def test_python_m_evcache_is_the_command():
    with start("--version") as process:
        output, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    assert output == CliRunner().invoke(command_line, ["--version"]).output


# --- without the extra --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["click", "rich"])
def test_without_the_extra_the_message_names_the_installation(monkeypatch, capsys, module):
    for name in list(sys.modules):
        if name.partition(".")[0] == module or name.startswith("evcache.cli."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SystemExit) as ended:
        evcache.cli.main()
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "pip install evcache[cli]" in err
    assert err.count("\n") == 1


def test_a_broken_installation_is_not_mistaken_for_a_missing_extra(monkeypatch):
    for name in list(sys.modules):
        if name.startswith("evcache.cli."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "evcache.zones.transport.core", None)
    with pytest.raises(ModuleNotFoundError, match=r"transport\.core"):
        evcache.cli.main()


# --- running ------------------------------------------------------------------------------------------------------------


def test_a_signal_cancels_the_work_and_waits_for_its_cleanup():
    cleaned = []

    async def work():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(runner.Stopped) as stopped:
        runner.run(work())
    assert cleaned == [True]
    assert stopped.value.status == 143
    assert signal.getsignal(signal.SIGTERM) == before


def test_signal_that_nohup_ignores_stays_ignored():
    async def work():
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        return "done"

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert runner.run(work()) == "done"
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidKey("key", "it is empty"), 2),
        (BackendUnavailable("no memcached"), 2),
        (CacheUnavailable("get", {}), 3),
        (ConsistencyError("get", 1, 2, {}), 3),
        (DecodeError("damaged", key=b"k", zone="eu-1a", flags=7), 3),
        (TimeoutError(), 3),
    ],
)
def test_errors_of_the_library_end_a_command_cleanly(error, status):
    async def work():
        raise error

    with pytest.raises(click.ClickException) as ended:
        runner.run(work())
    assert ended.value.exit_code == status
    assert ended.value.format_message()


def test_bugs_keep_their_traceback():
    async def work():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        runner.run(work())


# --- up -----------------------------------------------------------------------------------------------------------------


def start(*args):
    return subprocess.Popen(
        [sys.executable, "-m", "evcache", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_stays_until_a_signal(number):
    with start("up", "--backend", "embedded", "--zones", "2", "--nodes", "2") as process:
        lines = [process.stdout.readline() for _ in range(3)]
        process.send_signal(number)
        rest, errors = process.communicate()
    assert lines[0].startswith("# 2 zones run until Ctrl-C: memcached ")
    assert re.fullmatch(r"export EVCACHE_NODES='local-a=[\d.:,]+;local-b=[\d.:,]+'\n", lines[1])
    assert lines[2] == "export EVCACHE_ZONE=local-a\n"
    assert rest.endswith("# stopped\n")
    assert (process.returncode, errors) == (0, "")


def test_the_directions_can_be_followed(cluster):
    lines = directions(cluster.zones, "memcached")
    node_list = lines[1].removeprefix("export EVCACHE_NODES=").strip("'")
    assert Topology.from_node_list(node_list) == Topology.from_mapping(cluster.zones)
    ran = subprocess.run([sys.executable, "-c", lines[-1]], capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("{'name': 'Ada'}\n", "")
