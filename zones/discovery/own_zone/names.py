"""Zone names in answers that may hold anything."""

from __future__ import annotations

from evcache.zones.topology.model import is_zone_name

# Characters of an unusable text in a log line. An HTML page begins with its doctype.
SHOWN_CHARACTERS = 40


class NoZone(Exception):
    """Reason for which a source does not name a zone."""


class UnusableSetting(NoZone):
    """Setting of the operator from which no zone can be read."""


def zone_name(text: str) -> str:
    """Return the zone name that a text consists of, without the white space around it.

    Raises:
        NoZone: The text is not a zone name, for example because it is an error page.
    """
    name = text.strip()
    if not is_zone_name(name):
        raise NoZone(f"{shown(name)} is not a zone name")
    return name


def shown(text: str) -> str:
    """Return the beginning of a text for a log line, on one line."""
    return repr(text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}...")
