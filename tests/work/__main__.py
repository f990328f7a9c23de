"""Counts the work of every operation and stores it, for this Python. Prints what has changed."""

# ruff: noqa: T201 (a command says what it has done)
import dataclasses

from tests.work.operations import OPERATIONS, count
from tests.work.stored import FILE, PYTHON, load, save


def main() -> None:
    known = load() if FILE.exists() else {}
    before = known.get(PYTHON, {})
    found = {name: count(name) for name in OPERATIONS}
    for name, work in found.items():
        print(f"{name}: {work.calls:g} calls, {work.instructions:g} instructions, {work.packets:g} packets")
        then = dataclasses.asdict(before[name]) if name in before else {}
        for figure, now in dataclasses.asdict(work).items():
            if figure in then and then[figure] != now:
                print(f"    {figure}: {then[figure]} -> {now}")
    save({**known, PYTHON: found})
    print(f"stored in {FILE} for Python {PYTHON}")


if __name__ == "__main__":
    main()
