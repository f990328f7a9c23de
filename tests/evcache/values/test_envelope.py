"""Envelopes: the times of a value's life in front of its bytes."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evcache.errors import DecodeError
from evcache.values.envelope import Envelope, unwrap, wrap

MILLISECOND = 0.001

times = st.one_of(st.floats(0, 2**36), st.just(math.inf))
envelopes = st.builds(
    Envelope,
    data=st.binary(max_size=64),
    flags=st.integers(0, 2**32 - 1),
    made_at=st.floats(0, 2**36),
    expires_at=times,
    stale_until=times,
    load_seconds=st.floats(0, 2**31 / 1000),
)


@given(envelopes)
def test_what_was_put_in_comes_out(envelope):
    """The bytes and flags exactly; times to a millisecond, and never later than they were; an eternity as one."""
    out = unwrap(wrap(envelope))
    assert (out.data, out.flags) == (envelope.data, envelope.flags)
    for name in ("made_at", "expires_at", "stale_until"):
        said, was = getattr(out, name), getattr(envelope, name)
        assert said == was or was - 2 * MILLISECOND <= said <= math.nextafter(was, math.inf), name
    assert envelope.load_seconds <= out.load_seconds <= envelope.load_seconds + 2 * MILLISECOND


@given(st.binary(max_size=80))
def test_bytes_that_are_no_envelope_are_a_decode_error(stored):
    """Whatever they are: nothing else is raised."""
    try:
        out = unwrap(stored)
    except DecodeError:
        return
    assert stored[0] == 1
    assert stored.endswith(out.data)


@given(envelopes, st.integers(0, 32))
def test_an_envelope_that_is_cut_short_is_a_decode_error(envelope, length):
    with pytest.raises(DecodeError, match="cut short"):
        unwrap(wrap(envelope)[:length])


def test_an_envelope_of_another_format_is_a_decode_error():
    """A later release may write one. An error is better than a wrong value."""
    stored = bytearray(wrap(Envelope(b"v", 0, 1.0, 2.0, 3.0, 0.0)))
    stored[0] = 2
    with pytest.raises(DecodeError, match="format 2"):
        unwrap(bytes(stored))


def test_the_format_is_what_it_was():
    """What is in the zones outlives a release: one byte of format, flags, three times and a duration, big-endian."""
    stored = wrap(Envelope(b"v", 0xEC00, 1.0, 2.5, math.inf, 0.25))
    expected = ["01", "0000ec00", "00000000000003e8", "00000000000009c4", "ffffffffffffffff", "000000fa", "76"]
    assert stored.hex() == "".join(expected)


def test_a_load_that_took_for_ever_fits():
    assert unwrap(wrap(Envelope(b"", 0, 0.0, 0.0, 0.0, 1e9))).load_seconds == (2**32 - 1) / 1000
