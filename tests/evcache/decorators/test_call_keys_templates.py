"""Keys of calls from templates: values of fields, and refused templates."""

from datetime import date
from types import SimpleNamespace
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.call_values import Repository, a_pair, identity, key_of, nothing, problem, problem_at_decoration, values

site = SimpleNamespace(id=7, owner=SimpleNamespace(name="a:b"), _secret=1, nothing=None, parts=[])


async def page(site, lang="de", *rest, **others): ...


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("site:{site.id}", "site:7"),
        ("{site.id}", "7"),
        ("{site.id}/{lang}", "7/de"),
        ("{lang}x:y{site.id}!", "dex:y7!"),
        ("{site.owner.name}:{site.id}:{site.id}", "a%3Ab:7:7"),
        ("{{{lang}}}:100%s%:{site.nothing}", "{de}:100%s%:~None"),
        ("{rest}", "~%28%29"),
        ("größe:{lang}", "größe:de"),
        ("{lang}é{site.id}", "deé7"),
    ],
)
def test_a_template_is_filled_with_arguments(template, expected):
    """Fields are parameters, defaults included, and attributes of their values. Braces are doubled."""
    assert key_of(page, site, key=template) == expected


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{user_id}", "'user_id' is not among the parameters (site, lang, rest, others)"),
        ("page", "has no field"),
        ("", "has no field"),
        ("{site.id}{lang}", "between {site.id} and {lang}"),
        ("{site.id}x{lang}", "between"),
        ("{site.id}-{lang}", "between"),
        ("{site.id}%~_.-9Z{lang}", "between"),
        ("{lang}:{site.id}{lang}", "between {site.id} and {lang}"),
        ("{lang!r}", "conversion"),
        ("{lang:>10}", "conversion"),
        ("{lang:{site}}", "conversion"),
        ("{}", "no parameter's name"),
        ("{0}", "no parameter's name"),
        ("{rest[0]}", "no parameter's name"),
        ("{site.parts[0]}", "no parameter's name"),
        ("{site.}", "no parameter's name"),
        ("{site..id}", "no parameter's name"),
        ("{ lang }", "no parameter's name"),
        ("{site._secret}", "begin with _"),
        ("{site.__class__}", "begin with _"),
        ("{site.owner.__dict__}", "begin with _"),
        ("{others}", "**others has no canonical text"),
        ("{others.x}", "**others has no canonical text"),
        ("{lang", "expected '}'"),
        ("lang}", "Single '}'"),
        ("site {lang}", "space"),
        ("site\n{lang}", "control character"),
        ("\ud800{lang}", "surrogate"),
    ],
)
def test_invalid_templates_are_refused_at_decoration(template, words):
    assert words in problem_at_decoration(page, template)


def test_a_function_without_parameters_needs_no_field():
    assert key_of(nothing, key="settings") == "settings"
    assert "empty" in problem_at_decoration(nothing, "")


def test_a_template_with_self_names_an_attribute():
    """`{self}` alone has no canonical text, but `{self.id}` has one."""
    assert key_of(Repository.load, SimpleNamespace(id=3), 42, key="{self.id}:{user_id}") == "3:42"
    assert "{self.id}" in problem_at_decoration(Repository.load, "{self}:{user_id}")
    assert "no field" in problem_at_decoration(Repository.load, "users")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{site.gone}", "{site.gone}: 'types.SimpleNamespace' object has no attribute 'gone'"),
        ("{site.nothing.id}", "{site.nothing.id}: 'NoneType' object"),
        ("{site.parts}", "{site.parts} is a list"),
        ("{site.parts.append}", "is a builtin_function_or_method"),
        ("{site}", "{site} is a types.SimpleNamespace"),
    ],
)
def test_the_error_names_a_field_that_a_call_cannot_fill(template, words):
    assert words in problem(page, template, site)


def as_text(value):
    """Return the plain text of a str, int, UUID or date, and other values unchanged."""
    if type(value) in (str, UUID, date) or (type(value) is int and abs(value) < 2**2048):
        return str(value)
    return identity(value)


@given(
    a_pair(st.tuples(values, values)), st.text(st.sampled_from("x1-_.%~")), st.sampled_from([":", "/", "::", "é", "(", ","])
)
@example((("a:b", "c"), ("a", "b:c")), "", ":")
@example((("", ":"), (":", "")), "", ":")
@example((("ax", ""), ("a", "x")), "x", ":")
@example(((None, ""), ("None", "")), "", ":")
@example((("%3A", ""), (":", "")), "", ":")
def test_two_calls_have_one_key_in_a_template_only_if_each_field_has_the_same_text(pair, around, between):
    """This holds for any text around the separator, and any values."""
    key = f"{{a}}{around}{between}{around}{{b}}"

    async def two(a, b): ...

    first, second = (key_of(two, *one, key=key) for one in pair)
    assert (first == second) == ([as_text(one) for one in pair[0]] == [as_text(one) for one in pair[1]])


def test_a_default_that_compares_item_by_item_is_accepted():
    """Arrays compare in this way."""

    class Array:
        def __eq__(self, other):
            raise ValueError("the truth of an array is ambiguous")

        __hash__ = None

    async def function(user_id, array=Array()): ...  # noqa: B008

    assert key_of(function, 1, key="user:{user_id}") == "user:1"
