"""Sources of topologies, and of their changes."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Protocol

from evcache.zones.errors import InvalidArgument, InvalidTopology
from evcache.zones.topology.model import Topology
from evcache.zones.validation import an_instance, positive_seconds, text

NODES_VARIABLE = "EVCACHE_NODES"
ZONE_VARIABLE = "EVCACHE_ZONE"

# Seconds between looks at a watched file. A stat() costs microseconds, and zones change far less often.
FILE_POLL_SECONDS = 2.0

_NONE: tuple[Topology, ...] = ()

_log = logging.getLogger("evcache.zones.topology")


class Discovery(Protocol):
    """A source of topologies."""

    async def load(self) -> Topology:
        """Return the present topology. Raises `InvalidTopology` if the source has none that can be used."""
        ...

    def watch(self) -> AsyncIterator[Topology]:
        """Yield each topology after the one that `load` returned. The client cancels the iteration on close."""
        ...


class StaticDiscovery:
    """A topology that never changes."""

    def __init__(self, topology: Topology) -> None:
        an_instance(topology, Topology, "topology", optional=False)
        self.topology = topology

    async def load(self) -> Topology:
        """Return the topology of the constructor."""
        return self.topology

    async def watch(self) -> AsyncIterator[Topology]:
        """Yield no topology, because it never changes."""
        for topology in _NONE:
            yield topology


class EnvironmentDiscovery:
    """Node list in an environment variable: `EVCACHE_NODES=eu-1a=host:port,host:port;eu-1b=...`."""

    def __init__(self, environment: Mapping[str, str] | None = None, variable: str = NODES_VARIABLE) -> None:
        if environment is not None and not isinstance(environment, Mapping):
            raise InvalidArgument("environment", f"a mapping or None is required, not {environment!r}")
        text(variable, "variable")
        self._environment = os.environ if environment is None else environment
        self._variable = variable

    async def load(self) -> Topology:
        """Parse the variable. Raises `InvalidTopology` if it is missing or malformed."""
        text = self._environment.get(self._variable, "").strip()
        if not text:
            raise InvalidTopology("zones", f"the environment variable {self._variable} is not set")
        return Topology.from_node_list(text)

    async def watch(self) -> AsyncIterator[Topology]:
        """Yield no topology, because the environment of a process does not change from outside."""
        for topology in _NONE:
            yield topology


class FileDiscovery:
    """TOML file, see `Topology.from_toml`.

    If a changed file cannot be read or parsed, the source logs that once, and the topology in use stays.
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
        self._poll = positive_seconds(poll, "poll")
        self._seen: tuple[int, int, int] | None = None
        self._last: Topology | None = None

    async def load(self) -> Topology:
        """Read the file. Raises `InvalidTopology` if the file cannot be read, or is malformed, and then names the line."""
        try:
            self._seen = self._stamp()
            self._last = Topology.from_toml(self.path.read_text("utf-8"), str(self.path))
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidTopology("zones", f"{self.path}: {error}") from error
        return self._last

    async def watch(self) -> AsyncIterator[Topology]:
        """Yield each topology that differs from the last one."""
        while True:
            await asyncio.sleep(self._poll)
            before, stamp = self._last, self._stamp_or_none()
            if stamp is None or stamp == self._seen:
                continue
            self._seen = stamp  # also if parsing fails, so that the error is logged once
            try:
                topology = await self.load()
            except InvalidTopology as error:
                _log.warning("topology update failed: %s; keeping the previous topology", error)
                continue
            if topology != before:
                yield topology

    def _stamp(self) -> tuple[int, int, int]:
        # The inode shows a replacement by rename, as of Kubernetes config maps, within one tick of the file system's clock.
        status = self.path.stat()
        return status.st_mtime_ns, status.st_ino, status.st_size

    def _stamp_or_none(self) -> tuple[int, int, int] | None:
        try:
            return self._stamp()
        except OSError:
            return None
