"""Sets of fields that a read can ask for."""

from __future__ import annotations

from typing import NewType

Fields = NewType("Fields", bytes)
"""Set of fields that a read returns. A constant of this module.

Each is written as the flags of the meta protocol, so that the meta transport sends it as it is. Other transports compare it
with the constants.
"""

READ_FIELDS = Fields(b"v f c")
"""Value, client flags and CAS: what decoding needs, and the order of two values."""
COPY_FIELDS = Fields(b"v f c t")
"""`READ_FIELDS` and the seconds left, for a copy of the item."""
VERSION_FIELDS = Fields(b"c t")
"""CAS and seconds left, to compare an item with a known one."""
INSPECT_FIELDS = Fields(b"f c t s u")
"""All but the value. The read does not count as a use of the item."""
INSPECT_VALUE_FIELDS = Fields(b"v f c t s u")
"""`INSPECT_FIELDS` and the value."""

REPORT_FIELDS = Fields(b"v f c t s l h u")
"""`INSPECT_VALUE_FIELDS`, the seconds since the last use of the item, and a mark if a client has read it."""

NO_FLAGS = -1
"""Flags of no item, in place of client flags."""

FIELDS_WITH_VALUE = frozenset({READ_FIELDS, COPY_FIELDS, INSPECT_VALUE_FIELDS, REPORT_FIELDS})
