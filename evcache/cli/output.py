"""Text of values on stdout, and JSON."""

from __future__ import annotations

from typing import Any

import click
import msgspec


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
