"""What readers notice of an outage, on real memcached: three zones of two nodes on this machine, the client in eu-1a.

    python -m benchmarks.outage [--backend docker] [--seconds 8] [--only pause] [--rounds 3] [--json result.json]

    kill, pause, delay   the local zone dies, is stopped (accepts, never answers), or answers 200 ms late: see fault.py
    cold                 the local zone comes back empty: see cold.py
    offered              as many reads as ever are wanted while one, two or all zones are gone: see offered.py
    troubles             zones that stand still for a moment, too little of the processor, connections that a NAT has
                         forgotten, large values: see troubles.py

Each of these modules explains its figures. Servers, proxies and client share this machine. Counts, ratios, and waits of
more than a few milliseconds are comparable. All traffic stays on 127.0.0.1.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
from pathlib import Path

from benchmarks.outage import cold, fault, offered, troubles
from benchmarks.outage.common import find_kind
from benchmarks.outage.table import columns, median_of, plain, seconds_table

SCENARIOS = (*fault.FAULTS, "cold", "offered", "troubles")


def run(options: argparse.Namespace) -> dict[str, object]:
    """Every scenario that is wanted, each on fresh servers; prints each table as soon as it is there."""
    kind = find_kind(options.backend)
    wanted = options.only or SCENARIOS
    load = ", ".join(f"{average:.2f}" for average in os.getloadavg())
    print(f"servers: {kind}; {os.cpu_count()} processors, load average before: {load}")
    print(f"medians of {options.rounds} round(s), texts of the last")
    result: dict[str, object] = {"servers": str(kind), "rounds": options.rounds}

    figures: dict[str, dict[str, object]] = {}
    for name in (name for name in fault.FAULTS if name in wanted):
        figures[name] = median_of([fault.run(kind, name, options.seconds) for _ in range(options.rounds)])
    if figures:
        print(columns("the local zone fails under 32 callers", figures), flush=True)
        result |= figures
    if "cold" in wanted:
        seconds, summary = cold.run(kind, options.seconds)
        print(seconds_table("the local zone comes back empty, under 32 callers", seconds))
        print(columns("which comes to", {"cold": summary}), flush=True)
        result["cold"] = {"seconds": seconds, "summary": summary}
    if "offered" in wanted:
        variants: dict[str, dict[str, object]] = {}
        for variant in offered.VARIANTS:
            rounds = [offered.run(kind, variant, options.rate, options.seconds) for _ in range(options.rounds)]
            variants[variant] = median_of(rounds)
        print(columns(f"{options.rate:,} reads offered each second, whatever is answered", variants), flush=True)
        result["offered"] = variants
    if "troubles" in wanted:
        found: dict[str, dict[str, object]] = {}
        for trouble in troubles.TROUBLES:
            rounds = [troubles.run(kind, trouble, options.seconds) for _ in range(options.rounds)]
            found[trouble] = median_of(rounds)
        print(columns("troubles that are no outage, under 32 callers", found), flush=True)
        result["troubles"] = found
    return result


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.outage", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument(
        "--backend", choices=["auto", "docker", "memcached"], default="auto", help="auto: docker if it is here"
    )
    parser.add_argument(
        "--seconds", type=float, help="length of each phase; otherwise 5 before a fault, and 8 or 10 with it"
    )
    parser.add_argument("--only", action="append", choices=SCENARIOS, help="this one only; may be given more than once")
    parser.add_argument("--rounds", type=int, default=1, help="how often all but `cold` is done; the medians are printed")
    parser.add_argument("--rate", type=int, default=10_000, help="reads offered each second by `offered`")
    parser.add_argument("--json", type=Path, help="write the result there as well")
    options = parser.parse_args()
    # As in the integration tests: LocalZones publishes on the loopback address, and removes its containers itself.
    os.environ.setdefault("TESTCONTAINERS_HOST_OVERRIDE", "127.0.0.1")
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    # SIGTERM removes the containers, as Ctrl-C does. A shell may have started the program with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        result = run(options)
    except KeyboardInterrupt:
        raise SystemExit("interrupted; the servers are removed") from None
    if options.json is not None:
        options.json.write_text(json.dumps(plain(result), indent=2))


if __name__ == "__main__":
    main()
