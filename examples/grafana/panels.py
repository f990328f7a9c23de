"""Table of the panels of the dashboard."""

from __future__ import annotations

from examples.grafana.layout import Panel, Row
from examples.grafana.queries import GETS, MEMCACHED, Query, by, gauge, of, quantile, rate, share, total

NODE = "evcache_zone, server_address, server_port"
NODE_LEGEND = "{{evcache_zone}} {{server_address}}:{{server_port}}"

PER_SECOND = "cps"
BYTES_PER_SECOND = "Bps"
HIT = 'evcache_result="hit"'
UP = (("down", "red"), ("up", "green"))
READ = (("read", "green"), ("out", "red"))
CIRCUIT = (("closed", "green"), ("open", "red"))

HIT_RATIO = share(rate("evcache_reads_total", HIT), rate("evcache_reads_total"), legend="hits")

ROWS = (
    Row(
        "At a glance",
        (
            Panel("Hits", "Share of read keys that had a value.", "percentunit", (HIT_RATIO,), 4, "stat"),
            Panel(
                "99th percentile of calls",
                "Includes the time of loaders. Values below 1 ms are interpolated, because no bucket is smaller.",
                "s",
                (quantile(0.99, legend="calls"),),
                4,
                "stat",
            ),
            Panel(
                "Zones out",
                "Zones that a process reads last, because too many of their nodes are down.",
                "none",
                (Query(f"sum(max by (evcache_zone) ({of('evcache_zone_out')}))", "zones"),),
                4,
                "stat",
                bad_from=1,
            ),
            Panel(
                "Nodes down",
                "Nodes that are down for a process.",
                "none",
                (Query(f"sum(1 - min by ({NODE}) ({of('evcache_node_up')}))", "nodes"),),
                4,
                "stat",
                bad_from=1,
            ),
            Panel(
                "Writes that zones miss",
                "Hints, which are stored until the zones recover.",
                "none",
                (Query(f"sum({of('evcache_hints_pending')})", "writes"),),
                4,
                "stat",
                bad_from=1,
            ),
            Panel(
                "Errors",
                "Calls that raised an error, without cancelled calls.",
                PER_SECOND,
                (
                    total(
                        "db_client_operation_duration_seconds_count",
                        MEMCACHED,
                        'error_type!~"|CancelledError"',
                        legend="errors",
                    ),
                ),
                4,
                "stat",
                bad_from=1,
            ),
        ),
    ),
    Row(
        "Reads",
        (
            Panel(
                "Keys read, by origin",
                "near: near cache; local: local zone; preferred: first zone of a client without a local zone; "
                "fallback: another zone; none: no zone.",
                PER_SECOND,
                (by("evcache_source, evcache_result", "evcache_reads_total"),),
                stacked=True,
            ),
            Panel(
                "Hit ratio",
                "Share of read keys with a value, and share of near cache hits.",
                "percentunit",
                (
                    HIT_RATIO,
                    share(
                        rate("evcache_reads_total", HIT, 'evcache_source="near"'), rate("evcache_reads_total"), legend="near"
                    ),
                ),
            ),
            Panel(
                "Reads that left a zone, by reason",
                "miss: the zone did not hold the key; otherwise the class of the error. A failing zone shows here first.",
                PER_SECOND,
                (by("evcache_zone, evcache_fallback_reason", "evcache_read_fallbacks_total"),),
            ),
            Panel(
                "Duration of reads",
                "Recorded are all reads up to 1,000 a second for each process and operation, and every n-th above.",
                "s",
                tuple(quantile(q, GETS, legend=f"{q * 100:g} %") for q in (0.5, 0.95, 0.99)),
            ),
            Panel(
                "99th percentile of calls, by operation",
                "Operations that load or write through include the time of the source.",
                "s",
                (quantile(0.99, labels="db_operation_name"),),
            ),
            Panel(
                "Calls within a millisecond",
                "Share of calls in the first bucket, which is exact.",
                "percentunit",
                (
                    share(
                        rate("db_client_operation_duration_seconds_bucket", MEMCACHED, 'le="0.001"'),
                        rate("db_client_operation_duration_seconds_count", MEMCACHED),
                        labels="db_operation_name",
                    ),
                ),
            ),
            Panel(
                "Errors, by operation",
                "Calls that raised an error. An unreachable cache is an error, a miss is not.",
                PER_SECOND,
                (
                    by(
                        "db_operation_name, error_type",
                        "db_client_operation_duration_seconds_count",
                        MEMCACHED,
                        'error_type!=""',
                    ),
                ),
            ),
            Panel(
                "Errors returned as misses",
                'Because of errors="miss", and by loads, which continue without the cache.',
                PER_SECOND,
                (by("error_type", "evcache_errors_as_misses_total"),),
            ),
            Panel(
                "Values that cannot be decoded",
                "Another codec or release wrote them, or they do not fit the type that the caller names.",
                PER_SECOND,
                (by("evcache_zone", "evcache_decode_errors_total"),),
            ),
            Panel(
                "Second zones, and the gutter",
                "hedge: a second zone was asked, because the first was slow. denied: the failover budget was used up.",
                PER_SECOND,
                (
                    by(
                        "evcache_zone, evcache_result",
                        "evcache_read_hedges_total",
                        legend="hedge {{evcache_zone}} {{evcache_result}}",
                    ),
                    by("evcache_zone", "evcache_read_failovers_denied_total", legend="denied {{evcache_zone}}"),
                    by("evcache_result", "evcache_read_gutter_total", legend="gutter {{evcache_result}}"),
                ),
            ),
        ),
    ),
    Row(
        "Writes",
        (
            Panel(
                "Writes, by result",
                "met: the required number of zones have the write.",
                PER_SECOND,
                (by("db_operation_name, evcache_result", "evcache_writes_total"),),
                12,
                stacked=True,
            ),
            Panel(
                "Outcomes of writes in zones",
                "late: after the return of the call.",
                PER_SECOND,
                (
                    by(
                        "evcache_zone, evcache_outcome, evcache_late",
                        "evcache_zone_writes_total",
                        legend="{{evcache_zone}} {{evcache_outcome}}, late: {{evcache_late}}",
                    ),
                ),
                12,
            ),
            Panel(
                "Pending hints",
                "Writes that zones missed. They are delivered when the zones recover.",
                "none",
                (gauge("sum", "db_namespace", "evcache_hints_pending"),),
            ),
            Panel("Memory of hints", "In bytes.", "bytes", (gauge("sum", "db_namespace", "evcache_hints_size_bytes"),)),
            Panel(
                "Ended hints",
                "delivered, superseded: the zone has the write or a newer one. refused: memcached before 1.6.27.",
                PER_SECOND,
                (by("evcache_zone, evcache_hint_end", "evcache_hints_ended_total"),),
            ),
            Panel(
                "Unusable hint files",
                "Processes whose hints are in memory only, because their file is unusable. The log names the cause.",
                "none",
                (gauge("sum", "db_namespace", "evcache_hints_file_unusable"),),
            ),
            Panel(
                "Repairs",
                "Copies of the latest version to stale zones.",
                PER_SECOND,
                (by("evcache_zone, evcache_outcome", "evcache_repairs_total"),),
                8,
            ),
            Panel(
                "Clock differences",
                "sent again: a write met a newer version that its client had not seen. refused: versions over 60 s ahead.",
                PER_SECOND,
                (
                    total("evcache_writes_resent_total", legend="sent again"),
                    total("evcache_versions_refused_total", legend="refused"),
                ),
                8,
            ),
        ),
    ),
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
