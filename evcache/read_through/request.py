"""Requests of `get_or_load` and `get_or_load_many`: the loader, and options whose values were checked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from types import FunctionType
from typing import Any, NamedTuple

from evcache._helpers.awaitable import await_result
from evcache.load_policy import LoadPolicy
from evcache.options import Defaults, Level, Options, Seconds
from evcache.reads.decoding import Decoder, Decoding, can_read
from evcache.values.flags import FLAG_ABSENT
from evcache.values.lifetime import Content
from evcache.zones.errors import InvalidArgument
from evcache.zones.validation import positive_seconds


class LoadRequest(NamedTuple):
    """Options of one call. They are the same for each of its keys."""

    loader: Callable[..., Awaitable[Any]]
    """Loader as the caller gave it. With `names` it takes a list of keys, otherwise nothing."""
    names: Mapping[bytes, Sequence[Any]] | None
    """Keys as the caller gave them, by keys as servers know them: one or more of each. None for a loader of one key."""
    ttl: float
    """Seconds. `math.inf` does not expire."""
    policy: LoadPolicy
    reads: Options
    timeout: float | None
    """Seconds that the caller waits for a load. If None, the policy's `hard_timeout` applies."""
    decoder: Decoder
    """Decoder of the type that the caller named, or the codec."""
    same_type: bool
    """True to refuse a loaded value that would come back as a value of another type."""
    readable: Callable[[bytes, int], bool] | None = None
    """Returns False for bytes and flags that count as absent because the caller cannot decode them. If None, all bytes
    count as present until the caller decodes them."""

    async def load(self, keys: Sequence[bytes]) -> Mapping[bytes, Any]:
        """Call the loader, and return its values by keys as servers know them.

        Raises:
            InvalidArgument: The loader is not an async function, or does not return a mapping for several keys.
            Exception: The loader raised it.
        """
        if self.names is None:
            return {keys[0]: await await_result(self.loader())}
        names = self.names
        values = await await_result(self.loader([names[key][0] for key in keys]))
        if not isinstance(values, Mapping):
            raise InvalidArgument("loader", f"it has to return a mapping of keys to values, not {type(values).__name__}")
        return {key: values.get(names[key][0]) for key in keys}

    def deadline(self) -> float:
        """Return the deadline of a request to a zone that is sent now, on the loop's clock."""
        return asyncio.get_running_loop().time() + self.reads.timeout

    def only_readable(self) -> LoadRequest:
        """Return a copy for which a value that the caller cannot decode counts as absent."""
        return self._replace(readable=partial(can_read, self.decoder))

    def can_read(self, content: Content) -> bool:
        """Return False for a value that counts as absent because the caller cannot decode it."""
        return self.readable is None or content.flags == FLAG_ABSENT or self.readable(content.data, content.flags)

    def patience(self, has_fallback: bool) -> float:  # noqa: FBT001  # the only argument
        """Return the seconds that the caller waits for a load.

        Args:
            has_fallback: True if the caller has an old value for a load that takes longer.
        """
        patience = self.policy.hard_timeout if self.timeout is None else self.timeout
        if has_fallback and self.policy.soft_timeout is not None:
            return min(patience, self.policy.soft_timeout)
        return patience


class LoadRequests:
    """Requests of one client, with its defaults."""

    def __init__(self, defaults: Defaults, decoding: Decoding, policy: LoadPolicy, *, has_versions: bool) -> None:
        """Make it for one client.

        Args:
            defaults: Options that apply if the call names none.
            decoding: Decoders of the types that callers name.
            policy: Policy that applies if the call names none.
            has_versions: False if other kinds of clients write the namespace. No value is then kept past its TTL.
        """
        self._defaults = defaults
        self._ttl = defaults.ttl(None)
        self._decoding = decoding
        self._policy = policy
        self._has_versions = has_versions

    def make(
        self,
        loader: Callable[..., Awaitable[Any]],
        names: Mapping[bytes, Sequence[Any]] | None,
        as_: Any,
        ttl: Seconds | None,
        policy: LoadPolicy | None,
        consistency: Level | None,
        timeout: float | None,
        near_cache: bool,  # noqa: FBT001  # passed on from the call
    ) -> LoadRequest:
        """Check the arguments of a call. Return its request.

        Args:
            loader: Loader as the caller gave it.
            names: Keys as the caller gave them, by keys as servers know them. None for a loader of one key.
            as_: Type of the values. If None, the return annotation of the loader, if it has one.
            ttl: Seconds or a timedelta. If None, the client's default applies.
            policy: If None, the client's policy applies.
            consistency: If None, the client's default applies.
            timeout: Seconds that the caller waits for a load. If None, the policy's `hard_timeout` applies.
            near_cache: False to pass by the near cache.

        Raises:
            InvalidArgument: An argument cannot be used.
        """
        if not callable(loader):
            raise InvalidArgument("loader", f"an async function is needed, not {loader!r}")
        decoding = self._decoding
        decoder: Decoder
        if as_ is not None:
            decoder = decoding.typed(as_)
        elif type(loader) is FunctionType and "return" not in loader.__annotations__:  # as a lambda
            decoder = decoding.codec
        else:
            decoder = decoding.of_loader(loader, many=names is not None)
        if policy is None:
            policy = self._policy
        elif not isinstance(policy, LoadPolicy):
            raise InvalidArgument("policy", f"LoadPolicy(...) or None is needed, not {policy!r}")
        if not self._has_versions and policy.max_staleness:
            raise InvalidArgument(
                "policy", "other kinds of clients read this namespace (interop): nothing is kept for longer than its ttl"
            )
        return LoadRequest(
            loader,
            names,
            self._ttl if ttl is None else self._defaults.ttl(ttl),
            policy,
            self._defaults.read(consistency, None, None, None, near_cache=near_cache),
            None if timeout is None else positive_seconds(timeout, "timeout"),
            decoder,
            as_ is None and decoder is decoding.codec,
        )
