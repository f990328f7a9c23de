"""Functions whose calls are given keys in tests, and their keys."""

import pytest

from evcache import InvalidArgument
from evcache.decorators.call_keys import call_keys

HERE = __name__


async def load(user_id): ...
async def load_more(user_id, lang="de"): ...
async def everything(a, /, b=2, *rest, c, d=None, **others): ...
async def nothing(): ...
async def größe(straße): ...


class Repository:
    async def load(self, user_id): ...
    async def of_class(cls, user_id): ...

    @staticmethod
    async def fixed(user_id): ...


def key_of(function, *args, key=None, **kwargs):
    return call_keys(function, key)(args, kwargs)


def problem(function, key=None, *args, **kwargs):
    """What is wrong with a key, when it is made or when it is used."""
    with pytest.raises(InvalidArgument) as caught:
        call_keys(function, key)(args, kwargs)
    assert caught.value.argument == "key"
    return caught.value.problem


def problem_at_decoration(function, key=None):
    with pytest.raises(InvalidArgument) as caught:
        call_keys(function, key)
    assert caught.value.argument == "key"
    return caught.value.problem
