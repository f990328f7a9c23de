"""Large values that arrive in memory of their own, on each core. The bytes come in any slices, in one way or the other."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evcache.zones.errors import ConnectionLost, ProtocolError
from evcache.zones.protocol.decoder import MAX_LANDING_BYTES, MIN_LANDING_BYTES
from evcache.zones.protocol.replies import Hit
from tests.support.cores import CORES
from tests.support.scripted import Peer
from tests.support.virtual_time import in_virtual_time

each_core = pytest.mark.parametrize("core", CORES, ids=lambda core: core.name)

HEAD = b"VA %d f0 c7 O1\r\n"
SMALL = b"VA 1 f0 c8 O2\r\nx\r\n"


def value_of(size):
    return (bytes(range(256)) * (size // 256 + 1))[:size]


def deliver(decoder, data, *, lands):
    """Give the decoder bytes as a connection does, and return the replies. `lands`: the loop reads into `landing`."""
    replies = []
    while data:
        landing = decoder.landing if lands else None
        if landing is None:
            replies += decoder.feed(data)
            return replies
        count = min(len(landing), len(data))
        landing[:count] = data[:count]
        decoder.landed(count)
        data = data[count:]
    return replies


@each_core
@pytest.mark.parametrize("size", [MIN_LANDING_BYTES - 1, MIN_LANDING_BYTES, MIN_LANDING_BYTES + 1, 300_000])
@pytest.mark.parametrize("head", [HEAD, b"VALUE k 0 %d 7\r\n", b"VA %d f0 c7 O1 X\r\n"], ids=["read", "gets", "stale"])
@settings(max_examples=25)
@given(
    cuts=st.lists(st.floats(0, 1), max_size=8), near_end=st.lists(st.integers(0, 24), max_size=4), ways=st.integers(0, 2**12)
)
def test_a_large_value_in_any_slices_is_whole(core, size, head, cuts, near_end, ways):
    value = value_of(size)
    data = head % size + value + b"\r\n" + SMALL
    places = sorted({int(cut * len(data)) for cut in cuts} | {len(data) - place for place in near_end} | {0, len(data)})
    decoder, replies = core.new_decoder(), []
    for number, (start, stop) in enumerate(zip(places, places[1:], strict=False)):
        replies += deliver(decoder, data[start:stop], lands=bool(ways >> number % 12 & 1))
    assert len(replies) == 2
    first = replies[0].hit if hasattr(replies[0], "hit") else replies[0]
    assert first.value == value
    assert type(first.value) is bytes
    assert replies[1] == Hit(b"x", 0, 8, None, False, False, b"O2")
    assert (decoder.awaited, decoder.landing) == (0, None)


@each_core
@pytest.mark.parametrize("lands", [False, True])
def test_the_memory_is_that_of_the_bytes_that_are_missing(core, lands):
    decoder, value = core.new_decoder(), value_of(100_000)
    assert decoder.landing is None
    assert not deliver(decoder, HEAD % 100_000 + value[:10], lands=lands)
    assert len(decoder.landing) == 99_990
    assert not deliver(decoder, value[10:-1], lands=lands)
    assert len(decoder.landing) == 1
    assert not deliver(decoder, value[-1:], lands=lands)
    assert decoder.landing is None
    assert decoder.awaited == 100_002
    (reply,) = deliver(decoder, b"\r\n", lands=lands)
    assert reply.value == value


@each_core
@pytest.mark.parametrize("end", [b"\r\r", b"\n\r", b"xy", b"VA"])
def test_a_large_value_without_its_line_end_is_out_of_sync(core, end):
    decoder = core.new_decoder()
    deliver(decoder, HEAD % 100_000, lands=True)
    with pytest.raises(ProtocolError, match="not followed by a line end"):
        deliver(decoder, value_of(100_000) + end, lands=True)


@each_core
@pytest.mark.parametrize("size", [MIN_LANDING_BYTES - 1, MAX_LANDING_BYTES + 1])
def test_a_value_of_another_size_takes_no_memory_beforehand(core, size):
    decoder = core.new_decoder()
    assert not list(decoder.feed(HEAD % size + b"x"))
    assert decoder.landing is None
    assert decoder.awaited == size + 2


@each_core
@pytest.mark.parametrize("count", [-1, 99_991])
def test_no_more_bytes_land_than_there_is_memory_for(core, count):
    decoder = core.new_decoder()
    deliver(decoder, HEAD % 100_000 + b"x" * 10, lands=True)
    with pytest.raises(ValueError):
        decoder.landed(count)


@each_core
def test_a_view_keeps_its_memory(core):
    """A loop that keeps a view longer than it should writes to memory that no value has."""
    decoder = core.new_decoder()
    deliver(decoder, HEAD % 100_000, lands=True)
    view = decoder.landing
    del decoder
    view[:] = b"y" * 100_000
    assert bytes(view[-2:]) == b"yy"


@pytest.mark.usefixtures("each_core")
@in_virtual_time
async def test_a_connection_that_ends_within_a_value_fails_its_read():
    peer = Peer()
    read = peer.ask()
    peer.feed(HEAD % 100_000 + b"x" * 70_000)
    assert len(peer.connection.get_buffer(-1)) == 30_000
    peer.transport.end(None)
    with pytest.raises(ConnectionLost):
        await read


@pytest.mark.usefixtures("each_core")
@in_virtual_time
async def test_bytes_that_land_are_bytes_that_were_heard():
    peer = Peer()
    read = peer.ask()
    peer.feed(HEAD % 100_000)
    before = peer.connection.heard_at
    await asyncio.sleep(0.01)
    buffer = peer.connection.get_buffer(-1)
    buffer[:] = value_of(100_000)
    peer.connection.buffer_updated(100_000)
    assert peer.connection.heard_at > before
    peer.feed(b"\r\n")
    assert (await read).value == value_of(100_000)
