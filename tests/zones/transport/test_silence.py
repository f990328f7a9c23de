"""A stalled server is noticed within milliseconds, so that reads that wait for it can ask another zone."""

import asyncio

import pytest

from evcache.zones.errors import ConnectionLost, NodeSilent, NodeTimeout
from evcache.zones.health.loop_lag import LoopLag
from evcache.zones.transport.limits import ConnectionLimits
from evcache.zones.transport.pipelined import PipelinedConnection
from tests.support.operations import get, store
from tests.support.scripted import FAR, VALUE, Notes, Peer, outcome
from tests.support.virtual_time import in_virtual_time, now

pytestmark = pytest.mark.usefixtures("each_core")

PATIENCE = ConnectionLimits().patience
TRIP = 0.001  # seconds of a round trip
NOTICED = PATIENCE + 2 * TRIP
SHARE, CALL = 0.033, 0.1  # seconds


class SilentPeer(Peer):
    """A connection whose first reply took a round trip. It reports silence and later replies."""

    def __init__(self, trip=TRIP, *, elsewhere=True, lag=None):
        super().__init__(silence=FAR, lag=lag)
        self.silences = []
        self.signs = []
        self.connection = PipelinedConnection(
            "node-1",
            self.loop,
            ConnectionLimits(silence=FAR),
            self._on_lost,
            self._on_late,
            lag,
            on_silent=self._on_silent,
            on_bytes=lambda _: self.signs.append(now()),
        )
        self.transport._protocol = self.connection  # noqa: SLF001
        self.connection.connection_made(self.transport)
        self._elsewhere = elsewhere
        self._trip = trip
        self._replies = 0

    def _on_silent(self, connection):
        assert connection is self.connection
        self.silences.append(now())
        return self._elsewhere

    async def greet(self):
        """Exchange the first words."""
        first = self.ask()
        await asyncio.sleep(self._trip)
        self.answer(1)
        assert first.done()
        self.signs.clear()
        return self

    def answer(self, count):
        """The server answers its next requests."""
        for _ in range(count):
            self._replies += 1
            self.feed(b"EN O%d\r\n" % self._replies)

    def read(self, share=SHARE, call=CALL):
        waiter = self.loop.create_future()
        waiter.add_done_callback(lambda waiter: waiter.exception())  # looked at
        self.connection.get(b"k", VALUE, waiter, self.deadline(share), self.deadline(call))
        return waiter


@in_virtual_time
async def test_reads_that_wait_are_failed_early_with_an_error_each():
    peer = await SilentPeer().greet()
    began = now()
    reads = [peer.read() for _ in range(5)]
    await asyncio.wait(reads)
    assert now() - began == pytest.approx(NOTICED, abs=1e-6)
    errors = [read.exception() for read in reads]
    assert {type(error) for error in errors} == {NodeSilent}
    assert len(set(map(id, errors))) == 5
    assert str(errors[0]) == "node-1: no byte in 0.007 s, and 5 reads wait"
    assert len(peer.silences) == 1


@pytest.mark.parametrize(
    ("reads", "others", "moved"), [(3, 0, 3), (2, 0, 0), (2, 5, 0), (3, 5, 3)], ids=["3", "2", "2 of 7", "3 of 8"]
)
@in_virtual_time
async def test_only_reads_are_moved_and_only_if_several_wait(reads, others, moved):
    """One late reply does not make a server look stalled, and a write has no other zone."""
    peer = await SilentPeer().greet()
    writes = [peer.ask(store(), within=SHARE) for _ in range(others)]
    waiting = [peer.read() for _ in range(reads)]
    await asyncio.sleep(2 * NOTICED)
    assert sum(read.done() for read in waiting) == moved
    assert not any(write.done() for write in writes)
    await asyncio.sleep(SHARE)
    assert [type(outcome(write)) for write in writes] == [NodeTimeout] * others


@pytest.mark.parametrize("latest", [None, CALL])
@in_virtual_time
async def test_batches_are_moved_if_another_zone_can_answer_them(latest):
    peer = await SilentPeer().greet()
    batches = [peer.loop.create_future() for _ in range(3)]
    for batch in batches:
        peer.connection.get_many([b"a", b"b"], VALUE, batch, peer.deadline(SHARE), latest)
    await asyncio.sleep(2 * NOTICED)
    assert all(batch.done() for batch in batches) is (latest is not None)
    await asyncio.sleep(SHARE)
    assert {isinstance(outcome(batch), NodeTimeout) for batch in batches} == {True}


