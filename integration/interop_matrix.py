"""What two clients write and each other read: key forms, values, and the verdict of each cell."""

from __future__ import annotations

import math
import random
import string
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from evcache.interop import (
    GroupInterop,
    Interop,
    JavaByte,
    JavaFloat,
    JavaInteger,
    JavaLong,
    JavaObject,
    JavaShort,
    KeyHash,
)
from evcache.interop.forms.digests import ALGORITHMS
from integration.jvm import JavaValue

CHUNK_BYTES = 1180
LONG_KEY = "k" * 260
NOISE = string.ascii_letters + string.digits + string.punctuation
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def noise(size: int) -> str:
    """Return text that gzip cannot make much smaller."""
    return "".join(random.Random(size).choices(NOISE, k=size))


@dataclass(frozen=True)
class KeyForm:
    """A form of keys: settings of both clients, and the keys that callers use."""

    name: str
    interop: Interop
    properties: Mapping[str, str] = field(default_factory=dict)
    """Properties of the app, without its name."""
    group_properties: Mapping[str, str] = field(default_factory=dict)
    """Properties of groups, which apply to all apps of a JVM."""
    has_prefix: bool = True
    prefix: Callable[[str], str | None] = lambda namespace: namespace
    """Prefix of the JVM client, from the namespace."""
    ending: str = ""
    """End of each key."""


PLAIN = [
    KeyForm("prefix", Interop()),
    KeyForm("no prefix", Interop(prefix="none"), prefix=lambda _: None, has_prefix=False),
    KeyForm("empty prefix", Interop(prefix="empty"), prefix=lambda _: "", has_prefix=False),
    KeyForm("unicode", Interop(), ending="é\u2007\U0001f600"),
]
HASHED = [
    KeyForm(
        f"hashed, {name}",
        Interop(hash_keys="all", key_hash=KeyHash(name)),
        {"hash.key": "true", "hash.algo": name},
    )
    for name in sorted(ALGORITHMS)
]
OTHERS = [
    KeyForm("long, hashed", Interop(hash_keys="long"), {"auto.hash.keys": "true"}, ending=LONG_KEY),
    KeyForm(
        "hashed by one group",
        Interop(groups={"g1": GroupInterop(hash_keys=True)}),
        group_properties={"g1.hash.key": "true"},
    ),
    KeyForm("chunks", Interop(chunk_bytes=CHUNK_BYTES), {"chunk.data": "true"}),
    KeyForm("hashed, chunks", Interop(hash_keys="all", chunk_bytes=CHUNK_BYTES), {"chunk.data": "true", "hash.key": "true"}),
    KeyForm(
        "chunks in one group",
        Interop(groups={"g0": GroupInterop(chunk_bytes=300)}),
        group_properties={"g0.chunk.data": "true", "g0.chunk.size": "300"},
    ),
]
FORMS = [*PLAIN, *HASHED, *OTHERS]

BOTH = "✓"
TO_PYTHON = "to Python"

# `Object` is written by the JVM client alone, and Python copies it.
TEXTS = {size: [JavaValue("String", noise(size)), JavaValue("String", "é" * size)] for size in (0, 1, 119, 120, 121, 10_000)}
TEXTS[300_000] = [JavaValue("String", noise(300_000))]
ROWS: dict[str, list[JavaValue]] = {
    "Boolean": [JavaValue("Boolean", value) for value in (True, False)],
    "Byte": [JavaValue("Byte", value) for value in (0, 1, -1, 127, -128)],
    "Short": [JavaValue("Short", value) for value in (0, -1, 32767, -32768)],
    "Integer": [JavaValue("Integer", value) for value in (0, 1, 255, 256, -1, 2**31 - 1, -(2**31))],
    "Long": [JavaValue("Long", value) for value in (0, 1, 2**31, -1, 2**63 - 1, -(2**63))],
    "Float": [JavaValue("Float", value) for value in (0.0, -0.0, 1.5, math.inf, math.nan)],
    "Double": [JavaValue("Double", value) for value in (0.0, -0.0, 1.5, 0.1, 5e-324, -math.inf, math.nan)],
    "Date": [JavaValue("Date", value) for value in (0, 1_700_000_000_123, -1)],
    **{f"String {size:,}": texts for size, texts in TEXTS.items()},
    **{f"byte[] {size:,}": [JavaValue("byte[]", text.value.encode()) for text in texts] for size, texts in TEXTS.items()},
    "serialised object": [JavaValue("Object", value) for value in ([], ["a", "é"])],
}

_TO_PYTHON: dict[str, Callable[[Any], Any]] = {
    "Byte": JavaByte,
    "Short": JavaShort,
    "Integer": JavaInteger,
    "Long": JavaLong,
    "Float": JavaFloat,
    "Date": lambda milliseconds: EPOCH + timedelta(milliseconds=milliseconds),
}


def to_python(value: JavaValue) -> Any:
    """Return the value that Python writes for a Java value."""
    return _TO_PYTHON.get(value.type, lambda same: same)(value.value)


def is_read(value: JavaValue, found: Any) -> bool:
    """Return True if Python read what Java wrote."""
    if value.type == "Object":
        return isinstance(found, JavaObject) and found.flags == 1
    expected = to_python(value)
    if isinstance(expected, float):
        return isinstance(found, float) and struct.pack(">d", found) == struct.pack(">d", expected)  # the sign of zero, too
    kind = next(kind for kind in (bool, int, str, bytes, datetime) if isinstance(expected, kind))
    return type(found) is kind and found == expected


def is_same(value: JavaValue, found: JavaValue) -> bool:
    """Return True if Java read what Python wrote. A NaN equals itself."""
    return value.to_json() == found.to_json()


def verdict(*, to_python: bool, to_java: bool) -> str:
    """Return the text of a cell."""
    match to_python, to_java:
        case True, True:
            return BOTH
        case True, False:
            return TO_PYTHON
        case _:
            return "-"


def table(cells: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return the lines of the table, from the verdict of each row by key form. Rows with equal cells stay separate."""
    lines = [f"| key form | {' | '.join(ROWS)} |", f"|{' --- |' * (len(ROWS) + 1)}"]
    return lines + [f"| {name} | {' | '.join(of_form[row] for row in ROWS)} |" for name, of_form in cells.items()]
