"""Options of calls: their types, and the client's defaults for those that a call does not pass."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Literal, NamedTuple, TypedDict, TypeVar

from evcache.consistency import Consistency
from evcache.load_policy import LoadPolicy
from evcache.values.ttl import seconds_to_live
from evcache.zones.errors import InvalidArgument
from evcache.zones.validation import one_of, positive_seconds

Key = TypeVar("Key", str, bytes)
Seconds = float | timedelta
Level = Consistency | Literal["none", "one", "quorum", "all_minus_one", "all"]
Errors = Literal["raise", "miss"]
Ordering = Literal["newest", "arrival"]

_READS = ("get", "get_item", "get_many", "get_and_touch", "get_or_load", "get_or_load_many")
_WRITES = (
    *("set", "set_many", "add", "replace", "append", "prepend", "cas", "delete", "delete_many", "touch", "incr", "decr"),
    *("invalidate", "write_through"),
)


class ReadOptions(TypedDict, total=False):
    """Keyword arguments of `get` and `get_many`, for overloads."""

    consistency: Level | None
    timeout: float | None
    fallback_on_miss: bool | None
    errors: Errors | None
    near_cache: bool


class ItemOptions(ReadOptions, total=False):
    """Keyword arguments of `get_item`, for overloads."""

    for_update: bool


class TouchOptions(TypedDict, total=False):
    """Keyword arguments of `get_and_touch`, for overloads."""

    consistency: Level | None
    timeout: float | None
    errors: Errors | None


class LoadOptions(TypedDict, total=False):
    """Keyword arguments of `get_or_load` and `get_or_load_many`, for overloads."""

    ttl: Seconds | None
    policy: LoadPolicy | None
    consistency: Level | None
    timeout: float | None
    near_cache: bool


class Options(NamedTuple):
    """Checked options of one call."""

    consistency: Consistency
    timeout: float
    """Seconds for the whole call."""
    errors: Errors
    one_answer: bool
    """True if one zone's answer is enough, for any number of zones."""
    fallback_on_miss: bool = True
    """True if a read asks the next zone after a miss."""
    near_cache: bool = True
    """True if a read may use the near cache, and fill it."""


class Defaults:
    """Options of one client for calls that do not pass their own."""

    def __init__(
        self,
        *,
        read_consistency: Consistency | str,
        write_consistency: Consistency | str,
        read_timeout: float,
        write_timeout: float,
        ttl: float | timedelta,
        fallback_on_miss: bool,
        errors: Errors,
        ordering: Ordering,
    ) -> None:
        """Check the client's arguments of these names. Raises `InvalidArgument`."""
        one_of(errors, Errors, "errors")
        one_of(ordering, Ordering, "ordering")
        self.reads = _options(
            Consistency.parse(read_consistency, "read_consistency"),
            positive_seconds(read_timeout, "read_timeout"),
            errors,
            fallback_on_miss=fallback_on_miss,
        )
        """Options of a read that passes none."""
        self.writes = _options(
            Consistency.parse(write_consistency, "write_consistency"),
            positive_seconds(write_timeout, "write_timeout"),
            errors,
        )
        """Options of a write that passes none."""
        self.orders_by_version = ordering == "newest"
        """True if the latest version wins, and not the last write to arrive."""
        # Most calls pass no option, or only a consistency level. They need no further check.
        self._reads_by_level = _by_level(self.reads)
        self._writes_by_level = _by_level(self.writes)
        self._ttl = seconds_to_live(ttl)

    def read(
        self,
        consistency: Consistency | str | None,
        timeout: float | None,
        errors: Errors | None,
        fallback_on_miss: bool | None = None,  # noqa: FBT001  # a keyword would cost each read
        *,
        near_cache: bool = True,
    ) -> Options:
        """Return the options of a read. An argument that is None has the client's default."""
        if timeout is None and errors is None and fallback_on_miss is None and near_cache:
            try:
                return self._reads_by_level[consistency]
            except (KeyError, TypeError):  # a level in capitals, or an invalid one
                pass
        options = _with(self.reads, consistency, timeout, errors)._replace(near_cache=near_cache)
        return options if fallback_on_miss is None else options._replace(fallback_on_miss=fallback_on_miss)

    def write(self, consistency: Consistency | str | None, timeout: float | None, errors: Errors | None) -> Options:
        """Return the options of a write. An argument that is None has the client's default."""
        if timeout is None and errors is None:
            try:
                return self._writes_by_level[consistency]
            except (KeyError, TypeError):  # a level in capitals, or an invalid one
                pass
        return _with(self.writes, consistency, timeout, errors)

    def levels(self) -> dict[str, str]:
        """Return the consistency level of each operation for calls that pass none."""
        levels = dict.fromkeys(_READS, str(self.reads.consistency))
        return levels | dict.fromkeys(_WRITES, str(self.writes.consistency))

    def ttl(self, ttl: float | timedelta | None) -> float:
        """Return the seconds to live. `math.inf` means that the item does not expire."""
        return self._ttl if ttl is None else seconds_to_live(ttl)

    def newest_wins(self, ordering: Ordering | None) -> bool:
        """Return True if the latest version wins, and not the last write to arrive."""
        if ordering is None:
            return self.orders_by_version
        one_of(ordering, Ordering, "ordering")
        return ordering == "newest"


def _with(defaults: Options, consistency: Consistency | str | None, timeout: float | None, errors: Errors | None) -> Options:
    if errors is not None:
        one_of(errors, Errors, "errors")
    return _options(
        defaults.consistency if consistency is None else Consistency.parse(consistency),
        defaults.timeout if timeout is None else positive_seconds(timeout, "timeout"),
        defaults.errors if errors is None else errors,
        fallback_on_miss=defaults.fallback_on_miss,
    )


def _options(consistency: Consistency, timeout: float, errors: Errors, *, fallback_on_miss: bool = True) -> Options:
    one_answer = consistency in (Consistency.NONE, Consistency.ONE)
    return Options(consistency, timeout, errors, one_answer, fallback_on_miss)


def _by_level(defaults: Options) -> dict[Consistency | str | None, Options]:
    """Return the options by consistency level. A level as a str is equal to its member; None is the default."""
    options: dict[Consistency | str | None, Options] = {level: _with(defaults, level, None, None) for level in Consistency}
    return {None: defaults, **options}


_ONE_KEY = (str, bytes)  # a union is a new object each time


def check_keys(keys: Iterable[Key]) -> Iterable[Key]:
    """Return the keys of a call for several.

    Raises:
        InvalidArgument: They are one key, or not iterable.
    """
    if isinstance(keys, _ONE_KEY) or not isinstance(keys, Iterable):
        raise InvalidArgument("keys", f"several keys are required, not {keys!r}")
    return keys
