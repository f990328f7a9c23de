"""Types of the values that a function returns, from its annotations."""

from __future__ import annotations

import asyncio
import functools
import inspect
import types
import typing
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

from evcache.load_policy import Loaded

_AWAITABLES: frozenset[Any] = frozenset({Awaitable, Coroutine, asyncio.Future, asyncio.Task})

# Number of cached annotations. Functions that are created repeatedly would otherwise fill the memory.
_MAX_KEPT = 1000
_resolved: dict[tuple[types.CodeType, int, Any], Any] = {}


def return_type(function: Callable[..., Any]) -> Any:
    """Return the type of the awaited result of a function, or `Any` if it has no annotation.

    `Loaded[User]` counts as `User`.

    Raises:
        NameError: A name in the annotation is not defined, or not yet.
        TypeError: The annotation is not a type.
    """
    plain = _function(function)
    if plain is None:
        return Any
    annotation = plain.__annotations__.get("return", Any)
    if isinstance(annotation, str) or typing.get_args(annotation):
        annotation = _resolve(plain, annotation)
    if not inspect.iscoroutinefunction(plain):
        origin, args = typing.get_origin(annotation), typing.get_args(annotation)
        annotation = args[-1] if origin in _AWAITABLES and args else Any
    return _value_type(annotation)


def mapped_type(function: Callable[..., Any]) -> Any:
    """Return the type of the values in the mapping that a function returns, or `Any`. Raises as `return_type`."""
    annotation = return_type(function)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if isinstance(origin, type) and issubclass(origin, Mapping) and len(args) == 2:
        return _value_type(args[1])
    return Any


def _function(function: Any) -> types.FunctionType | None:
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, types.MethodType):
        function = function.__func__
    if not isinstance(function, types.FunctionType):
        function = getattr(type(function), "__call__", None)  # noqa: B004  # a callable object
    return function if isinstance(function, types.FunctionType) else None


def _resolve(function: types.FunctionType, annotation: Any) -> Any:
    """Return an annotation with its names resolved in the module of the function."""
    inner = inspect.unwrap(function)
    names = getattr(inner, "__globals__", function.__globals__)
    known = (function.__code__, id(names), annotation)
    with suppress(KeyError, TypeError):  # a new annotation, or metadata without a hash
        return _resolved[known]
    holder = types.SimpleNamespace(__annotations__={"return": annotation})
    try:
        hints = typing.get_type_hints(holder, globalns=names, include_extras=True)
    except NameError:
        # A type local to the enclosing function. The closure has it if the code uses it. It is not cached, because the next
        # call of that function defines another type.
        code = getattr(inner, "__code__", function.__code__)
        cells = zip(code.co_freevars, getattr(inner, "__closure__", None) or (), strict=False)
        local = {name: cell.cell_contents for name, cell in cells if _is_set(cell)}
        return typing.get_type_hints(holder, globalns=names, localns=local, include_extras=True)["return"]
    if len(_resolved) < _MAX_KEPT:
        with suppress(TypeError):
            _resolved[known] = hints["return"]
    return hints["return"]


def _is_set(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018  # raises ValueError while it is empty
    except ValueError:
        return False
    return True


def _value_type(annotation: Any) -> Any:
    """Return the annotation without `Loaded`, which is unwrapped before a value is stored."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Loaded:
        return Any
    if origin is Loaded:
        return args[0]
    if origin is types.UnionType or origin is typing.Union:
        parts = [_value_type(part) for part in args]
        return Any if Any in parts else typing.Union[tuple(parts)]  # noqa: UP007  # the parts are known at run time only
    return annotation
