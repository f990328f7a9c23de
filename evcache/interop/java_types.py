"""Java types that Python lacks: numbers of a width, and objects in Java serialization.

They mark a value for `InteropCodec`. A number is equal to the plain number, has the same hash, and can be pickled.
"""

from __future__ import annotations

import struct
from typing import ClassVar, NamedTuple, Self

from evcache.zones.errors import InvalidArgument
from evcache.zones.validation import number


class _JavaInt(int):
    """An int of a width in bits."""

    __slots__ = ()
    _BITS: ClassVar[int]

    def __new__(cls, value: int) -> Self:
        """Check the range of the number.

        Args:
            value: Number within the range of the Java type.

        Raises:
            InvalidArgument: The value is no int, or outside the range.
        """
        highest = 2 ** (cls._BITS - 1) - 1
        number(value, cls.__name__, minimum=-highest - 1, maximum=highest, whole=True)
        return super().__new__(cls, value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({int(self)})"

    __str__ = int.__repr__  # the digits, as for an int


class JavaByte(_JavaInt):
    """An int that Java reads as `Byte`: -128 to 127."""

    __slots__ = ()
    _BITS = 8


class JavaShort(_JavaInt):
    """An int that Java reads as `Short`: 16 bits, signed."""

    __slots__ = ()
    _BITS = 16


class JavaInteger(_JavaInt):
    """An int that Java reads as `Integer`: 32 bits, signed."""

    __slots__ = ()
    _BITS = 32


class JavaLong(_JavaInt):
    """An int that Java reads as `Long`: 64 bits, signed."""

    __slots__ = ()
    _BITS = 64


class JavaFloat(float):
    """A float that Java reads as `Float`.

    It is rounded to 32 bits when it is made, so it is equal to the value that is read.
    """

    __slots__ = ()

    def __new__(cls, value: float) -> Self:
        """Round the number to 32 bits.

        Args:
            value: Number to round. NaN and infinity are allowed.

        Raises:
            InvalidArgument: The value is no number, or exceeds the largest float of 32 bits.
        """
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise InvalidArgument("JavaFloat", f"a number is required, not {value!r}")
        try:
            (rounded,) = struct.unpack(">f", struct.pack(">f", float(value)))
        except OverflowError:
            raise InvalidArgument("JavaFloat", "a number is required that fits a float of 32 bits") from None
        return super().__new__(cls, rounded)

    def __repr__(self) -> str:
        return f"JavaFloat({float(self)!r})"

    __str__ = float.__repr__  # the number, as for a float


class JavaObject(NamedTuple):
    """A Java object as it is stored. Python can copy it, and a JVM can read it."""

    data: bytes
    """Bytes as stored: Java serialization, compressed if the flags say so."""
    flags: int = 1
    """Client flags as stored: 1, or 3 if the bytes are compressed with gzip."""
