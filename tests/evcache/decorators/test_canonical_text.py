"""Canonical texts of values: their form, different texts for different values, and refused values."""

import decimal
import enum
import io
import string
import struct
import sys
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID, SafeUUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evcache.decorators.canonical_text import NoCanonicalTextError, canonical, escape, is_separator, template_text
from tests.support.call_values import BERLIN, FORMS, ID, NAIVE, Level, Shade, a_pair, identity, load, problem, values


@pytest.mark.parametrize(("value", "form", "text"), FORMS, ids=ascii)
def test_texts_of_values_never_change(value, form, text):
    """Processes of other versions read the same keys."""
    assert canonical(value) == form
    assert template_text(value) == text


# Smallest file of a time zone: no changes, and one offset of 0, named UTC.
UTC_FILE = b"TZif" + bytes(16) + struct.pack(">6l", 0, 0, 0, 0, 1, 4) + bytes(6) + b"UTC\0"


class Pair(NamedTuple):
    a: int


NOT_EXACT = [
    object(),
    [1],
    {"a": 1},
    {1},
    frozenset(),
    bytearray(b"a"),
    memoryview(b"a"),
    1j,
    range(3),
    timedelta(1),
    len,
    int,
    type("Text", (str,), {})("a"),
    type("Number", (int,), {})(1),
    type("Share", (float,), {})(1.0),
    type("UserId", (UUID,), {})(ID.hex),
    type("Moment", (datetime,), {})(2024, 1, 1),
    Pair(1),
    (1, [2]),
    datetime(2024, 1, 1, tzinfo=ZoneInfo.from_file(io.BytesIO(UTC_FILE))),
    datetime(2024, 1, 1, tzinfo=type("Zone", (type(BERLIN),), {})("Europe/Berlin")),
    enum.Enum("Local", "A", module="__main__").A,
    enum.Enum("Inner", "A", qualname="outer.<locals>.Inner").A,
]


@pytest.mark.parametrize("value", NOT_EXACT, ids=lambda value: type(value).__qualname__)
def test_a_value_without_a_canonical_text_is_refused(value):
    """Objects of derived types are refused, and members of enums whose name other programs may use."""
    for write in (canonical, template_text):
        with pytest.raises(NoCanonicalTextError):
            write(value)
    assert "'user_id'" in problem(load, None, value)
    assert "{user_id}" in problem(load, "u:{user_id}", value)


def test_a_decimal_is_written_in_capitals_in_every_context():
    """A context may write 1e+7."""
    with decimal.localcontext() as context:
        context.capitals = 0
        assert canonical(Decimal("1E+7")) == "Decimal(1E+7)"
        assert canonical(Decimal("sNaN12")) == "Decimal(SNAN12)"


def test_a_process_with_a_limit_on_digits_makes_the_same_keys():
    """Python's limit for digits may be lowered to 640."""
    before = sys.get_int_max_str_digits()
    numbers = [10**n - 1 for n in (600, 616, 617, 618, 640, 641, 5000)]
    try:
        sys.set_int_max_str_digits(0)
        unlimited = [(canonical(n), template_text(n)) for n in numbers]
        sys.set_int_max_str_digits(640)
        assert [(canonical(n), template_text(n)) for n in numbers] == unlimited
    finally:
        sys.set_int_max_str_digits(before)


@given(a_pair(values))
@example((1, True))
@example((1, 1.0))
@example((0.0, -0.0))
@example((Decimal("1.0"), Decimal("1.00")))
@example((Level.LOW, 1))
@example((Shade.RED, "red"))
@example((("a", "b"), ("a,b",)))
@example((("a',", "b"), ("a", "',b")))
@example(((1, (2,)), ((1, 2),)))
@example(("\ud83d\ude00", "😀"))
@example((NAIVE, date(2024, 1, 31)))
@example((datetime(2024, 1, 1, tzinfo=BERLIN), datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=1)))))
def test_two_values_have_one_text_only_if_they_are_equal(pair):
    first, second = pair
    assert (canonical(first) == canonical(second)) == (identity(first) == identity(second))


@given(st.text() | st.binary())
def test_escaped_text_can_be_read_back(text):
    """RFC 3986 defines the escapes, so different texts stay different."""
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    parts = escape(text).split("%")
    back = parts[0].encode() + b"".join(bytes.fromhex(part[:2]) + part[2:].encode() for part in parts[1:])
    assert back == raw
    assert set(escape(text)) <= {*string.ascii_letters, *string.digits, *"-_.%"}


@pytest.mark.parametrize("text", [":", "/", "a:b", "é", " ", "(", "\ud800"])
def test_a_text_that_no_value_contains_is_a_separator(text):
    assert is_separator(text)
    assert not set(text) <= set(template_text(text))


@pytest.mark.parametrize("text", ["", "x", "-", "a1_.Z", "%3A", "~"])
def test_a_text_that_values_may_contain_is_no_separator(text):
    assert not is_separator(text)


def test_the_origin_of_a_uuid_is_not_part_of_its_text():
    """`==` ignores it, too."""
    assert canonical(UUID(ID.hex, is_safe=SafeUUID.safe)) == canonical(ID)
