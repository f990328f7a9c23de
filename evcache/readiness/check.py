"""The check itself: connect to every node of every zone at once, and ask each for a sign that it serves requests."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

from evcache._cluster_access import ClusterAccess
from evcache.errors import CacheUnavailable
from evcache.options import Options
from evcache.readiness.judgement import judge, judge_zone
from evcache.readiness.report import CheckResult, NodeCheck
from evcache.zones._tasks import unattended
from evcache.zones.discovery.own_zone.search import LocalZoneSearch
from evcache.zones.errors import CacheError, NodeError, UsageError
from evcache.zones.nodes.node import Node
from evcache.zones.snapshot import ClusterSnapshot
from evcache.zones.validation import positive_seconds

# Seconds by which the deadline of a probe is later than that of its check. The check cancels its probes at the deadline.
# Nodes count a request that times out, and do not count one that was cancelled.
PROBE_OUTLASTS_SECONDS = 1.0


class ReadinessCheck:
    """Checks of one client."""

    def __init__(
        self,
        access: ClusterAccess,
        options: Options,
        *,
        search: LocalZoneSearch | None,
        default_timeout: float,
        needs_versions: bool,
    ) -> None:
        """Make it for one client.

        Args:
            access: The client's zones.
            options: Options of the call that opens the client. Their timeout is not used.
            search: Search for the zone of this process. None if the zone is known, or there is none.
            default_timeout: Seconds for a check that passes no timeout.
            needs_versions: True if the client orders writes by version.
        """
        self._access = access
        self._options = options
        self._search = search
        self._default_timeout = default_timeout
        self._needs_versions = needs_versions

    async def check(self, timeout: float | None) -> CheckResult:
        """Do what `EVCache.check` describes."""
        seconds = self._default_timeout if timeout is None else positive_seconds(timeout, "timeout")
        deadline = asyncio.get_running_loop().time() + seconds
        try:
            view, _ = await self._access.ready_by(self._options, deadline)
        except UsageError:
            raise
        except Exception as error:  # the discovery of the service may raise any error while its source is down
            return self._unknown(error)
        async with asyncio.TaskGroup() as group:  # a cancelled check ends all its questions before it returns
            of_zones = [[self._begin(group, node, deadline, seconds) for node in pool.nodes] for pool in view.writers]
            of_gutter = [self._begin(group, node, deadline, seconds) for node in view.gutter.nodes] if view.gutter else []
        if self._search is not None:
            await self._search.end_by(deadline)
        replies = [[task.result() for task in tasks] for tasks in of_zones]
        return self._judged(view, replies, [task.result() for task in of_gutter])

    @staticmethod
    def _begin(group: asyncio.TaskGroup, node: Node, deadline: float, limit: float) -> asyncio.Task[NodeCheck]:
        return unattended(group.create_task(ask(node, deadline, limit)))

    def _judged(
        self, view: ClusterSnapshot, replies: Sequence[Sequence[NodeCheck]], gutter: Sequence[NodeCheck]
    ) -> CheckResult:
        current = self._access.cluster.view or view  # the connects may have begun or ended the outage of a zone
        local_zone = self._access.cluster.local_zone.name_in(view.topology)
        zones = [
            judge_zone(
                zone,
                nodes,
                [node.capabilities for node in pool.nodes if node.capabilities is not None],
                local_zone=local_zone,
                ejected=current.ejected,
            )
            for zone, pool, nodes in zip(view.topology.zones, view.writers, replies, strict=True)
        ]
        return judge(
            zones,
            gutter,
            local_zone=local_zone,
            needs_versions=self._needs_versions,
            topology_problems=self._source_problems(),
        )

    def _unknown(self, error: Exception) -> CheckResult:
        cause = cause_of(error)
        if isinstance(error, CacheUnavailable):  # its text is about zones, and there are none yet
            failures = [str(failure) for failure in error.failures.values()]
            cause = "; ".join(failures) or f"{error.operation} took too long"
        return judge(
            (),
            (),
            local_zone=self._access.cluster.local_zone.name_in(None),
            needs_versions=self._needs_versions,
            topology_problems=[f"topology unknown: {cause}"],
        )

    def _source_problems(self) -> list[str]:
        """Return the problems of a topology that is in use although its source has failed or reports another one."""
        cluster = self._access.cluster
        problems = []
        if cluster.topology_error is not None:
            problems.append(f"topology update failed: {cluster.topology_error}")
        if cluster.topology_held:
            problems.append(f"topology held back: {'; '.join(cluster.topology_held)}")
        if self._search is not None and not cluster.local_zone.names:
            problems.append("own zone not found" if self._search.has_missed else "own zone not found yet")
        return problems


async def ask(node: Node, deadline: float, limit: float) -> NodeCheck:
    """Connect to a node if necessary, and probe it. A node that is down fails at once.

    Neither a timeout nor a cancellation counts against the node. A connect that has begun goes on.

    Args:
        node: The node.
        deadline: End of the wait, on the loop's clock.
        limit: Seconds of the whole check, for the error. The time that is left for a node differs from check to check.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    error: str | None = None
    try:
        if node.is_down:
            raise node.unavailable()
        async with asyncio.timeout_at(deadline):
            # Without a deadline of its own, because a node counts calls that wait for a connection up to their deadline.
            connection = await node.connected(math.inf)
            await connection.probe(deadline + PROBE_OUTLASTS_SECONDS)
    except TimeoutError:
        error = f"no answer in {limit:.3g} s" if node.failure is None else cause_of(node.failure)
    except CacheError as problem:
        error = cause_of(problem if node.failure is None else node.failure)
    known = node.capabilities
    return NodeCheck(
        node=node.label,
        address=node.endpoint.address,
        ok=error is None,
        error=error,
        seconds=loop.time() - began,
        server=None if known is None else known.server,
        transport=node.transport,
    )


def cause_of(error: Exception) -> str:
    """Return the cause of an error as a text, without the label of the node."""
    return error.problem if isinstance(error, NodeError) else str(error) or type(error).__name__
