"""`@cached`: an async function whose results are kept in a cache."""

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

# Functions with keys of their own, by the name in these keys.
_named: dict[str, Callable[..., Any]] = {}


CheckType = Callable[[Any, str], object]
"""Raises `InvalidArgument`, naming the argument, for a type whose values a cache cannot return; NameError for a type that
refers to a name that is not defined yet.
"""


class LoadingCache(Protocol):
    """What a cached function asks of a cache; an `EVCache` is one."""

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
        """The value under a key; what the loader returns, and keeps, when there is none."""

    async def delete(self, key: str | bytes, /) -> WriteResult:
        """Make the key absent."""

    async def invalidate(self, key: str | bytes, /, *, stale_while_revalidate: float | timedelta) -> WriteResult:
        """Mark what is there as out of date, and serve it for so many seconds more at the most."""


class Cached(Generic[P, R]):
    """A cached function. Called as the function itself, and as a method where it stands in a class.

    Under @classmethod, a call is one as of any class method. `key` and `invalidate` may be given the class first, in every
    version of Python. From 3.13 on they, and `uncached`, have to be: what is beneath that decorator is no longer told of
    the class. Without it they raise `InvalidArgument`, where the first parameter is called `cls`.
    """

    uncached: Callable[P, Coroutine[Any, Any, R]]
    """The function itself: it neither looks into the cache nor changes what is there."""

    _bound: tuple[Any, ...] = ()  # the object whose method this is

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
        # Frameworks ask whether what they are given is to be awaited.
        if sys.version_info >= (3, 12):
            inspect.markcoroutinefunction(self)
        else:
            self._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]  # noqa: SLF001  # as asgiref does

    async def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """What the cache holds for these arguments; if that is nothing, what the function returns, which is then kept.

        A None that it returns is an absence. Raises what `get_or_load` and the function raise; `InvalidArgument` for an
        argument that no key can be made of; TypeError for arguments that the function does not take. Cancelling is up to
        `get_or_load`.
        """
        if self._returns is not None and not self._returns.known:
            self._returns.find_out()
        key = self._make_key(self._bound + args, kwargs)
        value: R = await self._cache.get_or_load(key, functools.partial(self.uncached, *args, **kwargs), **self._options)
        return value

    def key(self, /, *args: P.args, **kwargs: P.kwargs) -> str | bytes:
        """What the result of a call with these arguments is stored under, in the cache's namespace. Raises as the call."""
        return self._make_key(self._all(args, kwargs), kwargs)

    async def invalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> WriteResult:
        """Delete what is kept for these arguments; with `stale_while_revalidate`, keep it for so long, as out of date.

        Every argument is the function's: to say something else for one call, use the cache's own methods with `key(...)`.
        Raises, and is cancelled, as the cache's `delete` or `invalidate`; `InvalidArgument` and TypeError as the call.
        """
        key = self._make_key(self._all(args, kwargs), kwargs)
        if self._stale_for is None:
            return await self._cache.delete(key)
        return await self._cache.invalidate(key, stale_while_revalidate=self._stale_for)

    def _all(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """These arguments, after what this is bound to: an object, or a class if they don't begin with one themselves."""
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
        """The method of an object, so that `thing.load.invalidate(42)` knows the thing. Bound once, as methods are."""
        if instance is None or self._bound:
            return self
        bound = object.__new__(type(self))
        method = types.MethodType(self.uncached, instance)
        bound.__dict__.update(self.__dict__, _bound=(instance,), uncached=method, __wrapped__=method)
        return bound

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Return a reference to the function, as functions do: a copy is the function itself, and a pickle names it."""
        if self._bound:
            return getattr, (self._bound[0], self.uncached.__name__)
        return str(getattr(self, "__qualname__", "?"))

    def __repr__(self) -> str:
        return f"<cached {self.uncached!r}>"


class _Returns:
    """The type that a function is annotated to return. All methods that are bound to one function share it."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any], check_type: CheckType) -> None:
        self._function = function
        self._options = options
        self._check_type = check_type
        self.known = False
        with suppress(NameError):  # a class further down in the module, or the one that this is a method of
            self._settle()

    def find_out(self) -> None:
        """Look for the type again. Raises `InvalidArgument` while a name in it is not defined."""
        try:
            self._settle()
        except NameError as error:
            problem = f"the type that {self._function!r} returns cannot be resolved: {error}"
            raise InvalidArgument("function", problem) from error

    def _settle(self) -> None:
        try:
            as_ = return_type(self._function)
            self._check_type(as_, "function")
        except (InvalidArgument, TypeError) as error:
            problem = error.problem if isinstance(error, InvalidArgument) else error
            name = getattr(self._function, "__qualname__", repr(self._function))
            raise InvalidArgument("function", f"{name}() returns what cannot be kept: {problem}") from error
        self._options["as_"] = as_
        self.known = True


class CachedDecorator(Protocol):
    """What `cached` returns: it makes a cached function of an async one."""

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
    """Keep the results of an async function in a cache, by its arguments.

    `key` says what a result is stored under:

    - None: the function's module and name, and all its arguments. For functions of modules and static methods, with
      arguments that are str, bytes, int, float, bool, None, UUID, date, datetime, Decimal, members of enums, or tuples of
      these, and of no type that is derived from one.
    - A template, `"user:{user_id}"` or `"page:{site.id}/{lang}"`: fields name parameters, and attributes of what they are
      given. Arguments that it does not name make no difference. A str, int, UUID or date is in it as its text, with all but
      letters, digits and `-_.` as %XX; 42 and "42" are the same. Other types of the list above are marked with a `~`.
    - A callable: gets the arguments of the call, returns a str or bytes, and has to tell apart what must not be mixed.

    Values come back as the type that the function is annotated to return, and as the codec makes them if it says nothing.
    A type with a name that is not defined yet is resolved in the first call.

    `ttl` (seconds), `policy`, `timeout` (seconds) and `near_cache` are those of `get_or_load`; None: the cache's own.
    `stale_while_revalidate`: for how many seconds `invalidate` keeps what is there, as out of date; None: it deletes.

    `check_type`: raises `InvalidArgument` for a type whose values the cache cannot return. None: values are not typed.

    Raises `InvalidArgument` for what is no async function; for a return type whose values can't be stored and read back; for
    a key that can't tell calls apart; and without `key`, for a name that another function of its module has had before.
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
        raise InvalidArgument("function", f"{function!r} is an async generator: it has no one result that could be kept")
    if isinstance(function, type) or not (
        inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(type(function), "__call__", None))  # noqa: B004
    ):
        raise InvalidArgument("function", f"{function!r} is not async, and only async functions can be cached")


def _takes_class(function: Callable[..., Any]) -> bool:
    """Whether this is to stand under @classmethod: it is defined in a class, with the parameter that PEP 8 asks for.

    A name is all there is to see: the decorator above does not show itself.
    """
    outside = getattr(function, "__qualname__", "").rpartition(".")[0]
    code = getattr(inspect.unwrap(function), "__code__", None)
    in_class = bool(outside) and not outside.endswith("<locals>")
    return in_class and isinstance(code, types.CodeType) and code.co_argcount > 0 and code.co_varnames[0] == "cls"


def _check_class(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse what would otherwise be taken for the class, so that all parameters after it had their defaults."""
    if "cls" not in kwargs and not (args and isinstance(args[0], type)):
        raise InvalidArgument(
            "cls",
            f"{function!r} has to be given the class first, as in Users.load.key(Users, 42): from Python 3.13 on, "
            "@classmethod does not tell what is beneath it",
        )


def _class_checked(function: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    @functools.wraps(function)
    async def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        _check_class(function, args, kwargs)
        return await function(*args, **kwargs)

    return checked


def _claim_name(function: Callable[..., Any]) -> None:
    """Refuse a second function of the same name: both would be given each other's results.

    That is one that is defined elsewhere, or the same in another wrapper. Not the same for another cache, nor what a module
    that is loaded again defines in the same place.
    """
    name = automatic_name(function)
    first = _named.setdefault(name, function)
    if first is function:
        return
    place = _place(first)
    if place != _place(function) or inspect.unwrap(first) is inspect.unwrap(function):
        raise InvalidArgument("key", f"{name} is cached already, from {place}: another name, or a template, is needed")


def _place(function: Callable[..., Any]) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return "" if code is None else f"{code.co_filename}:{code.co_firstlineno}"
