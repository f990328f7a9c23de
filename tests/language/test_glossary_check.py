"""Defects that the check of the glossary finds."""

import pytest

from tests.language import vocabulary
from tests.language.glossary_check import problems

HEAD = "| Term | Meaning | Source | In the code |\n| --- | --- | --- | --- |\n"


def test_rows_with_source_and_classes_are_fine():
    text = HEAD + "| hint | A write. It was missed. | Dynamo | `Hint`, `HintStore` |\n| Zone | A domain. | AWS | |\n"
    assert problems(text, {"Hint", "HintStore"}) == []


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ("| zone | A. | AWS | |\n| hint | A. | Dynamo | |\n", "alphabetical"),
        ("| hint | A. | AWS | |\n| hint | A. | AWS | |\n", "twice"),
        ("| hint | A. | | |\n", "no source"),
        ("| hint | A. B. C. | AWS | |\n", "sentences"),
        ("| hint | A. | AWS | `Hint`, `Lost` |\n", "no class `Lost`"),
    ],
)
def test_each_defect_is_found(rows, problem):
    (found,) = problems(HEAD + rows, {"Hint"})
    assert problem in found


def test_row_with_another_number_of_cells_is_an_error():
    with pytest.raises(ValueError, match="line 3"):
        problems(HEAD + "| hint | A. |\n", set())


@pytest.mark.parametrize("row", ["| `anew` | |", "| `anew` | again |\n| `anew` | new |"])
def test_banned_word_without_one_replacement_is_an_error(tmp_path, row):
    page, empty = tmp_path / "style.md", tmp_path / "empty.md"
    page.write_text(f"| Banned | Write |\n| --- | --- |\n{row}\n")
    empty.write_text("")
    with pytest.raises(ValueError, match="anew"):
        vocabulary.load(page, empty, empty)
