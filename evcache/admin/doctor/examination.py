"""Judgement of all facts, one subject after the other. A plain function, without I/O."""

from __future__ import annotations

from evcache.admin.doctor.facts import Facts
from evcache.admin.doctor.findings import Finding
from evcache.admin.doctor.judges import (
    balance,
    capacity,
    clocks,
    hints,
    namespaces,
    placement,
    proxies,
    reachability,
    servers,
    settings,
    topology,
)
from evcache.zones.routing.zone_order import is_ejected
from evcache.zones.topology.model import Mode

# In the order of `Subject`.
JUDGES = (
    topology.judge,
    reachability.judge,
    servers.judge_versions,
    servers.judge_features,
    proxies.judge,
    capacity.judge_connections,
    capacity.judge_memory,
    settings.judge,
    clocks.judge,
    placement.judge,
    namespaces.judge,
    balance.judge,
    hints.judge,
)


def judge_all(facts: Facts) -> list[Finding]:
    """Return the findings of all subjects. A subject about which there are no facts has none."""
    return [finding for judge in JUDGES for finding in judge(facts)]


def can_be_read(facts: Facts) -> bool:
    """Return True if clients can read at least one zone, by the rule of `evcache check`."""
    return any(
        zone.mode is Mode.READ_WRITE and not is_ejected(len(zone.nodes) - len(zone.answering), len(zone.nodes))
        for zone in facts.zones
    )
