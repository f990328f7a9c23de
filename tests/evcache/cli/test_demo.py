"""Runs of `evcache demo`, and the evaluation of their results."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from evcache.admin.latencies import Latencies
from evcache.cli.commands import evcache as command_line
from evcache.cli.demo import scenario as demo
from evcache.cli.demo import stats as demo_stats
from evcache.cli.demo.stats import Phase, Record, Recovery, Tally, find_problems, value_of, write_number
from evcache.cli.demo.view import LiveScreen, PlainScreen, summary
from evcache.errors import CacheUnavailable, NodeUnavailable

ZONES = ["eu-1a", "eu-1b", "eu-1c"]


def start(*args):
    return subprocess.Popen(
        [sys.executable, "-m", "evcache", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


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
    assert f"{older} returned an older value" in result.stdout
    assert f"{acknowledged + refused}: {acknowledged} acknowledged, {refused} refused" in result.stdout
    assert (missed, failed, wrong) == (0, 0, 0)

    events = "\n".join(row[11] for row in rows)
    assert f"eu-1a {'suspended' if pause else 'killed'}" in events
    assert "eu-1a restarted, empty" in events
    assert re.search(r"recovery first read from eu-1a \d+\.\d\d s after its restart", result.stdout)
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
    assert rest.endswith("stopped early by a signal\n")


def test_demo_ends_when_its_output_is_closed():
    process = start("demo", "--backend", "embedded", "--seconds", "600", "--callers", "2", "--keys", "10")
    assert process.stdout.readline()
    process.stdout.close()
    with process.stderr as errors:
        assert errors.read() == ""
    assert process.wait() == 1


def test_demo_without_a_server_binary_fails(monkeypatch):
    monkeypatch.setenv("EVCACHE_MEMCACHED", "/nonexistent/memcached")
    result = CliRunner().invoke(command_line, ["demo", "--backend", "memcached"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "/nonexistent/memcached" in result.stderr


def test_a_demo_that_lost_a_read_ends_with_status_1(monkeypatch):
    async def run_demo(plan, record, screen):
        record.record_failure(CacheUnavailable("get", {}), Phase.DURING, 0.1)

    monkeypatch.setattr(demo, "run_demo", run_demo)
    result = CliRunner().invoke(command_line, ["demo", "--plain"])
    assert result.exit_code == 1
    assert "FAILED: 1 reads raised an error" in result.stdout


def test_error_of_a_companion_ends_the_demo():
    ended = []

    async def story():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def companion():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(demo._run_with_companions(story(), [companion()]))
    assert ended == [True]


class Cache:
    """A cache that answers each call with one result or error."""

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
def test_read_is_counted_by_its_result(answer, known, expected):
    record = Record(ZONES, "eu-1a", timer=lambda: 0.0)
    if known is not None:
        record.record_write("k", known, acknowledged=True)
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
    assert write_number("key-1", value_of("key-1", 7)) == 7
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
def test_wrong_value_has_no_write_number(value):
    assert write_number("key-1", value) is None


def test_reads_are_counted_by_kind():
    record = Record(ZONES, "eu-1a", timer=Timer())
    for _ in range(3):
        record.record_write("k", record.next_write("k"), acknowledged=True)
    record.record_hit("k", value_of("k", 3), "eu-1a", 3, Phase.BEFORE, 0.001)
    record.record_hit("k", value_of("k", 2), "eu-1b", 3, Phase.BEFORE, 0.001)
    assert find_problems(record.total) == []
    record.record_hit("k", value_of("k", 4), "eu-1b", 3, Phase.BEFORE, 0.001)  # this value was never written
    record.record_hit("k", value_of("j", 3), "eu-1c", 3, Phase.BEFORE, 0.001)
    assert record.total.served == {"eu-1a": 1, "eu-1b": 1}
    assert (record.total.wrong, record.total.older, record.total.reads) == (2, 1, 4)
    assert find_problems(record.total) == ["2 reads returned a wrong value"]
    assert len(record.errors) == 2


@pytest.mark.parametrize(
    ("tally", "found"),
    [
        (Tally(), ["no read was made"]),
        (Tally(missed=1), []),  # of a key whose write was refused
        (Tally(missed=1, lost=1), ["1 reads missed an acknowledged key"]),
        (Tally(failed=2), ["2 reads raised an error"]),
        (Tally(wrong=3), ["3 reads returned a wrong value"]),
    ],
)
def test_problems_of_a_tally(tally, found):
    assert find_problems(tally) == found


def test_errors_are_kept_once_and_up_to_a_limit():
    record = Record(ZONES, "eu-1a", timer=Timer())
    for number in range(100):
        record.record_failure(ValueError(f"problem {number // 2}"), Phase.BEFORE, 0.001)
    assert record.errors == [f"ValueError: problem {number}" for number in range(demo_stats.MAX_ERRORS)]


def test_seconds_without_a_call_are_seconds_too():
    timer = Timer()
    record = Record(ZONES, "eu-1a", timer=timer)
    record.record_write("k", 1, acknowledged=True)
    timer.now += 3.5
    record.set_zone_state("eu-1a", "down", "eu-1a killed")
    record.record_write("k", 2, acknowledged=False)
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


def test_recovery_of_the_local_zone():
    recovery = Recovery()
    recovery.read(1.0, local=True)  # ignored before the restart
    assert recovery.first is None
    recovery.start(10.0)
    recovery.read(10.1, local=False)
    recovery.read(10.2, local=True)
    assert (recovery.first, recovery.complete) == (pytest.approx(0.2), None)
    for tenths in range(103, 110):
        recovery.read(tenths / 10, local=tenths % 2 == 0)
    assert recovery.complete is None
    for hundredths in range(1101, 1200):
        recovery.read(hundredths / 100, local=True)
    assert 1.0 < recovery.complete < 1.6
    assert recovery.first == pytest.approx(0.2)


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
                record.record_write("k", record.next_write("k"), acknowledged=True)
                record.record_hit("k", value_of("k", second + 1), "eu-1a", second, Phase.BEFORE, 0.0001)
            record.set_zone_state("eu-1a", "down", "eu-1a killed")
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
    assert summary(record)[-1] == "verdict  FAILED: no read was made"
