"""The nodes of each zone in a set of EndpointSlices. Plain functions of slices and times, without I/O.

A node keeps its place on the ring while its endpoint is in a slice, also if its pod is not ready or is terminating. A
memcached that fails its readiness probe for a moment still has its data. A change of the ring moves the keys of the node,
and the copies that other nodes get in that time are stale when it leaves the next time. The keys of a node that is down are
read from another zone.

All clients that see the same slices have the same ring, because the rule knows no history. The exception is a pod of a
StatefulSet that is absent for some seconds while it restarts, see `ServiceNodes`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from evcache.zones.discovery.kubernetes.slices import EndpointSlice, SliceEndpoint, SlicePort
from evcache.zones.errors import InvalidTopology
from evcache.zones.topology.model import Endpoint, Mode, Topology, Zone
from evcache.zones.topology.parsing import DEFAULT_PORT

Family = Literal["IPv4", "IPv6"]
Labels = Literal["pod", "address"]

# Names of the port of memcached among several ports of a Service, for example beside the one of an exporter.
PORT_NAMES = ("memcached", "memcache")

# A StatefulSet names its pods NAME-0, NAME-1 and so on. Pods of a Deployment end in five letters and digits.
_ORDINAL = re.compile(r".*-\d+")

# Problems that an error names. The rest is counted.
MOST_PROBLEMS = 3


@dataclass(frozen=True, slots=True)
class NodeRules:
    """Rules for reading endpoints as nodes."""

    port: int | str | None = None
    """Number or name of the port. If None, the only port applies, or else the one of `PORT_NAMES`."""
    labels: Labels = "pod"
    """Source of the labels: the name of the pod and the port, or the address and the port."""
    family: Family = "IPv4"
    """Family of addresses if the Service has both."""
    default_zone: str | None = None
    """Zone of endpoints without one. If None, they are ignored."""


class SliceNodes(NamedTuple):
    """Nodes in a set of slices."""

    zones: Mapping[str, Mapping[str, Endpoint]]
    """Nodes by zone and label."""
    returning: frozenset[str]
    """Labels of pods of a StatefulSet. They return under the same name."""
    problems: tuple[str, ...]
    """Reasons for which endpoints are ignored."""


class _Claim(NamedTuple):
    """Endpoint for a label. The highest one gets the label."""

    stays: bool
    serves: bool
    order: tuple[str, int]
    node: Endpoint


def find_nodes(slices: Iterable[EndpointSlice], rules: NodeRules) -> SliceNodes:
    """Return the nodes of a set of slices. The order of slices and endpoints has no influence.

    Endpoints may be in two slices for a moment while the controller moves them. A pod that was replaced may be there with
    both of its addresses.
    """
    family = _family(slices := tuple(slices), rules.family)
    claims: dict[tuple[str, str], _Claim] = {}
    returning: set[str] = set()
    problems: set[str] = set()
    for piece in slices:
        if piece.address_type != family or not piece.endpoints:
            continue
        port = find_port(piece.ports or (), rules.port)
        if isinstance(port, str):
            problems.add(port)
            continue
        for entry in piece.endpoints:
            pod = _pod(entry)
            zone = entry.zone or rules.default_zone
            if zone is None:
                name = pod or ", ".join(entry.addresses)
                problems.add(f"endpoint {name} has no zone: its node lacks the label topology.kubernetes.io/zone")
                continue
            try:
                claim = _claim(entry, pod if rules.labels == "pod" else None, port)
                Zone(zone, (claim.node,))
            except InvalidTopology as error:
                problems.add(error.problem)
                continue
            label = claim.node.label
            claims[zone, label] = max(claims.get((zone, label), claim), claim, key=_rank)
            if pod is not None and rules.labels == "pod" and _ORDINAL.fullmatch(pod):
                returning.add(label)
    zones: dict[str, dict[str, Endpoint]] = {}
    for (zone, label), claim in sorted(claims.items()):
        zones.setdefault(zone, {})[label] = claim.node
    return SliceNodes(zones, frozenset(returning), tuple(sorted(problems)))


def find_port(ports: Sequence[SlicePort], wanted: int | str | None) -> int | str:
    """Return the port of memcached in a slice, or the reason for which there is none.

    Args:
        ports: Ports of the slice. A headless Service may have none.
        wanted: Number or name of the port. If None, the only port applies, or else the one of `PORT_NAMES`.
    """
    if isinstance(wanted, int):
        return wanted
    known = {one.name or "": one.port for one in ports if one.port is not None and one.protocol in {None, "TCP"}}
    names = ", ".join(sorted(filter(None, known))) or "none"
    if wanted is not None:
        return known.get(wanted) or f"the Service has no TCP port {wanted!r}; its named ports: {names}"
    if len(known) == 1:
        return next(iter(known.values()))
    if not ports:
        return DEFAULT_PORT
    named = next((known[name] for name in PORT_NAMES if name in known), None)
    return named or f"the Service has {len(known)} TCP ports; give one as port; its named ports: {names}"


class ServiceView(NamedTuple):
    """Topology of a Service at one moment."""

    topology: Topology | None
    """The topology. None if there are no nodes, or none that can be read."""
    problem: str | None
    """Reason for which endpoints are ignored, or the topology is None. None if all is well."""
    again_at: float | None
    """Time at which the topology changes if the slices stay. None if it does not."""


class ServiceNodes:
    """Nodes of one Service, with those that left the slices a short time ago.

    A pod of a StatefulSet that restarts is in no slice for some seconds. Then it returns under its name with another
    address. Its node keeps its place for the time `linger`, so that its keys stay. It loses its place at once if its address
    belongs to another pod, or if the pod is in another zone.
    """

    def __init__(self, rules: NodeRules, modes: Mapping[str, Mode], linger: float) -> None:
        """Make a Service without nodes.

        Args:
            rules: Rules for reading endpoints.
            modes: Modes by zone. Other zones are read and written.
            linger: Seconds for which a node keeps its place. 0 disables this.
        """
        self._rules = rules
        self._modes = modes
        self._linger = linger
        self._present: dict[str, tuple[str, Endpoint]] = {}  # zone and node by label; those that return only
        self._left: dict[str, tuple[str, Endpoint, float]] = {}  # with the time at which they lose their place

    def update(self, slices: Iterable[EndpointSlice], now: float) -> ServiceView:
        """Return the topology of these slices.

        Args:
            slices: The slices.
            now: Time in seconds, on any clock that does not go backwards.
        """
        found = find_nodes(slices, self._rules)
        self._note(found, now)
        zones = {zone: dict(nodes) for zone, nodes in found.zones.items()}
        for label, (zone, node, _) in self._left.items():
            zones.setdefault(zone, {})[label] = node
        again_at = min((until for _, _, until in self._left.values()), default=None)
        problem = _summary(found.problems) if found.problems else None if found.zones else "there are no endpoints"
        if not zones:
            return ServiceView(None, problem, again_at)
        try:
            topology = Topology(tuple(_zones(zones, self._modes)))
        except InvalidTopology as error:
            return ServiceView(None, error.problem, again_at)
        return ServiceView(topology, problem, again_at)

    def _note(self, found: SliceNodes, now: float) -> None:
        """Update the nodes that left."""
        present = {label: (zone, node) for zone, nodes in found.zones.items() for label, node in nodes.items()}
        addresses = {(node.host, node.port) for _, node in present.values()}
        left = {label: (*before, now + self._linger) for label, before in self._present.items()} | self._left
        self._left = {
            label: (zone, node, until)
            for label, (zone, node, until) in left.items()
            if label not in present and until > now and (node.host, node.port) not in addresses
        }
        self._present = {label: place for label, place in present.items() if label in found.returning}


def _family(slices: Sequence[EndpointSlice], preferred: Family) -> str:
    """Return the family of all nodes. A pod with both addresses must not become two nodes."""
    families = {piece.address_type for piece in slices if piece.endpoints}
    other = "IPv6" if preferred == "IPv4" else "IPv4"
    return other if preferred not in families and other in families else preferred


def _pod(entry: SliceEndpoint) -> str | None:
    """Return the name of the pod. Endpoints that were added by hand may have none."""
    if entry.hostname:  # set if the StatefulSet names this Service as its own; it is the name of the pod
        return entry.hostname
    reference = entry.target_ref
    return reference.name or None if reference is not None and reference.kind == "Pod" else None


def _claim(entry: SliceEndpoint, pod: str | None, port: int) -> _Claim:
    # The API server permits up to 100 addresses, and says that they are exchangeable. Its own controller writes one.
    host = min(entry.addresses, default="")
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    node = Endpoint(host, port, "", address if pod is None else f"{pod}:{port}")
    state = entry.conditions
    ready = state.ready is not False  # the API says that an unknown state is ready
    return _Claim(not state.terminating, ready if state.serving is None else state.serving, (host, port), node)


def _rank(claim: _Claim) -> tuple[bool, bool, tuple[str, int]]:
    return claim.stays, claim.serves, claim.order


def _zones(zones: Mapping[str, Mapping[str, Endpoint]], modes: Mapping[str, Mode]) -> Iterator[Zone]:
    for name in sorted(zones):
        yield Zone(name, tuple(zones[name][label] for label in sorted(zones[name])), modes.get(name, Mode.READ_WRITE))


def _summary(problems: Sequence[str]) -> str:
    more = len(problems) - MOST_PROBLEMS
    return "; ".join(problems[:MOST_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")
