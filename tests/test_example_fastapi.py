"""The example with FastAPI: its own test suite passes, which opens the application for each test, and its types hold."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "fastapi_users"


def python(*arguments):
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300, check=False)


def test_its_suite_passes():
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", EXAMPLE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


def test_its_types_hold():
    done = python("-m", "mypy", "--strict", "-p", "examples.fastapi_users")
    assert done.returncode == 0, done.stdout + done.stderr
