"""Runs of `evcache top`, and the forms of its tables."""

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios

import pytest
from click.testing import CliRunner
from rich.console import Console

from evcache.admin.load.rates import NO_RATES
from evcache.admin.load.table import Figures, LoadTable, NodeLoad, ZoneLoad
from evcache.cli.commands import evcache as command_line
from evcache.cli.top.view import LiveScreen, cells, count, json_text, plain_text, size, table_of
from tests.support.cli_servers import DEAD, servers

FIGURES = Figures(
    gets=12345.6,
    sets=0.5,
    hit_ratio=0.987,
    latency=0.00123,
    memory_used=12 << 20,
    memory_limit=64 << 20,
    evictions=0.0,
    connections=1500,
    connection_limit=10_000,
    bytes_in=2048.0,
    bytes_out=3.5 * (1 << 20),
)


# --- view ----------------------------------------------------------------------------------------------------------------


def node(name, figures=FIGURES, error=None, circuit="closed", address=None):
    return NodeLoad(name, address or name, "ready", circuit, error, NO_RATES, figures)


TABLE = LoadTable(
    "2027-01-15T08:00:00.000Z",
    [
        ZoneLoad("eu-1a", "read-write", True, [node("10.0.1.4:11211")], FIGURES),
        ZoneLoad(
            "eu-1b",
            "write-only",
            False,
            [node("dead", Figures(), "[Errno 111] refused", "open", "10.0.2.4:11211"), node("10.0.2.5:11211")],
            FIGURES,
        ),
    ],
)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "-"), (0, "0"), (0.04, "0.0"), (0.5, "0.5"), (9.94, "9.9"), (10.4, "10"), (999.4, "999"), (999.6, "1.0k"),
        (12345.6, "12.3k"), (123456, "123k"), (1.5e6, "1.5M"), (2e9, "2G"), (5e12, "5000G"),
    ],
)  # fmt: skip
def test_numbers_are_short(number, text):
    assert count(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(None, "-"), (0, "0"), (1000, "1000"), (1024, "1K"), (1536, "1.5K"), (64 << 20, "64M"), (3 << 40, "3T"), (9.9, "9.9")],
)
def test_sizes_are_powers_of_1024(number, text):
    assert size(number) == text


def test_cells_of_figures():
    assert cells(FIGURES) == (
        "12.3k", "0.5", "98.7%", "1.23 ms", "12M/64M", "0", "1.5k/10k", "2K", "3.5M",
    )  # fmt: skip
    assert cells(Figures()) == ("-",) * 9
    assert cells(Figures(memory_used=5))[4] == "5/-"


def test_plain_text_has_aligned_columns_and_names_problems():
    lines = plain_text(TABLE).split("\n")
    assert lines[0] == "2027-01-15T08:00:00.000Z  *: local zone eu-1a"
    assert lines[1].split() == [
        "node", "circuit", "get/s", "set/s", "hits", "latency", "memory", "evict/s", "conns", "in/s", "out/s",
    ]  # fmt: skip
    assert lines[2].startswith("eu-1a*            1/1 up ")
    assert lines[3].startswith("  10.0.1.4:11211  closed ")
    assert lines[4].startswith("eu-1b             1/2 up write-only ")
    assert re.fullmatch(r"  dead +open +(- +){8}-", lines[5])
    assert {len(line) for line in lines[2:7]} == {len(lines[1])}
    assert lines[7:] == ["eu-1b dead at 10.0.2.4:11211: [Errno 111] refused", ""]


def test_json_has_the_figures_of_nodes_and_zones_as_numbers():
    text = json_text(TABLE)
    assert "\n" not in text
    first, second = json.loads(text)["zones"]
    assert (first["name"], first["mode"], first["local"], second["mode"]) == ("eu-1a", "read-write", True, "write-only")
    assert first["total"]["gets"] == 12345.6
    dead, live = second["nodes"]
    assert (dead["error"], dead["circuit"], dead["gets"]) == ("[Errno 111] refused", "open", None)
    assert (live["hit_ratio"], live["latency"], live["memory_limit"]) == (0.987, 0.00123, 64 << 20)


def test_the_live_table_is_drawn_in_place_and_fits_100_columns():
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=100, height=40, color_system=None)
    with LiveScreen(console, "q ends") as screen:
        screen.show(TABLE)
    drawn = text.getvalue()
    assert "waiting for the first interval; q ends" in drawn
    for cell in ("eu-1a*", "10.0.1.4:11211", "12.3k", "98.7%", "1.23 ms", "12M/64M", "1.5k/10k", "[Errno 111] refused"):
        assert cell in drawn
    assert "\x1b[" in drawn
    plain = io.StringIO()
    Console(file=plain, width=100).print(table_of(TABLE))
    assert max(len(line.rstrip()) for line in plain.getvalue().splitlines()) <= 100
    assert "…" not in plain.getvalue()


