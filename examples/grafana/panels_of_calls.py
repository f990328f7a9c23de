"""Panels of reads and writes."""

from __future__ import annotations

from examples.grafana.layout import PER_SECOND, Panel, Row
from examples.grafana.queries import (
    HIT,
    HIT_RATIO,
    MEMCACHED,
    NODE,
    READS,
    Query,
    by,
    gauge,
    of,
    quantile,
    rate,
    share,
    total,
)

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
                "Hits, by zone of the value",
                "A zone without hits is down, cold or write-only. A near hit counts for the zone that the value came from.",
                PER_SECOND,
                (by("evcache_zone", "evcache_reads_total", HIT),),
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
                "Includes get_or_load and cached functions, with the time of loaders. A process records up to 1,000 calls a "
                "second for each operation, and every n-th above.",
                "s",
                tuple(quantile(q, READS, legend=f"{q * 100:g} %") for q in (0.5, 0.95, 0.99)),
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
                "Writes that zones missed, by zone. They are delivered when the zones recover.",
                "none",
                (gauge("sum", "evcache_zone", "evcache_hints_pending"),),
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
)
