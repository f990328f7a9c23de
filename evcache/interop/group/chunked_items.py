"""Items of a server group that stores long values in chunks, each under a key of its own.

A reader never joins chunks of two values: the header has a checksum. EVCache stores the records of a value in any order.
Here the header is stored last, so that a reader that comes too early misses without reading any chunk.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

from evcache._helpers.keyed_lock import KeyedLock
from evcache.interop.forms.chunks import ChunkHeader, data_keys, header_key, join, split
from evcache.interop.group.requests import GroupRequests, Loaded
from evcache.values.flags import FLAG_BYTES, FLAG_STR
from evcache.zones.errors import NodeError, NodeTimeout
from evcache.zones.protocol.replies import Hit, Reply


class ChunkedItems:
    """Items of one group, whole or in chunks. Keys are those that servers get."""

    def __init__(self, requests: GroupRequests, chunk_bytes: Callable[[], int], name: str) -> None:
        """Bind the parts of a group.

        Args:
            requests: Requests to the nodes of the group.
            chunk_bytes: Returns the size of a chunk. Longer values are stored in chunks.
            name: Name of the group, for errors.
        """
        self._requests = requests
        self._chunk_bytes = chunk_bytes
        self._name = name
        # Two writes of this client for one key would otherwise leave a mixture of their records, which reads as a miss.
        self._locks = KeyedLock()

    async def read(self, keys: Sequence[bytes], deadline: float, latest: float | None) -> dict[bytes, Loaded]:
        """Read items as `GroupRequests.read` does. An item of which a record is missing is a miss."""
        first = await self._requests.read([*keys, *map(header_key, keys)], deadline, latest)
        found = {key: first[key] for key in keys}
        headers = {key: _header(first[header_key(key)]) for key in keys if found[key] is None}
        wanted = [
            record for key, header in headers.items() if isinstance(header, ChunkHeader) for record in data_keys(key, header)
        ]
        records = await self._requests.read(wanted, deadline, latest) if wanted else {}
        for key, header in headers.items():
            if isinstance(header, ChunkHeader):
                of_header = first[header_key(key)]
                assert isinstance(of_header, Hit)
                found[key] = _joined(of_header, header, [records[record] for record in data_keys(key, header)])
            else:
                found[key] = header
        return found

    async def store(self, key: bytes, data: bytes, flags: int, exptime: int, deadline: float) -> Reply:
        """Store an item, whole or in chunks, and remove the other form. Return the reply to its last record."""
        chunk_bytes = self._chunk_bytes()
        async with self._alone(key, deadline):
            if len(data) <= chunk_bytes:
                reply = await self._requests.store(key, data, flags, exptime, deadline)
                if reply.status == b"HD":
                    await self._delete_records(key, deadline)
                return reply
            header, records = split(key, data, flags, chunk_bytes)
            replies = await _all(
                *(self._requests.store(name, part, FLAG_BYTES, exptime, deadline) for name, part in records)
            )
            refused = next((reply for reply in replies if reply.status != b"HD"), None)
            if refused is not None:
                return refused
            reply = await self._requests.store(header_key(key), header.encode(), FLAG_STR, exptime, deadline)
            if reply.status == b"HD":
                await self._requests.delete(key, deadline)  # readers prefer a whole item
            return reply

    async def delete(self, key: bytes, deadline: float) -> Reply:
        """Delete an item in both forms. The status of the reply is `HD`, or `NF` if there was none."""
        async with self._alone(key, deadline):
            reply = await self._requests.delete(key, deadline)
            has_records = await self._delete_records(key, deadline)
            return Reply(b"HD", [], None) if has_records else reply

    async def touch(self, key: bytes, exptime: int, deadline: float) -> Reply:
        """Set the TTL of an item: of all of its records. The status of the reply is `HD`, or `EN` if there is none."""
        async with self._alone(key, deadline):
            header = await self._header_of(key, deadline)
            if header is None:
                return await self._requests.touch(key, exptime, deadline)
            names = [*data_keys(key, header), header_key(key)]
            replies = await _all(*(self._requests.touch(name, exptime, deadline) for name in names))
            whole = await self._requests.touch(key, exptime, deadline)
            return whole if whole.status != b"EN" else replies[-1]

    async def _delete_records(self, key: bytes, deadline: float) -> bool:
        """Delete the chunks of an item. Return True if it had any."""
        header = await self._header_of(key, deadline)
        if header is None:
            return False
        await self._requests.delete(header_key(key), deadline)  # first, so that no reader looks for the rest
        await _all(*(self._requests.delete(name, deadline) for name in data_keys(key, header)))
        return True

    async def _header_of(self, key: bytes, deadline: float) -> ChunkHeader | None:
        loaded = _header((await self._requests.read([header_key(key)], deadline, None))[header_key(key)])
        if isinstance(loaded, NodeError):
            raise loaded
        return loaded

    @asynccontextmanager
    async def _alone(self, key: bytes, deadline: float) -> AsyncIterator[None]:
        """Hold the lock of a key. Raises `NodeTimeout` if another write holds it until the deadline."""
        try:
            async with self._locks.of(key, deadline):
                yield
        except TimeoutError as error:
            raise NodeTimeout("other writes of this client to the key have not ended", self._name) from error


def _header(loaded: Loaded) -> ChunkHeader | NodeError | None:
    """Return the header in an item, the error in place of the item, or None if there is no header."""
    return ChunkHeader.parse(loaded.value) if isinstance(loaded, Hit) else loaded


def _joined(of_header: Hit, header: ChunkHeader, records: Sequence[Loaded]) -> Loaded:
    """Return the item of these records. None if one is missing, or belongs to another value."""
    error = next((record for record in records if isinstance(record, NodeError)), None)
    if error is not None:
        return error
    data = join(header, [record.value if isinstance(record, Hit) else None for record in records])
    return None if data is None else of_header._replace(value=data, flags=header.flags)


async def _all(*requests: Coroutine[Any, Any, Reply]) -> list[Reply]:
    """Return the replies to all requests. After the last has ended, raise the first `NodeError`."""
    replies: list[Reply] = []
    for outcome in await asyncio.gather(*requests, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
        replies.append(outcome)
    return replies
