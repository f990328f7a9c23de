"""Command `evcache compare`: the differences between two zones, and their repair."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import click

from evcache.admin.copying.compare import Comparer, CompareTally
from evcache.admin.copying.difference import Kind
from evcache.cli.copying.options import REFUSED, copying_options, key_source, shown_progress, unlisted_lines, zone_of
from evcache.cli.open_cluster import open_cluster
from evcache.cli.output import to_json
from evcache.cli.runner import BadUse, Status, run_command
from evcache.cli.target import Target
from evcache.zones.errors import Unsupported

DEFAULT_SAMPLE = 10_000


@click.command()
@click.argument("first", metavar="ZONE")
@click.argument("second", metavar="ZONE")
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    default=DEFAULT_SAMPLE,
    show_default=True,
    metavar="N",
    help="Number of keys of each zone, chosen at random.",
)
@click.option("--all", "is_whole", is_flag=True, help="Compare all keys in place of a sample.")
@click.option("--repair", is_flag=True, help="Copy the newer version to the zone that lacks it.")
@click.option("--values", is_flag=True, help="Compare the values of equal versions, too. All values are read.")
@copying_options
def compare(
    target: Target,
    first: str,
    second: str,
    sample: int,
    rate: float,
    only: str | None,
    keys_file: Path | None,
    *,
    is_whole: bool,
    repair: bool,
    values: bool,
) -> None:
    """Compare what two zones hold under the same keys, by version.

    Keys that differ are compared again after a second, because a write reaches the zones at different times. A repair never
    replaces a newer version. Items without versions are compared by value, and not repaired.

    \b
    Examples:
      evcache compare eu-1a eu-1b
      evcache compare eu-1a eu-1b --all --repair --rate 20000
      evcache compare eu-1a eu-1b --namespace sessions --values

    Exit status 0: no key differs, or all were repaired; 1: keys differ; 3: the zones cannot be reached.
    """  # noqa: D301  # click reads a backspace as: do not wrap the next paragraph
    if first == second:
        raise BadUse("the two zones are the same")
    found = run_command(
        _compare(target, (first, second), None if is_whole else sample, rate, only, keys_file, repair=repair, values=values)
    )
    tally, unlisted = found
    if target.as_json:
        click.echo(to_json(fields(tally) | {"unlisted_nodes": unlisted}))
    else:
        click.echo("\n".join(lines(tally, repair=repair) + unlisted_lines(unlisted)))
    if not tally.compared and tally.unanswered:
        raise SystemExit(Status.UNAVAILABLE)
    raise SystemExit(Status.NO if tally.remaining or tally.unanswered or unlisted else Status.DONE)


async def _compare(
    target: Target,
    zones: tuple[str, str],
    sample: int | None,
    rate: float,
    only: str | None,
    keys_file: Path | None,
    *,
    repair: bool,
    values: bool,
) -> tuple[CompareTally, Mapping[str, str]]:
    settings = target.node_settings(connect_timeout=target.timeout)
    async with open_cluster(target, connect_timeout=target.timeout) as view:
        pools = zone_of(view, zones[0], "ZONE"), zone_of(view, zones[1], "ZONE")
        keys = key_source(settings, only, keys_file, sample)
        run = Comparer(pools, keys, keys_per_second=rate, repair=repair, values=values)
        total = None if sample is None or keys_file else 2 * sample
        try:
            async with shown_progress(" and ".join(zones), lambda: run.tally.compared, total):
                await run.run()
        except Unsupported as error:
            raise BadUse(f"{error}. {REFUSED}") from None
        return run.tally, keys.failures


def fields(found: CompareTally) -> dict[str, object]:
    """Return the fields of a result for JSON. Keys are texts; bytes that are not ASCII are escaped."""
    return {
        "compared": found.compared,
        "different": found.different,
        "repaired": found.repaired,
        "unanswered": found.unanswered,
        "differences": [
            {"kind": kind.value, "stale": zone, "keys": number, "examples": _examples(found, (kind, zone))}
            for (kind, zone), number in found.differences.most_common()
        ],
    }


def lines(found: CompareTally, *, repair: bool) -> list[str]:
    """Return the lines of a result."""
    share = found.different / found.compared if found.compared else math.nan
    text = [
        f"{found.compared:,} keys compared: {found.different:,} differ" + (f" ({share:.2%})" if found.different else ""),
    ]
    for (kind, zone), number in found.differences.most_common():
        text.append(f"  {kind.value}{'' if zone is None else f' in {zone}'}: {number:,}, for example")
        text += [f"    {key}" for key in _examples(found, (kind, zone))]
    if found.unanswered:
        text.append(f"  not compared, because a node did not answer: {found.unanswered:,}")
    if repair:
        text.append(f"{found.repaired:,} repaired")
    elif any(zone is not None for _, zone in found.differences):
        text.append("with --repair the command copies the newer versions")
    return text


def _examples(found: CompareTally, place: tuple[Kind, str | None]) -> list[str]:
    return [key.decode("ascii", "backslashreplace") for key in found.examples[place]]
