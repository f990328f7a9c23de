"""TOML file that is read again when it changes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

from evcache.zones.discovery.base import SourceStatus
from evcache.zones.errors import InvalidArgument, InvalidTopology
from evcache.zones.topology.model import Topology
from evcache.zones.validation import positive_seconds

# Seconds between looks at a watched file. A stat() costs microseconds, and zones change far less often.
FILE_POLL_SECONDS = 2.0


class FileDiscovery:
    """TOML file, see `Topology.from_toml`.

    If the file cannot be read or parsed, the source logs that once, and the topology in use stays.
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
        self.status = SourceStatus(str(self.path))
        """Freshness of the topology. Its age begins when the file cannot be read or parsed."""
        self._poll = positive_seconds(poll, "poll")
        self._seen: tuple[int, int, int] | None = None
        self._malformed = False  # the content of the last read
        self._last: Topology | None = None

    async def load(self) -> Topology:
        """Read the file. Raises `InvalidTopology` if the file cannot be read, or is malformed, and then names the line."""
        self.status.reset()
        self._last = self._read(self._stamp())
        self.status.confirm()
        return self._last

    async def watch(self) -> AsyncIterator[Topology]:
        """Yield each topology that differs from the last one."""
        while True:
            await asyncio.sleep(self._poll)
            before, seen = self._last, self._seen
            try:
                stamp = self._stamp()
                if stamp != seen:
                    self._last = self._read(stamp)
            except InvalidTopology as error:
                if self._seen != seen:
                    self.status.error = None  # another content with another error, which the log shows too
                self.status.fail(error)
                continue
            if stamp == seen and self.status.error is not None and self._malformed:
                continue
            self.status.confirm()
            if self._last is not None and self._last != before:
                yield self._last

    def _read(self, stamp: tuple[int, int, int]) -> Topology:
        self._seen, self._malformed = stamp, True
        try:
            topology = Topology.from_toml(self.path.read_text("utf-8"), str(self.path))
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidTopology("zones", f"{self.path}: {error}") from error
        self._malformed = False
        return topology

    def _stamp(self) -> tuple[int, int, int]:
        try:
            status = self.path.stat()
        except OSError as error:
            raise InvalidTopology("zones", f"{self.path}: {error}") from error
        # The inode shows a replacement by rename, as of Kubernetes config maps, within one tick of the file system's clock.
        return status.st_mtime_ns, status.st_ino, status.st_size
