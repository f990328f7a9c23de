"""Each example runs as a program and prints the expected lines."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"

# Output of each example.
SAYS = {
    "survive_a_zone.py": [
        "read from eu-1a (local)",
        "eu-1a is dead: read from another zone (fallback): {'name': 'Ada'}",
        "a write for which all zones but one are enough: True; eu-1a: unavailable",
        "a write that asks for all of them: False",
        "every zone is dead: CacheUnavailable, which is not a miss",
        "unless the caller says so: the default",
        "eu-1a is back: {'name': 'Ada'}",
    ],
    "cache_aside.py": [
        "100 callers in 2 processes: {'name': 'Ada'} for 100 of them, 1 read",
        "a user that does not exist: None, None, 1 read",
        "in the near cache of the second process: {'name': 'Ada'}",
        "written through, and invalidated in the second process: {'name': 'Grace'}",
        "the database refuses: a user has a name; the cache holds None",
        "stale, returned without waiting: {'name': 'Grace'}",
        "loaded in the background: {'name': 'Barbara'}",
    ],
    "write_behind.py": [
        "in the cache at once: {'page': 99}",
        "in the database, so far: {}",
        "a loader looks at what waits first: {'page': 99}",
        "200 updates, 1 write: {'user:42': {'page': 99}}, {'views:home': 100}",
        "tried 2 times, counted once: {'views:home': 101}",
        "closing writes what waits: {'views:home': 102}",
    ],
}


def test_every_example_is_run():
    assert {path.name for path in EXAMPLES.glob("*.py")} == SAYS.keys()


@pytest.mark.parametrize("name", SAYS)
def test_an_example_says_what_it_promises(name):
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == SAYS[name]
    assert done.stderr == ""
