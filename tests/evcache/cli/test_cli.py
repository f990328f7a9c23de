"""The command line: exit statuses and output of each command, and the demo's judgement as plain functions."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from rich.console import Console

import evcache.cli
from evcache.cli import demo, demo_stats, key_commands, runner
from evcache.cli.commands import directions
from evcache.cli.commands import evcache as command_line
from evcache.cli.demo_stats import Latencies, Phase, Record, Return, Tally, number_in, problems, value_of
from evcache.cli.demo_view import LiveScreen, PlainScreen, summary
from evcache.errors import CacheUnavailable, ConsistencyError, DecodeError, InvalidKey, NodeUnavailable
from evcache.testing import BackendUnavailable, LocalZones
from evcache.zones.topology.model import Topology

ZONES = ["eu-1a", "eu-1b", "eu-1c"]

# Nothing listens on port 1 of the loopback address.
DEAD = "eu-1a=127.0.0.1:1;eu-1b=127.0.0.1:1"


@pytest.fixture(scope="module")
def cluster():
    with LocalZones(ZONES, backend="embedded").running() as zones:
        yield zones


@pytest.fixture
def call(cluster):
    """Run a command against the cluster; the environment of this process has no say."""

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
    assert call("set", "for-ever", "x", "--ttl", "inf").exit_code == 0
    assert json.loads(call("get", "--json", "for-ever").stdout)["ttl"] is None


def test_bytes_are_printed_as_they_are():
    assert key_commands.printable(b"\x00\xff") == b"\x00\xff"
    assert key_commands.json_of({"value": b"\x00\xff"}) == '{"value":"AP8="}'
    assert key_commands.json_of({"value": object}) == json.dumps({"value": repr(object)}, separators=(",", ":"))


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
        (["get", "k", "--timeout", "0"], "timeout: seconds over 0"),
        (["get", "k", "--timeout", "soon"], "'--timeout'"),
        (["get", "k", "--consistency", "most"], "'--consistency'"),
        (["get", "k", "--local-zone", "mars"], "'mars' is not one of the zones"),
        (["get", "k", "--zones", "nonsense"], "neither zone=host:port"),
        (["get", "k", "--zones", "missing.toml"], "missing.toml"),
        (["get"], "KEY"),
        (["set", "k"], "VALUE"),
        (["set", "k", "v", "--ttl", "0"], "ttl: 0.0 is not more than 0 seconds"),
        (["set", "k", "v", "--ttl", "nan"], "ttl: "),
        (["set", "k", "{", "--json-value"], "not JSON"),
        (["set", "k", "18446744073709551616", "--json-value"], "can't be stored"),
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
def test_what_must_be_said_can_be_said_by_the_environment(call, missing):
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
    assert re.fullmatch(r"evcache \d+\.\d+\S*\n", result.stdout)


def test_every_command_has_help():
    for args in ([], *([name] for name in command_line.commands)):
        assert CliRunner().invoke(command_line, [*args, "--help"]).exit_code == 0


# --- without the extra --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["click", "rich"])
def test_without_the_extra_it_says_what_to_install(monkeypatch, capsys, module):
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
    monkeypatch.setitem(sys.modules, "evcache.zones.topology.discovery", None)
    with pytest.raises(ModuleNotFoundError, match=r"topology\.discovery"):
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


def test_what_nohup_ignores_stays_ignored():
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
        [sys.executable, "-c", "from evcache.cli import main; main()", *args],
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


# --- demo: a run --------------------------------------------------------------------------------------------------------

LINE = re.compile(
    r" *(\d+) s  read from eu-1a +(\d+)  eu-1b +(\d+)  eu-1c +(\d+)  missed (\d+)  failed (\d+)  wrong (\d+)"
    r"  older (\d+)  \|  writes acknowledged +(\d+)  refused (\d+)  \|  (.*)"
)


@pytest.mark.parametrize("pause", [[], ["--pause"]])
def test_a_demo_serves_every_read_and_its_numbers_add_up(pause):
    args = ["demo", "--backend", "embedded", "--seconds", "0.9", "--callers", "4", "--keys", "20", "--plain", *pause]
    result = CliRunner().invoke(command_line, args)
    assert result.exit_code == 0, result.output
    assert re.search(r"[\x00-\x09\x0b-\x1f\x7f\x9b]", result.output) is None

    rows = [LINE.fullmatch(line) for line in result.stdout.splitlines() if " s  read from " in line]
    assert all(rows)
    numbers = [[int(number) for number in row.groups()[:-1]] for row in rows]
    assert [row[0] for row in numbers] == list(range(1, len(rows) + 1))
    local, second, third, missed, failed, wrong, older, acknowledged, refused = [
        sum(row[column] for row in numbers) for column in range(1, 10)
    ]
    assert local > 0
    assert second + third > 0
    assert (
        f"{local + second + third + missed + failed + wrong}: {local} by eu-1a (local), {second} by eu-1b, {third} by eu-1c"
        in result.stdout
    )
    assert f"{missed} missed (0 of them acknowledged keys), {failed} failed, {wrong} wrong" in result.stdout
    assert f"{older} brought an older value" in result.stdout
    assert f"{acknowledged + refused}: {acknowledged} acknowledged, {refused} refused" in result.stdout
    assert (missed, failed, wrong) == (0, 0, 0)

    events = "\n".join(row[11] for row in rows)
    assert f"eu-1a {'hangs' if pause else 'killed'}" in events
    assert "eu-1a back, empty" in events
    assert re.search(r"return   first read from eu-1a \d+\.\d\d s after its restart", result.stdout)
    assert "verdict  no read failed, and no value was wrong" in result.stdout


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_demo_can_be_stopped(number, status):
    with start("demo", "--backend", "embedded", "--seconds", "600", "--callers", "2", "--keys", "10") as process:
        while "  1 s  read from" not in (line := process.stdout.readline()):
            assert line
        process.send_signal(number)
        rest, errors = process.communicate()
    assert (process.returncode, errors) == (status, "")
    assert "eu-1a was not restarted" in rest
    assert rest.endswith("stopped before its end\n")


def test_a_demo_whose_output_nobody_reads_any_more():
    process = start("demo", "--backend", "embedded", "--seconds", "600", "--callers", "2", "--keys", "10")
    assert process.stdout.readline()
    process.stdout.close()
    with process.stderr as errors:
        assert errors.read() == ""
    assert process.wait() == 1


def test_a_demo_without_its_servers(monkeypatch):
    monkeypatch.setenv("EVCACHE_MEMCACHED", "/nonexistent/memcached")
    result = CliRunner().invoke(command_line, ["demo", "--backend", "memcached"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "/nonexistent/memcached" in result.stderr


def test_a_demo_that_lost_a_read_ends_with_status_1(monkeypatch):
    async def run_demo(plan, record, screen):
        record.read_failed(CacheUnavailable("get", {}), Phase.DURING, 0.1)

    monkeypatch.setattr(demo, "run_demo", run_demo)
    result = CliRunner().invoke(command_line, ["demo", "--plain"])
    assert result.exit_code == 1
    assert "NOT WELL: 1 reads raised an error" in result.stdout


def test_an_error_beside_the_story_ends_the_demo():
    ended = []

    async def story():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def companion():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(demo._beside(story(), [companion()]))
    assert ended == [True]


class Cache:
    """Answers every call with one result, or error."""

    def __init__(self, answer):
        self.answer = answer

    async def get_item(self, key):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def set(self, key, value):
        return await self.get_item(key)


@pytest.mark.parametrize(
    ("answer", "known", "expected"),
    [
        (None, None, Tally(missed=1)),
        (None, 1, Tally(missed=1, lost=1)),
        (CacheUnavailable("get", {}), 1, Tally(failed=1)),
        (ZeroDivisionError(), 1, Tally(failed=1)),
    ],
)
def test_what_a_read_counts_as(answer, known, expected):
    record = Record(ZONES, "eu-1a", timer=lambda: 0.0)
    if known is not None:
        record.wrote("k", known, acknowledged=True)
        expected.acknowledged = 1
    asyncio.run(demo.read_once(Cache(answer), record, "k"))
    assert record.total == record.seconds[0].tally == expected


def test_a_refused_write_is_not_expected_of_a_reader():
    record = Record(ZONES, "eu-1a", timer=lambda: 0.0)
    asyncio.run(demo.write_once(Cache(NodeUnavailable("down", "n")), record, "k"))
    assert (record.total.refused, record.acknowledged) == (1, {})


# --- demo: deciding -----------------------------------------------------------------------------------------------------


class Timer:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_a_value_names_its_write():
    assert number_in("key-1", value_of("key-1", 7)) == 7
    assert len(value_of("key-00001", 1)) < 512  # values over that are checked against the servers' limits


@pytest.mark.parametrize(
    "value",
    [
        value_of("key-2", 7),  # another key's
        value_of("key-1", 7)[:-1],  # torn
        value_of("key-1", 7)[:100] + value_of("key-1", 8)[100:],  # mixed
        value_of("key-1", 7) + "x",
        "key-1/7;",
        "key-1/seven;" * demo_stats.VALUE_REPEATS,
        "",
        None,
        7,
        value_of("key-1", 7).encode(),
    ],
)
def test_a_value_that_is_not_right_is_seen(value):
    assert number_in("key-1", value) is None


def test_reads_are_told_apart():
    record = Record(ZONES, "eu-1a", timer=Timer())
    for _ in range(3):
        record.wrote("k", record.next_write("k"), acknowledged=True)
    record.read_hit("k", value_of("k", 3), "eu-1a", 3, Phase.BEFORE, 0.001)
    record.read_hit("k", value_of("k", 2), "eu-1b", 3, Phase.BEFORE, 0.001)
    assert problems(record.total) == []
    record.read_hit("k", value_of("k", 4), "eu-1b", 3, Phase.BEFORE, 0.001)  # nobody wrote that
    record.read_hit("k", value_of("j", 3), "eu-1c", 3, Phase.BEFORE, 0.001)
    assert record.total.served == {"eu-1a": 1, "eu-1b": 1}
    assert (record.total.wrong, record.total.older, record.total.reads) == (2, 1, 4)
    assert problems(record.total) == ["2 reads brought a wrong value"]
    assert len(record.errors) == 2


@pytest.mark.parametrize(
    ("tally", "found"),
    [
        (Tally(), ["no read was made"]),
        (Tally(missed=1), []),  # of a key whose write was refused
        (Tally(missed=1, lost=1), ["1 reads missed a key that was acknowledged"]),
        (Tally(failed=2), ["2 reads raised an error"]),
        (Tally(wrong=3), ["3 reads brought a wrong value"]),
    ],
)
def test_the_judgement(tally, found):
    assert problems(tally) == found


def test_errors_are_kept_once_and_not_without_end():
    record = Record(ZONES, "eu-1a", timer=Timer())
    for number in range(100):
        record.read_failed(ValueError(f"problem {number // 2}"), Phase.BEFORE, 0.001)
    assert record.errors == [f"ValueError: problem {number}" for number in range(demo_stats.MAX_ERRORS)]


def test_seconds_without_a_call_are_seconds_too():
    timer = Timer()
    record = Record(ZONES, "eu-1a", timer=timer)
    record.wrote("k", 1, acknowledged=True)
    timer.now += 3.5
    record.zone_became("eu-1a", "down", "eu-1a killed")
    record.wrote("k", 2, acknowledged=False)
    assert [second.tally.acknowledged for second in record.seconds] == [1, 0, 0, 0]
    assert [second.tally.refused for second in record.seconds] == [0, 0, 0, 1]
    assert [second.states["eu-1a"] for second in record.seconds] == ["up", "up", "up", "down"]
    assert record.seconds[3].events == ["eu-1a killed"]


def test_quantiles():
    latencies = Latencies()
    assert latencies.quantile(0.5) is None
    for milliseconds in range(1, 101):
        latencies.add(milliseconds / 1000)
    assert latencies.quantile(0.5) == pytest.approx(0.050, rel=0.05)
    assert latencies.quantile(0.99) == pytest.approx(0.099, rel=0.05)
    latencies.add(0.0)  # a clock with coarse ticks


def test_when_reads_came_back():
    back = Return()
    back.read(1.0, local=True)  # before the restart: counts for nothing
    assert back.first is None
    back.restarted(10.0)
    back.read(10.1, local=False)
    back.read(10.2, local=True)
    assert (back.first, back.back) == (pytest.approx(0.2), None)
    for tenths in range(103, 110):
        back.read(tenths / 10, local=tenths % 2 == 0)
    assert back.back is None
    for hundredths in range(1101, 1200):
        back.read(hundredths / 100, local=True)
    assert 1.0 < back.back < 1.6
    assert back.first == pytest.approx(0.2)


# --- demo: showing ------------------------------------------------------------------------------------------------------


def test_the_live_table_fits_a_small_terminal():
    timer = Timer()
    record = Record(ZONES, "eu-1a", timer=timer)
    with Path(os.devnull).open("w") as nowhere:
        console = Console(file=nowhere, force_terminal=True, width=80, height=24, record=True)
        with LiveScreen(console) as screen:
            screen.say("three zones")
            for second in range(40):
                timer.now = 100.0 + second
                record.wrote("k", record.next_write("k"), acknowledged=True)
                record.read_hit("k", value_of("k", second + 1), "eu-1a", second, Phase.BEFORE, 0.0001)
            record.zone_became("eu-1a", "down", "eu-1a killed")
            screen.refresh(record)
    shown = console.export_text()
    assert "second 40: eu-1a killed" in shown
    assert "down up up" in shown
    assert "…" not in shown
    frames = shown.count("eu-1a down")
    assert 0 < shown.count("\n") / frames < 24


def test_plain_lines_are_printed_once_each():
    timer = Timer()
    record = Record(ZONES, "eu-1a", timer=timer)
    lines = []
    with PlainScreen(lines.append) as screen:
        screen.refresh(record)
        assert lines == []
        timer.now += 2.5
        screen.refresh(record)
        screen.refresh(record)
        assert [line.split()[0] for line in lines] == ["1", "2"]
        screen.refresh(record, ended=True)
        screen.refresh(record, ended=True)
    assert [line.split()[0] for line in lines] == ["1", "2", "3"]


@pytest.mark.parametrize("phase", list(Phase))
def test_a_summary_can_be_made_at_any_time(phase):
    record = Record(ZONES, "eu-1a", timer=Timer())
    record.phase = phase
    assert summary(record)[-1] == "verdict  NOT WELL: no read was made"
