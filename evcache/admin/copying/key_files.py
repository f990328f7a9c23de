"""Keys of a zone, from the lists of its nodes or from a file of the operator."""

from __future__ import annotations

import asyncio
import itertools
import random
import tempfile
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Protocol

from evcache.values.keys import MAX_KEY_BYTES, UNSAFE, Keys
from evcache.zones.admin.key_list import END_OF_LIST, parse_metadump
from evcache.zones.admin.session import open_session
from evcache.zones.errors import InvalidArgument, InvalidKey, NodeError, ServerError
from evcache.zones.nodes.node import Node
from evcache.zones.nodes.settings import NodeSettings
from evcache.zones.zone_pool import ZonePool

# A crawl takes seconds. A hash table grows by doubling, which takes about a second per ten million items.
CRAWLER_WAIT_SECONDS = 60.0
CRAWLER_PAUSE_SECONDS = 0.5


class KeySource(Protocol):
    """Source of the keys of a zone."""

    @property
    def depends_on_zone(self) -> bool:
        """True if the keys are those that the zone holds."""
        ...

    @property
    def failures(self) -> Mapping[str, str]:
        """Reasons for which nodes did not list their keys, by label. Their keys are missing."""
        ...

    def batches(self, pool: ZonePool, size: int) -> AsyncGenerator[Sequence[bytes], None]:
        """Yield the keys of a zone, in batches of at most `size` keys.

        Raises:
            Unsupported: A server refuses to list its keys.
            NodeError: No server of the zone answered.
            InvalidArgument: The keys cannot be read, or their list cannot be written to a temporary file.
        """
        ...


