"""Keys of calls: binding of arguments to parameters, also below other decorators."""

import functools
import inspect

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evcache.decorators.call_keys import call_keys
from tests.support.call_values import HERE, key_of, load, load_more, problem_at_decoration


async def five(a, b, c=3, d=4, e=5): ...
async def five_mixed(a, /, b, c=3, *, d, e=5): ...
async def five_and_more(a, b, c=3, *rest, d=4, e=5): ...
async def five_others(a, /, b, c=3, d=4, **e): ...


argument_lists = st.lists(st.integers(0, 2), max_size=6).map(tuple)
keywords = st.dictionaries(st.sampled_from(["a", "b", "c", "d", "e", "", "rest"]), st.integers(0, 2), max_size=5)


@pytest.mark.parametrize("function", [five, five_mixed, five_and_more, five_others])
@given(args=argument_lists, kwargs=keywords)
@example(args=(), kwargs={"a": 1, "b": 2, "d": 4})
@example(args=(1,), kwargs={"b": 2, "d": 4})
@example(args=(1,), kwargs={"a": 1, "b": 2, "d": 4})
@example(args=(1, 2), kwargs={"d": 4, "c": 0})
@example(args=(), kwargs={"a": 1, "b": 2, "c": 3, "d": 4})
def test_arguments_are_bound_as_the_call_binds_them(function, args, kwargs):
    """One call has one key in all its spellings. The key raises TypeError where the call would."""
    make = call_keys(function, None)
    try:
        function(*args, **kwargs).close()
    except TypeError:
        with pytest.raises(TypeError):
            make(args, kwargs)
        return
    bound = inspect.signature(function).bind(*args, **kwargs)
    bound.apply_defaults()
    written = [
        f"{name}={{{','.join(f'{inner}={one}' for inner, one in sorted(value.items()))}}}"
        if isinstance(value, dict)
        else f"{name}=({''.join(f'{one},' for one in value)})"
        if isinstance(value, tuple)
        else f"{name}={value}"
        for name, value in bound.arguments.items()
    ]
    assert make(args, kwargs) == f"{__name__}:{function.__name__}({','.join(written)})"


# Decorators below ----------------------------------------------------------------------------------------------------------


def with_session(function):
    """Decorator that adds an argument without showing it."""

    @functools.wraps(function)
    async def wrapper(*args, **kwargs):
        return await function("session", *args, **kwargs)

    return wrapper


def again(function):
    """Decorator that passes all arguments on, and has its own parameters."""

    @functools.wraps(function)
    async def wrapper(user_id):
        return await function(user_id)

    return wrapper


def hidden(function):
    async def wrapper(*args, **kwargs):
        return await function(*args, **kwargs)

    return wrapper


async def in_session(session, user_id): ...
async def in_session_maybe(session, user_id=0): ...
async def in_session_many(session, *user_ids): ...


@pytest.mark.parametrize("key", [None, "user:{user_id}", "user:{user_ids}"])
@pytest.mark.parametrize("function", [in_session_maybe, in_session_many])
def test_a_decorator_that_may_add_arguments_is_not_trusted(function, key):
    """The user would be bound to the session, and every caller would get user 0."""
    assert "may add arguments" in problem_at_decoration(with_session(function), key)


@pytest.mark.parametrize("key", [None, "user:{user_id}"])
def test_an_argument_that_a_decorator_adds_is_noticed(key):
    """All parameters are required, so one is missing."""
    with pytest.raises(TypeError):
        key_of(with_session(in_session), 42, key=key)


def test_the_signature_below_a_transparent_decorator_is_used():
    wrapped = functools.wraps(load)(hidden(load))
    assert key_of(wrapped, user_id=42) == f"{HERE}:load(user_id=42)"
    assert key_of(wrapped, 42, key="user:{user_id}") == "user:42"


def test_a_wrapper_with_its_own_parameters_is_bound_to_these():
    assert key_of(again(load_more), 42, key="user:{user_id}") == "user:42"
    assert "not among" in problem_at_decoration(again(load_more), "user:{lang}")


def test_a_wrapper_without_its_own_name_needs_a_key():
    """All wrappers of one decorator have one name."""
    assert "once for each of its calls" in problem_at_decoration(hidden(load))
    assert "not among" in problem_at_decoration(hidden(load), "user:{user_id}")
