"""Bulk calls of up to 100,000 keys and of 90 MB: how much they do within their timeout, and what that takes.

Each row has three new zones of one memcached each. It also has its own process, so that the peak of memory belongs to that
row. `cold` is the first call of a client, before any connection is open. `longest hold` is the processor time of the
event loop between two runs of a timer of one millisecond.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.servers import memcached_nodes
from evcache import CacheError, EVCache

ZONES = ("zone-a", "zone-b", "zone-c")
CALLS = ("set_many", "delete_many", "get_many", "get_or_load_many")
SIZES = ((1_000, 100), (10_000, 100), (100_000, 100), (100, 900_000))  # keys, bytes of a value
TIMEOUTS = (None, 30.0)  # None: the default
FILL_KEYS = 1_000
FILL_BYTES = 4_000_000
SETTLE_SECONDS = 1.0  # for what goes on in the background
TICK_SECONDS = 0.001
LONGEST_SECONDS = 90.0  # a call that takes longer is given up

Row = dict[str, Any]


def resident(name: str) -> int:
    """Read a figure of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


def items_of(port: int) -> int:
    """Ask a server how many items it holds."""
    with socket.create_connection(("127.0.0.1", port), 5) as connection, connection.makefile("rb") as answers:
        connection.sendall(b"stats\r\n")
        for line in iter(answers.readline, b"END\r\n"):
            if line.startswith(b"STAT curr_items "):
                return int(line.split()[2])
    return 0


async def measured(call: Callable[[], Awaitable[Any]]) -> tuple[Any, float, float, float]:
    """Return what a call returned or raised, its seconds, its CPU seconds and the longest hold of the loop."""
    worst = 0.0

    async def tick() -> None:
        nonlocal worst
        before = time.thread_time()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = time.thread_time()
            worst, before = max(worst, now - before), now

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0)
    began, cpu = time.monotonic(), time.process_time()
    try:
        async with asyncio.timeout(LONGEST_SECONDS):
            result: Any = await call()
    except (CacheError, TimeoutError) as error:
        result = error
    took, cpu = time.monotonic() - began, time.process_time() - cpu
    await asyncio.sleep(2 * TICK_SECONDS)
    ticking.cancel()
    return result, took, cpu, worst


