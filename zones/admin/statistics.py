"""Statistics and settings of a server as numbers, from the replies to `stats` and `stats settings`. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Self


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    """Statistics of one server since its start. A field is None if the server does not report it."""

    pid: int | None = None
    uptime: int | None = None
    """Seconds since the start."""
    time: int | None = None
    """Unix time of the server's clock, in whole seconds."""
    curr_items: int | None = None
    bytes: int | None = None
    """Memory of the items."""
    limit_maxbytes: int | None = None
    """Memory for items, the option `-m`."""
    get_hits: int | None = None
    get_misses: int | None = None
    cmd_get: int | None = None
    cmd_set: int | None = None
    cmd_touch: int | None = None
    evictions: int | None = None
    evicted_unfetched: int | None = None
    """Items that were evicted before a client read them."""
    curr_connections: int | None = None
    max_connections: int | None = None
    """Limit of connections, the option `-c`. The server's own file descriptors count, too."""
    rejected_connections: int | None = None
    listen_disabled_num: int | None = None
    """Number of times that the server reached the limit of connections."""
    reserved_fds: int | None = None
    """File descriptors of the server's own, which count towards `max_connections`."""
    bytes_read: int | None = None
    bytes_written: int | None = None
    threads: int | None = None
    hash_is_expanding: int | None = None
    """1 while the hash table grows."""
    hash_power_level: int | None = None
    """Size of the hash table as a power of two."""
    lru_crawler_running: int | None = None
    """1 while the crawler runs, for example for a list of keys."""

    @classmethod
    def parse(cls, reply: Mapping[str, str]) -> Self:
        """Return the statistics in a reply to `stats`. A line that is no number counts as missing."""
        return cls(**{field.name: integer(reply.get(field.name)) for field in fields(cls)})

    @property
    def hit_ratio(self) -> float | None:
        """Share of reads that found an item. None without reads."""
        if self.get_hits is None or self.get_misses is None or not self.get_hits + self.get_misses:
            return None
        return self.get_hits / (self.get_hits + self.get_misses)


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Settings of one server. A field is None if the server does not report it."""

    maxbytes: int | None = None
    """Memory for items, the option `-m`."""
    maxconns: int | None = None
    """Limit of connections, the option `-c`."""
    item_size_max: int | None = None
    """Largest item, the option `-I`."""
    num_threads: int | None = None
    """Worker threads, the option `-t`."""
    idle_timeout: int | None = None
    """Seconds after which the server closes an idle connection, `-o idle_timeout`. 0 is never."""
    hashpower_init: int | None = None
    """Initial size of the hash table as a power of two, `-o hashpower`. 0 is the default of the server."""
    cas_enabled: bool | None = None
    """False for a server run with `-C`."""
    evictions: bool | None = None
    """False for a server run with `-M`, which refuses a store in place of an eviction."""
    dump_enabled: bool | None = None
    """False for a server run with `-X`, which refuses to list its keys."""
    flush_enabled: bool | None = None
    auth_enabled_ascii: bool | None = None
    ssl_enabled: bool | None = None
    proxy_enabled: bool | None = None
    """True for memcached's built-in proxy. Servers before 1.6.23 do not report it."""

    @classmethod
    def parse(cls, reply: Mapping[str, str]) -> Self:
        """Return the settings in a reply to `stats settings`. Servers write a switch as yes, no, on, off, 1 or 0."""
        values: dict[str, int | bool | None] = {}
        for field in fields(cls):
            read = switch if "bool" in str(field.type) else integer
            values[field.name] = read(reply.get(field.name))
        return cls(**values)  # type: ignore[arg-type]  # by the types of the fields


def integer(text: str | None) -> int | None:
    """Return the number of a text, or None if it is none."""
    return int(text) if text is not None and text.isascii() and text.removeprefix("-").isdigit() else None


_SWITCHES = {"yes": True, "on": True, "1": True, "no": False, "off": False, "0": False}


def switch(text: str | None) -> bool | None:
    """Return the state of a switch, or None if the text is none."""
    return None if text is None else _SWITCHES.get(text)
