"""Settings of a namespace that EVCache for the JVM uses as well, in the terms of that client."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from evcache.interop.codec import IntegerWidth, JavaObjects
from evcache.interop.forms.key_hash import KeyHash
from evcache.values.keys import MAX_KEY_BYTES
from evcache.zones.discovery.environment import EnvironmentDiscovery
from evcache.zones.errors import InvalidArgument
from evcache.zones.validation import an_instance, flag, number, one_of, text

Release = Literal["5.9", "5.26"]
PrefixRule = Literal["namespace", "none", "empty"]
HashedKeys = Literal["never", "long", "all"]

# EVCacheImpl: `max.key.length`. The later release left room for the prefix of a partner app.
LONGEST_KEYS: Mapping[Release, int] = {"5.9": 250, "5.26": 200}

# EVCacheTranscoder: `default.evcache.compression.threshold`.
COMPRESSION_THRESHOLD_BYTES = 120

# A chunk holds a key, three characters of its number, and 71 bytes that EVCache reserves for the item.
MIN_CHUNK_BYTES = 128
MAX_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class GroupInterop:
    """Settings of one server group, which this client calls a zone. They replace those of the app.

    With release 5.9, `hash_keys` and `key_hash` have no effect on keys that the app hashes, nor in a group with chunks.
    """

    hash_keys: bool | None = None
    """The property `<group>.hash.key`. If None, the settings of the app decide."""
    key_hash: KeyHash | None = None
    """The property `<group>.hash.algo` with its cuts. If None, the hash of the app applies, and with release 5.9 md5."""
    chunk_bytes: int | Literal["app"] | None = "app"
    """The properties `<group>.chunk.data` and `<group>.chunk.size`. If None, the group has no chunks. "app" is the value of
    the app."""

    def __post_init__(self) -> None:
        if self.hash_keys is not None:
            flag(self.hash_keys, "hash_keys")
        an_instance(self.key_hash, KeyHash, "key_hash")
        if self.chunk_bytes != "app":
            _check_chunk_bytes(self.chunk_bytes)


@dataclass(frozen=True, kw_only=True)
class Interop:
    """Settings of the JVM clients that use the same namespace. Defaults are those of EVCache, unless they say otherwise.

    The properties in the descriptions are those of the JVM client. All clients of an app need equal settings. No server can
    check them: a client with other settings misses the items, and no call raises an error.
    """

    app: str | None = None
    """Name of the app, such as `EVCACHE_USER`. It is part of no key. `nodes_from_environment` needs it."""
    release: Release = "5.9"
    """Oldest release of the JVM clients. "5.9" is the newest on Maven Central, and "5.26" stands for the later ones."""
    prefix: PrefixRule = "namespace"
    """Prefix of keys. "namespace" is a cache prefix that equals the namespace: `namespace:key`. "none" is a client without
    a prefix: `key`. "empty" is a client with the empty prefix, the default of configuration properties: `:key`."""
    hash_keys: HashedKeys = "never"
    """Keys that the app hashes. "long" is `<app>.auto.hash.keys`: keys above `max_key_length`. "all" is `<app>.hash.key`."""
    key_hash: KeyHash = field(default_factory=KeyHash)
    """The property `<app>.hash.algo`, with its cuts and its encoder."""
    max_key_length: int | None = None
    """The property `<app>.max.key.length`: longest key, with its prefix, in UTF-16 units. None is 250 with release 5.9,
    which has no such property, and 200 with later ones."""
    groups: Mapping[str, GroupInterop] = field(default_factory=dict)
    """Settings of server groups that differ from those of the app, by the name of the zone. A name that no
    zone has is no error, because zones may come later."""
    chunk_bytes: int | None = None
    """The properties `<app>.chunk.data` and `<app>.chunk.size`: values that are longer, when encoded, are stored in chunks
    of this size. EVCache's size is 1180. If None, there are no chunks."""
    integer_width: IntegerWidth = "auto"
    """Java type of an int. 32 is an Integer and 64 a Long. "auto" is an Integer if the value fits, and else a Long. A JVM
    reader that expects a Long fails on an Integer. A `codec` of the client replaces this setting, `compress` and
    `java_objects`."""
    compress: bool = False
    """True to compress values of more than 120 bytes with gzip, as the JVM client does. Compression runs on the event
    loop."""
    java_objects: JavaObjects = "error"
    """Result of reading a Java-serialised object: "error" raises `DecodeError`, and "raw" returns a `JavaObject`."""
    deciding_groups: Literal["release"] | Sequence[str] = "release"
    """Zones in the order in which they decide about `add`. "release" is the order of the JVM client: ascending by
    name with release 5.9, and descending with later ones. So zones need the names of the server groups. If clients have
    different orders, several can win one `add`. Zones that a list does not name follow by name."""

    def __post_init__(self) -> None:
        """Check the settings. Raises `InvalidArgument`, which names the setting."""
        text(self.app, "app", optional=True)
        one_of(self.release, Release, "release")
        one_of(self.prefix, PrefixRule, "prefix")
        one_of(self.hash_keys, HashedKeys, "hash_keys")
        an_instance(self.key_hash, KeyHash, "key_hash", optional=False)
        if self.max_key_length is not None:
            number(self.max_key_length, "max_key_length", minimum=1, maximum=MAX_KEY_BYTES, whole=True)
            if self.release == "5.9":
                raise InvalidArgument("max_key_length", "release 5.9 ignores it: its longest key has 250 UTF-16 units")
        if not isinstance(self.groups, Mapping) or not all(isinstance(name, str) for name in self.groups):
            raise InvalidArgument("groups", f"a mapping of names of zones is required, not {self.groups!r}")
        for group in self.groups.values():
            an_instance(group, GroupInterop, "groups", optional=False)
        _check_chunk_bytes(self.chunk_bytes)
        one_of(self.integer_width, IntegerWidth, "integer_width")
        flag(self.compress, "compress")
        one_of(self.java_objects, JavaObjects, "java_objects")
        self._check_deciding_groups()
        if self.release == "5.9":
            if self.hash_keys == "long" and any(group.hash_keys for group in self.groups.values()):
                raise InvalidArgument("groups", "release 5.9 hashes a long key twice if its group hashes, too")
            for argument, key_hash in (("key_hash", self.key_hash), *self._hashes_of_groups()):
                if replace(KeyHash(), algorithm=key_hash.algorithm) != key_hash:
                    raise InvalidArgument(argument, "release 5.9 ignores cuts and encoders of hashes, so give none")

    def _check_deciding_groups(self) -> None:
        order = self.deciding_groups
        if order == "release":
            return
        if isinstance(order, str) or not isinstance(order, Sequence) or not all(isinstance(name, str) for name in order):
            raise InvalidArgument("deciding_groups", f"'release' or a list of names of zones is required, not {order!r}")

    def _hashes_of_groups(self) -> list[tuple[str, KeyHash]]:
        hashes = [(name, group.key_hash) for name, group in self.groups.items()]
        return [(f"groups[{name!r}].key_hash", key_hash) for name, key_hash in hashes if key_hash is not None]

    @property
    def longest_key(self) -> int:
        """Length in UTF-16 units of the longest key that is not hashed."""
        return LONGEST_KEYS[self.release] if self.max_key_length is None else self.max_key_length

    @property
    def translates(self) -> bool:
        """True if a zone may hold an item under another key, or in another form, than the one that the codec made."""
        groups = self.groups.values()
        is_hashed = self.hash_keys != "never" or any(group.hash_keys for group in groups)
        return is_hashed or self.chunk_bytes is not None or any(isinstance(group.chunk_bytes, int) for group in groups)

    @property
    def loses_counters(self) -> bool:
        """True if JVM clients store the counters of a zone under other keys than its values.

        Release 5.9 applies the hash of a group to no counter, and then reads none of the counters of that group.
        """
        by_group = any(group.hash_keys for group in self.groups.values())
        return self.release == "5.9" and self.hash_keys != "all" and by_group

    def check_names(self, zones: Collection[str]) -> None:
        """Check that the settings name no zones but these.

        Args:
            zones: Names of all zones.

        Raises:
            InvalidArgument: A setting names another zone.
        """
        order = () if self.deciding_groups == "release" else self.deciding_groups
        for argument, names in (("groups", self.groups), ("deciding_groups", order)):
            unknown = sorted(set(names) - set(zones))
            if unknown:
                raise InvalidArgument(
                    argument, f"no zone is named {', '.join(map(repr, unknown))}: the zones are {', '.join(sorted(zones))}"
                )

    def nodes_from_environment(self, environment: Mapping[str, str] | None = None) -> EnvironmentDiscovery:
        """Return the source of zones that reads the node list of the JVM client, such as `EVCACHE_USER-NODES`.

        Args:
            environment: Environment variables. If None, those of the process.

        Returns:
            A source for the argument `zones` of `EVCache`. It reads the variable when the client opens.

        Raises:
            InvalidArgument: `app` is None.
        """
        if self.app is None:
            raise InvalidArgument("app", "the name of the app is required, because the variable is named after it")
        return EnvironmentDiscovery(environment, f"{self.app.upper()}-NODES")

    def deciding_order(self, names: Sequence[str]) -> list[str]:
        """Return zones in the order in which they decide about conditional writes.

        Args:
            names: Names of the readable zones.
        """
        if self.deciding_groups == "release":
            return sorted(names, reverse=self.release != "5.9")
        first = [name for name in self.deciding_groups if name in names]
        return first + sorted(name for name in names if name not in first)


def _check_chunk_bytes(value: object) -> None:
    if value is not None:
        number(value, "chunk_bytes", minimum=MIN_CHUNK_BYTES, maximum=MAX_CHUNK_BYTES, whole=True)  # type: ignore[arg-type]
