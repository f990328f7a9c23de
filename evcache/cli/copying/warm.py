"""Command `evcache warm`: copy the items of one zone to another."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from evcache.admin.copying.copier import CopyTally
from evcache.admin.copying.decision import Skip
from evcache.admin.copying.warm import SampleCheck, WarmLimits, WarmUp
from evcache.cli.copying.options import (
    REFUSED,
    copying_options,
    count_items,
    key_source,
    shown_progress,
    unlisted_lines,
    zone_of,
)
from evcache.cli.numbers import FiniteRange
from evcache.cli.open_cluster import open_cluster
from evcache.cli.output import to_json
from evcache.cli.runner import BadUse, Status, run_command
from evcache.cli.target import Target
from evcache.zones.errors import Unsupported

MEGABYTE = 1_000_000

OR_WAIT = "or leave the zone write-only for the longest TTL of its items, by which time clients have written them all"


@dataclass(frozen=True, slots=True)
class WarmReport:
    """Result of a warm-up."""

    source: str
    target: str
    seconds: float
    tally: CopyTally
    check: SampleCheck | None
    """Comparison of a sample. None if the run was interrupted."""
    source_items: int | None
    """Number of items of the source after the run, as its servers report it. None if one does not."""
    target_items: int | None
    unlisted: Mapping[str, str]
    """Reasons for which nodes of the source did not list their keys, by label."""

    @property
    def is_complete(self) -> bool:
        """True if the target has every key that can be copied."""
        failed = self.tally.failed + self.tally.refused + self.tally.skipped[Skip.UNKNOWN_LIFETIME]
        return not failed and not self.unlisted and self.check is not None and self.check.in_place == self.check.keys


@click.command(short_help="Copy the items of a zone to another zone.")
@click.option("--from", "source", required=True, metavar="ZONE", help="Zone whose items are copied.")
@click.option("--to", "target_zone", required=True, metavar="ZONE", help="Zone that receives them, usually write-only.")
@click.option(
    "--megabytes",
    type=FiniteRange(min=0, min_open=True),
    metavar="N",
    help="Largest number of megabytes of values per second.",
)
@copying_options
def warm(
    target: Target,
    source: str,
    target_zone: str,
    rate: float,
    megabytes: float | None,
    only: str | None,
    keys_file: Path | None,
) -> None:
    """Copy the items of a zone to another zone, with their versions, flags and remaining lifetimes.

    A copy never replaces a newer version, so clients may write at the same time. The command can be interrupted and run
    again: it then copies what is missing. At its end it compares a sample of the keys in both zones.

    \b
    Examples:
      evcache warm --from eu-1a --to eu-1d
      evcache warm --from eu-1a --to eu-1d --rate 20000 --megabytes 50
      evcache warm --from eu-1a --to eu-1d --namespace sessions --keys keys.txt

    Exit status 0: the target has the items; 1: keys failed or differ; 3: the zones cannot be reached.
    """  # noqa: D301  # click reads a backspace as: do not wrap the next paragraph
    if source == target_zone:
        raise BadUse("--from and --to name the same zone")
    limits = WarmLimits(rate, math.inf if megabytes is None else megabytes * MEGABYTE)
    found = run_command(_warm(target, source, target_zone, limits, only, keys_file))
    click.echo(to_json(fields(found)) if target.as_json else "\n".join(lines(found)))
    raise SystemExit(Status.DONE if found.is_complete else Status.NO)


async def _warm(
    target: Target, source: str, target_zone: str, limits: WarmLimits, only: str | None, keys_file: Path | None
) -> WarmReport:
    loop = asyncio.get_running_loop()
    settings = target.node_settings(connect_timeout=target.timeout)
    async with open_cluster(target, connect_timeout=target.timeout) as view:
        pools = zone_of(view, source, "--from"), zone_of(view, target_zone, "--to")
        keys = key_source(settings, only, keys_file)
        run = WarmUp(*pools, keys, limits)
        total = None if only or keys_file else await count_items(pools[0], settings)
        began = loop.time()
        try:
            async with shown_progress(f"{source} to {target_zone}", lambda: run.tally.keys, total):
                await run.run()
            seconds = loop.time() - began
            check = await run.check()
        except Unsupported as error:
            raise BadUse(f"{error}. {REFUSED}; {OR_WAIT}") from None
        except asyncio.CancelledError:
            copied = f"{run.tally.copied:,} keys copied"
            click.echo(f"interrupted: {copied}; run the same command again to copy the others", err=True)
            raise
        of_source, of_target = [await count_items(pool, settings) for pool in pools]
        return WarmReport(source, target_zone, seconds, run.tally, check, of_source, of_target, keys.failures)


def fields(found: WarmReport) -> dict[str, object]:
    """Return the fields of a report for JSON."""
    tally = found.tally
    return {
        "from": found.source,
        "to": found.target,
        "complete": found.is_complete,
        "seconds": found.seconds,
        "keys": tally.keys,
        "copied": tally.copied,
        "value_bytes": tally.value_bytes,
        "superseded": tally.superseded,
        "refused": tally.refused,
        "failed": tally.failed,
        "unlisted_nodes": dict(found.unlisted),
        "skipped": {reason.value: number for reason, number in tally.skipped.items()},
        "sample": None if found.check is None else {"keys": found.check.keys, "in_place": found.check.in_place},
        "items": {found.source: found.source_items, found.target: found.target_items},
    }


def lines(found: WarmReport) -> list[str]:
    """Return the lines of a report. Numbers that are 0 are left out, except that of the copied keys."""
    tally = found.tally
    speed = tally.keys / found.seconds if found.seconds else 0.0
    state = "done" if found.is_complete else "not complete"
    text = [
        f"{state}: {tally.keys:,} keys of {found.source} in {found.seconds:.1f} s, {speed:,.0f} keys/s",
        f"  copied to {found.target}: {tally.copied:,} keys, {tally.value_bytes / MEGABYTE:,.1f} MB of values",
    ]
    numbers = {
        f"in place before, in {found.target}": tally.skipped[Skip.PRESENT],
        f"newer in {found.target} when the copy arrived": tally.superseded,
        f"gone from {found.source}": tally.skipped[Skip.GONE],
        "expiring": tally.skipped[Skip.EXPIRING],
        f"too large for {found.target}": tally.skipped[Skip.TOO_LARGE],
        "of unknown lifetime: the server speaks the classic protocol": tally.skipped[Skip.UNKNOWN_LIFETIME],
        f"refused by {found.target}, whose memory may be full": tally.refused,
        "failed: a node did not answer; run the command again": tally.failed,
    }
    text += [f"  {what}: {number:,}" for what, number in numbers.items() if number]
    text += unlisted_lines(found.unlisted)
    if found.check is not None:
        text.append(f"  sample: {found.check.in_place:,} of {found.check.keys:,} keys in place")
    if found.source_items is not None and found.target_items is not None:
        text.append(f"  items: {found.source_items:,} in {found.source}, {found.target_items:,} in {found.target}")
    return text
