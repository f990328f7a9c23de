"""TOML file that is read again when it changes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

from evcache.zones.discovery.base import Handover, SourceStatus
from evcache.zones.errors import InvalidArgument, InvalidTopology
from evcache.zones.topology.model import Topology
from evcache.zones.validation import positive_seconds

# Time of the last change, inode and size of a file.
Stamp = tuple[int, int, int]

# Seconds between looks at a watched file. A stat() costs microseconds, and zones change far less often.
FILE_POLL_SECONDS = 2.0


class FileDiscovery:
    """TOML file, see `Topology.from_toml`.

    Several clients may share it. If the file cannot be read or parsed, the source logs that once, and the topology in use
    stays.
    """

    def __init__(self, path: str | os.PathLike[str], *, poll: float = FILE_POLL_SECONDS) -> None:
        """Make a source.

        Args:
            path: Path of the file.
            poll: Seconds between looks at the file.

        Raises:
            InvalidArgument: An argument has a wrong type or value.
        """
        if not isinstance(path, str | os.PathLike) or not str(path):
            raise InvalidArgument("path", f"the path of a file is required, not {path!r}")
        self.path = Path(path)
        """Path of the file."""
        self.status = SourceStatus(str(self.path))
        """Freshness of the topology. Its age begins when the file cannot be read or parsed."""
        self._poll = positive_seconds(poll, "poll")
        self._malformed: Stamp | None = None  # of the last content that could not be used
        self._loads: Handover[Stamp] = Handover()

    async def load(self) -> Topology:
        """Return the topology of the file.

        Raises:
            InvalidTopology: The file cannot be read, or is malformed. The error names the line then.
        """
        self.status.reset()
        stamp = self._stamp()
        topology = self._read(stamp)
        self.status.confirm()
        self._loads.put(topology, stamp)
        return topology

    async def watch(self) -> AsyncIterator[Topology]:
        """Yield each topology that differs from the last one."""
        last, seen = self._loads.take() or (None, None)
        while True:
            await asyncio.sleep(self._poll)
            try:
                stamp = self._stamp()
                topology = last if stamp == seen else self._read(stamp)
            except InvalidTopology as error:
                self.status.fail(error)
                continue
            self.status.confirm()
            seen = stamp  # not after a failure, because the permission to read the file changes no part of the stamp
            if topology is not None and topology != last:
                last = topology
                yield topology

    def _read(self, stamp: Stamp) -> Topology:
        try:
            return self._parse()
        except InvalidTopology:
            if stamp != self._malformed:
                self._malformed = stamp
                self.status.error = None  # another content with another error, which the log shows too
            raise

    def _parse(self) -> Topology:
        try:
            return Topology.from_toml(self.path.read_text("utf-8"), str(self.path))
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidTopology("zones", f"{self.path}: {error}") from error

    def _stamp(self) -> Stamp:
        try:
            status = self.path.stat()
        except OSError as error:
            raise InvalidTopology("zones", f"{self.path}: {error}") from error
        # The inode shows a replacement by rename, as of Kubernetes config maps, within one tick of the file system's clock.
        return status.st_mtime_ns, status.st_ino, status.st_size
