"""What operators and dashboards ask a server: statistics, and commands that change how it runs."""

import asyncio
import re
from collections.abc import Awaitable, Callable

from tests.contracts.running import Case, RawClient, case

BAD_FORMAT = b"CLIENT_ERROR bad command line format\r\n"
ERROR = b"ERROR\r\n"
OK = b"OK\r\n"

# Every line of `stats`, in order. A name alone stands for a whole number.
STATS = """
    pid uptime time version=<any> libevent=<any> pointer_size rusage_user=<n>.<n> rusage_system=<n>.<n>
    max_connections curr_connections total_connections rejected_connections connection_structures
    response_obj_oom response_obj_count response_obj_bytes read_buf_count read_buf_bytes read_buf_bytes_free read_buf_oom
    reserved_fds cmd_get cmd_set cmd_flush cmd_touch cmd_meta get_hits get_misses get_expired get_flushed
    delete_misses delete_hits incr_misses incr_hits decr_misses decr_hits cas_misses cas_hits cas_badval
    touch_hits touch_misses store_too_large store_no_memory auth_cmds auth_errors bytes_read bytes_written limit_maxbytes
    accepting_conns listen_disabled_num time_in_listen_disabled_us threads conn_yields
    hash_power_level hash_bytes hash_is_expanding slab_reassign_rescues slab_reassign_chunk_rescues
    slab_reassign_inline_reclaim slab_reassign_busy_items slab_reassign_busy_deletes slab_reassign_busy_nomem
    slab_reassign_running slabs_moved lru_crawler_running lru_crawler_starts lru_maintainer_juggles malloc_fails
    log_worker_dropped log_worker_written log_watcher_skipped log_watcher_sent log_watchers
    unexpected_napi_ids round_robin_fallback bytes curr_items total_items slab_global_page_pool
    expired_unfetched evicted_unfetched evicted_active evictions reclaimed crawler_reclaimed crawler_items_checked
    lrutail_reflocked moves_to_cold moves_to_warm moves_within_lru direct_reclaims lru_bumps_dropped
"""
STATS_OF_1_6_18 = STATS.replace(
    "slab_reassign_chunk_rescues", "slab_reassign_chunk_rescues slab_reassign_evictions_nomem"
).replace("slab_reassign_busy_nomem", "")
SETTINGS = """
    maxbytes maxconns tcpport udpport inter=<any> verbosity oldest evictions=on domain_socket=NULL umask
    shutdown_command=no growth_factor=1.25 chunk_size num_threads num_threads_per_udp stat_key_prefix=: detail_enabled=no
    reqs_per_event cas_enabled=yes tcp_backlog binding_protocol=<any> auth_enabled_sasl=no auth_enabled_ascii=no
    item_size_max maxconns_fast=yes hashpower_init slab_reassign=yes slab_automove slab_automove_ratio=0.80
    slab_automove_window slab_chunk_max lru_crawler=yes lru_crawler_sleep lru_crawler_tocrawl tail_repair_time
    flush_enabled=yes dump_enabled=<any> hash_algorithm=murmur3 lru_maintainer_thread=yes lru_segmented=yes
    hot_lru_pct warm_lru_pct hot_max_factor=0.20 warm_max_factor=2.00 temp_lru=no temporary_ttl idle_timeout
    watcher_logbuf_size worker_logbuf_size read_buf_mem_limit track_sizes=no inline_ascii_response=no
    ext_item_size ext_item_age ext_low_ttl ext_recache_rate ext_wbuf_size ext_compact_under ext_drop_under
    ext_max_sleep ext_max_frag=0.80 slab_automove_freeratio=0.010 ext_drop_unread=no
    ssl_enabled=no ssl_chain_cert=(null) ssl_key=(null) ssl_verify_mode ssl_keyformat ssl_ciphers=NULL ssl_ca_cert=NULL
    ssl_wbuf_size ssl_session_cache=no ssl_kernel_tls=no ssl_min_version=tlsv1.2
    proxy_enabled=no proxy_uring_enabled=no num_napi_ids=(null) memory_file=(null) client_flags_size
"""
ITEMS = b"""
    number number_hot number_warm number_cold age_hot age_warm age mem_requested evicted evicted_nonzero evicted_time
    outofmemory tailrepairs reclaimed expired_unfetched evicted_unfetched evicted_active crawler_reclaimed
    crawler_items_checked lrutail_reflocked moves_to_cold moves_to_warm moves_within_lru direct_reclaims hits_to_hot
    hits_to_warm hits_to_cold hits_to_temp
""".split()  # every line of `stats items` for a class, in order
SETTINGS_OF_1_6_18 = re.sub(r"proxy_enabled=no proxy_uring_enabled=no|client_flags_size", "", SETTINGS)


