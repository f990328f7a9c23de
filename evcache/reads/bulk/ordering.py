"""Order of the result of a bulk read."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from evcache.options import Key

# Keys that are looked up before other tasks run: about a millisecond.
_KEYS_AT_ONCE = 4_096


async def in_order(given: Sequence[Key], values: Mapping[Key, Any]) -> dict[Key, Any]:
    """Return values in the order of the keys as given. A long call runs in steps."""
    ordered: dict[Key, Any] = {}
    is_complete = len(values) == len(given)
    for first in range(0, len(given), _KEYS_AT_ONCE):
        if first:
            await asyncio.sleep(0)
        some = given[first : first + _KEYS_AT_ONCE]
        if not is_complete:
            some = [key for key in some if key in values]
        ordered.update(zip(some, map(values.__getitem__, some), strict=True))
    return ordered
