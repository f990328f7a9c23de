"""`EVCache` as users see it: one class whose page in `help` and in an IDE is complete."""

import ast
import asyncio
import importlib
import inspect
import pydoc
import re
import sys
from collections.abc import Coroutine
from pathlib import Path
from unittest.mock import AsyncMock, create_autospec

import pytest

import evcache
from evcache import EVCache

OPERATIONS = [
    *("get", "get_item", "set", "delete", "touch", "get_and_touch"),
    *("get_many", "set_many", "delete_many"),
    *("get_or_load", "get_or_load_many", "cached", "invalidate", "write_through"),
    *("add", "replace", "cas", "append", "prepend", "incr", "decr"),
    *("confirm_topology", "check", "stats", "close"),
]
AWAITED = [name for name in OPERATIONS if name not in ("cached", "confirm_topology", "stats")]
NOT_RETURNED = {"__init__", "close"}  # they return None

SOURCE = Path(sys.modules[EVCache.__module__].__file__)
STANDARD = ["builtins", "collections.abc", "datetime", "os", "types", "typing"]


def parameters(method):
    return [name for name in inspect.signature(getattr(EVCache, method)).parameters if name != "self"]


def section(method, title):
    """Return the lines of a section of a docstring, or None if it has no such section."""
    text = inspect.getdoc(getattr(EVCache, method))
    found = re.search(rf"^{title}:\n((?:    .*\n?|\n)+)", text, re.MULTILINE)
    return found and found[1]


def test_the_class_has_no_base_class_and_each_operation_once():
    assert EVCache.__mro__ == (EVCache, object)
    assert [name for name in vars(EVCache) if name in OPERATIONS] == OPERATIONS
    public = {name for name in vars(EVCache) if not name.startswith("_")}
    assert public == {*OPERATIONS, "namespace", "topology"}


@pytest.mark.parametrize("method", ["__init__", *OPERATIONS])
def test_a_docstring_names_every_parameter_and_no_other(method):
    arguments = section(method, "Args")
    if not parameters(method):
        assert arguments is None
        return
    assert re.findall(r"^    (\w+): \S", arguments, re.MULTILINE) == parameters(method)


@pytest.mark.parametrize("method", ["__init__", *OPERATIONS])
def test_a_docstring_says_what_is_returned_and_raised(method):
    assert (section(method, "Returns") is None) is (method in NOT_RETURNED)
    if method not in ("confirm_topology", "stats"):  # they raise nothing
        raised = re.findall(r"^    (\w+): \S", section(method, "Raises"), re.MULTILINE)
        assert raised
        for name in raised:
            assert name == "Exception" or issubclass(getattr(evcache, name), evcache.CacheError), name


def test_help_shows_all_operations_in_one_list():
    text = pydoc.render_doc(EVCache, renderer=pydoc.plaintext)
    assert "Method resolution order" not in text
    assert "inherited from" not in text
    listed = text[text.index("Methods defined here") : text.index("Readonly properties defined here")]
    assert set(re.findall(r"^ \|  (?:async )?([a-z]\w+)\(self", listed, re.MULTILINE)) == set(OPERATIONS)


def annotations_of_the_api():
    """Return the names in the annotations of public methods, overloads excepted: those are read by type checkers only."""
    (found,) = [node for node in ast.parse(SOURCE.read_text("utf-8")).body if isinstance(node, ast.ClassDef)]
    names = set()
    for node in found.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if node.name.startswith("_") and not node.name.endswith("__"):
            continue
        if any(isinstance(mark, ast.Name) and mark.id == "overload" for mark in node.decorator_list):
            continue
        arguments = [*node.args.args, *node.args.kwonlyargs]
        for annotation in [*(one.annotation for one in arguments), node.returns]:
            for part in ast.walk(annotation) if annotation is not None else ():
                if isinstance(part, ast.Name):
                    names.add(part.id)
    return names - {"Key"}  # a type variable: str or bytes


def test_every_type_in_a_signature_is_public():
    names = annotations_of_the_api()
    assert {"Consistency", "WriteResult", "LoadPolicy", "Literal", "timedelta"} <= names
    standard = [importlib.import_module(name) for name in STANDARD]
    private = {name for name in names if not hasattr(evcache, name) and not any(hasattr(one, name) for one in standard)}
    assert private - {"os"} == set()


def test_levels_and_modes_are_spelled_out():
    text = str(inspect.signature(EVCache.set))
    assert "Literal['none', 'one', 'quorum', 'all_minus_one', 'all']" in text.replace('"', "'")
    assert "Literal['raise', 'miss']" in text.replace('"', "'")
    assert "Literal['newest', 'arrival']" in text.replace('"', "'")


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: EVCache(), "EVCache.__init__()"),
        (lambda: EVCache("t", {"a": ["h:1"]}, read_timeot=1), "EVCache.__init__()"),
        (lambda: EVCache("t", {"a": ["h:1"]}).get(), "EVCache.get()"),
        (lambda: EVCache("t", {"a": ["h:1"]}).set("k"), "EVCache.set()"),
        (lambda: EVCache("t", {"a": ["h:1"]}).get_many(["k"], timout=1), "EVCache.get_many()"),
        (lambda: EVCache("t", {"a": ["h:1"]}).incr("k", intial=1), "EVCache.incr()"),
        (lambda: EVCache("t", {"a": ["h:1"]}).get_or_load("k"), "EVCache.get_or_load()"),
        (lambda: EVCache("t", {"a": ["h:1"]}).cached(lambda: 1), "EVCache.cached()"),
        (lambda: EVCache("t", {"a": ["h:1"]}).close(1, 2), "EVCache.close()"),
    ],
)
def test_wrong_arguments_are_an_error_that_names_the_operation(call, name):
    with pytest.raises(TypeError, match=re.escape(name)):
        call()


# Operations return the coroutine of the part that does the work. For mocks and frameworks they are coroutine functions.


@pytest.mark.parametrize("operation", AWAITED)
def test_an_operation_counts_as_a_coroutine_function(operation):
    method = getattr(EVCache, operation)
    assert asyncio.iscoroutinefunction(method)
    if sys.version_info >= (3, 12):
        assert inspect.iscoroutinefunction(method)
    assert inspect.iscoroutinefunction(method) or operation != "close"


@pytest.mark.parametrize("operation", AWAITED)
def test_a_mock_of_the_client_is_awaited(operation):
    async def await_both():
        for mock in (AsyncMock(spec=EVCache), create_autospec(EVCache, instance=True)):
            method = getattr(mock, operation)
            method.return_value = "a result"
            given = [
                name
                for name in ("key", "keys", "value", "values", "expected", "loader", "writer")
                if name in parameters(operation)
            ]
            assert await method(*given) == "a result"
            method.assert_awaited_once_with(*given)

    asyncio.run(await_both())


@pytest.mark.parametrize("operation", ["get", "set", "get_or_load", "incr"])
def test_an_operation_returns_a_coroutine_that_does_nothing_before_it_is_awaited(operation):
    """An invalid argument is an error of the await, as with an `async def`."""
    cache = EVCache("t", {"a": ["h:1"]})
    coroutine = getattr(cache, operation)(*([" "] if operation in ("get", "incr") else [" ", 1]))
    assert isinstance(coroutine, Coroutine)
    assert asyncio.iscoroutine(coroutine)
    with pytest.raises(evcache.InvalidKey):
        coroutine.send(None)
