"""Values with a Java type, as the requests and replies of the Java program hold them."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

NUMBERS = ("Byte", "Short", "Integer", "Long", "Date")
"""Types whose value is an int. A date counts milliseconds since 1970."""


@dataclass(frozen=True)
class JavaValue:
    """A Java type and the value in Python.

    The types are Boolean, Byte, Short, Integer, Long, Float, Double, String, Date, byte[], and Object for an ArrayList of
    strings. A result has the type null if the client found nothing.
    """

    type: str
    value: Any = None

    def to_json(self) -> dict[str, Any]:
        """Return the form of requests. JSON numbers would lose bits of a long or a double."""
        encode, _ = _FORMS.get(self.type, _SAME)
        return {"type": self.type, "value": encode(self.value)}

    @classmethod
    def from_json(cls, json: dict[str, Any]) -> JavaValue:
        """Return the value of a reply."""
        _, decode = _FORMS.get(json["type"], _SAME)
        return cls(json["type"], decode(json["value"]))

    @property
    def is_null(self) -> bool:
        """True if the client returned null."""
        return self.type == "null"


_Form = tuple[Callable[[Any], Any], Callable[[Any], Any]]

_SAME: _Form = (lambda value: value, lambda json: json)

_FORMS: dict[str, _Form] = {
    **dict.fromkeys(NUMBERS, (str, int)),
    "Float": (lambda value: struct.pack(">f", value).hex(), lambda json: struct.unpack(">f", bytes.fromhex(json))[0]),
    "Double": (lambda value: struct.pack(">d", value).hex(), lambda json: struct.unpack(">d", bytes.fromhex(json))[0]),
    "byte[]": (lambda value: base64.b64encode(value).decode(), base64.b64decode),
}
