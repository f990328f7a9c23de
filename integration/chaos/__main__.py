"""The command line: `python -m integration.chaos --help`."""

import argparse
import asyncio
import os
import random
import sys

from integration import chaos
from integration.chaos.program import NO_REPAIR, Settings, TooOld, run
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
    )
    # As the fixtures of the integration tests have it: see integration/conftest.py.
    os.environ.setdefault("TESTCONTAINERS_HOST_OVERRIDE", "127.0.0.1")
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    try:
        kind = find_servers({**os.environ, BACKEND_VARIABLE: arguments.backend or os.environ.get(BACKEND_VARIABLE, "")}).best
        with kind.local_zones().running() as running:
            print(f"memcached {running.version}, {running.backend}", flush=True)
            report = asyncio.run(run(running, settings, lambda line: print(line, flush=True)))
    except (NoServers, TooOld) as reason:
        print(reason, file=sys.stderr)
        return CANNOT_RUN
    print("\n".join(report.lines()))
    return BROKEN if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
