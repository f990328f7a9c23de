"""Option `--backend` of the commands that start servers on this machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import click

from evcache.testing.local_zones import BackendName


def backend_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option to a command."""
    return click.option(
        "--backend",
        type=click.Choice(get_args(BackendName)),
        default="auto",
        show_default=True,
        help="Servers: memcached processes, docker containers, or embedded servers, which need no installation. "
        "auto: memcached if a binary is found, otherwise embedded.",
    )(command)
