"""The systemd recipe: the unit is valid, closed, and sized as the page about sizing says."""

import shutil
import subprocess

import pytest

from tests.deploy.pages import OPERATIONS, run_page
from tests.support.recipes import DEPLOY, flags_of, unit_command, unit_settings

UNIT = DEPLOY / "systemd" / "memcached@.service"

# `systemd-analyze security` rates a unit from 0 to 100, where 100 is open.
HIGHEST_EXPOSURE = "20"


@pytest.fixture
def instance(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    copy = tmp_path / "memcached@11211.service"
    shutil.copy(UNIT, copy)
    return copy


def analyze(*arguments):
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False, timeout=60)


def test_unit_is_valid(instance):
    if shutil.which("memcached") is None:
        pytest.skip("systemd-analyze looks for the program of the unit, and memcached is not installed")
    done = analyze("verify", instance)
    about_unit = [line for line in done.stderr.splitlines() if instance.name in line]
    assert (done.returncode, about_unit) == (0, [])


def test_unit_gives_few_rights(instance):
    done = analyze("security", "--offline=yes", f"--threshold={HIGHEST_EXPOSURE}", instance)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


def test_unit_has_the_memory_and_files_of_the_formula():
    settings = unit_settings(UNIT)
    flags = flags_of(unit_command(UNIT))
    names, _ = run_page(OPERATIONS / "sizing.md")
    needed = names["memory_limit"](int(flags["-m"]), int(flags["-o hashpower"]), int(flags["-c"]))
    assert settings["MemoryMax"] == [f"{needed}M"]
    assert int(settings["LimitNOFILE"][0]) > int(flags["-c"])


def test_server_listens_on_loopback_unless_the_file_says_otherwise():
    settings = unit_settings(UNIT)
    assert settings["Environment"] == ["LISTEN=127.0.0.1"]
    assert settings["EnvironmentFile"] == ["-/etc/evcache/memcached.env"]
    assert flags_of(unit_command(UNIT))["-l"] == "${LISTEN}"
    assert flags_of(unit_command(UNIT))["-p"] == "%i"
    lines = [line for line in UNIT.with_name("memcached.env").read_text("utf-8").splitlines() if not line.startswith("#")]
    assert lines == settings["Environment"]
