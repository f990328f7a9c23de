"""What operations cost when that was last agreed on, and whether they cost more now."""

import dataclasses
import json
import sys
from pathlib import Path

from tests.work.counting import Work

FILE = Path(__file__).parents[1] / "data" / "work_per_operation.json"

# Share by which counts may differ, because asyncio differs a little between releases of one Python. An operation with
# additional work shows in its instructions, if not in its calls.
TOLERANCE = 0.03
# Less work is no failure of what has become faster, but the figure that guards it is out of date.
MUCH_LESS = 0.10

# Figures that are printed but not compared. Memory from the interpreter's lists of freed objects is not traced, and the
# length of these lists depends on earlier code.
MEMORY = frozenset({"pending", "pending_bytes"})

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def key_of(core):
    """Return the key of a core's figures under this Python."""
    return PYTHON if core.name == "pure" else f"{PYTHON} {core.name}"


def load():
    """The `Work` of each operation by name, by Python and core."""
    known = json.loads(FILE.read_text("utf-8"))
    return {python: {name: Work(**figures) for name, figures in operations.items()} for python, operations in known.items()}


def save(known):
    """Write what `load` reads, with as few lines changed as things have changed."""
    document = {
        python: {
            name: {key: _plain(figure) for key, figure in dataclasses.asdict(work).items()} for name, work in one.items()
        }
        for python, one in sorted(known.items())
    }
    FILE.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


def compare(found, stored):
    """What is wrong with what was found, a sentence for each figure; nothing: all is as it was."""
    problems = []
    for field in dataclasses.fields(Work):
        now, then = getattr(found, field.name), getattr(stored, field.name)
        if (now is None) is not (then is None):
            problems.append(f"{field.name}: {now}, and it was {then}")
        elif now is None or field.name in MEMORY:
            continue
        elif now > then * (1 + TOLERANCE):
            problems.append(f"{field.name}: {now:g}, and it was {then:g}. If that is worth it, `make work` stores it")
        elif now < then * (1 - MUCH_LESS):
            problems.append(f"{field.name}: {now:g}, down from {then:g}. `make work` stores it, so that it stays so")
    return problems


def _plain(figure):
    return figure if figure is None or figure % 1 else int(figure)
