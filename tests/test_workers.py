"""The parallel workers of `make test`."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORKERS = re.compile(r"^WORKERS \?= --numprocesses \$\(COUNT\) (.+)$", re.MULTILINE)

TEST = """
import os
import pathlib
import pytest

@pytest.mark.parametrize("number", range(4))
def test_worker(number):
    with open(pathlib.Path(__file__).with_suffix(".txt"), "a") as file:
        print(os.environ["PYTEST_XDIST_WORKER"], file=file)
"""


def test_tests_of_a_file_run_in_one_worker(tmp_path):
    """Release 9.2 of pytest makes the groups of xdist 3.8 ineffective without an error. Module fixtures are then made repeatedly."""
    (options,) = WORKERS.findall((ROOT / "Makefile").read_text("utf-8"))
    files = [tmp_path / f"test_{name}.py" for name in "abcd"]
    for file in files:
        file.write_text(TEST, "utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, "-c", os.devnull]
        + ["-p", "no:evcache", "-p", "no:hypothesispytest"]  # their imports take seconds
        + ["--numprocesses", "2", *shlex.split(options), *files],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "16 passed" in done.stdout, done.stdout + done.stderr
    workers = [file.with_suffix(".txt").read_text("utf-8").split() for file in files]
    assert [len(names) for names in workers] == [4] * 4
    assert [len(set(names)) for names in workers] == [1] * 4
    assert len(set(sum(workers, []))) == 2