@in_virtual_time
async def test_reads_stay_where_there_is_no_other_zone():
    peer = await SilentPeer(elsewhere=False).greet()
    reads = [peer.read() for _ in range(5)]
    await asyncio.sleep(2.5 * NOTICED)
    assert len(peer.silences) == 2, "asked again, since there may be one later"
    assert not any(read.done() for read in reads)
    peer.answer(5)
    assert [outcome(read).status for read in reads] == [b"EN"] * 5


@in_virtual_time
async def test_a_byte_ends_the_silence_and_the_next_silence_is_noticed_again():
    peer = await SilentPeer().greet()
    for silences in (1, 2):
        reads = [peer.read() for _ in range(3)]
        await asyncio.wait(reads)
        assert len(peer.silences) == silences
        assert len(peer.signs) == silences - 1
        peer.answer(3)
        assert len(peer.signs) == silences
    assert peer.connection.pending == 0


@in_virtual_time
async def test_a_server_that_answers_slowly_but_steadily_is_not_silent():
    peer = await SilentPeer().greet()
    reads = [peer.read(share=FAR, call=FAR) for _ in range(50)]
    for _ in range(50):
        await asyncio.sleep(0.9 * NOTICED)
        peer.answer(1)
    assert all(outcome(read).status == b"EN" for read in reads)
    assert not peer.silences


@in_virtual_time
async def test_a_far_server_is_given_its_round_trips():
    """It is silent for a round trip after each burst."""
    peer = await SilentPeer(trip=0.05).greet()
    for _ in range(5):
        reads = [peer.read(share=FAR, call=FAR) for _ in range(10)]
        await asyncio.sleep(0.05)
        peer.answer(10)
        assert all(read.done() for read in reads)
    assert not peer.silences


@in_virtual_time
async def test_a_first_reply_that_was_late_does_not_blunt_the_detector():
    """A connection was opened while the server was stalled. The server then goes on."""
    peer = await SilentPeer(trip=0.2).greet()
    await asyncio.sleep(1)
    read = peer.read()
    await asyncio.sleep(TRIP)
    peer.answer(1)
    assert outcome(read).status == b"EN"
    await asyncio.sleep(1)
    began = now()
    reads = [peer.read() for _ in range(3)]
    await asyncio.wait(reads)
    assert now() - began == pytest.approx(NOTICED, abs=1e-6)
    assert len(peer.silences) == 1


@in_virtual_time
async def test_an_idle_connection_is_not_silent_and_has_no_timer():
    peer = await SilentPeer().greet()
    peer.read()
    peer.answer(1)
    await asyncio.sleep(1)
    handles = [handle for handle in peer.loop._scheduled if not handle.cancelled()]  # noqa: SLF001
    assert not any("SilenceDetector" in repr(handle) for handle in handles)
    assert not peer.silences


@in_virtual_time
async def test_a_loop_that_stood_still_is_not_a_silent_server():
    """Replies that arrived while the loop was busy are read after the timer."""
    peer = await SilentPeer().greet()
    reads = [peer.read(share=FAR, call=FAR) for _ in range(5)]
    await asyncio.sleep(0.001)
    peer.loop.advance(0.05)
    await asyncio.sleep(0.001)
    peer.answer(5)
    assert all(outcome(read).status == b"EN" for read in reads)
    assert not peer.silences


@in_virtual_time
async def test_moved_reads_still_count_as_late_once():
    """The circuit opens after the same time as without the move, and their replies go to no caller."""
    peer = await SilentPeer().greet()
    reads = [peer.read() for _ in range(5)]
    await asyncio.wait(reads)
    assert peer.late == []
    await asyncio.sleep(SHARE)
    assert peer.late == [(5, 5)]
    await asyncio.sleep(1)
    assert peer.late == [(5, 5)]
    peer.answer(5)
    fine = peer.read()
    peer.answer(1)
    assert outcome(fine).status == b"EN"
    assert not peer.lost


@in_virtual_time
async def test_a_moved_read_that_is_answered_in_time_is_not_late():
    peer = await SilentPeer().greet()
    reads = [peer.read() for _ in range(5)]
    await asyncio.wait(reads)
    peer.answer(5)
    await asyncio.sleep(1)
    assert peer.late == []


