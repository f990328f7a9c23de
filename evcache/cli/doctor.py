"""Command `evcache doctor`: faults of zones and nodes, each with its fix."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Literal, get_args

import click

from evcache.admin.doctor.catalog import FAULTS
from evcache.admin.doctor.examination import can_be_read, judge_all
from evcache.admin.doctor.findings import Finding, Verdict, without
from evcache.admin.doctor.gather import gather
from evcache.admin.doctor.node_questions import CONNECT_SHARE
from evcache.cli.open_cluster import open_cluster
from evcache.cli.output import to_json
from evcache.cli.runner import Status, run_command
from evcache.cli.target import NAMESPACE_VARIABLE, Target, for_zones
from evcache.options import Ordering
from evcache.values.keys import Keys
from evcache.zones.discovery.local_zone import AUTO
from evcache.zones.transport.core import selected
from evcache.zones.validation import positive_seconds


@dataclass(frozen=True, slots=True)
class Examined:
    """Result of the command."""

    client: str
    """Version of this package."""
    core: str
    """Core of the protocol that runs, compiled or pure."""
    python: str
    zones: int
    nodes: int
    answering: int
    """Number of nodes with a usable connection."""
    readable: bool
    """True if at least one zone can be read."""
    findings: tuple[Finding, ...]

    @property
    def faults(self) -> list[Finding]:
        """Findings other than `ok`."""
        return [finding for finding in self.findings if finding.verdict is not Verdict.OK]


@click.command(short_help="Examine all zones and nodes, and name their faults and fixes.")
@click.option(
    "--namespace",
    "expected",
    envvar=NAMESPACE_VARIABLE,
    show_envvar=True,
    help="Namespace that the zones should hold. Without it, the namespaces of the zones are compared only.",
)
@click.option(
    "--hints",
    type=click.Path(),
    metavar="PATH",
    help="File of a service's hints, as in Hints(path=...). Its disk is examined, also if there is no file yet.",
)
@click.option(
    "--ignore",
    multiple=True,
    type=click.Choice([fault.name for fault in FAULTS]),
    metavar="NAME",
    help="Name of a finding that is accepted, for example connection-relayed behind a NAT. May be repeated.",
)
@click.option(
    "--ordering",
    type=click.Choice(get_args(Ordering)),
    default="newest",
    show_default=True,
    help="Ordering of the clients. arrival: a zone that keeps no versions is no problem.",
)
@for_zones
def doctor(
    target: Target,
    expected: str | None,
    hints: str | None,
    ignore: tuple[str, ...],
    ordering: Literal["newest", "arrival"],
) -> None:
    """Examine all zones and nodes, and name their faults, each with its fix.

    The command stores nothing on servers. It lists up to 200 keys of each node, without their values.

    Each line has a verdict. ok: no fault of this subject. warning: less capacity, features or safety than possible.
    problem: reads or writes fail, or return wrong values.

    Exit status 0: no warning and no problem; 1: a warning or a problem; 3: no zone can be read.

    For example:

    \b
        evcache doctor
        evcache doctor --namespace sessions --hints /var/lib/sessions/hints.db
        evcache doctor --ignore connection-relayed --json
    """  # noqa: D301  # click reads a backspace as: do not wrap the next paragraph
    found = run_command(_examine(target, expected, hints, ignore, needs_versions=ordering == "newest"))
    click.echo(to_json(found) if target.as_json else "\n".join(lines(found)))
    raise SystemExit(status(found))


async def _examine(
    target: Target, namespace: str | None, hints: str | None, ignore: Sequence[str], *, needs_versions: bool
) -> Examined:
    seconds = positive_seconds(target.timeout, "timeout")
    if namespace is not None:
        Keys(namespace)  # the error names the argument
    settings = target.node_settings(connect_timeout=CONNECT_SHARE * seconds)
    tolerant = replace(target, is_local_zone_typed=False)  # a missing local zone is a finding, and no error
    async with open_cluster(tolerant, connect_timeout=settings.connect_timeout) as view:
        facts = await gather(
            view,
            settings,
            seconds=seconds,
            uses_tls=target.security.has_tls,
            namespace=namespace,
            local_zone=view.local or (None if target.local_zone == AUTO else target.local_zone),
            needs_versions=needs_versions,
            hints_path=hints,
        )
    return Examined(
        client=_client_version(),
        core=selected.SELECTED.name,
        python=platform.python_version(),
        zones=len(facts.zones),
        nodes=len(facts.nodes),
        answering=len(facts.answering),
        readable=can_be_read(facts),
        findings=tuple(without(judge_all(facts), ignore)),
    )


def _client_version() -> str:
    """Return the version of this package, also for a source tree that is not installed."""
    try:
        return version("evcache")
    except PackageNotFoundError:
        return "(not installed)"


def status(found: Examined) -> Status:
    """Return the exit status of an examination."""
    if not found.readable:
        return Status.UNAVAILABLE
    return Status.NO if found.faults else Status.DONE


def lines(found: Examined) -> list[str]:
    """Return the lines of an examination: the programs, a line for each finding with its fix, and the numbers."""
    text = [f"evcache {found.client}, {found.core} core, Python {found.python}", ""]
    verdict_width = max(map(len, Verdict))
    width = max((len(finding.subject) for finding in found.findings), default=0)
    for finding in found.findings:
        text.append(f"{finding.verdict:<{verdict_width}}  {finding.subject:<{width}}  {finding.text}")
        if finding.fix is not None:
            text.append(f"{'':<{verdict_width}}  {'':<{width}}  fix: {finding.fix} ({finding.name})")
    numbers = Counter(finding.verdict for finding in found.faults)
    counts = [
        f"{numbers[verdict]} {verdict}{'' if numbers[verdict] == 1 else 's'}"
        for verdict in (Verdict.PROBLEM, Verdict.WARNING)
    ]
    return [*text, "", ", ".join(counts) if found.readable else f"no zone can be read; {', '.join(counts)}"]
