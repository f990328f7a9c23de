"""What every command keeps: examples in its help, JSON, TLS and login, exit statuses, and the end by a signal.

The commands are those of the group, so a new command is tested without a line here.
"""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from evcache.cli.commands import evcache as command_line
from evcache.testing import LocalZones
from tests.support.cli_servers import DEAD

ZONES = ("eu-1a", "eu-1b", "eu-1c", "eu-1d")
NAMES = sorted(command_line.commands)
STARTS_ITS_OWN_ZONES = {"up", "demo"}
OF_ZONES = [name for name in NAMES if name not in STARTS_ITS_OWN_ZONES]

COMMON = {"--zones", "--local-zone", "--json", "--transport"}
SECURITY = {"--tls", "--tls-ca", "--tls-cert", "--tls-key", "--tls-name", "--user", "--password-file"}

# Commands that print a document each time, one on a line.
STREAMS = {"top"}
# Options with which a command ends soon.
QUICK = {
    "top": ["--count", "2", "--interval", "0.1"],
    "bench": ["--seconds", "0.1", "--rate", "100", "--keys", "5", "--max-p99", "0"],
}

# Commands without an example yet. The test fails for a command of this set that has one.

SHELL = {"|", ">", ">>", "<", "&&", ";", "&"}


def option_names(name):
    return {text for option in command_line.commands[name].params for text in option.opts}


def examples(name):
    """Return the arguments of each example: lines `evcache NAME ...` in paragraphs that click does not wrap."""
    found = []
    for paragraph in (command_line.commands[name].help or "").split("\n\n"):
        if paragraph.lstrip(" ").startswith("\b"):
            for line in paragraph.splitlines():
                words = shlex.split(line.strip().removeprefix("$ "), comments=True)
                if words[:2] == ["evcache", name]:
                    ends = [place for place, word in enumerate(words) if word in SHELL]
                    found.append(words[2 : min(ends, default=len(words))])
    return found


def arguments(name):
    """Return arguments with which a command works on the zones of its environment: those of an example."""
    for found in examples(name):
        if "--zones" not in found and not any(files_of(name, found)):
            return found
    return ["user:42" for param in command_line.commands[name].params if isinstance(param, click.Argument)]


def files_of(name, args):
    """Return the files that an example names."""
    command = command_line.commands[name]
    parsed, _, _ = command.make_parser(click.Context(command, info_name=name)).parse_args(list(args))
    for param in command.params:
        if isinstance(param.type, click.Path) and param.type.exists and param.name in parsed:
            yield Path(parsed[param.name])


def environment(addresses):
    node_list = ";".join(f"{zone}={address}" for zone, address in addresses.items())
    return {"EVCACHE_NODES": node_list, "EVCACHE_ZONE": "eu-1a", "EVCACHE_NAMESPACE": "tests"}


def run(name, *args, addresses):
    return CliRunner().invoke(command_line, [name, *args], env=environment(addresses))


@pytest.fixture(scope="module")
def alive():
    with LocalZones(list(ZONES), backend="embedded").running() as zones:
        yield {zone: nodes[0] for zone, nodes in zones.zones.items()}


ALL_DEAD = dict.fromkeys(ZONES, DEAD)


@pytest.mark.parametrize("name", NAMES)
def test_the_help_has_examples_that_parse(name, tmp_path, monkeypatch):
    assert examples(name)
    monkeypatch.chdir(tmp_path)
    for variable, value in environment(ALL_DEAD).items():
        monkeypatch.setenv(variable, value)
    shown = CliRunner().invoke(command_line, [name, "--help"]).stdout
    for args in examples(name):
        for file in files_of(name, args):
            (tmp_path / file.name).touch()
        # Absolute paths are those of a user's machine.
        here = [word if not word.startswith("/") else str(tmp_path / Path(word).name) for word in args]
        command_line.commands[name].make_context(name, here, command_line.make_context("evcache", [name]))
        assert shlex.join(["evcache", name]) in shown


@pytest.mark.parametrize("name", OF_ZONES)
def test_a_command_on_zones_has_json_tls_and_login(name):
    assert option_names(name) >= COMMON | SECURITY


@pytest.mark.parametrize("name", OF_ZONES)
def test_json_is_one_document(name, alive):
    done = run(name, *arguments(name), *QUICK.get(name, []), "--json", addresses=alive)
    assert done.exit_code in (0, 1), done.output
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(documents) == (2 if name in STREAMS else 1)


@pytest.mark.parametrize("name", OF_ZONES)
def test_no_answer_from_any_zone_is_status_3(name):
    quick = [*QUICK.get(name, []), *(["--timeout", "1"] if "--timeout" in option_names(name) else [])]
    for form in ([], ["--json"]):
        done = run(name, *arguments(name), *quick, *form, addresses=ALL_DEAD)
        assert done.exit_code == 3, done.output
        assert "Traceback" not in done.output
        for line in done.stdout.splitlines() if form else []:
            json.loads(line)


def bad_values():
    """Yield an option with values that it cannot take."""
    for name in NAMES:
        yield name, "--no-such-option", []
        for option in command_line.commands[name].params:
            if isinstance(option, click.Argument) or option.is_flag:
                continue
            kind = option.type
            if isinstance(kind, click.types.FloatParamType):
                yield name, option.opts[0], ["nonsense", "nan", "-1"]
            elif isinstance(kind, click.types.IntParamType | click.Choice) or (isinstance(kind, click.Path) and kind.exists):
                yield name, option.opts[0], ["/nonsense/nonsense"]


@pytest.mark.parametrize(("name", "option", "values"), [pytest.param(*case, id=" ".join(case[:2])) for case in bad_values()])
def test_a_bad_option_is_named_and_nothing_is_sent(name, option, values):
    for value in [[value] for value in values] or [[]]:
        done = run(name, *arguments(name), option, *value, addresses=ALL_DEAD)
        assert done.exit_code == 2, (value, done.output)
        assert option.lstrip("-") in done.stderr, value
        assert done.stdout == ""


@pytest.mark.parametrize("name", OF_ZONES)
def test_a_signal_ends_a_command_that_waits(name):
    """The servers accept connections and send nothing. The command is interrupted when it has connected."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        address = f"127.0.0.1:{server.getsockname()[1]}"
        quiet = ["--timeout", "60"] if "--timeout" in option_names(name) else []
        with subprocess.Popen(
            [sys.executable, "-c", "from evcache.cli import main; main()", name, *arguments(name), *quiet],
            env={**os.environ, **environment(dict.fromkeys(ZONES, address))},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            connection, _ = server.accept()
            with connection:
                process.send_signal(signal.SIGINT)
                _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("name", NAMES)
def test_ctrl_c_before_or_after_the_work_is_status_130(name, monkeypatch):
    def interrupted(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line.commands[name], "callback", interrupted)
    done = run(name, *arguments(name), addresses=ALL_DEAD)
    assert (done.exit_code, done.stderr) == (130, "")