@in_virtual_time
async def test_a_connection_that_ends_in_silence_fails_no_read_twice():
    peer = await SilentPeer().greet()
    notes = [Notes() for _ in range(3)]
    for note in notes:
        peer.connection.get(b"k", VALUE, note, peer.deadline(SHARE), peer.deadline(CALL))
    await asyncio.sleep(NOTICED + 0.001)
    peer.connection.abort()
    await asyncio.sleep(1)
    assert [[type(told) for told in note.told] for note in notes] == [[NodeSilent]] * 3


# A server in the middle of a reply.

LARGE = 1_000_000


def begin_value(peer, opaque):
    peer.feed(b"VA %d f0 c1 O%d\r\n" % (LARGE, opaque) + b"x" * 1_000)


@pytest.mark.parametrize("sends_for", [0.02, 0.05, 0.09])
@in_virtual_time
async def test_reads_wait_on_behind_a_large_value_and_are_not_blamed_on_the_server(sends_for):
    """A read behind it waits half of the time that the zones after this one have left: 33 + 33.5 ms."""
    peer = await SilentPeer(lag=LoopLag(asyncio.get_running_loop())).greet()
    large = peer.read(share=FAR, call=FAR)
    behind = [peer.read() for _ in range(4)]
    write = peer.ask(store(), within=SHARE)
    began = now()
    begin_value(peer, 2)
    sent = 1_000
    while now() - began < sends_for:
        await asyncio.sleep(0.005)
        sent += 1_000
        peer.feed(b"x" * 1_000)
        assert write.done() is (now() - began >= SHARE), "a write has its deadline"
        assert behind[0].done() is (now() - began >= (SHARE + CALL) / 2)
    peer.feed(b"x" * (LARGE - sent) + b"\r\n")
    assert outcome(large).value[-1:] == b"x"
    assert peer.late == []
    assert not peer.silences
    if not behind[0].done():
        peer._replies = 2  # noqa: SLF001
        peer.answer(4)
        assert [outcome(read).status for read in behind] == [b"EN"] * 4


@in_virtual_time
async def test_a_value_that_stops_in_the_middle_is_blamed_on_the_server():
    peer = await SilentPeer().greet()
    large = peer.read()
    begin_value(peer, 2)
    await asyncio.sleep(CALL)
    assert isinstance(outcome(large), NodeTimeout)
    assert peer.late == [(1, 1)]


@in_virtual_time
async def test_reads_wait_until_their_call_ends_if_this_process_is_the_slow_one():
    """Asking the next zone for the same value would only add to its work."""
    lag = LoopLag(asyncio.get_running_loop())
    peer = await SilentPeer(lag=lag).greet()
    peer.read(share=FAR, call=FAR)
    behind = peer.read()
    began = now()
    begin_value(peer, 2)
    while not behind.done():
        peer.loop.advance(0.03)
        await asyncio.sleep(0.001)
        peer.feed(b"x" * 1_000)
        assert now() - began < 1
    assert now() - began >= CALL


@in_virtual_time
async def test_reads_that_could_not_move_do_so_when_they_can():
    """Another connection of the node answered until now, or every zone was out."""
    peer = await SilentPeer(elsewhere=False).greet()
    reads = [peer.read(share=CALL) for _ in range(5)]
    await asyncio.sleep(3 * NOTICED)
    assert not any(read.done() for read in reads)
    peer._elsewhere = True  # noqa: SLF001
    await asyncio.sleep(1.1 * NOTICED)
    assert {type(outcome(read)) for read in reads} == {NodeSilent}


@pytest.mark.parametrize("act", ["cancel", "abort"])
@in_virtual_time
async def test_a_waiter_that_is_moved_may_cancel_the_others_or_end_the_connection(act):
    peer = await SilentPeer().greet()
    reads = []

    def first_error(_):
        if act == "cancel":
            reads[1].cancel()
        else:
            peer.connection.abort()

    first = Notes(on_error=first_error)
    peer.connection.get(b"k", VALUE, first, peer.deadline(SHARE), peer.deadline(CALL))
    reads += [peer.ask(get(latest=peer.deadline(CALL)), within=SHARE) for _ in range(3)]
    await asyncio.sleep(2 * NOTICED)
    assert [type(error) for error in first.told] == [NodeSilent]
    expected = [NodeSilent, "cancelled", NodeSilent] if act == "cancel" else [ConnectionLost] * 3
    assert [each if isinstance(each, str) else type(each) for each in map(outcome, reads)] == expected
