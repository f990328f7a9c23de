"""Type checkers and run time agree about `tests/typing/program.py`."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from evcache import NearCache
from tests.support.memory_zones import on_zones
from tests.support.near import follow_loop
from tests.typing import program

ROOT = Path(__file__).parents[3]
PROGRAM = ROOT / "tests" / "typing" / "program.py"


def test_mypy_accepts_the_program():
    """Its `assert_type` holds, and what it must refuse is refused: an ignored error that is none is an error."""
    command = ["-m", "mypy", "--strict", "--warn-unused-ignores", "--config-file=", PROGRAM]
    result = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_pyright_accepts_the_program(tmp_path):
    settings = {
        "include": [str(PROGRAM)],
        "extraPaths": [str(ROOT)],
        "typeCheckingMode": "strict",
        "pythonVersion": "3.11",
        "enableTypeIgnoreComments": False,  # those are mypy's
        "reportUnnecessaryTypeIgnoreComment": "error",
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "--project", str(tmp_path), "--pythonpath", sys.executable]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("near", [False, True])
@on_zones(zones=2)
async def test_the_values_are_of_these_types_at_run_time(zones, near):
    cache = await zones.ready(near_cache=NearCache() if near else None)
    if near:
        follow_loop(cache)
    program.SEEN.clear()
    await program.main(cache)
    assert {where for where, *_ in program.SEEN} == set(re.findall(r'\bsee\("([^"]+)"', PROGRAM.read_text()))
    for where, value, expected in program.SEEN:
        assert type(value) is type(expected), where
        assert value == expected, where


def test_the_packages_say_that_they_are_typed():
    for package in ("evcache", "zones"):
        assert (ROOT / package / "py.typed").is_file()
