"""The checker itself: good and bad snippets for each kind of violation."""

import ast
import textwrap

import pytest

from tests.language import vocabulary
from tests.language.passages import Passage, of_hash_comments, of_markdown
from tests.language.python_source import error_names, of_python
from tests.language.rules import check, mask, sentences

WORDS = vocabulary.Vocabulary(
    banned=vocabulary.WordList({"nobody": "no caller", "so many": "the number", "let go": "drop", "let go of": "release"}),
    replaced=vocabulary.WordList({"hand-off": "handoff"}),
    verbs=frozenset({"Return", "Send", "Re-raise"}),
)


def words(number):
    return " ".join(["word"] * number)


def kinds(passages, *, product=True):
    return [(violation.line, violation.kind) for violation in check(passages, WORDS, product=product)]


def kinds_of_python(source, *, product=True):
    source = textwrap.dedent(source).lstrip("\n")
    return kinds(of_python(source, error_names([ast.parse(source)])), product=product)


@pytest.mark.parametrize(
    "docstring",
    [
        "Return the value.",
        "Send `key` to the node.",
        "Re-raise the error.",
        "Return what the node sent.",
        "\n    Return the value.\n    ",
    ],
)
def test_function_docstring_that_begins_with_a_verb_passes(docstring):
    assert kinds_of_python(f'def f():\n    """{docstring}"""') == []


@pytest.mark.parametrize(
    ("docstring", "kind"),
    [
        ("Whether it is up.", "opener"),
        ("What the node sent.", "opener"),
        ("The same, for many keys.", "opener"),
        ("It was not answered.", "opener"),
        ("Of all reads, the share.", "opener"),
        ("As `get`.", "opener"),
        ("None: no limit.", "opener"),
        ("How long to wait.", "opener"),
        ("Likewise.", "opener"),
        ("`key`: as bytes.", "opener"),
        ("For `get_many`.", "opener"),
        ("The value.", "verb"),
        ("A value.", "verb"),
        ("Seconds until the probe.", "verb"),
        ("Returns the value.", "verb"),
        ("return the value.", "verb"),
        ("`key` as bytes.", "verb"),
        ("Returned value.", "verb"),
    ],
)
def test_function_docstring_that_begins_otherwise_fails(docstring, kind):
    assert kinds_of_python(f'def f():\n    """{docstring}"""') == [(2, kind)]


@pytest.mark.parametrize(
    "source",
    [
        'class C:\n    """Circuit breaker of one node."""',
        'class C:\n    size: int\n    """Number of keys."""',
        'class C:\n    @property\n    def size(self):\n        """Number of keys."""',
        'class C:\n    @cached_property\n    def size(self):\n        """Number of keys."""',
        'class C:\n    def __len__(self):\n        """Number of keys."""',
        '@pytest.fixture\ndef zones():\n    """Three running zones."""',
        '"""Module of keys."""',
        'def f():\n    """Return it.\n\n    Whether it is up is unknown.\n    """',
        'def f():\n    "Return it."\n    "Whether"',
    ],
)
def test_what_is_no_function_begins_with_a_noun(source):
    assert kinds_of_python(source) == []


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ('"""What a node is."""', 1),
        ('class C:\n    """How a node is read."""', 2),
        ('class C:\n    size: int\n    """How many keys."""', 3),
        ('size = 1\n"""None: no limit."""', 2),
        ('class C:\n    @property\n    def up(self):\n        """Whether it is up."""', 4),
        ('class C:\n    def __init__(self, key):\n        """`key`: as bytes."""', 3),
        ('class C:\n    async def f(self):\n        def g():\n            """Who asks."""', 4),
    ],
)
def test_subordinate_clause_opens_no_docstring(source, line):
    assert kinds_of_python(source) == [(line, "opener")]


def test_openers_of_tests_are_not_checked():
    assert kinds_of_python('def test_a():\n    """What nobody wants."""', product=False) == [(2, "word")]


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("# nobody waits", 1),
        ("x = 1  # nobody waits", 1),
        ("x = '#'  # nobody waits", 1),
        ("# one\n# so\n# many", 2),
        ("x = 1\n# Nobody.\n", 2),
        ("x = 1  # noqa: B1  # nobody waits", 1),
        ('def f():\n    """Return it.\n\n    So that nobody waits.\n    """', 4),
        ('def f():\n    """Return it.\n\n    Args:\n        key: One.\n        limit: So many.\n    """', 6),
        ('log.warning("nobody waits for %s", key)', 1),
        ('_log.error("one "\n    "nobody waits")', 1),
        ('self._logger.info(f"nobody waits for {key}")', 1),
        ('log.log(10, "nobody waits")', 1),
        ('raise ValueError("nobody waits")', 1),
        ('raise module.Error(f"{key}: nobody waits") from error', 1),
        ('raise Failed("key", "nobody waits")', 1),
        ('class Failed(Exception):\n    pass\nanswer = Failed("nobody waits")', 3),
        ('class Base(ValueError):\n    pass\nclass Failed(Base):\n    pass\nanswer = Failed("nobody waits")', 5),
        ('raise ValueError("nobody " + name)', 1),
        ('raise ValueError("nobody waits" if late else "too early")', 1),
    ],
)
def test_banned_word_is_found_with_its_line(source, line):
    assert kinds_of_python(source) == [(line, "word")]


