"""Print violations of the style guide, or store the numbers that are still tolerated."""

# ruff: noqa: T201 (a command prints)
import argparse
import sys
from collections import Counter
from pathlib import Path

from tests.language import debt
from tests.language.rules import KINDS
from tests.language.sources import ROOT, area, files
from tests.language.survey import survey


def main(arguments=None):
    """Run the command. Return its exit status: 1 if a number would rise, 2 for unknown paths."""
    parser = argparse.ArgumentParser(prog="python -m tests.language", description=__doc__)
    parser.add_argument("paths", nargs="*", help="files or folders; all of the project by default")
    parser.add_argument("--kind", choices=KINDS, help="print violations of one kind only")
    parser.add_argument("--totals", action="store_true", help="print the number of violations by area, folder and kind")
    parser.add_argument("--store", action="store_true", help="store the numbers; refused if one of them has risen")
    parser.add_argument(
        "--allow-new-paths",
        action="store_true",
        help="with --store: text has moved between files, so only the total of each kind must not rise",
    )
    options = parser.parse_args(arguments)
    if options.store:
        if options.paths:
            parser.error("--store is for all files")
        return _store(allow_new_paths=options.allow_new_paths)
    only = _selected(options.paths) if options.paths else None
    if only == []:
        parser.error(f"no files of the project in {' '.join(options.paths)}")
    found = survey(only)
    if options.totals:
        _print_totals(debt.counted(found))
        return 0
    for path, violations in found.items():
        for violation in violations:
            if options.kind in {None, violation.kind}:
                print(f"{path}:{violation.line}: {violation.kind}: {violation.text}")
    return 0


def _selected(names):
    wanted = [Path(name).resolve() for name in names]
    return [path for path in files() if any((ROOT / path).resolve().is_relative_to(one) for one in wanted)]


def _store(*, allow_new_paths):
    stored = debt.load()
    found = debt.counted(survey())
    if problems := debt.risen(found, stored, allow_new_paths=allow_new_paths):
        print("\n".join(problems))
        print("nothing stored")
        return 1
    debt.save(found)
    print(f"stored {dict(debt.totals(found))} in {debt.FILE}")
    return 0


def _print_totals(counted):
    rows = {}
    for path, numbers in counted.items():
        for row in (area(Path(path)), f"  {path.split('/')[0]}"):
            rows.setdefault(row, Counter()).update(numbers)
    print(f"{'':22}" + "".join(f"{kind:>8}" for kind in KINDS))
    for name, numbers in [*sorted(rows.items()), ("all", debt.totals(counted))]:
        print(f"{name:22}" + "".join(f"{numbers[kind]:8}" for kind in KINDS))


if __name__ == "__main__":
    sys.exit(main())
