"""Violations that are tolerated until the text is rewritten, by file and kind. Their number may only fall."""

import json
from collections import Counter

from tests.language.rules import KINDS
from tests.language.sources import ROOT

FILE = ROOT / "tests" / "data" / "language_debt.json"

LOWER = "lower the number: run `python -m tests.language --store`"


def load(file=None):
    """Return the numbers by kind by path, from FILE by default. Without a file there is no debt."""
    file = file or FILE
    return json.loads(file.read_text("utf-8")) if file.exists() else {}


def save(debt, file=None):
    """Write a line for each path, to FILE by default. Remove the file when nothing is left."""
    file = file or FILE
    if not debt:
        file.unlink(missing_ok=True)
        return
    lines = [f" {json.dumps(path)}: {json.dumps(numbers)}" for path, numbers in sorted(debt.items())]
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")


def counted(violations):
    """Return the numbers by kind by path, without zeros, of violations by path."""
    numbers = {path: Counter(violation.kind for violation in found) for path, found in violations.items()}
    return {path: {kind: kinds[kind] for kind in KINDS if kinds[kind]} for path, kinds in numbers.items() if kinds}


def compare(found, stored):
    """Return a line for each number that differs, and for each file that is no longer there."""
    problems = []
    for path in sorted(found.keys() | stored.keys()):
        now, then = found.get(path, {}), stored.get(path, {})
        for kind in KINDS:
            actual, tolerated = now.get(kind, 0), then.get(kind, 0)
            if actual > tolerated:
                problems.append(
                    f"{path}: {actual} of kind `{kind}`, {tolerated} tolerated. `python -m tests.language {path}`"
                )
            elif actual < tolerated:
                problems.append(f"{path}: {actual} of kind `{kind}`, {tolerated} tolerated: {LOWER}")
    return problems


def risen(found, stored, *, allow_new_paths):
    """Return a line for each number that storing would raise.

    If `allow_new_paths`, text may have moved between files, so only the total of each kind is compared. The share of
    long sentences that a file may have is rounded down, so each new path may add one.
    """
    if not allow_new_paths:
        return [
            f"{path}: {kind} would rise from {stored.get(path, {}).get(kind, 0)} to {number}"
            for path, numbers in sorted(found.items())
            for kind, number in numbers.items()
            if number > stored.get(path, {}).get(kind, 0)
        ]
    now, then = totals(found), totals(stored)
    then["long"] += len(found.keys() - stored.keys())
    return [f"total of {kind} would rise from {then[kind]} to {now[kind]}" for kind in KINDS if now[kind] > then[kind]]


def totals(debt):
    """Return the sum of all files by kind."""
    sums = Counter()
    for numbers in debt.values():
        sums.update(numbers)
    return sums
