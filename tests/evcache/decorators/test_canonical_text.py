"""Values as texts: what they look like, that no two are alike, and what has none."""

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

from evcache.decorators.canonical_text import NoExactTextError, escape, exact, in_template, separates
from tests.support.call_functions import load, problem
from tests.support.exact_values import BERLIN, FORMS, ID, NAIVE, Level, Shade, a_pair, identity, values


@pytest.mark.parametrize(("value", "form", "text"), FORMS, ids=ascii)
def test_values_are_written_like_this_for_ever(value, form, text):
    """Processes of other versions read what is stored, so these forms must not change."""
    assert exact(value) == form
    assert in_template(value) == text


# The least that is a file of a time zone: no changes, one offset, 0, called UTC.
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
def test_what_has_no_exact_text_is_refused(value):
    """Also what is derived from a plain type, and members of enums that other programs can't tell from theirs."""
    for write in (exact, in_template):
        with pytest.raises(NoExactTextError):
            write(value)
    assert "'user_id'" in problem(load, None, value)
    assert "{user_id}" in problem(load, "u:{user_id}", value)


def test_a_decimal_is_written_in_capitals_whatever_its_context_says():
    """A context can ask for 1e+7."""
    with decimal.localcontext() as context:
        context.capitals = 0
        assert exact(Decimal("1E+7")) == "Decimal(1E+7)"
        assert exact(Decimal("sNaN12")) == "Decimal(SNAN12)"


def test_a_process_that_writes_no_long_numbers_makes_the_same_keys():
    """Python's limit for digits can be set down to 640."""
    before = sys.get_int_max_str_digits()
    numbers = [10**n - 1 for n in (600, 616, 617, 618, 640, 641, 5000)]
    try:
        sys.set_int_max_str_digits(0)
        unlimited = [(exact(n), in_template(n)) for n in numbers]
        sys.set_int_max_str_digits(640)
        assert [(exact(n), in_template(n)) for n in numbers] == unlimited
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
def test_two_values_have_one_form_only_if_they_are_the_same(pair):
    first, second = pair
    assert (exact(first) == exact(second)) == (identity(first) == identity(second))


@given(st.text() | st.binary())
def test_escaped_text_can_be_read_back(text):
    """As RFC 3986 says, so that no two are the same."""
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    parts = escape(text).split("%")
    back = parts[0].encode() + b"".join(bytes.fromhex(part[:2]) + part[2:].encode() for part in parts[1:])
    assert back == raw
    assert set(escape(text)) <= {*string.ascii_letters, *string.digits, *"-_.%"}


@pytest.mark.parametrize("text", [":", "/", "a:b", "é", " ", "(", "\ud800"])
def test_what_no_value_holds_separates_two(text):
    assert separates(text)
    assert not set(text) <= set(in_template(text))


@pytest.mark.parametrize("text", ["", "x", "-", "a1_.Z", "%3A", "~"])
def test_what_values_may_hold_separates_none(text):
    assert not separates(text)


def test_a_uuid_s_origin_is_no_part_of_it():
    """As for `==`: whether it was made safely is not told apart."""
    assert exact(UUID(ID.hex, is_safe=SafeUUID.safe)) == exact(ID)
