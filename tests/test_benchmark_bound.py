"""The bound of `make bench`: callers of a group share a write and a future, and its replies are counted."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks import bound
from benchmarks.bound import Group, Wire, variants
from benchmarks.measuring import WrongAnswerError
from benchmarks.works import Work
from tests.support.virtual_time import in_virtual_time, settle

REQUESTS = b"aabbcc"
REPLY = 5


class Transport:
    def __init__(self):
        self.written = []

    def write(self, data):
        self.written.append(bytes(data))


def wire(requests=REQUESTS, at_once=3):
    made = Wire(requests, request_bytes=2, reply_bytes=REPLY, at_once=at_once)
    transport = Transport()
    made.connection_made(transport)
    return made, transport.written


@in_virtual_time
async def test_callers_of_one_turn_share_a_write_and_wake_together():
    one, written = wire()
    group = Group([one])
    futures = [group.ask(), group.ask(), group.ask()]
    await settle()
    assert written == [REQUESTS]
    one.buffer_updated(3 * REPLY - 1)
    assert not futures[0].done()
    one.buffer_updated(1)
    assert [future.result() for future in futures] == [True, True, True]


@in_virtual_time
async def test_only_callers_that_asked_are_sent():
    one, written = wire()
    group = Group([one])
    future = group.ask()
    await settle()
    assert written == [b"aa"]
    one.buffer_updated(REPLY)
    assert future.result()


@in_virtual_time
async def test_a_caller_that_wakes_up_asks_in_the_same_turn():
    one, written = wire()
    group = Group([one])

    async def caller():
        await group.ask()
        await group.ask()

    task = asyncio.create_task(caller())
    await settle()
    one.buffer_updated(REPLY)
    await asyncio.sleep(0)
    assert written == [b"aa", b"aa"]
    one.buffer_updated(REPLY)
    await task


@in_virtual_time
async def test_a_caller_that_asks_during_a_flight_is_sent_after_it():
    one, written = wire()
    group = Group([one])
    first = group.ask()
    await settle()
    second = group.ask()
    await settle()
    assert len(written) == 1
    one.buffer_updated(REPLY)
    assert first.done()
    assert not second.done()
    await settle()
    assert len(written) == 2
    one.buffer_updated(REPLY)
    assert second.result()


@in_virtual_time
async def test_a_group_that_was_idle_asks_again():
    one, written = wire()
    group = Group([one])
    for _ in range(2):
        future = group.ask()
        await settle()
        one.buffer_updated(REPLY)
        assert future.result()
        await settle()
    assert written == [b"aa", b"aa"]


@in_virtual_time
async def test_a_group_wakes_when_every_connection_has_its_replies():
    (one, _), (other, _) = wire(), wire()
    group = Group([one, other])
    future = group.ask()
    await settle()
    one.buffer_updated(REPLY)
    assert not future.done()
    other.buffer_updated(REPLY)
    assert future.result()


@in_virtual_time
async def test_more_bytes_than_the_replies_have_are_a_wrong_answer():
    one, _ = wire()
    future = Group([one]).ask()
    await settle()
    one.buffer_updated(REPLY + 1)
    with pytest.raises(WrongAnswerError):
        await future


@pytest.mark.parametrize(("requests", "expected"), [(REQUESTS, [b"aa", b"bb", b"cc"]), (b"aa", [b"aa", b"aa", b"aa"])])
@in_virtual_time
async def test_large_requests_are_sent_one_after_another(requests, expected):
    """The bytes may be one request, which every caller of the group sends."""
    one, written = wire(requests, at_once=1)
    group = Group([one])
    future = [group.ask() for _ in range(3)][0]
    await settle()
    for sent in range(1, 4):
        assert written == expected[:sent]
        assert not future.done()
        one.buffer_updated(REPLY)
    assert future.result()


@pytest.mark.parametrize("expected", [b"HD\r\n", b"VA 2\r\naa\r\n"])
def test_another_reply_ends_the_benchmark_before_anything_is_counted(expected):
    async def main():
        connections = []

        async def serve(reader, writer):
            connections.append(asyncio.current_task())
            await reader.readline()
            writer.write(b"EN\r\n")
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
            with pytest.raises(WrongAnswerError):
                await bound._compare(listener.sockets[0].getsockname()[1], b"mg a v\r\n", expected)
            await asyncio.gather(*connections)

    asyncio.run(main())


def test_bulk_reads_have_a_bound_with_mg_as_well():
    assert isinstance(variants(Work("get_many", keys=100), meta=True), dict)
    assert isinstance(variants(Work("get hit"), meta=True), str)
