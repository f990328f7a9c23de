"""The ratchet: numbers of tolerated violations can only fall."""

import pytest

from tests.language import debt
from tests.language.__main__ import main
from tests.language.rules import Violation

STORED = {"a.py": {"word": 2, "long": 1}, "b.py": {"verb": 1}}


def test_equal_numbers_are_no_problem():
    assert debt.compare(STORED, STORED) == []
    assert debt.compare({}, {}) == []


@pytest.mark.parametrize(
    ("found", "path", "text"),
    [
        ({"a.py": {"word": 3, "long": 1}, "b.py": {"verb": 1}}, "a.py", "3 of kind `word`, 2 tolerated"),
        ({**STORED, "c.py": {"word": 1}}, "c.py", "1 of kind `word`, 0 tolerated"),
        ({**STORED, "b.py": {"verb": 1, "opener": 1}}, "b.py", "1 of kind `opener`, 0 tolerated"),
    ],
)
def test_more_than_stored_is_a_problem(found, path, text):
    (problem,) = debt.compare(found, STORED)
    assert problem.startswith(f"{path}: {text}")
    assert debt.LOWER not in problem


@pytest.mark.parametrize(
    ("found", "path"),
    [
        ({"a.py": {"word": 1, "long": 1}, "b.py": {"verb": 1}}, "a.py"),
        ({"a.py": {"word": 2, "long": 1}}, "b.py"),
    ],
)
def test_less_than_stored_has_to_be_stored(found, path):
    (problem,) = debt.compare(found, STORED)
    assert problem.startswith(f"{path}: ")
    assert debt.LOWER in problem


@pytest.mark.parametrize(
    ("found", "strictly", "with_moves"),
    [
        (STORED, True, True),
        ({"a.py": {"word": 1}}, True, True),
        ({"a.py": {"word": 3}}, False, False),
        ({"c.py": {"word": 2}, "b.py": {"verb": 1}}, False, True),
        ({"a.py": {"word": 1}, "c.py": {"word": 1}}, False, True),
        ({"b.py": {"word": 2}}, False, True),
        ({"c.py": {"word": 3}}, False, False),
        ({"c.py": {"opener": 1}}, False, False),
        ({"a.py": {"long": 1}, "c.py": {"long": 1}}, False, True),
        ({"a.py": {"long": 2}}, False, False),
        ({"a.py": {"long": 1}, "c.py": {"long": 2}}, False, False),
    ],
)
def test_storing_raises_no_number_and_with_moves_no_total(found, strictly, with_moves):
    assert (not debt.risen(found, STORED, allow_new_paths=False)) is strictly
    assert (not debt.risen(found, STORED, allow_new_paths=True)) is with_moves


def test_what_was_saved_is_loaded_and_nothing_leaves_no_file(tmp_path):
    file = tmp_path / "debt.json"
    assert debt.load(file) == {}
    debt.save(STORED, file)
    assert debt.load(file) == STORED
    assert len(file.read_text().splitlines()) == len(STORED) + 2
    debt.save({}, file)
    assert not file.exists()
    debt.save({}, file)


def test_files_without_violations_are_not_counted():
    found = {"a.py": [Violation(1, "word", "x"), Violation(2, "word", "y"), Violation(3, "long", "z")], "b.py": []}
    assert debt.counted(found) == {"a.py": {"word": 2, "long": 1}}


def test_command_stores_lower_numbers_and_refuses_higher_ones(tmp_path, monkeypatch, capsys):
    file = tmp_path / "debt.json"
    found = {"a.py": [Violation(1, "word", "x")]}
    monkeypatch.setattr(debt, "FILE", file)
    monkeypatch.setattr("tests.language.__main__.survey", lambda only=None: found)
    assert main(["--store"]) == 1
    assert not file.exists()
    debt.save({"a.py": {"word": 2}})
    assert main(["--store"]) == 0
    assert debt.load() == {"a.py": {"word": 1}}
    found["b.py"] = found.pop("a.py")
    assert main(["--store"]) == 1
    assert main(["--store", "--allow-new-paths"]) == 0
    assert debt.load() == {"b.py": {"word": 1}}
    found.clear()
    assert main(["--store"]) == 0
    assert not file.exists()
    assert "nothing stored" in capsys.readouterr().out