def lines(names: str) -> bytes:
    """Return the template of an answer."""
    pairs = (entry.partition("=") for entry in names.split())
    return "".join(f"STAT {name} {value or '<n>'}\r\n" for name, _, value in pairs).encode() + b"END\r\n"


def counted(sent: bytes, received: bytes, counts: str) -> tuple[tuple[bytes, bytes], ...]:
    """Return the steps after which the statistics show these lines, one behind another."""
    shown = "".join(f"STAT {entry.replace('=', ' ')}\r\n" for entry in counts.split()).encode()
    return ((b"stats reset\r\n", b"RESET\r\n"), (sent, received), (b"stats\r\n", b"<any>" + shown + b"<any>END\r\n"))


OPERATOR_CASES: list[Case] = [
    case("stats: every line of 1.6.38", (b"stats\r\n", lines(STATS)), since=(1, 6, 38), until=(1, 6, 38)),
    case("stats: every line of 1.6.18", (b"stats\r\n", lines(STATS_OF_1_6_18)), until=(1, 6, 18)),
    case("stats: every setting of 1.6.38", (b"stats settings\r\n", lines(SETTINGS)), since=(1, 6, 38), until=(1, 6, 38)),
    case("stats: every setting of 1.6.18", (b"stats settings\r\n", lines(SETTINGS_OF_1_6_18)), until=(1, 6, 18)),
    case(
        "stats: counters",
        *counted(
            b"set @ 0 0 1\r\n5\r\nincr @ 1\r\nincr @ 9\r\ndecr @ 1\r\nincr @-no 1\r\ndecr @-no 1\r\n"
            b"ma @\r\nma @ MD\r\nma @-no\r\nma @ C<other>\r\nma @-new N0 J5\r\n",
            b"STORED\r\n6\r\n15\r\n14\r\nNOT_FOUND\r\nNOT_FOUND\r\nHD\r\nHD\r\nNF\r\nEX\r\nHD\r\n",
            "incr_misses=2 incr_hits=3 decr_misses=1 decr_hits=2",
        ),
        (b"set @ 0 0 1\r\nx\r\n", b"STORED\r\n"),
        *counted(
            b"incr @ 1\r\nma @\r\n",
            b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n" * 2,
            "incr_misses=0 incr_hits=0 decr_misses=0 decr_hits=0",
        ),
    ),
    case(
        "stats: stores and reads",
        *counted(
            b"ms @ 1\r\nx\r\nms @ 2\r\nxyz\r\nset @ 0 0 1\r\nx\r\nget @ @-no\r\nmg @\r\nmg @-no\r\ntouch @ 90\r\nme @\r\nme @-no\r\n",
            b"HD\r\nCLIENT_ERROR bad data chunk\r\nERROR\r\nSTORED\r\nVALUE @ 0 1\r\nx\r\nEND\r\nHD\r\nEN\r\nTOUCHED\r\nME @ <any>\r\nEN\r\n",
            "cmd_get=4 cmd_set=3 cmd_flush=0 cmd_touch=1 cmd_meta=2 get_hits=2 get_misses=2 get_expired=0",
        ),
    ),
    case(
        "stats: whatever meets an expired item counts it",
        *counted(
            b"set @ 0 -1 1\r\nx\r\nget @\r\nset @ 0 -1 1\r\nx\r\nmg @\r\nset @ 0 -1 1\r\nx\r\nadd @ 0 -1 1\r\nx\r\ndelete @\r\n",
            b"STORED\r\nEND\r\nSTORED\r\nEN\r\nSTORED\r\nSTORED\r\nNOT_FOUND\r\n",
            "get_hits=0 get_misses=2 get_expired=4",
        ),
        at_once=True,  # a thread of the server removes expired items, and does not count them
    ),
    case(
        "stats: values that are too large",
        *counted(
            b"set @ 0 0 1048576\r\n" + b"v" * 1048576 + b"\r\nms @ 1048576\r\n" + b"v" * 1048576 + b"\r\n",
            b"SERVER_ERROR object too large for cache\r\n" * 2,
            "touch_hits=0 touch_misses=0 store_too_large=2 store_no_memory=0",
        ),
    ),
    case(
        "stats: parts",
        (b"stats extstore\r\nstats nonsense\r\nstats a b\r\n", b"END\r\nERROR\r\nERROR\r\n"),
        (b"stats sizes\r\n", b"STAT sizes_status disabled\r\nEND\r\n"),
    ),
    case(
        "stats detail",
        (b"stats detail on\r\nstats detail on x\r\n", OK * 2),
        (b"stats settings\r\n", b"<any>STAT detail_enabled yes\r\n<any>END\r\n"),
        (b"stats detail off\r\n", OK),
        (b"stats settings\r\n", b"<any>STAT detail_enabled no\r\n<any>END\r\n"),
        (b"stats detail\r\nstats detail x\r\n", b"CLIENT_ERROR usage: stats detail on|off|dump\r\n" * 2),
    ),
    case(
        "stats cachedump",
        (b"stats cachedump\r\nstats cachedump 1\r\n", b"CLIENT_ERROR bad command line\r\n" * 2),
        (b"stats cachedump x 1\r\nstats cachedump 1 -1\r\nstats cachedump -1 1\r\n", BAD_FORMAT * 3),
        (b"stats cachedump 64 1\r\n", b"CLIENT_ERROR Illegal slab id\r\n"),
        (b"stats cachedump 63 1\r\nstats cachedump 0 1\r\n", b"END\r\n" * 2),
    ),
    case(
        "stats items",
        (b"set @ 7 500 2\r\nab\r\n", b"STORED\r\n"),
        (b"stats items\r\n", b"<any>" + b"".join(b"STAT items:<n>:%b <n>\r\n" % name for name in ITEMS) + b"<any>END\r\n"),
    ),
    case(
        "lru_crawler metadump",
        (b"set @ 7 500 2\r\nab\r\n", b"STORED\r\n"),
        (
            b"lru_crawler metadump hash\r\n",
            b"<any>key=@ exp=<n> la=<n> cas=<n> fetch=no cls=<n> size=<n> flags=7\n<any>END\r\n",
        ),
        (b"lru_crawler metadump all\r\n", b"<any>key=@ <any>END\r\n"),
        since=(1, 6, 24),
    ),
    case(
        "lru_crawler metadump without flags",
        (b"set @ 7 0 2\r\nab\r\n", b"STORED\r\n"),
        (b"lru_crawler metadump hash\r\n", b"<any>key=@ exp=-1 la=<n> cas=<n> fetch=no cls=<n> size=<n>\n<any>END\r\n"),
        until=(1, 6, 23),
    ),
    case(
        "lru_crawler metadump of nothing",
        (b"lru_crawler metadump\r\n", ERROR),
        # One at a time: a server refuses a list behind another command in one packet.
        (b"lru_crawler metadump x\r\n", b"BADCLASS invalid class id\r\n"),
        (b"lru_crawler metadump 99\r\n", b"BADCLASS invalid class id\r\n"),
    ),
    case(
        "slabs automove",
        (b"slabs automove 0\r\nslabs automove 2\r\nslabs automove 1 x\r\nslabs automove ratio 0.8\r\n", OK * 4),
        (b"slabs automove 0\r\nstats settings\r\n", OK + b"<any>STAT slab_automove 0\r\n<any>END\r\n"),
        (b"slabs automove 1 noreply\r\nslabs automove x noreply\r\n", b""),
        (b"slabs\r\nslabs x\r\nslabs automove\r\nslabs automove 5\r\n", ERROR * 4),
        (b"slabs automove x\r\nslabs automove -1\r\n", BAD_FORMAT * 2),
    ),
    case(
        "slabs reassign",
        (b"slabs reassign 1\r\n", ERROR),
        (b"slabs reassign x y\r\n", BAD_FORMAT),
        (b"slabs reassign 1 1\r\n", b"SAME src and dst class are identical\r\n"),
    ),
    case(
        "cache_memlimit",
        (b"cache_memlimit 100\r\ncache_memlimit 64 x\r\n", OK * 2),
        (b"stats\r\n", b"<any>STAT limit_maxbytes 67108864\r\n<any>END\r\n"),
        (b"cache_memlimit\r\ncache_memlimit x\r\ncache_memlimit -1\r\ncache_memlimit 100 x y\r\n", ERROR * 4),
        (
            b"cache_memlimit 7\r\ncache_memlimit 0\r\n",
            b"MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m\r\n" * 2,
        ),
        (b"cache_memlimit 99999999999\r\n", b"MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes\r\n"),
        (b"cache_memlimit 7 noreply\r\ncache_memlimit 64 noreply\r\n", b""),
    ),
    case(
        "lru_crawler crawl",
        (b"lru_crawler\r\nlru_crawler crawl\r\nlru_crawler x\r\n", ERROR * 3),
        (b"lru_crawler crawl x\r\nlru_crawler crawl 999\r\n", b"BADCLASS invalid class id\r\n" * 2),
    ),
]

