"""Style guide and glossary, held to by all prose of the project."""

from tests.language import debt, glossary_check, vocabulary
from tests.language.survey import survey


def test_prose_has_no_violation_that_is_not_tolerated():
    problems = debt.compare(debt.counted(survey()), debt.load())
    assert not problems, "\n".join([*problems, "text that moved to other files: `--store --allow-new-paths`"])


def test_glossary_is_ordered_and_names_sources_and_classes():
    names = glossary_check.class_names()
    assert not glossary_check.problems(vocabulary.GLOSSARY.read_text("utf-8"), names)


def test_each_banned_word_and_each_replaced_word_has_one_replacement():
    words = vocabulary.load()
    assert len(words.banned) > 60
    assert len(words.replaced) > 20
    assert not words.banned.replacements.keys() & words.replaced.replacements.keys()


def test_no_verb_is_an_opener_that_is_banned():
    verbs = vocabulary.load().verbs
    assert len(verbs) > 300
    assert not {verb.lower() for verb in verbs} & vocabulary.OPENERS
