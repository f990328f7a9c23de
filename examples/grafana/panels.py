"""What the dashboard shows, as a table."""

from __future__ import annotations

from examples.grafana.layout import Panel, Row
from examples.grafana.queries import GETS, MEMCACHED, Query, by, gauge, of, quantile, rate, share, total

NODE = "evcache_zone, server_address, server_port"
NODE_LEGEND = "{{evcache_zone}} {{server_address}}:{{server_port}}"

PER_SECOND = "cps"
HIT = 'evcache_result="hit"'
UP = (("down", "red"), ("up", "green"))
READ = (("read", "green"), ("out", "red"))
CIRCUIT = (("closed", "green"), ("open", "red"))

HIT_RATIO = share(rate("evcache_reads_total", HIT), rate("evcache_reads_total"), legend="hits")

ROWS = (
    Row(
        "At a glance",
        (
            Panel("Hits", "Of keys that were read, the share that had a value.", "percentunit", (HIT_RATIO,), 4, "stat"),
            Panel(
                "99 of 100 calls take at most",
                "With the time of loaders, where something is loaded. Below 1 ms it is a guess: no bucket is smaller.",
                "s",
                (quantile(0.99, legend="calls"),),
                4,
                "stat",
            ),
            Panel(
                "Zones out",
                "Zones that some process reads last, since too many of their nodes are down.",
                "none",
                (Query(f"sum(max by (evcache_zone) ({of('evcache_zone_out')}))", "zones"),),
                4,
                "stat",
                bad_from=1,
            ),
            Panel(
                "Nodes down",
                "Nodes that some process does not ask.",
                "none",
                (Query(f"sum(1 - min by ({NODE}) ({of('evcache_node_up')}))", "nodes"),),
                4,
                "stat",
                bad_from=1,
            ),
            Panel(
                "Writes that zones miss",
                "Kept for them until they are back.",
                "none",
                (Query(f"sum({of('evcache_hints_pending')})", "writes"),),
                4,
                "stat",
                bad_from=1,
            ),
            Panel(
                "Errors",
                "Calls that raised, those that were cancelled left out.",
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
                "Keys read, by where they were found",
                "near: in this process's memory; local: in its zone; preferred: in its first, without a local zone; "
                "fallback: in another; none: nowhere.",
                PER_SECOND,
                (by("evcache_source, evcache_result", "evcache_reads_total"),),
                stacked=True,
            ),
            Panel(
                "Hit ratio",
                "Of all keys read; and what this process's memory alone had.",
                "percentunit",
                (
                    HIT_RATIO,
                    share(
                        rate("evcache_reads_total", HIT, 'evcache_source="near"'), rate("evcache_reads_total"), legend="near"
                    ),
                ),
            ),
            Panel(
                "Reads that left a zone, by why",
                "miss: the zone did not have the key; otherwise the error's name. A zone in trouble shows here first.",
                PER_SECOND,
                (by("evcache_zone, evcache_fallback_reason", "evcache_read_fallbacks_total"),),
            ),
            Panel(
                "How long reads take",
                "Of those that are measured: all up to 1,000 a second for each process and operation, every n-th above.",
                "s",
                tuple(quantile(q, GETS, legend=f"{q * 100:g} %") for q in (0.5, 0.95, 0.99)),
            ),
            Panel(
                "How long calls take: 99 of 100",
                "What loads or writes through includes the time of the source.",
                "s",
                (quantile(0.99, labels="db_operation_name"),),
            ),
            Panel(
                "Calls within a millisecond",
                "What the buckets say for certain.",
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
                "Calls that raised: a cache that can't be reached is an error, a miss is none.",
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
                'As errors="miss" asks, and by loads, which do without the cache.',
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
                "Hedges: a second zone was asked while the first was slow. Denied: the failover budget is used up.",
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
                "Writes, by whether enough zones have them",
                "met: as many as the call asked for.",
                PER_SECOND,
                (by("db_operation_name, evcache_result", "evcache_writes_total"),),
                12,
                stacked=True,
            ),
            Panel(
                "What zones did with writes",
                "Before the call had returned, and after.",
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
                "Writes kept for zones that missed them",
                "They are brought them when they are back.",
                "none",
                (gauge("sum", "db_namespace", "evcache_hints_pending"),),
            ),
            Panel("What they take", "Bytes.", "bytes", (gauge("sum", "db_namespace", "evcache_hints_size_bytes"),)),
            Panel(
                "What became of them",
                "delivered, superseded: the zone has it, or a newer one. refused: memcached before 1.6.27.",
                PER_SECOND,
                (by("evcache_zone, evcache_hint_end", "evcache_hints_ended_total"),),
            ),
            Panel(
                "Hint files that cannot be used",
                "Processes that keep hints in memory only, although they should be in a file. The log says why.",
                "none",
                (gauge("sum", "db_namespace", "evcache_hints_file_unusable"),),
            ),
            Panel(
                "Repairs",
                "Zones that reads saw lack something, and that were brought it.",
                PER_SECOND,
                (by("evcache_zone, evcache_outcome", "evcache_repairs_total"),),
                8,
            ),
            Panel(
                "Clocks that differ",
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
                "Out: some process reads it last.",
                "none",
                (gauge("max", "evcache_zone", "evcache_zone_out"),),
                kind="state-timeline",
                states=READ,
            ),
            Panel(
                "Nodes",
                "Down: some process does not ask it.",
                "none",
                (gauge("min", NODE, "evcache_node_up", legend=NODE_LEGEND),),
                kind="state-timeline",
                states=UP,
            ),
            Panel(
                "Circuits",
                "Open or half open: replies did not come in time, to some process.",
                "none",
                (gauge("max", NODE, "evcache_node_circuit_open", legend=NODE_LEGEND),),
                kind="state-timeline",
                states=CIRCUIT,
            ),
            Panel(
                "Requests to nodes",
                "Of all kinds, those of repairs and hints too.",
                PER_SECOND,
                (by(NODE, "evcache_node_requests_total", legend=NODE_LEGEND),),
            ),
            Panel(
                "Requests that wait for a reply",
                "A node that is slow shows here.",
                "none",
                (gauge("sum", NODE, "evcache_node_requests_pending", legend=NODE_LEGEND),),
            ),
            Panel(
                "Zones without versions",
                "1: a server of the zone keeps no versions, so hints, repair, tombstones and newest-wins are off there.",
                "none",
                (gauge("max", "evcache_zone", "evcache_zone_without_versions"),),
            ),
        ),
    ),
    Row(
        "Near cache",
        (
            Panel(
                "Hits and misses",
                "Of look-ups in this process's memory.",
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
                "What they count for, by process.",
                "bytes",
                (gauge("sum", "instance", "evcache_near_size_bytes"),),
                6,
            ),
            Panel(
                "Why entries went",
                "evicted: for want of room. cleared: something may have been missed.",
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
                "By loaders that returned; by the error's name, those that failed.",
                PER_SECOND,
                (
                    total("evcache_loads_total", 'error_type=""', legend="loaded"),
                    by("error_type", "evcache_loads_total", 'error_type!=""'),
                ),
                6,
            ),
            Panel(
                "Under way",
                "Loaders that run, and keys that wait for one.",
                "none",
                (
                    Query(f"sum({of('evcache_loads_running')})", "loaders"),
                    Query(f"sum({of('evcache_loads_waiting')})", "keys"),
                ),
                6,
            ),
            Panel(
                "Leases",
                "won: this process loads; lost: another one does.",
                PER_SECOND,
                (by("evcache_result", "evcache_leases_total"),),
                6,
            ),
            Panel(
                "Out of date, and served",
                "refresh: while it is loaded anew; error: because loading it failed.",
                PER_SECOND,
                (by("evcache_stale_reason", "evcache_stale_served_total"),),
                6,
            ),
        ),
    ),
    Row(
        "Invalidations, and this process",
        (
            Panel(
                "Changes announced",
                "To other processes, and by them.",
                PER_SECOND,
                (
                    total("evcache_invalidations_sent_total", legend="sent"),
                    total("evcache_invalidations_received_total", legend="received"),
                ),
                6,
            ),
            Panel(
                "Gaps and losses",
                "Announcements may have been missed; the channel was lost. Near caches are emptied each time.",
                PER_SECOND,
                (
                    total("evcache_invalidations_gaps_total", legend="gaps"),
                    total("evcache_invalidations_losses_total", legend="losses"),
                ),
                6,
            ),
            Panel(
                "Event loop lag",
                "How late it was when it was last looked at, by process. Zones are not blamed for it.",
                "s",
                (gauge("max", "instance", "evcache_loop_lag_seconds"),),
                6,
            ),
            Panel(
                "Background tasks",
                "That outlive their calls, by process.",
                "none",
                (gauge("sum", "instance", "evcache_background_tasks"),),
                6,
            ),
        ),
    ),
)
