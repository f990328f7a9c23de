"""Commands for operators. `stats` prints all lines of memcached in its order; missing figures are those of an idle server.

Each command takes the tokens of its line and returns a reply. With `noreply` it returns nothing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from evcache.zones.testing.fake_memcached import key_lists
from evcache.zones.testing.fake_memcached.dialect import read_int32, read_uint32, read_uint64
from evcache.zones.testing.fake_memcached.state import BAD_FORMAT, ERROR, ServerState

if TYPE_CHECKING:
    from collections.abc import Callable

    from evcache.zones.testing.fake_memcached.state import Caller

_END = b"END\r\n"
_OK = b"OK\r\n"
_THREADS = 4
_MAX_CONNECTIONS = 1024
_MEGABYTE = 1024 * 1024
_LEAST_MEGABYTES = 8
_MOST_MEGABYTES = 1_000_000_000
_CLASSES = 64
_AUTOMOVE_LEVELS = (0, 1, 2)


def _table(text: str) -> dict[str, str | None]:
    """Read `name=value` for a constant, and `name` for a figure."""
    pairs = (entry.partition("=") for entry in text.split())
    return {name: value if equals else None for name, equals, value in pairs}


# As memcached 1.6.38 prints them.
_GENERAL = _table(
    """
    pid uptime time version libevent=2.1.12-stable pointer_size=64 rusage_user rusage_system
    max_connections curr_connections total_connections rejected_connections connection_structures
    response_obj_oom=0 response_obj_count=1 response_obj_bytes=16384
    read_buf_count=2 read_buf_bytes=32768 read_buf_bytes_free=0 read_buf_oom=0 reserved_fds=20
    cmd_get cmd_set cmd_flush cmd_touch cmd_meta get_hits get_misses get_expired get_flushed=0
    delete_misses delete_hits incr_misses incr_hits decr_misses decr_hits cas_misses cas_hits cas_badval
    touch_hits touch_misses store_too_large store_no_memory auth_cmds auth_errors bytes_read bytes_written
    limit_maxbytes accepting_conns=1 listen_disabled_num=0 time_in_listen_disabled_us=0 threads conn_yields=0
    hash_power_level=16 hash_bytes=524288 hash_is_expanding=0
    slab_reassign_rescues=0 slab_reassign_chunk_rescues=0 slab_reassign_inline_reclaim=0
    slab_reassign_busy_items=0 slab_reassign_busy_deletes=0 slab_reassign_busy_nomem=0 slab_reassign_running=0
    slabs_moved=0 lru_crawler_running=0 lru_crawler_starts lru_maintainer_juggles=0 malloc_fails=0
    log_worker_dropped=0 log_worker_written=0 log_watcher_skipped=0 log_watcher_sent=0 log_watchers=0
    unexpected_napi_ids=0 round_robin_fallback=0
    bytes curr_items total_items slab_global_page_pool=0
    expired_unfetched evicted_unfetched evicted_active evictions reclaimed
    crawler_reclaimed crawler_items_checked lrutail_reflocked=0
    moves_to_cold=0 moves_to_warm=0 moves_within_lru=0 direct_reclaims=0 lru_bumps_dropped=0
    """
)
_SETTINGS = _table(
    """
    maxbytes maxconns tcpport=0 udpport=0 inter=127.0.0.1 verbosity=0 oldest=0 evictions=on domain_socket=NULL umask=700
    shutdown_command=no growth_factor=1.25 chunk_size=48 num_threads num_threads_per_udp=4 stat_key_prefix=:
    detail_enabled reqs_per_event=20 cas_enabled tcp_backlog=1024 binding_protocol=ascii
    auth_enabled_sasl=no auth_enabled_ascii item_size_max maxconns_fast=yes hashpower_init=0
    slab_reassign=yes slab_automove slab_automove_ratio=0.80 slab_automove_window=10 slab_chunk_max=524288
    lru_crawler=yes lru_crawler_sleep=100 lru_crawler_tocrawl=0 tail_repair_time=0 flush_enabled=yes dump_enabled
    hash_algorithm=murmur3 lru_maintainer_thread=yes lru_segmented=yes hot_lru_pct=20 warm_lru_pct=40
    hot_max_factor=0.20 warm_max_factor=2.00 temp_lru=no temporary_ttl=61 idle_timeout=0
    watcher_logbuf_size=262144 worker_logbuf_size=65536 read_buf_mem_limit=0 track_sizes=no inline_ascii_response=no
    ext_item_size=512 ext_item_age=4294967295 ext_low_ttl=0 ext_recache_rate=2000 ext_wbuf_size=4194304
    ext_compact_under=0 ext_drop_under=0 ext_max_sleep=1000000 ext_max_frag=0.80 slab_automove_freeratio=0.010
    ext_drop_unread=no ssl_enabled=no ssl_chain_cert=(null) ssl_key=(null) ssl_verify_mode=0 ssl_keyformat=1
    ssl_ciphers=NULL ssl_ca_cert=NULL ssl_wbuf_size=16384 ssl_session_cache=no ssl_kernel_tls=no ssl_min_version=tlsv1.2
    proxy_enabled=no proxy_uring_enabled=no num_napi_ids=(null) memory_file=(null) client_flags_size=4
    """
)
# Names that 1.6.18 does not have yet, and one that only it has, behind the name given here.
_NEW_SINCE = frozenset({"slab_reassign_busy_nomem", "proxy_enabled", "proxy_uring_enabled", "client_flags_size"})
_OLD = {"slab_reassign_chunk_rescues": "slab_reassign_evictions_nomem"}


def stats(caller: Caller, tokens: list[bytes]) -> bytes:
    """Answer `stats [settings|items|slabs|sizes|conns|extstore|reset|detail ...|cachedump ...]`."""
    server = caller.server
    if server.dialect.serverless and tokens[1:2] not in ([], [b"reset"]):
        return ERROR
    match tokens[1:2]:
        case []:
            return _lines(server, _GENERAL, _general)
        case [b"settings"]:
            return _lines(server, _SETTINGS, _settings)
        case [b"reset"]:
            server.store.counts.clear()
            return b"RESET\r\n"
        case [b"sizes"]:
            return b"STAT sizes_status disabled\r\n" + _END
        case [b"items"]:
            return key_lists.stats_items(server)
        case [b"slabs" | b"conns" | b"extstore"]:
            return _END
        case [b"detail"]:
            return _detail(server, tokens)
        case [b"cachedump"]:
            return key_lists.cachedump(server, tokens)
        case _:
            return ERROR


def _detail(server: ServerState, tokens: list[bytes]) -> bytes:
    match tokens[2:3]:
        case [b"on" | b"off"]:
            server.detail = tokens[2] == b"on"
            return _OK
        case [b"dump"]:
            return _END
        case _:
            return b"CLIENT_ERROR usage: stats detail on|off|dump\r\n"


def _general(server: ServerState) -> dict[str, object]:
    store = server.store
    time_used = os.times()
    return {
        **store.counts,
        "pid": os.getpid(),
        "uptime": int(store.uptime()),
        "time": int(server.wall_clock()),
        "version": server.dialect.version,
        "rusage_user": f"{time_used.user:.6f}",
        "rusage_system": f"{time_used.system:.6f}",
        "max_connections": server.max_connections or _MAX_CONNECTIONS,
        "curr_connections": server.connections,
        "total_connections": server.connections_total,
        "rejected_connections": server.connections_rejected,
        "connection_structures": server.connections_most,
        "limit_maxbytes": store.max_bytes or 0,
        "threads": _THREADS,
        "bytes": store.bytes_used,
        "curr_items": store.linked,
    }


def _settings(server: ServerState) -> dict[str, object]:
    store = server.store
    return {
        "maxbytes": store.max_bytes or 0,
        "maxconns": server.max_connections or _MAX_CONNECTIONS,
        "num_threads": _THREADS,
        "detail_enabled": _yes(server.detail),
        "dump_enabled": _yes(server.may_list_keys),
        "cas_enabled": _yes(store.cas_enabled),
        "auth_enabled_ascii": _yes(server.auth is not None),
        "item_size_max": store.item_size_max,
        "slab_automove": server.slab_automove,
    }


def _yes(value: bool) -> str:  # noqa: FBT001  (one word for one word)
    return "yes" if value else "no"


def _lines(
    server: ServerState, table: dict[str, str | None], figures_of: Callable[[ServerState], dict[str, object]]
) -> bytes:
    figures = figures_of(server)
    lines: list[str] = []
    for name, constant in table.items():
        if server.dialect.newer_stats or name not in _NEW_SINCE:
            lines.append(f"STAT {name} {figures.get(name, 0) if constant is None else constant}\r\n")
        if not server.dialect.newer_stats and name in _OLD:
            lines.append(f"STAT {_OLD[name]} 0\r\n")
    return "".join(lines).encode() + _END


def cache_memlimit(caller: Caller, tokens: list[bytes]) -> bytes:
    """Answer `cache_memlimit <megabytes>`: set the memory for items. The next store evicts the excess."""
    megabytes = read_uint64(tokens[1]) if 2 <= len(tokens) <= 3 else None
    if megabytes is None:
        return ERROR
    if megabytes < _LEAST_MEGABYTES:
        reply = b"MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m\r\n"
    elif megabytes > _MOST_MEGABYTES:
        reply = b"MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes\r\n"
    else:
        caller.server.store.max_bytes = megabytes * _MEGABYTE
        reply = _OK
    return b"" if tokens[-1] == b"noreply" else reply


def slabs(caller: Caller, tokens: list[bytes]) -> bytes:
    """Answer `slabs automove <level>` and `slabs reassign <from> <to>`. No page moves, because the fake has none."""
    if len(tokens) == 1:
        return ERROR
    reply = _slabs(caller, tokens)
    return b"" if tokens[-1] == b"noreply" else reply


def _slabs(caller: Caller, tokens: list[bytes]) -> bytes:
    match tokens[1:]:
        case [b"automove", b"ratio", _, *_]:
            return _OK
        case [b"automove", level, *_]:
            number = read_uint32(level)
            if number is None:
                return BAD_FORMAT
            if number not in _AUTOMOVE_LEVELS:
                return ERROR
            caller.server.slab_automove = number
            return _OK
        case [b"reassign", source, target, *_]:
            numbers = read_int32(source), read_int32(target)
            if None in numbers:
                return BAD_FORMAT
            same = numbers[0] == numbers[1]
            return b"SAME src and dst class are identical\r\n" if same else b"NOSPARE source class has no spare pages\r\n"
        case _:
            return ERROR


def lru_crawler(caller: Caller, tokens: list[bytes]) -> bytes:
    """Answer `lru_crawler crawl <classes|all>`, which reclaims expired items, and `lru_crawler metadump`."""
    if tokens[1:2] == [b"metadump"]:
        return key_lists.metadump(caller.server, tokens)
    if len(tokens) < 3 or tokens[1] != b"crawl":
        return ERROR
    if tokens[2] != b"all":
        classes = [read_uint32(text) for text in tokens[2].split(b",")]
        if any(number is None or not 0 < number < _CLASSES for number in classes):
            return b"BADCLASS invalid class id\r\n"
    caller.server.store.crawl_all()
    return _OK
