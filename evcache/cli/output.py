"""Text of values on stdout, and JSON."""

from __future__ import annotations

from typing import Any

import click
import msgspec
from rich.console import Console

_MILLISECOND = 1e-3
_TWO_DIGITS = 10  # two digits suffice, because latencies are exact to 5 %


def format_value(value: Any) -> str | bytes:
    """Return the form of a value for stdout: text and bytes unchanged, other values as JSON."""
    return value if isinstance(value, str | bytes) else to_json(value)


def to_json(value: Any) -> str:
    """Return JSON text. Bytes become base64, dates ISO 8601, and other types their `repr`."""
    return msgspec.json.encode(value, enc_hook=repr).decode()


def parse_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        click.BadParameter: The text is not JSON.
    """
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:  # UnicodeEncodeError: the argument is not UTF-8
        raise click.BadParameter(f"not JSON: {error}", param_hint="VALUE") from None


def format_milliseconds(seconds: float) -> str:
    """Return a latency with two digits, or without a fraction from 10 ms on."""
    value = seconds / _MILLISECOND
    return f"{value:.0f} ms" if value >= _TWO_DIGITS else f"{value:.2g} ms"


def is_live(console: Console, *, plain: bool) -> bool:
    """Return True if output can be redrawn in place: on a terminal with control characters, unless `plain` is asked for."""
    return not plain and console.is_terminal and not console.is_dumb_terminal
