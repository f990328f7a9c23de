"""What one call asks for, after its arguments have been checked against the client's defaults."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import NamedTuple, TypedDict, TypeVar

from evcache.config import Errors, Ordering
from evcache.consistency import Consistency
from evcache.load_policy import LoadPolicy
from evcache.values.ttl import seconds_to_live
from evcache.zones.errors import InvalidArgument
from evcache.zones.validation import one_of, positive_seconds

Key = TypeVar("Key", str, bytes)
Seconds = float | timedelta
Level = Consistency | str


class ReadOptions(TypedDict, total=False):
    """The keyword arguments of `get` and `get_many`, for overloads."""

    consistency: Level | None
    timeout: float | None
    fallback_on_miss: bool | None
    errors: Errors | None
    near_cache: bool


class ItemOptions(ReadOptions, total=False):
    """The keyword arguments of `get_item`, for overloads."""

    for_update: bool


class TouchOptions(TypedDict, total=False):
    """The keyword arguments of `get_and_touch`, for overloads."""

    consistency: Level | None
    timeout: float | None
    errors: Errors | None


class LoadOptions(TypedDict, total=False):
    """The keyword arguments of `get_or_load` and `get_or_load_many`, for overloads."""

    ttl: Seconds | None
    policy: LoadPolicy | None
    consistency: Level | None
    timeout: float | None
    near_cache: bool


class Options(NamedTuple):
    """The options that every operation has."""

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
    """A client's own options, for calls that say nothing. Checks what calls do say; raises `InvalidArgument`."""

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
        one_of(errors, Errors, "errors")
        one_of(ordering, Ordering, "ordering")
        self.reads = _options(
            Consistency.parse(read_consistency, "read_consistency"),
            positive_seconds(read_timeout, "read_timeout"),
            errors,
            fallback_on_miss=fallback_on_miss,
        )
        """Options of a read whose call has no arguments beside its key."""
        self._writes = _options(
            Consistency.parse(write_consistency, "write_consistency"),
            positive_seconds(write_timeout, "write_timeout"),
            errors,
        )
        # For calls that say nothing, or nothing but how many zones must answer: no need to check that each time.
        self._known_reads = _of_each_level(self.reads)
        self._known_writes = _of_each_level(self._writes)
        self._ttl = seconds_to_live(ttl)
        self._ordering = ordering

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
                return self._known_reads[consistency]
            except (KeyError, TypeError):  # a level in capitals, or an invalid one
                pass
        options = _with(self.reads, consistency, timeout, errors)._replace(near_cache=near_cache)
        return options if fallback_on_miss is None else options._replace(fallback_on_miss=fallback_on_miss)

    def write(self, consistency: Consistency | str | None, timeout: float | None, errors: Errors | None) -> Options:
        """The options of a write."""
        if timeout is None and errors is None:
            try:
                return self._known_writes[consistency]
            except (KeyError, TypeError):  # written in another way, or no level at all
                pass
        return _with(self._writes, consistency, timeout, errors)

    def levels(self) -> dict[str, str]:
        """How many zones must answer, by operation, where the call does not say."""
        reads = ("get", "get_item", "get_many", "get_and_touch", "get_or_load", "get_or_load_many")
        writes = (
            "set",
            "set_many",
            "add",
            "replace",
            "append",
            "prepend",
            "cas",
            "delete",
            "delete_many",
            "touch",
            "incr",
            "decr",
        )
        levels = dict.fromkeys(reads, str(self.reads.consistency))
        return levels | dict.fromkeys((*writes, "invalidate", "write_through"), str(self._writes.consistency))

    def ttl(self, ttl: float | timedelta | None) -> float:
        """Seconds to live; `math.inf` for ever."""
        return self._ttl if ttl is None else seconds_to_live(ttl)

    def newest_wins(self, ordering: Ordering | None) -> bool:
        """Whether the newest write wins, and not the last to arrive."""
        if ordering is not None:
            one_of(ordering, Ordering, "ordering")
        return (self._ordering if ordering is None else ordering) == "newest"


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


def _of_each_level(defaults: Options) -> dict[Level | None, Options]:
    """By what a call says about its level, as a member or as a str; None: nothing."""
    options: dict[Level | None, Options] = {level: _with(defaults, level, None, None) for level in Consistency}
    return {None: defaults, **options}


def several(keys: Iterable[Key]) -> Iterable[Key]:
    """The keys as given. Raises `InvalidArgument` for one key in place of several."""
    if isinstance(keys, str | bytes) or not isinstance(keys, Iterable):
        raise InvalidArgument("keys", f"several keys are needed, not {keys!r}")
    return keys