@pytest.mark.parametrize(
    "source",
    [
        "nobody = 1",
        "x = 'nobody waits'",
        "x = 'a # nobody waits'",
        'x = """\n# nobody waits\n"""',
        "x = f'{y} # nobody'",
        "print('nobody waits')",
        "math.log('nobody waits')",
        "# `nobody` and ``so many``",
        "# nobody_waits, not-nobody, nobodys",
        "# so much, many",
        "# so, many",
        "# noqa: nobody",
        "# Events:\n#     1. nobody waits",
        'def f():\n    """Return it.\n\n        nobody ---> waits\n    """',
        'def f():\n    """Return it.\n\n    >>> nobody()\n    """',
        'def f():\n    """Return it.\n\n    Example:\n        nobody waits\n    """',
    ],
)
def test_banned_word_in_code_passes(source):
    assert kinds_of_python(source) == []


def test_replacement_is_part_of_the_violation():
    found = check([Passage(7, "One\nso  many hand-off.", "comment")], WORDS, product=True)
    assert [(one.line, one.kind, one.text) for one in found] == [
        (8, "term", "hand-off -> handoff"),
        (8, "word", "so many -> the number"),
    ]


def test_longest_phrase_is_found():
    assert WORDS.banned.find("Let go of it, let go") == [(0, "Let go of", "release"), (14, "let go", "drop")]
    assert vocabulary.WordList({}).find("anything") == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One two. Three four.", [2, 2]),
        ("One two. three four.", [2, 2]),
        ("Is it? Yes! So.", [2, 1, 1]),
        ("See e.g. one, i.e. two.", [5]),
        ("Terry et al. 1994 say so.", [6]),
        ("At 1.6.27 and 0.5 s.", [5]),
        ("Wait ... then go. And so on...", [3, 3]),
        ("Call `a. b c d`. Then `x`.", [2, 2]),
        ("See [the long page](a/b c.md#x. y) now.", [5]),
        ("See https://example.org/a?b.c d.", [3]),
        ('He said "no." Then "yes".', [3, 2]),
        ("One - two \N{EM DASH} three", [3]),
        ("(One.) Two", [1, 1]),
        ("...", []),
        ("", []),
    ],
)
def test_sentences_and_their_words(text, expected):
    assert [sentence.words for sentence in sentences(mask(text))] == expected


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([25], 0),
        ([26], 1),
        ([33], 1),
        ([26] + [5] * 49, 0),
        ([32] + [5] * 49, 0),
        ([33] + [5] * 49, 1),
        ([26] + [5] * 48, 1),
        ([26, 26] + [5] * 48, 1),
        ([26, 26] + [5] * 98, 0),
    ],
)
def test_one_sentence_in_fifty_may_be_somewhat_longer(lengths, expected):
    passages = [Passage(1, words(length) + ".", "comment") for length in lengths]
    assert kinds(passages) == [(1, "long")] * expected


def test_line_of_a_long_sentence_is_its_first():
    assert kinds([Passage(10, f"One.\nTwo. {words(20)}\n{words(20)}.", "comment")]) == [(11, "long")]


def test_items_and_entries_are_sentences_of_their_own():
    text = "Return it\n\n    - {0}\n    - {0}\n\n    Args:\n        a: {0}\n        b: {0}\n            {1}\n    ".format(
        words(15), words(5)
    )
    assert kinds_of_python(f'def f():\n    """{text}"""') == []
    assert kinds_of_python(f'def f():\n    """{text.replace("    - ", "    ")}"""') == [(4, "long")]


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("One\nso many.", [2]),
        ("# So many", [1]),
        ("- so many\n- nobody", [1, 2]),
        ("> so\n> many", [1]),
        ("| A | B |\n| --- | --- |\n| so many | nobody |", [3, 3]),
        ("| A |\n|---|\n| `a|b` nobody |", [3]),
        ("```python\nnobody = 1    # nobody waits\n```\nnobody", [2, 4]),
        ("```\nnobody  # nobody\n```", []),
        ("`nobody` and [text](nobody.md)", []),
        ("[nobody](page.md)", [1]),
    ],
)
def test_markdown_is_read_by_paragraphs_items_and_cells(page, expected):
    assert kinds(of_markdown(page)) == [(line, "word") for line in expected]


def test_cells_of_a_table_are_judged_one_by_one():
    row = f"| {words(20)} | {words(20)} |"
    assert kinds(of_markdown(f"| A | B |\n|---|---|\n{row}")) == []
    assert kinds(of_markdown(row.replace("|", ""))) == [(1, "long")]


def test_columns_of_bad_examples_are_exempt_where_asked_for():
    page = "| Before | After |\n|---|---|\n| nobody | no caller |\n\n| Other |\n|---|\n| nobody |"
    assert kinds(of_markdown(page, quotes=True)) == [(7, "word")]
    assert kinds(of_markdown(page)) == [(3, "word"), (7, "word")]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("#!/bin/nobody\n# so\n# many\nx", [2]),
        ("install: x  ## for nobody", [1]),
        ('    say "nobody waits"', [1]),
        ("a = 'nobody'", []),
        ("echo $#nobody", []),
    ],
)
def test_comments_of_scripts(script, expected):
    assert kinds(of_hash_comments(script)) == [(line, "word") for line in expected]
