"""Search for the zone of this process."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from evcache.zones.discovery.local_zone import FIND_SECONDS
from evcache.zones.discovery.own_zone.http_client import Connect, MalformedReply, socket_opener
from evcache.zones.discovery.own_zone.metadata import SERVICES
from evcache.zones.discovery.own_zone.names import NoZone, UnusableSetting
from evcache.zones.discovery.own_zone.settings import PODINFO, read_settings
from evcache.zones.errors import InvalidArgument
from evcache.zones.validation import positive_seconds

_log = logging.getLogger("evcache.zones.discovery")


@dataclass(frozen=True, slots=True)
class OwnZone:
    """Zone of this process, as its environment names it."""

    names: tuple[str, ...]
    """Names under which a topology may contain the zone, the preferred one first. At least one."""
    source: str
    """Source of the names, for logs: a variable, the path of a file, `ECS`, `EC2`, `GCE` or `Azure`."""


async def find_own_zone(
    *,
    environment: Mapping[str, str] = os.environ,
    timeout: float = FIND_SECONDS,
    podinfo: str | os.PathLike[str] = PODINFO,
    connect: Connect | None = None,
) -> OwnZone | None:
    """Find the zone of this process, and log the result.

    The sources in the order of precedence are:

    1. the variable `EVCACHE_ZONE`;
    2. the file that `EVCACHE_ZONE_FILE` names, or else the files `zone` and `labels` of the downward API volume;
    3. the metadata services of ECS, EC2, GCE and Azure, asked at the same time.

    A variable or a file ends the search without a request. Cancellation closes all sockets.

    Args:
        environment: Environment variables.
        timeout: Seconds for all services together.
        podinfo: Directory of the Kubernetes downward API volume.
        connect: Opener of sockets. If None, the search opens TCP sockets.

    Returns:
        The zone of the first source in the order of precedence that names one. None if no source does so in time.

    Raises:
        InvalidArgument: An argument has a wrong type or value. A source that fails raises no error.
    """
    if not isinstance(environment, Mapping):
        raise InvalidArgument("environment", f"a mapping is required, not {environment!r}")
    if not isinstance(podinfo, str | os.PathLike) or not str(podinfo):
        raise InvalidArgument("podinfo", f"the path of a directory is required, not {podinfo!r}")
    positive_seconds(timeout, "timeout")
    problems: list[_Problem] = []
    zone = _from_settings(environment, podinfo, problems)
    if zone is None:
        zone = await _from_services(environment, timeout, connect or socket_opener(), problems)
    _report(zone, problems)
    return zone


class _Problem(NamedTuple):
    """Reason for which a source has no zone."""

    source: str
    reason: str
    is_setting: bool = False
    """True if the operator should correct a setting."""

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}"


def _from_settings(
    environment: Mapping[str, str], podinfo: str | os.PathLike[str], problems: list[_Problem]
) -> OwnZone | None:
    for source, zone in read_settings(environment, podinfo):
        if isinstance(zone, str):
            return OwnZone((zone,), source)
        problems.append(_Problem(source, str(zone), isinstance(zone, UnusableSetting)))
    return None


async def _from_services(
    environment: Mapping[str, str], timeout: float, connect: Connect, problems: list[_Problem]
) -> OwnZone | None:
    deadline = asyncio.get_running_loop().time() + timeout
    async with asyncio.TaskGroup() as group:
        tasks = {
            source: group.create_task(
                _answer(names_of(connect, environment), deadline, timeout), name=f"evcache-own-zone-{source}"
            )
            for source, names_of in SERVICES.items()
        }
        # In the order of precedence: a service of lower precedence is not awaited once a higher one has answered.
        for source, task in tasks.items():
            answer = await task
            if isinstance(answer, str):
                problems.append(_Problem(source, answer))
                continue
            for other in tasks.values():
                other.cancel()
            return OwnZone(answer, source)
    return None


async def _answer(service: AsyncIterator[str], deadline: float, timeout: float) -> tuple[str, ...] | str:
    """Return the names that a service yields until it ends, fails or the deadline passes, or else the reason for none."""
    names: list[str] = []
    problem = "the service names no zone"
    try:
        async with asyncio.timeout_at(deadline):
            try:
                async for name in service:
                    names.append(name)  # noqa: PERF401  # a comprehension would lose the names before a failure
            except Exception as error:  # of any kind: the reply of an unknown server must not fail the search
                problem = _reason(error)
    except TimeoutError:
        problem = f"no answer in {timeout:g} s"
    return tuple(dict.fromkeys(names)) or problem


def _reason(error: Exception) -> str:
    if isinstance(error, NoZone | MalformedReply | ValueError):
        return str(error)
    if isinstance(error, OSError) and error.errno is not None and error.errno in errno.errorcode:
        return os.strerror(error.errno).lower()  # asyncio's own text repeats the address
    return f"{type(error).__name__}: {error}"


def _report(zone: OwnZone | None, problems: list[_Problem]) -> None:
    if zone is None:
        _log.warning("own zone not found: %s", "; ".join(map(str, problems)))
        return
    for problem in problems:
        if problem.is_setting:
            _log.warning("own zone setting ignored: %s", problem)
    _log.info("own zone found: %s (source: %s)", ", ".join(zone.names), zone.source)
