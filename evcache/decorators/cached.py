"""Decorator for async functions whose results are stored in a cache."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
import types
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import timedelta
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar, cast, overload

from evcache.decorators.call_keys import CallKey, MakeKey, automatic_name, call_keys
from evcache.load_policy import Loaded, LoadPolicy
from evcache.results import WriteResult
from evcache.values.annotations import return_type
from evcache.values.ttl import seconds_to_live
from evcache.zones.errors import InvalidArgument
from evcache.zones.validation import positive_seconds

P = ParamSpec("P")
Rest = ParamSpec("Rest")
R = TypeVar("R")
Instance = TypeVar("Instance")

Loader = Callable[[], Coroutine[Any, Any, Any]]

# Functions with automatic keys, by the name in these keys.
_named: dict[str, Callable[..., Any]] = {}


CheckType = Callable[[Any, str], object]
"""Check of a return type. It raises `InvalidArgument` for a type whose values a cache cannot return.

It raises NameError for a type that refers to a name that is not defined yet.
"""


class LoadingCache(Protocol):
    """Cache of a cached function. `EVCache` is one."""

    async def get_or_load(
        self,
        key: str | bytes,
        loader: Loader,
        /,
        *,
        as_: Any = None,
        ttl: float | timedelta | None = None,
        policy: LoadPolicy | None = None,
        timeout: float | None = None,
        near_cache: bool = True,
    ) -> Any:
        """Return the value of a key. If there is none, call the loader and store its result."""

    async def delete(self, key: str | bytes, /) -> WriteResult:
        """Delete the value of a key."""

    async def invalidate(self, key: str | bytes, /, *, stale_while_revalidate: float | timedelta) -> WriteResult:
        """Mark the value as out of date. It may be served for `stale_while_revalidate` seconds more."""


class Cached(Generic[P, R]):
    """Cached function. It is called like the function itself, or like a method if it is defined in a class.

    Under @classmethod, it is called like any class method. `key` and `invalidate` accept the class first in every
    version of Python. From 3.13 on, they and `uncached` require it, because @classmethod no longer passes the class to the
    decorators below it. Without it they raise `InvalidArgument` if the first parameter is named `cls`.
    """

    uncached: Callable[P, Coroutine[Any, Any, R]]
    """The function itself. It neither reads nor changes the cache."""

    _bound: tuple[Any, ...] = ()  # object of the method

    def __init__(
        self,
        function: Callable[P, Coroutine[Any, Any, R]],
        cache: LoadingCache,
        make_key: MakeKey,
        options: dict[str, Any],
        stale_while_revalidate: float | timedelta | None,
        check_type: CheckType | None = None,
    ) -> None:
        functools.update_wrapper(self, function)
        self._takes_class = _takes_class(function)
        self.uncached = _class_checked(function) if self._takes_class else function
        self._cache = cache
        self._make_key = make_key
        self._options = options
        self._returns = None if check_type is None else _Returns(self.uncached, options, check_type)
        self._stale_for = stale_while_revalidate
        # Frameworks test for a coroutine function before they await the result.
        if sys.version_info >= (3, 12):
            inspect.markcoroutinefunction(self)
        else:
            self._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]  # noqa: SLF001  # as asgiref does

    async def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the cached result for these arguments. If there is none, call the function and store its result.

        None is the absence of a value. Cancellation has the effect that it has for `get_or_load`.

        Args:
            args: Arguments of the function by position.
            kwargs: Arguments of the function by name.

        Raises:
            InvalidArgument: An argument has no canonical text.
            TypeError: The function does not take these arguments.
            Exception: The function or `get_or_load` raised it.
        """
        if self._returns is not None and not self._returns.is_known:
            self._returns.resolve()
        key = self._make_key(self._bound + args, kwargs)
        value: R = await self._cache.get_or_load(key, functools.partial(self.uncached, *args, **kwargs), **self._options)
        return value

    def key(self, /, *args: P.args, **kwargs: P.kwargs) -> str | bytes:
        """Return the key of a call, without the namespace.

        Args:
            args: Arguments of the function by position.
            kwargs: Arguments of the function by name.

        Raises:
            InvalidArgument: An argument has no canonical text.
            TypeError: The function does not take these arguments.
        """
        return self._make_key(self._all(args, kwargs), kwargs)

    async def invalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> WriteResult:
        """Delete the result for these arguments. With `stale_while_revalidate`, mark it as out of date instead.

        All arguments are those of the function. To pass options, call the cache's own methods with `key(...)`. Cancellation
        has the effect that it has for the cache's `delete` or `invalidate`.

        Args:
            args: Arguments of the function by position.
            kwargs: Arguments of the function by name.

        Returns:
            The outcome in each zone.

        Raises:
            InvalidArgument: An argument has no canonical text.
            TypeError: The function does not take these arguments.
            CacheError: The cache's `delete` or `invalidate` raised it.
        """
        key = self._make_key(self._all(args, kwargs), kwargs)
        if self._stale_for is None:
            return await self._cache.delete(key)
        return await self._cache.invalidate(key, stale_while_revalidate=self._stale_for)

    def _all(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Return the arguments after the bound object. A bound class is omitted if the arguments begin with a class."""
        if not self._takes_class:
            return self._bound + args
        if not self._bound:
            _check_class(self, args, kwargs)
            return args
        (owner,) = self._bound
        says_class = args and isinstance(args[0], type) and isinstance(owner, type) and issubclass(args[0], owner)
        return args if says_class else self._bound + args

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Self: ...

    @overload
    def __get__(
        self: Cached[Concatenate[Instance, Rest], R], instance: Instance, owner: type | None = None
    ) -> Cached[Rest, R]: ...

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Return the bound method of an object, so that `thing.load.invalidate(42)` has the object in its key."""
        if instance is None or self._bound:
            return self
        bound = object.__new__(type(self))
        method = types.MethodType(self.uncached, instance)
        bound.__dict__.update(self.__dict__, _bound=(instance,), uncached=method, __wrapped__=method)
        return bound

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Return a reference to the function, as functions do. A copy is the function itself, and a pickle names it."""
        if self._bound:
            return getattr, (self._bound[0], self.uncached.__name__)
        return str(getattr(self, "__qualname__", "?"))

    def __repr__(self) -> str:
        return f"<cached {self.uncached!r}>"


class _Returns:
    """Return type of a function, from its annotation. All methods that are bound to one function share it."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any], check_type: CheckType) -> None:
        self._function = function
        self._options = options
        self._check_type = check_type
        self.is_known = False
        with suppress(NameError):  # a class that is defined further down, or the class of the method
            self._resolve()

    def resolve(self) -> None:
        """Resolve the type again. Raises `InvalidArgument` while a name in it is not defined."""
        try:
            self._resolve()
        except NameError as error:
            problem = f"the type that {self._function!r} returns cannot be resolved: {error}"
            raise InvalidArgument("function", problem) from error

    def _resolve(self) -> None:
        try:
            as_ = return_type(self._function)
            self._check_type(as_, "function")
        except (InvalidArgument, TypeError) as error:
            problem = error.problem if isinstance(error, InvalidArgument) else error
            name = getattr(self._function, "__qualname__", repr(self._function))
            raise InvalidArgument("function", f"{name}() returns a type that cannot be stored: {problem}") from error
        self._options["as_"] = as_
        self.is_known = True


class CachedDecorator(Protocol):
    """Decorator that makes a cached function of an async function."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, Loaded[R]]], /) -> Cached[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Cached[P, R]: ...


def cached(
    cache: LoadingCache,
    *,
    key: CallKey | None = None,
    ttl: float | timedelta | None = None,
    policy: LoadPolicy | None = None,
    timeout: float | None = None,
    near_cache: bool = True,
    stale_while_revalidate: float | timedelta | None = None,
    check_type: CheckType | None = None,
) -> CachedDecorator:
    """Return a decorator that stores the results of an async function in a cache, by its arguments.

    `key` determines the key of a result:

    - None: the function's module and name, and all its arguments. For functions of modules and static methods. Arguments are
      str, bytes, int, float, bool, None, UUID, date, datetime, Decimal, members of enums, or tuples of these. Objects of
      derived types are refused.
    - A template, `"user:{user_id}"` or `"page:{site.id}/{lang}"`. Fields name parameters, and attributes of their values.
      Arguments that the template does not name make no difference. A str, int, UUID or date appears as its text, so 42 and
      "42" are equal. All characters but letters, digits and `-_.` become %XX. Other types of the list above get a `~`.
    - A callable. It takes the arguments of the call, and returns a str or bytes. Different results need different keys.

    Values come back as the type that the function is annotated to return. Without an annotation, the codec decides. A type
    with a name that is not defined yet is resolved in the first call.

    Args:
        cache: The cache, usually an `EVCache`.
        key: Template, callable or None.
        ttl: Seconds or a timedelta. If None, the cache's default applies.
        policy: Policy of the loads. If None, the cache's default applies.
        timeout: Seconds that a caller waits for a load. If None, the policy's `hard_timeout` applies.
        near_cache: False to pass by the near cache.
        stale_while_revalidate: Seconds for which the old value is served after `invalidate`. If None, `invalidate` deletes.
        check_type: Check of the return type. If None, values have no type.

    Raises:
        InvalidArgument: An option is invalid. The decorator raises it for a function that is not async, or a return type
            whose values cannot be read back. It also refuses a key that cannot tell calls apart, and a taken name.
    """
    if not callable(getattr(cache, "get_or_load", None)):
        raise InvalidArgument("cache", f"a cache with get_or_load() is needed, not {cache!r}")
    if ttl is not None:
        seconds_to_live(ttl)
    if policy is not None and not isinstance(policy, LoadPolicy):
        raise InvalidArgument("policy", f"LoadPolicy(...) or None is needed, not {policy!r}")
    if timeout is not None:
        positive_seconds(timeout, "timeout")
    if stale_while_revalidate is not None:
        seconds_to_live(stale_while_revalidate, "stale_while_revalidate")
    options = {"ttl": ttl, "policy": policy, "timeout": timeout, "near_cache": near_cache}

    def decorate(function: Callable[P, Coroutine[Any, Any, R]]) -> Cached[P, R]:
        _check_async(function)
        make_key = call_keys(function, key)
        if key is None:
            _claim_name(function)
        return Cached(function, cache, make_key, dict(options), stale_while_revalidate, check_type)

    return cast("CachedDecorator", decorate)


def _check_async(function: Any) -> None:
    if isinstance(function, staticmethod | classmethod):
        kind = type(function).__name__
        raise InvalidArgument("function", f"{function!r} is a {kind}: put @{kind} above the decorator that caches")
    if inspect.isasyncgenfunction(function):
        raise InvalidArgument("function", f"{function!r} is an async generator: it has no single result to store")
    if isinstance(function, type) or not (
        inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(type(function), "__call__", None))  # noqa: B004
    ):
        raise InvalidArgument("function", f"{function!r} is not async, and only async functions can be cached")


def _takes_class(function: Callable[..., Any]) -> bool:
    """Return True for a function under @classmethod: it is defined in a class, with the first parameter `cls` of PEP 8.

    The name is the only sign, because a decorator above is not visible here.
    """
    outside = getattr(function, "__qualname__", "").rpartition(".")[0]
    code = getattr(inspect.unwrap(function), "__code__", None)
    in_class = bool(outside) and not outside.endswith("<locals>")
    return in_class and isinstance(code, types.CodeType) and code.co_argcount > 0 and code.co_varnames[0] == "cls"


def _check_class(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse a first argument that would be bound to `cls`, and shift all arguments after it."""
    if "cls" not in kwargs and not (args and isinstance(args[0], type)):
        raise InvalidArgument(
            "cls",
            f"{function!r} has to be given the class first, as in Users.load.key(Users, 42): from Python 3.13 on, "
            "@classmethod does not pass it to the decorators below",
        )


def _class_checked(function: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    @functools.wraps(function)
    async def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        _check_class(function, args, kwargs)
        return await function(*args, **kwargs)

    return checked


def _claim_name(function: Callable[..., Any]) -> None:
    """Refuse a second function of the same name, because both would share their results.

    That is a function that is defined elsewhere, or the same function in another wrapper. The same function for another
    cache is accepted, and so is a function of a module that is loaded again.
    """
    name = automatic_name(function)
    first = _named.setdefault(name, function)
    if first is function:
        return
    place = _place(first)
    if place != _place(function) or inspect.unwrap(first) is inspect.unwrap(function):
        raise InvalidArgument("key", f"{name} is cached already, from {place}: use another name, or a template")


def _place(function: Callable[..., Any]) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return "" if code is None else f"{code.co_filename}:{code.co_firstlineno}"
