"""Values that the codec reads back unchanged, as a strategy."""

from datetime import UTC, datetime

from hypothesis import strategies as st

from evcache import StandardCodec

CODEC = StandardCodec()
PACKING = StandardCodec(packed_ints=True)


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text()
    | st.binary()
    | st.datetimes(
        min_value=datetime.fromisoformat("1900-01-01"),
        max_value=datetime.fromisoformat("2200-01-01"),
        timezones=st.just(UTC),
    )
)


values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


# Compression.

LONG = "a long value, a long value, a long value; " * 20
