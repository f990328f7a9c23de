"""Hooks of the site's build: links to sources, and the navigation."""

import logging

import pytest

import evcache
from docs._tooling.site_hooks import expanded, public_names, repository, with_addresses, with_entries

URL = "https://example.org/repo"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "tests" / "chaos").mkdir(parents=True)
    (tmp_path / "tests" / "test_docs.py").touch()
    (tmp_path / "CONTRIBUTING.md").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("page", "link", "expected"),
    [
        ("loading.md", "../tests/test_docs.py", f"{URL}/blob/main/tests/test_docs.py"),
        ("loading.md", "../tests/test_docs.py#L4", f"{URL}/blob/main/tests/test_docs.py#L4"),
        ("loading.md", "../tests/chaos", f"{URL}/tree/main/tests/chaos"),
        ("loading.md", "../tests/chaos/", f"{URL}/tree/main/tests/chaos"),
        ("start/install.md", "../../CONTRIBUTING.md", f"{URL}/blob/main/CONTRIBUTING.md"),
        ("start/install.md", "../loading.md#the-policy", "../loading.md#the-policy"),
        ("loading.md", "values.md", "values.md"),
        ("loading.md", "#the-policy", "#the-policy"),
        ("loading.md", "https://memcached.org", "https://memcached.org"),
        ("loading.md", "mailto:a@example.org", "mailto:a@example.org"),
    ],
)
def test_a_link_that_leaves_the_docs_becomes_an_address(root, page, link, expected):
    assert with_addresses(f"See [it]({link}), twice: [it]({link}).", page, URL, root) == (
        f"See [it]({expected}), twice: [it]({expected})."
    )


@pytest.mark.parametrize(
    "code",
    [
        "`[a](../tests/chaos)`",
        "``[a](../tests/chaos) ` ``",
        "```\n[a](../tests/chaos)\n```",
        "~~~ md\n[a](../tests/chaos)\n~~~",
    ],
)
def test_a_link_in_code_stays(root, code):
    text = f"before [a](../tests/chaos)\n\n{code}\n\nafter [a](../tests/chaos)\n"
    address = f"[a]({URL}/tree/main/tests/chaos)"
    assert with_addresses(text, "a.md", URL, root) == f"before {address}\n\n{code}\n\nafter {address}\n"


def test_a_link_to_a_missing_file_is_a_warning_of_the_build(root, caplog):
    with_addresses("[a](../tests/absent.py)", "loading.md", URL, root)
    assert caplog.record_tuples == [
        ("mkdocs.hooks.evcache", logging.WARNING, "loading.md: link to a missing file: ../tests/absent.py")
    ]


def test_an_entry_of_a_folder_stands_for_the_pages_that_no_other_entry_names():
    nav = [
        {"Start": ["index.md", {"First": "guides/b.md"}]},
        {"Guides": ["values.md", "guides/*"]},
        {"Reference": [{"API": ["reference/api/*"]}, "reference/*"]},
    ]
    pages = ["guides/c.md", "guides/a.md", "guides/b.md", "guides/deep/d.md", "index.md", "reference/api/e.md", "values.md"]
    assert expanded(nav, pages) == [
        {"Start": ["index.md", {"First": "guides/b.md"}]},
        {"Guides": ["values.md", "guides/a.md", "guides/c.md"]},
        {"Reference": [{"API": ["reference/api/e.md"]}]},
    ]


def test_the_index_of_a_folder_is_its_first_page():
    pages = ["concepts/absence.md", "concepts/index.md", "concepts/zones.md"]
    assert expanded(["concepts/*"], pages) == ["concepts/index.md", "concepts/absence.md", "concepts/zones.md"]


def test_a_section_without_pages_is_left_out():
    assert expanded([{"Start": ["index.md"]}, {"Concepts": [{"Inner": ["concepts/*"]}]}], ["index.md"]) == [
        {"Start": ["index.md"]}
    ]


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        (
            "<p><code>Hints</code>, <code>Hints</code> and <code>Other</code></p>",
            '<p><autoref identifier="evcache.Hints"><code>Hints</code></autoref>, <code>Hints</code> and <code>Other</code></p>',
        ),
        ("<p><code>Hints(path)</code></p>", "<p><code>Hints(path)</code></p>"),
        ('<h2 id="a"><code>Hints</code></h2>', '<h2 id="a"><code>Hints</code></h2>'),
        ('<a href="b">the <code>Hints</code></a>', '<a href="b">the <code>Hints</code></a>'),
        ("<pre><code>Hints</code></pre>", "<pre><code>Hints</code></pre>"),
    ],
)
def test_the_first_occurrence_of_a_public_name_is_linked_to_its_entry(html, expected):
    assert with_entries(html, frozenset({"Hints"})) == expected


def test_public_names_are_those_of_the_package():
    assert public_names() == set(evcache.__all__)


@pytest.mark.parametrize(
    ("urls", "expected"),
    [
        ("", "https://example.org/default"),
        ('[project.urls]\nRepository = "https://example.org/r/"\n', "https://example.org/r"),
    ],
)
def test_the_address_of_the_repository_is_that_of_the_project(tmp_path, urls, expected):
    (tmp_path / "pyproject.toml").write_text(f'[project]\nname = "evcache"\n{urls}', "utf-8")
    assert repository("https://example.org/default", tmp_path) == expected
