"""Collection of the facts: questions to all nodes at once, with one deadline, and the look at the disk of the hints."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from evcache.admin.doctor.facts import Facts, HintsDisk, ZoneFacts
from evcache.admin.doctor.hints_disk import look_at
from evcache.admin.doctor.node_questions import CONNECT_SHARE, NodeExamination, Questioning
from evcache.zones.nodes.settings import NodeSettings
from evcache.zones.snapshot import ClusterSnapshot


async def gather(
    view: ClusterSnapshot,
    settings: NodeSettings,
    *,
    seconds: float,
    uses_tls: bool,
    namespace: str | None = None,
    local_zone: str | None = None,
    needs_versions: bool = True,
    hints_path: str | None = None,
    wall_clock: Callable[[], float] = time.time,
) -> Facts:
    """Ask all nodes of all zones, and return what is known at the deadline. Nothing is stored in the zones.

    Cancellation closes the connections of the examination.

    Args:
        view: The zones.
        settings: Settings of connections to their nodes.
        seconds: Time for all questions.
        uses_tls: True if the dialer of the settings encrypts.
        namespace: Namespace that the zones should hold. None if unknown.
        local_zone: Zone that clients on this host are configured to read first. None without one.
        needs_versions: True if clients order writes by version.
        hints_path: Path of a service's file of hints. If None, no disk is looked at.
        wall_clock: Returns unix time.
    """
    now = asyncio.get_running_loop().time()
    questioning = Questioning(
        settings,
        uses_tls=uses_tls,
        deadline=now + seconds,
        connect_deadline=now + CONNECT_SHARE * seconds,
        connect_limit=CONNECT_SHARE * seconds,
        wall_clock=wall_clock,
    )
    of_zones = [[NodeExamination(pool, node, questioning) for node in pool.nodes] for pool in view.writers]
    async with asyncio.TaskGroup() as group:
        for examinations in of_zones:
            for examination in examinations:
                group.create_task(examination.run())
        disk = None if hints_path is None else group.create_task(_look(hints_path, now + seconds))
    return Facts(
        zones=tuple(
            ZoneFacts(zone.name, tuple(examination.facts for examination in examinations), zone.mode)
            for zone, examinations in zip(view.topology.zones, of_zones, strict=True)
        ),
        now_ms=round(wall_clock() * 1000),
        uses_tls=uses_tls,
        namespace=namespace,
        local_zone=local_zone,
        needs_versions=needs_versions,
        hints=None if disk is None else disk.result(),
        seconds=seconds,
    )


async def _look(path: str, deadline: float) -> HintsDisk:
    """Look at the disk in a thread, because a network file system may not answer."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[HintsDisk] = loop.create_future()

    def end(disk: HintsDisk | None, error: Exception | None) -> None:
        if found.done():  # the deadline has passed
            return
        if disk is not None:
            found.set_result(disk)
        elif error is not None:
            found.set_exception(error)

    def run() -> None:
        disk, failure = None, None
        try:
            disk = look_at(path)
        except OSError as error:
            disk = HintsDisk(path, write_error=error.strerror or type(error).__name__)
        except Exception as error:
            failure = error
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(end, disk, failure)

    # Not `asyncio.to_thread`: the loop and the interpreter wait for threads of an executor before they end.
    threading.Thread(target=run, name="evcache-doctor-hints", daemon=True).start()
    with suppress(TimeoutError):
        async with asyncio.timeout_at(deadline):
            return await found
    return HintsDisk(path, write_error="no answer in time")
