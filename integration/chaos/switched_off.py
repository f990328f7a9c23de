"""Repeats one run, each time with one fix switched off. The run must then find the defect of that fix.

python -m integration.chaos.switched_off --seconds 120 --seed 7
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
from collections.abc import Iterable

from evcache.testing import RunningZones
from integration.chaos.program import Settings, TooOld, run
from integration.chaos.promises import Promise
from integration.chaos.report import Report
from integration.chaos.without import FIXES, NotInProduct
from integration.servers import NoServers, find_servers

NOT_FOUND = 1
CANNOT_RUN = 2
SEEDS = 1_000_000

CONVERGENCE_SECONDS = 30.0


def main() -> int:
    """0: every defect was found. 1: some were not, or are there with all fixes too. 2: it could not be tried."""
    shown = [name for name, fix in FIXES.items() if fix.breaks]
    parser = argparse.ArgumentParser("python -m integration.chaos.switched_off", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="of faults, in each run (120)")
    parser.add_argument("--seed", type=int, help="of all runs; a random one if not given")
    parser.add_argument("fixes", nargs="*", metavar="FIX", default=shown, help=f"which; all of {', '.join(shown)}")
    arguments = parser.parse_args()
    if unknown := set(arguments.fixes) - set(shown):
        parser.error(f"no run shows the defect of: {', '.join(sorted(unknown))}")
    seed = random.randrange(SEEDS) if arguments.seed is None else arguments.seed
    # As the fixtures of the integration tests have it: see integration/conftest.py.
    os.environ.setdefault("TESTCONTAINERS_HOST_OVERRIDE", "127.0.0.1")
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    try:
        with find_servers().best.local_zones().running() as running:
            print(f"seed {seed}; memcached {running.version}, {running.backend}", flush=True)
            return _run_all(running, seed, arguments.seconds, arguments.fixes)
    except (NoServers, TooOld) as reason:
        print(reason, file=sys.stderr)
        return CANNOT_RUN


def _run_all(running: RunningZones, seed: int, seconds: float, names: Iterable[str]) -> int:
    print("with every fix", flush=True)
    before = _run(running, seed, seconds, ())
    _tell(before, Promise)
    missing = 0
    for name in names:
        fix = FIXES[name]
        print(f"without {name}: {fix.what}", flush=True)
        try:
            report = _run(running, seed, seconds, (name,))
        except NotInProduct as reason:
            print(f"  {reason}", flush=True)
            missing += 1
            continue
        _tell(report, fix.breaks)
        if not is_shown(report, before, fix.breaks):
            print("  its defect was not found, or is there with every fix too", flush=True)
            missing += 1
    return NOT_FOUND if missing else 0


def _run(running: RunningZones, seed: int, seconds: float, without: Iterable[str]) -> Report:
    settings = Settings(seed, seconds, without=tuple(without), convergence=CONVERGENCE_SECONDS)
    return asyncio.run(run(running, settings, lambda _: None))


def is_shown(report: Report, before: Report, promises: Iterable[Promise]) -> bool:
    """Return True if a run broke one of these promises, which the run with every fix had kept."""
    return any(report.broken[promise] and not before.broken[promise] for promise in promises)


def _tell(report: Report, promises: Iterable[Promise]) -> None:
    for promise in promises:
        if report.broken[promise]:
            first = next(violation for violation in report.violations if violation.promise is promise)
            print(f"  {report.broken[promise]:5} violations of: {promise}", flush=True)
            print(f"        {first.key}: {first.story}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
