"""The group of commands `evcache`."""

from __future__ import annotations

import logging
import signal
from typing import Any

import click

from evcache.cli import check, doctor, explain, get, up, write_commands
from evcache.cli.bench.command import bench
from evcache.cli.copying.compare import compare
from evcache.cli.copying.warm import warm
from evcache.cli.demo.command import demo
from evcache.cli.runner import SIGNAL_STATUS
from evcache.cli.top.command import top
from evcache.zones.transport.core import selected


class _Commands(click.Group):
    """Group of commands that Ctrl-C ends with 130 wherever it arrives. click's own status of an interrupt is 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command of the arguments."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # before the event loop runs, or after it
            raise SystemExit(SIGNAL_STATUS + signal.SIGINT) from None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(
    package_name="evcache", prog_name="evcache", message=f"%(prog)s %(version)s, {selected.SELECTED.name} core"
)
def evcache() -> None:
    """Read and write a cache across availability zones, run zones on this machine, or show an outage.

    Exit statuses:

    \b
        0    success
        1    negative result: a miss, a write that too few zones have, a fault that `check` or `doctor` found
        2    an argument cannot be used; nothing was sent
        3    no zone answered, or none can be read
        128  plus the number of the signal that stopped the command
    """  # noqa: D301  # click reads a backspace as: do not wrap the next paragraph
    # Commands print the state of zones. Log lines of the library in between would break the table of the demo.
    logger = logging.getLogger("evcache")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())


_OF_KEYS = (get.get, write_commands.set_, write_commands.delete, explain.explain)
_OF_ZONES = (check.check, doctor.doctor, top, bench, compare, warm)
_OF_THIS_MACHINE = (up.up, demo)

for _command in (*_OF_KEYS, *_OF_ZONES, *_OF_THIS_MACHINE):
    evcache.add_command(_command)