class ListedKeys:
    """Source of all keys that the nodes of a zone hold, or of a random sample of them.

    The list of one node at a time is in a temporary file, so the memory does not depend on the number of keys.
    """

    def __init__(
        self, settings: NodeSettings, namespace: str | None, sample: int | None = None, seed: int | None = None
    ) -> None:
        """Make it.

        Args:
            settings: Settings of the connections that list the keys.
            namespace: Namespace of the keys. If None, all keys of the zone.
            sample: Largest number of keys, in equal parts of each node. If None, all keys.
            seed: Seed of the sample. If None, it differs from run to run.
        """
        self._settings = settings
        self._prefix = b"" if namespace is None else namespace.encode() + b":"
        self._sample = sample
        self._random = random.Random(seed)  # noqa: S311  # a sample, not a secret
        self.failures: dict[str, str] = {}
        """See `KeySource`."""

    @property
    def depends_on_zone(self) -> bool:
        """True. See `KeySource`."""
        return True

    async def batches(self, pool: ZonePool, size: int) -> AsyncGenerator[Sequence[bytes], None]:
        """Yield the keys of a zone. See `KeySource`."""
        failed = 0
        for node in pool.nodes:
            try:
                with tempfile.TemporaryFile(prefix="evcache-keys-") as file:
                    await list_to_file(node, self._settings, file)
                    file.seek(0)
                    keys: Iterator[bytes] = self._keys(file)
                    if self._sample is not None:
                        keys = iter(reservoir(keys, -(-self._sample // len(pool.nodes)), self._random))
                    while batch := take(keys, size):
                        yield batch
            except NodeError as error:
                failed += 1
                if failed == len(pool.nodes):
                    error.node = error.node or node.label
                    raise
                self.failures[node.label] = error.problem
            except OSError as error:  # of the file: errors of the connection are a `NodeError`
                cause = error.strerror or type(error).__name__
                place = f"a list of keys needs about 90 bytes for each key in {tempfile.gettempdir()}"
                raise InvalidArgument("TMPDIR", f"{place}: {cause}") from error

    def _keys(self, file: IO[bytes]) -> Iterator[bytes]:
        for line in file:
            text = line.rstrip()
            item = None if text == END_OF_LIST else parse_metadump(text)
            if item is not None and item.key.startswith(self._prefix) and is_key(item.key):
                yield item.key


class KeysOfFile:
    """Source of the keys in a text file, one in each line.

    It is the alternative for servers that refuse to list their keys.
    """

    def __init__(self, path: Path, namespace: str | None) -> None:
        """Make it.

        Args:
            path: The file.
            namespace: Namespace of the keys. A key that is too long or not ASCII is hashed as clients do. If None, each line
                is a key with its namespace, as servers store it.

        Raises:
            InvalidArgument: The namespace cannot be used.
        """
        self.failures: dict[str, str] = {}
        """Always empty. See `KeySource`."""
        self._path = path
        self._keys = None if namespace is None else Keys(namespace)

    @property
    def depends_on_zone(self) -> bool:
        """False. See `KeySource`."""
        return False

    async def batches(self, pool: ZonePool, size: int) -> AsyncGenerator[Sequence[bytes], None]:
        """Yield the keys of the file. See `KeySource`.

        Raises:
            InvalidArgument: A line is no key.
        """
        del pool
        with self._path.open("rb") as file:
            keys = (self._checked(number, line.rstrip(b"\r\n")) for number, line in enumerate(file, 1) if line.strip())
            while batch := take(keys, size):
                yield batch

    def _checked(self, number: int, line: bytes) -> bytes:
        if self._keys is not None:
            try:
                return self._keys.qualify(line)
            except InvalidKey as error:
                raise InvalidArgument("keys", f"line {number} of {self._path}: {error}") from None
        if not is_key(line):
            rule = f"a key has 1 to {MAX_KEY_BYTES} bytes without spaces and control characters"
            raise InvalidArgument("keys", f"line {number} of {self._path}: {rule}, not {line[:60]!r}")
        return line


def is_key(name: bytes) -> bool:
    """Return True for the key of an item. The name of a lease beside a key has a control character."""
    return 0 < len(name) <= MAX_KEY_BYTES and not UNSAFE.search(name)


async def list_to_file(node: Node, settings: NodeSettings, file: IO[bytes]) -> None:
    """Write the list of a node's keys to a file, at full speed (see `AdminSession.list_keys`).

    Raises:
        Unsupported: The server refuses to list its keys.
        NodeError: The server did not answer, or its crawler stayed in use.
    """
    async with open_session(node.endpoint, settings) as session:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + CRAWLER_WAIT_SECONDS
        while True:
            statistics = await session.statistics()
            # On servers up to 1.6.45, a list that begins while the table grows may block the server for good.
            if not statistics.lru_crawler_running and not statistics.hash_is_expanding:
                try:
                    await session.list_keys(file.write)
                except ServerError:  # another list has begun since
                    if loop.time() >= deadline:
                        raise
                else:
                    return
            elif loop.time() >= deadline:
                raise NodeError(f"the crawler stayed in use for {CRAWLER_WAIT_SECONDS:g} s", node.label)
            await asyncio.sleep(CRAWLER_PAUSE_SECONDS)


def take(keys: Iterator[bytes], size: int) -> list[bytes]:
    """Return the next keys, at most `size`. Empty at the end."""
    return list(itertools.islice(keys, size))


def reservoir(keys: Iterator[bytes], size: int, choose: random.Random) -> list[bytes]:
    """Return a random sample of at most `size` keys."""
    sample: list[bytes] = []
    for number, key in enumerate(keys, 1):
        reservoir_step(sample, key, number, size, choose)
    return sample


def reservoir_step(sample: list[bytes], key: bytes, number: int, size: int, choose: random.Random) -> None:
    """Take a key into a random sample, or not, so that each key has the same chance (Vitter's algorithm R, 1985).

    Args:
        sample: The sample, which is changed.
        key: The key.
        number: Number of keys so far, this one included.
        size: Largest number of keys in the sample.
        choose: Source of random numbers.
    """
    if len(sample) < size:
        sample.append(key)
        return
    place = choose.randrange(number)
    if place < size:
        sample[place] = key
