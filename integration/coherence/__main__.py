"""The command line: `python -m integration.coherence --help`."""

import argparse
import random
import sys
import time

from integration import coherence
from integration.coherence.program import Guard, Settings, run

BROKEN = 1
SEEDS = 1_000_000


def main() -> int:
    """Return 0 if no near hit was stale. Return 1 if one was, or if the run could not have found any."""
    parser = argparse.ArgumentParser("python -m integration.coherence", description=coherence.__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="of virtual time, for each of three runs (300)")
    parser.add_argument("--seed", type=int, help="the same seed gives the same run; a random one if not given")
    arguments = parser.parse_args()
    seed = random.randrange(SEEDS) if arguments.seed is None else arguments.seed
    print(f"seed {seed}, {arguments.seconds:g} s of virtual time", flush=True)
    print("Stale: older than an announcement that the client had heard. Behind: than one that was made, heard or not.")
    print(
        f"{'':24}{'near hits':>10}{'of reads':>10}{'stale ppm':>11}{'kept':>6}{'worst':>9}{'behind ppm':>12}{'worst':>9}{'took':>8}"
    )
    seen = {}
    for guard in Guard:
        began = time.monotonic()
        seen[guard] = counts = run(Settings(seed, arguments.seconds, guard))
        print(
            f"{guard.value:24}{counts.hits:>10,}{counts.hits / max(1, counts.reads):>10.1%}{counts.ppm:>11,.0f}{counts.kept:>6}"
            f"{counts.worst:>7.1f} s{counts.ppm_behind:>12,.0f}{counts.worst_behind:>7.2f} s{time.monotonic() - began:>6.1f} s",
            flush=True,
        )
        print(f"  {counts.writes:,} writes, {counts.heard:,} announcements heard, {counts.gaps} gaps, {counts.torn} torn")
    guarded = seen[Guard.ALL]
    if guarded.stale or guarded.torn or guarded.gaps:
        print("near hits were older than what their clients had heard, or there were gaps or torn values where none can be")
        return BROKEN
    if not seen[Guard.NO_FLOORS].stale or not seen[Guard.NOTHING].stale:
        print("none was older without guards either, which says nothing about them: a longer run does")
        return BROKEN
    print("no near hit was older than an announcement that its client had heard")
    return 0


if __name__ == "__main__":
    sys.exit(main())
