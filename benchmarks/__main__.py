"""Runs every contender in turn on the same work, round after round, and prints medians and ratios.

Machines are noisy, and get slower or faster while a benchmark runs: so the contenders take turns in short rounds, the
median of the rounds counts, and what is worth quoting is the ratio between clients of one run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.contenders import Contender, contenders
from benchmarks.servers import memcached_nodes

ZONES = 3
VALUE_BYTES = 100
CALLERS = (1, 32, 256)
OURS = "evcache"


async def operations_per_second(call: Callable[[], Awaitable[object]], callers: int, seconds: float) -> float:
    """How many calls so many callers get through, each waiting for its answer before the next."""
    done = 0
    running = True

    async def caller() -> None:
        nonlocal done
        while running:
            await call()
            done += 1

    began = time.perf_counter()
    tasks = [asyncio.create_task(caller()) for _ in range(callers)]
    await asyncio.sleep(seconds)
    running = False
    await asyncio.gather(*tasks)
    return done / (time.perf_counter() - began)


async def measure(clients: list[Contender], seconds: float, rounds: int) -> list[dict[str, object]]:
    """Every kind of work with every number of callers: the median of each contender."""
    rows: list[dict[str, object]] = []
    work: dict[str, Callable[[Contender], Callable[[], Awaitable[object]]]] = {
        "get hit": lambda client: client.get,
        "set to 3 zones": lambda client: client.set_everywhere,
    }
    for what, operation in work.items():
        for callers in CALLERS:
            rates: dict[str, list[float]] = {client.name: [] for client in clients}
            for number in range(rounds + 1):
                for client in clients:
                    rate = await operations_per_second(operation(client), callers, seconds)
                    if number:  # the first round warms up
                        rates[client.name].append(rate)
            rows.append(
                {
                    "work": what,
                    "callers": callers,
                    "per_second": {name: statistics.median(values) for name, values in rates.items()},
                }
            )
    return rows


def table(rows: list[dict[str, object]]) -> str:
    """Operations per second, and how many times those of each peer ours are."""
    lines = []
    for row in rows:
        rates: dict[str, float] = row["per_second"]  # type: ignore[assignment]
        lines.append(f"{row['work']}, {row['callers']} callers")
        for name, rate in rates.items():
            ratio = (
                ""
                if name.startswith(OURS)
                else "".join(f"  {rates[ours] / rate:5.1f}x {ours}" for ours in rates if ours.startswith(OURS))
            )
            lines.append(f"    {name:18} {rate:9,.0f}/s{ratio}")
    return "\n".join(lines)


async def run(seconds: float, rounds: int) -> dict[str, object]:
    """Start servers, connect everyone, measure."""
    with memcached_nodes(ZONES) as (ports, servers):
        print(f"{ZONES} zones of one node: {servers}; values of {VALUE_BYTES} bytes")
        async with contenders(ports, b"v" * VALUE_BYTES) as clients:
            rows = await measure(clients, seconds, rounds)
    return {"servers": servers, "value_bytes": VALUE_BYTES, "rows": rows}


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=0.5, help="length of a round of one contender")
    parser.add_argument("--rounds", type=int, default=7, help="rounds that count, after one that warms up")
    parser.add_argument("--json", type=Path, help="write the result there as well")
    options = parser.parse_args()
    result = asyncio.run(run(options.seconds, options.rounds))
    print(table(result["rows"]))  # type: ignore[arg-type]
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
