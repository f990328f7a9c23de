"""Counts the work of every operation and stores it, for this Python. Prints what has changed."""

# ruff: noqa: T201 (a command says what it has done)
import dataclasses

from tests.support.cores import CORES
from tests.work.operations import OPERATIONS, count
from tests.work.stored import FILE, PYTHON, key_of, load, save


def main() -> None:
    known = load() if FILE.exists() else {}
    for core in CORES:
        key = key_of(core)
        before = known.get(key, {})
        found = {name: count(name, core) for name in OPERATIONS}
        print(f"Python {PYTHON}, {core.name} core")
        for name, work in found.items():
            print(f"{name}: {work.calls:g} calls, {work.instructions:g} instructions, {work.packets:g} packets")
            then = dataclasses.asdict(before[name]) if name in before else {}
            for figure, now in dataclasses.asdict(work).items():
                if figure in then and then[figure] != now:
                    print(f"    {figure}: {then[figure]} -> {now}")
        known[key] = found
    save(known)
    print(f"stored in {FILE} for Python {PYTHON}")


if __name__ == "__main__":
    main()