async def row(call: str, keys: int, size: int, timeout: float | None, *, cold: bool, ports: list[int]) -> Row:
    zones = {name: [f"127.0.0.1:{port}"] for name, port in zip(ZONES, ports, strict=True)}
    names = [f"key:{number}" for number in range(keys)]
    values = {name: b"%06d" % number + b"v" * (size - 6) for number, name in enumerate(names)}
    if call not in ("set_many", "get_or_load_many"):
        async with EVCache("bulk", zones, local_zone=ZONES[0], telemetry=None) as filling:
            portion = max(1, min(FILL_KEYS, FILL_BYTES // size))
            for first in range(0, keys, portion):
                some = {name: values[name] for name in names[first : first + portion]}
                done = await filling.set_many(some, timeout=30, consistency="all")
                assert all(done.values()), "the keys to work on could not be stored"
    async with EVCache("bulk", zones, local_zone=ZONES[0], telemetry=None) as cache:
        if not cold:
            await cache.set_many({f"warm:{number}": b"w" for number in range(100)}, timeout=5, consistency="all")

        async def load(missing: list[str]) -> Mapping[str, Any]:
            return {name: values[name] for name in missing}

        async def work() -> Any:
            if call == "set_many":
                return await cache.set_many(values, timeout=timeout)
            if call == "delete_many":
                return await cache.delete_many(names, timeout=timeout)
            if call == "get_many":
                return await cache.get_many(names, timeout=timeout)
            return await cache.get_or_load_many(names, load, timeout=timeout)

        Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
        before = resident("VmRSS")
        result, took, cpu, hold = await measured(work)
        peak = resident("VmHWM") - before
        if isinstance(result, Exception):
            done = len(getattr(result, "found", {}))
        elif call in ("set_many", "delete_many"):
            done = sum(map(bool, result.values()))
        else:
            done = len(result)
        await asyncio.sleep(SETTLE_SECONDS)
        down = cache.stats().nodes_down
    held = min(map(items_of, ports)) - (0 if cold else 100)
    return {
        "call": call,
        "keys": f"{keys:,}" if size < 100_000 else f"{keys:,} x {size // 1_000} kB",
        "client": "cold" if cold else "warm",
        "timeout": "default" if timeout is None else f"{timeout:g} s",
        "done": f"{100 * done / keys:.0f} %",
        "in all zones": f"{100 * held / keys:.0f} %" if call in ("set_many", "get_or_load_many") else "",
        "error": type(result).__name__ if isinstance(result, Exception) else "",
        "seconds": took,
        "CPU, s": cpu,
        "longest hold, ms": hold * 1e3,
        "memory, MB": peak / 1e6,
        "nodes down": down,
    }


async def small(ports: list[int]) -> Row:
    """Measure the processor time of ordinary bulk calls, of 100 keys each."""
    zones = {name: [f"127.0.0.1:{port}"] for name, port in zip(ZONES, ports, strict=True)}
    values = {f"key:{number}": b"v" * 100 for number in range(100)}
    figures: Row = {}
    async with EVCache("bulk", zones, local_zone=ZONES[0], telemetry=None) as cache:
        await cache.set_many(values, timeout=5, consistency="all")
        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "set_many": lambda: cache.set_many(values, timeout=5, consistency="all"),
            "delete_many": lambda: cache.delete_many(values, timeout=5, consistency="all"),
            "get_many": lambda: cache.get_many(values, timeout=5),
        }
        for name, call in calls.items():
            taken = []
            for _ in range(15):
                began = time.process_time()
                for _ in range(20):
                    await call()
                taken.append((time.process_time() - began) / 20)
            figures[f"{name} of 100, us"] = min(taken) * 1e6
    return figures


def show(one: Row, *, first: bool) -> None:
    """Print a row as it is measured, as part of a Markdown table."""
    if first:
        print("| " + " | ".join(one) + " |\n" + "| --- " * len(one) + "|")
    cells = [f"{figure:,.2f}" if isinstance(figure, float) else str(figure) for figure in one.values()]
    print("| " + " | ".join(cells) + " |", flush=True)


def in_a_process(*arguments: str) -> Row:
    """Measure a row in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.bulk_writes", "--row", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    measured_row: Row = json.loads(done.stdout.splitlines()[-1])
    return measured_row


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bulk_writes", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--calls", nargs="+", default=list(CALLS), choices=CALLS)
    parser.add_argument("--most", type=int, default=100_000, help="keys of the largest row")
    parser.add_argument("--small", action="store_true", help="processor time of calls of 100 keys, and nothing else")
    parser.add_argument("--json", type=Path, help="write the rows there as well")
    parser.add_argument("--row", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.disable(logging.ERROR)
    if options.row is not None:
        call, keys, size, timeout, client, *ports = options.row
        numbers = [int(port) for port in ports]
        seconds = None if timeout == "default" else float(timeout)
        work = (
            small(numbers)
            if call == "small"
            else row(call, int(keys), int(size), seconds, cold=client == "cold", ports=numbers)
        )
        print(json.dumps(asyncio.run(work)))
        return
    rows: list[Row] = []
    if options.small:
        with memcached_nodes(len(ZONES)) as (ports, _):
            rows.append(in_a_process("small", "0", "0", "default", "warm", *map(str, ports)))
        show(rows[0], first=True)
    else:
        for call in options.calls:
            for keys, size in SIZES:
                if keys > options.most:
                    continue
                for client in ("cold", "warm"):
                    for timeout in TIMEOUTS:
                        with memcached_nodes(len(ZONES)) as (ports, _):
                            limit = "default" if timeout is None else str(timeout)
                            rows.append(in_a_process(call, str(keys), str(size), limit, client, *map(str, ports)))
                        show(rows[-1], first=len(rows) == 1)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
