"""Errors survive `copy` and `pickle`, as process pools and task queues need. Objects that own something live refuse both."""

import copy
import inspect
import pickle
import subprocess
import sys

import pytest

import evcache
import evcache.channels
import evcache.errors
import evcache.write_behind
import evcache.zones.errors
from evcache import DecodeError, EVCache, LocalChannel, NodeSettings, StandardCodec, WriteBehind
from evcache.channels.redis import RedisChannel
from tests.support.memory_zones import on_zones

MODULES = (evcache, evcache.errors, evcache.channels, evcache.write_behind, evcache.zones.errors)
ERRORS = sorted(
    {
        value
        for module in MODULES
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Exception)
        and value.__module__.split(".")[0] in ("evcache", "zones")
    },
    key=lambda kind: kind.__qualname__,
)

WAYS = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{
        f"pickle {number}": lambda it, n=number: pickle.loads(pickle.dumps(it, n))
        for number in range(pickle.HIGHEST_PROTOCOL + 1)
    },
}

# Arguments by name; others are given by the type that the signature says.
VALUES = {
    "failures": {
        "a": evcache.zones.errors.NodeTimeout("no reply", "n1"),
        "b": DecodeError("damaged", key=b"k", zone="b", flags=3),
    },
    "found": {"k": [1, "two"]},
    "key": b"k",
    "seconds": 1.5,
    "flags": 7,
    "unreadable": ("k2",),
}
BY_TYPE = {"str": "text", "int": 3, "float": 2.5, "bytes": b"bytes"}


def made(kind):
    """An error with a value for each argument of its constructor, named ones too."""
    positional, named = [], {}
    _, *parameters = inspect.signature(kind.__init__).parameters.values()
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            positional.append("text")
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        value = VALUES[parameter.name] if parameter.name in VALUES else BY_TYPE[str(parameter.annotation)]
        if parameter.kind is parameter.KEYWORD_ONLY:
            named[parameter.name] = value
        else:
            positional.append(value)
    error = kind(*positional, **named)
    error.add_note("said by the service")
    return error


def told(error):
    """Everything that an error says, its parts too, by value."""
    if isinstance(error, BaseException):
        return type(error), str(error), told(error.args), told(error.__dict__)
    if isinstance(error, dict):
        return {key: told(value) for key, value in error.items()}
    return [told(value) for value in error] if isinstance(error, tuple) else error


def test_the_table_has_every_error():
    assert len(ERRORS) >= 24
    assert {"DecodeError", "BufferFull", "ChannelError", "StaleReplica"} <= {kind.__name__ for kind in ERRORS}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_survives(kind, way):
    """With its text, its arguments, its attributes and its notes."""
    error = made(kind)
    again = WAYS[way](error)
    assert again is not error
    assert told(again) == told(error)
    assert again.__notes__ == ["said by the service"]


POOL = """
from concurrent.futures import ProcessPoolExecutor
from evcache import DecodeError

def fail():
    raise DecodeError("damaged", key=b"k", zone="a", flags=5)

if __name__ == "__main__":
    with ProcessPoolExecutor(1) as pool:
        for _ in range(2):
            try:
                pool.submit(fail).result(timeout=60)
            except DecodeError as error:
                print(error.key, error.zone, error.flags)
"""


def test_an_error_comes_out_of_a_process_pool(tmp_path):
    """The pool goes on. In a program of its own: a pool leaves helper processes behind until its process ends."""
    program = tmp_path / "pool.py"
    program.write_text(POOL)
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "b'k' a 5\n" * 2, done.stderr


class Derived(EVCache):
    """A service's own client."""


LIVE = {
    "EVCache": lambda: EVCache("t", {"a": ["127.0.0.1:1"]}),
    "Derived": lambda: Derived("t", {"a": ["127.0.0.1:1"]}),
    "WriteBehind": lambda: WriteBehind(None, print),
    "LocalChannel": LocalChannel,
    "RedisChannel": lambda: RedisChannel("redis://127.0.0.1:1"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", LIVE)
def test_live_objects_refuse_copy_and_pickle(name, way):
    """Before its first use too: a deep copy of an unused client never delivered its hints."""
    with pytest.raises(TypeError, match=f"{name} cannot be copied or pickled"):
        WAYS[way](LIVE[name]())


@on_zones()
async def test_an_open_client_refuses(zones):
    cache = await zones.ready()
    for way in WAYS.values():
        with pytest.raises(TypeError, match="EVCache cannot be copied or pickled"):
            way(cache)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("settings", [evcache.NearCache(), evcache.Hints(), evcache.LoadPolicy(), evcache.CircuitLimits()])
def test_settings_survive(settings, way):
    """A process that is to make its own client is passed the settings."""
    assert WAYS[way](settings) == settings


def test_settings_with_objects_survive():
    """Dialers and codecs of this package hold nothing live."""
    assert copy.deepcopy(NodeSettings(connections=3)).connections == 3
    assert pickle.loads(pickle.dumps(NodeSettings(connections=3))).connections == 3
    assert copy.copy(StandardCodec(compress_over=10)).encode("x" * 100) == StandardCodec(compress_over=10).encode("x" * 100)


cache = EVCache("copies", {"a": ["127.0.0.1:1"]})


@cache.cached(key="user:{number}")
async def user(number):
    return number


class Users:
    @cache.cached(key="member:{number}")
    async def load(self, number):
        return number

    def __eq__(self, other):
        return isinstance(other, Users)

    __hash__ = object.__hash__


@pytest.mark.parametrize("way", WAYS)
def test_a_cached_function_is_copied_as_functions_are(way):
    """By reference: the copy is the function, and another process finds its own by the name."""
    assert WAYS[way](user) is user
    method = WAYS[way](Users().load)
    assert method.key(7) == Users().load.key(7) == "member:7"