# --- command -------------------------------------------------------------------------------------------------------------


def top(zones, *args, count=2):
    env = {"EVCACHE_NODES": zones, "EVCACHE_ZONE": "eu-1a"}
    options = ["--count", str(count), "--interval", "0.05", *args]
    return CliRunner().invoke(command_line, ["top", *options], env=env)


@pytest.fixture(scope="module")
def zones():
    """Three zones: two nodes, an old server and a classic one, and a dead node."""
    kinds = {"a1": {"max_bytes": 64 << 20}, "a2": {"version": "1.6.18"}, "b": {"classic_only": True}}
    with servers(**kinds) as at:
        yield f"eu-1a={at['a1']},{at['a2']};eu-1b={at['b']};eu-1c!={DEAD}"


def test_tables_of_live_and_dead_nodes(zones):
    done = top(zones, "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    tables = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(tables) == 2
    for table in tables:
        a, b, c = table["zones"]
        assert (a["local"], b["local"], c["mode"]) == (True, False, "write-only")
        for node in [*a["nodes"], *b["nodes"]]:
            assert (node["error"], node["circuit"], node["state"]) == (None, "closed", "ready")
            assert node["latency"] > 0
            assert (node["sets"], node["evictions"], node["connection_limit"]) == (0, 0, 1024)
        assert [node["gets"] for node in a["nodes"]] == [0, 0]
        assert b["nodes"][0]["gets"] > 0, "over the classic protocol a probe is a read"
        assert a["nodes"][0]["memory_limit"] == 64 << 20
        assert a["total"]["connections"] == sum(node["connections"] for node in a["nodes"])
        (dead,) = c["nodes"]
        assert "Connect call failed" in dead["error"]
        assert (dead["circuit"], dead["gets"], c["total"]["bytes_in"]) == ("open", None, None)


def test_output_that_is_no_terminal_has_no_control_characters(zones):
    done = top(zones, "--sort", "latency")
    assert done.exit_code == 0
    assert re.search(r"[\x00-\x09\x0b-\x1f\x7f\x9b]", done.output) is None
    assert done.stdout.count("  *: local zone eu-1a\n") == 2
    assert done.stdout.count("Connect call failed") == 2
    assert "\neu-1a*" in done.stdout


def test_without_a_live_node_the_status_is_3():
    done = top(f"eu-1a={DEAD}", count=1)
    assert done.exit_code == 3
    assert "0/1 up" in done.stdout


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["--interval", "0"], "interval"),
        (["--interval", "nan"], "interval"),
        (["--count", "0"], "--count"),
        (["--sort", "name"], "--sort"),
        (["--timeout", "-1"], "timeout"),
        (["--local-zone", "eu-9z"], "local_zone"),
    ],
)
def test_arguments_that_can_not_be_used(args, named):
    done = top(f"eu-1a={DEAD}", *args)
    assert done.exit_code == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr


COMMAND = [sys.executable, "-c", "from evcache.cli import main; main()", "top", "--interval", "0.05"]


def environment(zones):
    return {**os.environ, "EVCACHE_NODES": zones, "TERM": "xterm", "COLUMNS": "100"}


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_top_can_be_stopped(zones, number, status):
    with subprocess.Popen(
        COMMAND, env=environment(zones), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline()
        process.send_signal(number)
        _, errors = process.communicate()
    assert (process.returncode, errors) == (status, "")


def test_the_key_q_ends_the_command_and_the_terminal_is_restored(zones):
    terminal, screen = pty.openpty()
    before = termios.tcgetattr(screen)
    process = subprocess.Popen(COMMAND, env=environment(zones), stdin=screen, stdout=screen, stderr=screen)
    try:
        shown = b""
        while b"eu-1a" not in shown:
            assert select.select([terminal], [], [], 30)[0], shown
            shown += os.read(terminal, 65536)
        os.write(terminal, b"xq")
        while process.poll() is None:
            if select.select([terminal], [], [], 0.05)[0]:
                shown += os.read(terminal, 65536)
        assert process.returncode == 0
        assert termios.tcgetattr(screen) == before
        assert b"q ends" in shown
        assert b"xq" not in shown, "keys are not shown"
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
        os.close(screen)
