"""Keys of calls: their form, different keys for different calls, and refused arguments."""

import functools
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evcache.values.keys import Keys
from tests.support.call_values import (
    FORMS,
    HERE,
    Repository,
    a_pair,
    everything,
    größe,
    identity,
    key_of,
    load,
    load_more,
    nothing,
    problem,
    problem_at_decoration,
    values,
)


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "expected"),
    [
        (nothing, (), {}, "nothing()"),
        (load, (42,), {}, "load(user_id=42)"),
        (load, (), {"user_id": 42}, "load(user_id=42)"),
        (load_more, ("42",), {}, "load_more(user_id='42',lang='de')"),
        (load_more, ("42", "de"), {}, "load_more(user_id='42',lang='de')"),
        (load_more, (), {"lang": "de", "user_id": "42"}, "load_more(user_id='42',lang='de')"),
        (everything, (1,), {"c": 3}, "everything(a=1,b=2,rest=(),c=3,d=None,others={})"),
        (
            everything,
            (1, 2, 3, 4),
            {"c": 5, "z": 6, "a": 7},
            "everything(a=1,b=2,rest=(3,4,),c=5,d=None,others={a=7,z=6})",
        ),
        (größe, (1,), {}, "gr%C3%B6%C3%9Fe(stra%C3%9Fe=1)"),
    ],
)
def test_the_key_is_the_name_and_every_argument(function, args, kwargs, expected):
    """Positional arguments, keyword arguments and defaults make one key."""
    assert key_of(function, *args, **kwargs) == f"{HERE}:{expected}"


def test_a_module_and_a_class_of_one_name_are_told_apart():
    """`a.b` in module `m` differs from `b` in module `m.a`."""

    async def first(): ...
    async def second(): ...

    first.__module__, first.__qualname__ = "m", "a.b"
    second.__module__, second.__qualname__ = "m.a", "b"
    assert key_of(first) != key_of(second)


@pytest.mark.parametrize(
    ("args", "kwargs"), [((), {}), ((1, 2, 3), {}), ((1,), {"user_id": 1}), ((1,), {"language": 1}), ((), {"lang": "de"})]
)
def test_arguments_that_the_function_does_not_take_raise_type_errors(args, kwargs):
    for key in (None, "user:{user_id}"):
        with pytest.raises(TypeError):
            key_of(load_more, *args, key=key, **kwargs)


def test_every_process_makes_the_same_keys():
    """Hash seeds, the order in which modules are loaded, and addresses make no difference."""
    script = (
        "import sys; sys.path.insert(0, '.')\n"
        "from tests.support.call_values import everything, key_of\n"
        "from tests.support.call_values import FORMS\n"
        "for value, _, _ in FORMS: print(key_of(everything, value, c=value, z=1, y=2))\n"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", script], cwd=Path(__file__).parents[3], env={"PYTHONHASHSEED": seed},
            capture_output=True, check=True, timeout=60, text=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    here = "".join(key_of(everything, value, c=value, z=1, y=2) + "\n" for value, _, _ in FORMS)
    assert printed == {here}


names = st.sampled_from(["a", "e", "f", "a=1,b", "x)", "}", "", "é", " "])
calls = st.tuples(st.lists(values, min_size=1, max_size=4).map(tuple), values, st.dictionaries(names, values, max_size=3))


@given(a_pair(calls))
@example((((1,), 1, {}), ((1, 2), 1, {})))
@example((((1, 2, 3), 1, {}), ((1, 2, (3,)), 1, {})))
@example((((1,), 1, {"e": "1,f=2"}), ((1,), 1, {"e": 1, "f": 2})))
def test_two_calls_have_one_key_only_if_their_arguments_are_the_same(pair):
    """Arguments that differ in type or value make different keys. This covers defaults, *args and **kwargs."""
    keys, arguments = [], []
    for args, c, others in pair:
        keys.append(key_of(everything, *args, c=c, **others))
        bound = inspect.signature(everything).bind(*args, c=c, **others)
        bound.apply_defaults()
        arguments.append(
            {
                name: {inner: identity(one) for inner, one in value.items()} if name == "others" else identity(value)
                for name, value in bound.arguments.items()
            }
        )
    assert (keys[0] == keys[1]) == (arguments[0] == arguments[1])


@given(values)
def test_every_key_is_one_that_a_client_takes(value):
    """No arguments put spaces, control characters or lone surrogates into a key."""
    for key in (None, "user:{user_id}"):
        made = key_of(load, value, key=key)
        assert made.isascii()
        Keys("ns").qualify(made)


def a_closure():
    async def inner(user_id): ...

    return inner


async def with_a_list(user_id, parts=[]): ...  # noqa: B006
async def with_a_mark(user_id, *, mark=object()): ...  # noqa: B008


main = type(load)(load.__code__, {"__name__": "__main__"})
main.__module__ = "__main__"


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (Repository.load, "'self' has no canonical text"),
        (Repository.of_class, "'cls' has no canonical text"),
        (Repository().load, "bound"),
        (functools.partial(load_more, "de"), "bound"),
        (functools.update_wrapper(functools.partial(load_more, "de"), load_more), "bound"),
        (a_closure(), "once for each of its calls"),
        (main, "__main__"),
        (with_a_list, "'parts' is given a list"),
        (with_a_mark, "'mark' is given a object"),
    ],
)
def test_functions_whose_names_and_arguments_do_not_tell_calls_apart_need_a_key(function, words):
    """The decoration refuses methods, bound and inner functions, scripts, and defaults without a canonical text."""
    assert words in problem_at_decoration(function)


def test_a_static_method_has_its_own_name():
    assert key_of(Repository.fixed, 1) == f"{HERE}:Repository.fixed(user_id=1)"


def test_the_error_names_the_parameter_without_a_canonical_text():
    assert "'d' is given a list" in problem(everything, None, 1, c=1, d=[])
    assert "'rest' is given a dict" in problem(everything, None, 1, 2, {}, c=1)
    assert "'others' is given a set" in problem(everything, None, 1, c=1, x=set())


# Callables ------------------------------------------------------------------------------------------------------------------


def test_a_callable_gets_the_arguments_of_the_call():
    def key(user_id, lang="xx"):
        return f"{user_id}:{lang}"

    assert key_of(load_more, 1, key=key) == "1:xx"
    assert key_of(load_more, 1, lang="fr", key=key) == "1:fr"
    assert key_of(load_more, 1, key=lambda user_id: b"raw") == b"raw"


@pytest.mark.parametrize("made", [None, 1, ["a"], bytearray(b"a")])
def test_a_callable_that_returns_no_key_is_refused(made):
    assert type(made).__name__ in problem(load, lambda user_id: made, 1)


@pytest.mark.parametrize("key", [1, b"user:{user_id}", ["a"], nothing], ids=["int", "bytes", "list", "function"])
def test_an_object_that_is_no_key_is_refused(key):
    assert "is needed" in problem_at_decoration(load, key)
