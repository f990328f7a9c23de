"""The answers to `stats`: what clients and dashboards read, not all of the ninety lines of the real server."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from zones.testing.state import ERROR, ServerState

if TYPE_CHECKING:
    from zones.testing.state import Caller

_END = b"END\r\n"
# In the order of the real server, as all of this.
_COUNTED = (
    *("cmd_get", "cmd_set", "cmd_flush", "cmd_touch"),
    *("get_hits", "get_misses", "delete_misses", "delete_hits"),
    *("incr_misses", "incr_hits", "decr_misses", "decr_hits"),
    *("cas_misses", "cas_hits", "cas_badval", "touch_hits", "touch_misses"),
)
# What the fake never has to report, and monitoring still looks for.
_NEVER_WORK = ("auth_errors", "idle_kicks")
_NEVER_THREADS = (
    *("conn_yields", "hash_is_expanding", "slab_reassign_running", "lru_crawler_running"),
    *("log_worker_dropped", "log_worker_written", "log_watcher_skipped", "log_watcher_sent", "log_watchers"),
)
_NEVER_MEMORY = ("expired_unfetched", "evicted_unfetched", "evicted_active", "reclaimed")
_THREADS = 4
_MAX_CONNECTIONS = 1024


def stats(caller: Caller, tokens: list[bytes]) -> bytes:
    """Answer `stats [settings|items|slabs|sizes|conns|reset]`."""
    server = caller.server
    if server.dialect.serverless and tokens[1:2] not in ([], [b"reset"]):
        return ERROR
    match tokens[1:2]:
        case []:
            return _lines(_general(server))
        case [b"settings"]:
            return _lines(_settings(server))
        case [b"reset"]:
            server.store.counts.clear()
            return b"RESET\r\n"
        case [b"sizes"]:
            return _lines({"sizes_status": "disabled"})
        case [b"items" | b"slabs" | b"conns"]:
            return _END
        case _:
            return ERROR


def _general(server: ServerState) -> dict[str, object]:
    store = server.store
    counts = store.counts
    return {
        "pid": os.getpid(),
        "uptime": int(store.uptime()),
        "time": int(server.wall_clock()),
        "version": server.dialect.version,
        "pointer_size": 64,
        "max_connections": server.max_connections or _MAX_CONNECTIONS,
        "curr_connections": server.connections,
        "total_connections": server.connections_total,
        "rejected_connections": server.connections_rejected,
        **{name: counts[name] for name in _COUNTED},
        **dict.fromkeys(_NEVER_WORK, 0),
        "limit_maxbytes": store.max_bytes or 0,
        "threads": _THREADS,
        **dict.fromkeys(_NEVER_THREADS, 0),
        "bytes": store.bytes_used,
        "curr_items": len(store),
        "total_items": counts["total_items"],
        **dict.fromkeys(_NEVER_MEMORY, 0),
        "evictions": counts["evictions"],
    }


def _settings(server: ServerState) -> dict[str, object]:
    store = server.store
    return {
        "maxbytes": store.max_bytes or 0,
        "maxconns": server.max_connections or _MAX_CONNECTIONS,
        "evictions": "on",
        "num_threads": _THREADS,
        "cas_enabled": _yes(store.cas_enabled),
        "auth_enabled_ascii": _yes(server.auth is not None),
        "item_size_max": store.item_size_max,
        "flush_enabled": "yes",
        "dump_enabled": "no",
        "idle_timeout": 0,
        "client_flags_size": 4,
    }


def _yes(value: bool) -> str:  # noqa: FBT001  (one word for one word)
    return "yes" if value else "no"


def _lines(facts: dict[str, object]) -> bytes:
    return "".join(f"STAT {name} {value}\r\n" for name, value in facts.items()).encode() + _END
