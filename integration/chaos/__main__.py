"""The command line: `python -m integration.chaos --help`."""

import argparse
import asyncio
import os
import random
import sys
from pathlib import Path

from integration import chaos
from integration.chaos.fault_plan import ZONE_WIDE, Fault
from integration.chaos.program import NO_REPAIR, Settings, TooOld, run
from integration.chaos.report import tell_call
from integration.chaos.without import FIXES, NotInProduct
from integration.servers import BACKEND_VARIABLE, NoServers, find_servers

BROKEN = 1
CANNOT_RUN = 2

SEEDS = 1_000_000


def main() -> int:
    """0: every promise was kept. 1: not. 2: it could not be tried."""
    parser = argparse.ArgumentParser("python -m integration.chaos", description=chaos.__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of faults (60)")
    parser.add_argument("--seed", type=int, help="the same seed gives the same faults and calls; a random one if not given")
    parser.add_argument("--ordering", choices=("newest", "arrival"), default="newest", help="which write wins (newest)")
    parser.add_argument("--no-tombstones", action="store_true", help="let zones forget a delete within a second")
    parser.add_argument("--no-repair", action="store_true", help="no hints, no repair, and no versions remembered")
    parser.add_argument("--long-pauses", action="store_true", help="clients look for lost nodes as rarely as by default")
    parser.add_argument("--zone-wide", action="store_true", help="only faults that all clients feel alike")
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        choices=sorted(FIXES),
        metavar="FIX",
        help=f"switch off: {', '.join(FIXES)}",
    )
    parser.add_argument("--history", metavar="FILE", help="write every call to this file, sorted by key")
    parser.add_argument("--backend", choices=("docker", "memcached", "embedded"), help="where servers come from; the best")
    arguments = parser.parse_args()
    seed = random.randrange(SEEDS) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    settings = Settings(
        seed,
        arguments.seconds,
        ordering=arguments.ordering,
        tombstones=not arguments.no_tombstones,
        options=NO_REPAIR if arguments.no_repair else {},
        short_pauses=not arguments.long_pauses,
        faults=ZONE_WIDE if arguments.zone_wide else tuple(Fault),
        without=arguments.without,
    )
    # As the fixtures of the integration tests have it: see integration/conftest.py.
    os.environ.setdefault("TESTCONTAINERS_HOST_OVERRIDE", "127.0.0.1")
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    try:
        kind = find_servers({**os.environ, BACKEND_VARIABLE: arguments.backend or os.environ.get(BACKEND_VARIABLE, "")}).best
        with kind.local_zones().running() as running:
            report = asyncio.run(run(running, settings, lambda line: print(line, flush=True)))
    except (NoServers, NotInProduct, TooOld) as reason:
        print(reason, file=sys.stderr)
        return CANNOT_RUN
    print("\n".join(report.lines()))
    if arguments.history:
        calls = sorted(report.history, key=lambda call: (call.key, call.invoked))
        Path(arguments.history).write_text("".join(f"{tell_call(call)}\n" for call in calls), "utf-8")
    return BROKEN if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