EXPIRING, STAYING = 50, 3
_RECLAIM_SECONDS = 10.0


async def check_reclaiming(client: RawClient, *, wait: Callable[[float], Awaitable[None]]) -> None:
    """Check on a server of one's own that expired items go without being asked for, and give their memory back."""

    async def figures() -> dict[str, int]:
        await client.send(b"stats\r\n")
        said = await client.read(lambda data: data.endswith(b"END\r\n"))
        return {name.decode(): int(number) for name, number in re.findall(rb"STAT (\w+) (\d+)\r\n", said)}

    stores = [b"set k%02d 0 %d 100\r\n%b\r\n" % (n, n < EXPIRING, b"v" * 100) for n in range(EXPIRING + STAYING)]
    await client.send(b"".join(stores) + b"get k00 k01\r\n")
    await client.read(lambda data: data.endswith(b"END\r\n"))
    before = await figures()
    await wait(2.1)
    await client.send(b"lru_crawler crawl all\r\n")
    assert await client.read(lambda data: data.endswith(b"\r\n")) == OK
    async with asyncio.timeout(_RECLAIM_SECONDS):
        # The crawler of a real server adds up what it did at the end of its pass.
        while (after := await figures())["curr_items"] > STAYING or after["reclaimed"] < EXPIRING:
            await wait(0.2)
            # Again, because the clock of a stalled server is late, and a pass may have come before the end of the TTL.
            await client.send(b"lru_crawler crawl all\r\n")
            reply = await client.read(lambda data: data.endswith(b"\r\n"))
            assert reply == OK or reply.startswith(b"BUSY")
    assert after["curr_items"] == STAYING
    assert before["bytes"] * STAYING == after["bytes"] * (EXPIRING + STAYING)
    assert (after["reclaimed"], after["expired_unfetched"], after["get_expired"]) == (EXPIRING, EXPIRING - 2, 0)
