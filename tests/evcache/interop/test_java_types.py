"""Python's markers of Java types."""

import copy
import math
import pickle
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evcache.interop.java_types import JavaByte, JavaFloat, JavaInteger, JavaLong, JavaObject, JavaShort
from evcache.zones.errors import InvalidArgument

LIMITS = [
    (JavaByte, -128, 127),
    (JavaShort, -(2**15), 2**15 - 1),
    (JavaInteger, -(2**31), 2**31 - 1),
    (JavaLong, -(2**63), 2**63 - 1),
]


@pytest.mark.parametrize(("kind", "lowest", "highest"), LIMITS)
def test_int_within_the_range_of_its_type_is_an_int(kind, lowest, highest):
    for value in (lowest, -1, 0, 1, highest):
        marked = kind(value)
        assert (marked, hash(marked), int(marked)) == (value, hash(value), value)
        assert repr(marked) == f"{kind.__name__}({value})"
        assert str(marked) == f"{marked}" == str(value)
        assert type(marked + 1) is int


@pytest.mark.parametrize(("kind", "lowest", "highest"), LIMITS)
@pytest.mark.parametrize("problem", ["below", "above", 1.0, True, "1", None])
def test_int_outside_the_range_of_its_type_is_refused(kind, lowest, highest, problem):
    value = {"below": lowest - 1, "above": highest + 1}.get(problem, problem)
    with pytest.raises(InvalidArgument, match=f"{kind.__name__}: a whole number of at least {lowest}") as caught:
        kind(value)
    assert caught.value.argument == kind.__name__


def test_float_is_rounded_to_32_bits_when_made():
    assert JavaFloat(0.1) == struct.unpack(">f", struct.pack(">f", 0.1))[0] != 0.1
    assert (repr(JavaFloat(1.5)), str(JavaFloat(1.5)), f"{JavaFloat(1.5):.2f}") == ("JavaFloat(1.5)", "1.5", "1.50")
    assert repr(JavaFloat(2)) == "JavaFloat(2.0)"
    assert hash(JavaFloat(1.5)) == hash(1.5)


@given(st.floats(width=32))
def test_float_of_32_bits_is_unchanged(value):
    marked = JavaFloat(value)
    assert marked == value or (math.isnan(marked) and math.isnan(value))
    assert math.copysign(1, marked) == math.copysign(1, value) or math.isnan(value)


@pytest.mark.parametrize(
    "value", [3.5e38, -1e300, 10**400, True, "1.5", None], ids=["above", "below", "int", "bool", "str", "None"]
)
def test_float_that_does_not_fit_is_refused(value):
    with pytest.raises(InvalidArgument, match="JavaFloat: a number is required") as caught:
        JavaFloat(value)
    assert caught.value.argument == "JavaFloat"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("value", [JavaByte(-5), JavaInteger(7), JavaLong(2**40), JavaFloat(1.5), JavaObject(b"x", 3)])
def test_value_when_pickled_or_copied_keeps_its_type(value, protocol):
    for other in (pickle.loads(pickle.dumps(value, protocol)), copy.copy(value), copy.deepcopy(value)):
        assert (other, type(other)) == (value, type(value))
