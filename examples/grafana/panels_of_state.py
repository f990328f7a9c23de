"""Panels of zones, the near cache, loads and the process."""

from __future__ import annotations

from examples.grafana.layout import BYTES_PER_SECOND, CIRCUIT, PER_SECOND, READ, UP, Panel, Row
from examples.grafana.queries import NODE, NODE_LEGEND, Query, by, gauge, of, total

ROWS = (
    Row(
        "Zones and nodes",
        (
            Panel(
                "Zones",
                "out: a process reads the zone last.",
                "none",
                (gauge("max", "evcache_zone", "evcache_zone_out"),),
                kind="state-timeline",
                states=READ,
            ),
            Panel(
                "Nodes",
                "down: the node is down for a process.",
                "none",
                (gauge("min", NODE, "evcache_node_up", legend=NODE_LEGEND),),
                kind="state-timeline",
                states=UP,
            ),
            Panel(
                "Circuits",
                "open: replies did not arrive in time in a process. Half-open counts as open.",
                "none",
                (gauge("max", NODE, "evcache_node_circuit_open", legend=NODE_LEGEND),),
                kind="state-timeline",
                states=CIRCUIT,
            ),
            Panel(
                "Requests to nodes",
                "All requests, including those of repairs and hints.",
                PER_SECOND,
                (by(NODE, "evcache_node_requests_total", legend=NODE_LEGEND),),
            ),
            Panel(
                "Requests in flight",
                "A slow node shows here.",
                "none",
                (gauge("sum", NODE, "evcache_node_requests_pending", legend=NODE_LEGEND),),
            ),
            Panel(
                "Zones without versions",
                "1: a server of the zone keeps no versions. Hints, repair, tombstones and newest-wins are off in this zone.",
                "none",
                (gauge("max", "evcache_zone", "evcache_zone_without_versions"),),
            ),
            Panel(
                "Age of the topology",
                "Time since the source of the zones last answered. It grows while the source fails.",
                "s",
                (gauge("max", "db_namespace", "evcache_topology_age_seconds"),),
                12,
            ),
            Panel(
                "Topologies held back",
                "1: the source removes too much at once, and the client keeps the zones for a while.",
                "none",
                (gauge("max", "db_namespace", "evcache_topology_held"),),
                12,
            ),
            Panel(
                "Bytes per zone",
                "transmit: to the nodes of the zone. receive: from them. TLS and TCP add their own bytes.",
                BYTES_PER_SECOND,
                (by("evcache_zone, network_io_direction", "evcache_zone_io_bytes_total"),),
                12,
                stacked=True,
            ),
            Panel(
                "Bytes across zones",
                "All zones but the local one, and the gutter. A process without a local zone counts all of its bytes.",
                BYTES_PER_SECOND,
                (by("network_io_direction", "evcache_zone_io_bytes_total", 'evcache_zone_local="false"'),),
                12,
                stacked=True,
            ),
        ),
    ),
    Row(
        "Near cache",
        (
            Panel(
                "Hits and misses",
                "Lookups in the near cache.",
                PER_SECOND,
                (
                    total("evcache_near_hits_total", legend="hits"),
                    total("evcache_near_misses_total", legend="misses"),
                ),
                6,
                stacked=True,
            ),
            Panel("Entries", "By process.", "none", (gauge("sum", "instance", "evcache_near_entries"),), 6),
            Panel(
                "Size",
                "Estimated size, by process.",
                "bytes",
                (gauge("sum", "instance", "evcache_near_size_bytes"),),
                6,
            ),
            Panel(
                "Removed entries, by cause",
                "evicted: the cache was full. cleared: an invalidation message may be lost.",
                PER_SECOND,
                (by("evcache_cause", "evcache_near_removals_total"),),
                6,
                stacked=True,
            ),
        ),
    ),
    Row(
        "Loads",
        (
            Panel(
                "Keys loaded",
                "Keys of successful loaders, and keys of failed loaders by class of the error.",
                PER_SECOND,
                (
                    total("evcache_loads_total", 'error_type=""', legend="loaded"),
                    by("error_type", "evcache_loads_total", 'error_type!=""'),
                ),
                6,
            ),
            Panel(
                "Running loads",
                "Running loaders, and keys that wait.",
                "none",
                (
                    Query(f"sum({of('evcache_loads_running')})", "loaders"),
                    Query(f"sum({of('evcache_loads_waiting')})", "keys"),
                ),
                6,
            ),
            Panel(
                "Leases",
                "won: this process loads. lost: another process loads.",
                PER_SECOND,
                (by("evcache_result", "evcache_leases_total"),),
                6,
            ),
            Panel(
                "Stale values served",
                "refresh: during a refresh. error: because the load failed.",
                PER_SECOND,
                (by("evcache_stale_reason", "evcache_stale_served_total"),),
                6,
            ),
        ),
    ),
    Row(
        "Invalidation and process",
        (
            Panel(
                "Invalidation messages",
                "Sent to other processes, and received from them.",
                PER_SECOND,
                (
                    total("evcache_invalidations_sent_total", legend="sent"),
                    total("evcache_invalidations_received_total", legend="received"),
                ),
                6,
            ),
            Panel(
                "Gaps and losses",
                "gaps: messages were lost. losses: the channel was lost. Near caches are cleared each time.",
                PER_SECOND,
                (
                    total("evcache_invalidations_gaps_total", legend="gaps"),
                    total("evcache_invalidations_losses_total", legend="losses"),
                ),
                6,
            ),
            Panel(
                "Invalidation channel",
                "down: a process receives no messages, and entries of its near cache live for a short time only.",
                "none",
                (gauge("min", "instance", "evcache_invalidations_up"),),
                6,
                "state-timeline",
                states=UP,
            ),
            Panel(
                "Event loop lag",
                "Latest delay of the event loop, by process. Timeouts during a delay are not counted against nodes.",
                "s",
                (gauge("max", "instance", "evcache_loop_lag_seconds"),),
                6,
            ),
            Panel(
                "Background tasks",
                "Tasks that outlive their calls, by process.",
                "none",
                (gauge("sum", "instance", "evcache_background_tasks"),),
                6,
            ),
        ),
    ),
)
