"""Source of the topology in a Kubernetes cluster: the EndpointSlices of one Service."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from os import PathLike
from pathlib import Path

from evcache.zones.discovery.base import Handover, SourceStatus
from evcache.zones.discovery.kubernetes.nodes import Family, Labels, NodeRules, ServiceNodes
from evcache.zones.discovery.kubernetes.server import (
    CA_PATH,
    NAME,
    NAMESPACE_PATH,
    TOKEN_PATH,
    ApiServer,
    checked_address,
    read,
)
from evcache.zones.discovery.kubernetes.slices import ApiProblem, SliceSet
from evcache.zones.discovery.kubernetes.watching import Requests, SliceWatch, Timing
from evcache.zones.discovery.polling import FIRST_RETRY_SECONDS
from evcache.zones.errors import DiscoveryError, InvalidArgument
from evcache.zones.topology.model import Mode, Topology
from evcache.zones.topology.parsing import MAX_PORT
from evcache.zones.validation import an_instance, number, one_of, text

# Seconds for which the node of a pod that restarts keeps its place. A restart takes 2 to 10 s, with the pull of an image 30.
LINGER_SECONDS = 30.0

DEFAULT_TIMING = Timing()


class KubernetesDiscovery:
    """Nodes and zones of a Service in a Kubernetes cluster, from its EndpointSlices.

    The zone of a node is the label `topology.kubernetes.io/zone` of the machine that its pod runs on. A node keeps its
    place while its endpoint exists, also if the pod is not ready. A pod of a StatefulSet keeps its keys when it restarts
    with another address. While the API server does not answer, the topology in use stays. Several clients may share the
    source.
    """

    def __init__(
        self,
        service: str,
        *,
        namespace: str | None = None,
        port: int | str | None = None,
        modes: Mapping[str, Mode] | None = None,
        labels: Labels = "pod",
        family: Family = "IPv4",
        default_zone: str | None = None,
        linger: float = LINGER_SECONDS,
        api_server: str | None = None,
        token_path: str | PathLike[str] | None = TOKEN_PATH,
        ca_path: str | PathLike[str] | None = CA_PATH,
        timing: Timing = DEFAULT_TIMING,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """Make a source.

        Args:
            service: Name of the Service. A headless one is usual.
            namespace: Namespace of the Service. If None, the one of this pod.
            port: Number or name of memcached's port. If None, the only TCP port of the Service, or else the one with the
                name `memcached` or `memcache`.
            modes: Modes by zone, for zones that clients do not read. The others are read and written.
            labels: Source of the labels that place nodes on the ring. `pod` is the name of the pod and the port, and
                `address` is the address and the port.
            family: Family of the addresses if the Service has both.
            default_zone: Zone of endpoints without a zone. If None, they are ignored, and `status` has the reason.
            linger: Seconds for which the node of a StatefulSet's pod keeps its place after its endpoint has left. 0 disables
                this.
            api_server: Address of the API server. If None, the environment of the pod has it.
            token_path: File of the token, which is read for each request. If None, requests have no token.
            ca_path: File of the certificates that sign the server's own. If None, those of the system apply.
            timing: Times of the watch.
            draw: Return a random number from 0 to 1, for jitter.

        Raises:
            InvalidArgument: An argument has a wrong type or value, or the package aiohttp is not installed.
        """
        _check_name(service, "service")
        if namespace is not None:
            _check_name(namespace, "namespace")
        _check_port(port)
        one_of(labels, Labels, "labels")
        one_of(family, Family, "family")
        text(default_zone, "default_zone", optional=True)
        if not callable(draw):
            raise InvalidArgument("draw", f"a function that returns a number from 0 to 1 is required, not {draw!r}")
        number(linger, "linger", minimum=0, unit="seconds")
        an_instance(timing, Timing, "timing", optional=False)
        self.status = SourceStatus(f"Service {service}" if namespace is None else f"Service {service}.{namespace}")
        """Freshness of the topology. Its age begins when the watch fails, or an endpoint is ignored."""
        self._service = service
        self._namespace = namespace
        self._rules = NodeRules(port, labels, family, default_zone)
        self._modes = _checked_modes(modes)
        self._linger = float(linger)
        url = checked_address(api_server)
        self._server = ApiServer(url, _path(token_path, "token_path"), _path(ca_path, "ca_path"))
        self._timing = timing
        self._draw = draw
        self._make_requests = _requests_of_aiohttp()
        self._loads: Handover[SliceSet] = Handover()
        self._failed: DiscoveryError | None = None
        self._failed_at = float("-inf")

    async def load(self) -> Topology:
        """Return the present topology.

        Raises:
            DiscoveryError: The API server did not answer, or the Service has no endpoints. For a second, further calls raise
                the same error, because each call of a service would ask the server again.
        """
        loop = asyncio.get_running_loop()
        if self._failed is not None and 0 <= loop.time() - self._failed_at < FIRST_RETRY_SECONDS:
            # A copy, because one error object would collect the tracebacks of all calls.
            raise DiscoveryError(self._failed.source, self._failed.problem)
        self.status.reset()
        self._failed = None
        try:
            return await self._load()
        except ApiProblem as problem:
            # From the end of the look, because one that hangs takes longer than the pause.
            self._failed, self._failed_at = DiscoveryError(self.status.source, str(problem)), loop.time()
            raise self._failed from problem

    async def watch(self) -> AsyncIterator[Topology]:
        """Yield each topology that differs from the last one."""
        watch = SliceWatch(self._open, self._nodes(), self.status, self._timing, self._draw)
        loaded = self._loads.take()
        if loaded is not None:
            _, slices = loaded
            watch.start(slices.copy())
        try:
            while True:
                yield await watch.next_topology()
        finally:
            await watch.close()

    async def _load(self) -> Topology:
        requests = self._open()
        try:
            async with asyncio.timeout(self._timing.timeout):
                slices = await requests.list()
        except TimeoutError:
            raise ApiProblem(f"no answer in {self._timing.timeout:g} s") from None
        finally:
            await requests.close()  # the watch has a session of its own, because it may never begin
        view = self._nodes().update(slices.slices, asyncio.get_running_loop().time())
        if view.topology is None:
            raise ApiProblem(view.problem or "there are no endpoints")
        if view.problem is None:
            self.status.confirm()
        else:
            self.status.fail(DiscoveryError(self.status.source, view.problem), zones=())
        self._loads.put(view.topology, slices)
        return view.topology

    def _nodes(self) -> ServiceNodes:
        return ServiceNodes(self._rules, self._modes, self._linger)

    def _open(self) -> Requests:
        namespace = read(Path(NAMESPACE_PATH), "namespace") if self._namespace is None else self._namespace
        return self._make_requests(self._server, namespace, self._service)


def _requests_of_aiohttp() -> Callable[[ApiServer, str, str], Requests]:
    try:
        from evcache.zones.discovery.kubernetes.api import SliceRequests  # noqa: PLC0415  # an extra
    except ModuleNotFoundError as error:
        raise InvalidArgument("zones", "Kubernetes needs the package aiohttp: pip install evcache[kubernetes]") from error
    return SliceRequests


def _check_name(value: str, argument: str) -> None:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise InvalidArgument(argument, f"a name in Kubernetes is required (a-z, 0-9 and '-', 63 at most), not {value!r}")


def _check_port(port: int | str | None) -> None:
    if isinstance(port, str):
        text(port, "port")
    elif port is not None:
        number(port, "port", minimum=1, maximum=MAX_PORT, whole=True)


def _checked_modes(modes: Mapping[str, Mode] | None) -> dict[str, Mode]:
    if modes is not None and not isinstance(modes, Mapping):
        raise InvalidArgument("modes", f"a mapping of zones to modes or None is required, not {modes!r}")
    checked = dict(modes or {})
    for zone, mode in checked.items():
        text(zone, "modes")
        if not isinstance(mode, Mode):
            raise InvalidArgument("modes", f"zone {zone!r}: a Mode is required, not {mode!r}")
    return checked


def _path(path: str | PathLike[str] | None, argument: str) -> Path | None:
    if path is None:
        return None
    if not isinstance(path, str | PathLike) or not str(path):
        raise InvalidArgument(argument, f"the path of a file or None is required, not {path!r}")
    return Path(path)
