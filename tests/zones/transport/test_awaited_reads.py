"""A read that its caller awaits: tasks and asyncio's functions take it as they take a future, on each core."""

import asyncio
import contextvars

import pytest

from evcache.zones.errors import ConnectionLost, NodeTimeout, QueueFull
from tests.support.operations import get
from tests.support.scripted import FAR, VALUE, Peer
from tests.support.virtual_time import in_virtual_time, settle

pytestmark = pytest.mark.usefixtures("each_core")

NAME = contextvars.ContextVar("name")


def answer(peer, number=1, value=b"v"):
    peer.feed(b"VA %d O%d\r\n%b\r\n" % (len(value), number, value))


def value_of(reply):
    return reply.value


@in_virtual_time
async def test_the_reply_may_come_before_or_after_the_await():
    peer = Peer()
    early, late = peer.ask(), peer.ask()
    answer(peer, 1, b"a")
    assert early.done()
    waits = asyncio.ensure_future(_await(late))
    await settle()
    answer(peer, 2, b"b")
    assert value_of(await early) == b"a"
    assert value_of(await waits) == b"b"


async def _await(read):
    return await read


@in_virtual_time
async def test_all_callers_of_one_chunk_wake_in_the_order_of_their_requests():
    peer = Peer()
    order = []

    async def call(name, read):
        order.append((name, value_of(await read)))

    tasks = [asyncio.ensure_future(call(name, peer.ask())) for name in range(5)]
    await settle()
    peer.feed(b"".join(b"VA 1 O%d\r\n%d\r\n" % (number, number) for number in range(1, 6)))
    await asyncio.gather(*tasks)
    assert order == [(name, b"%d" % (name + 1)) for name in range(5)]


@in_virtual_time
async def test_a_cancelled_caller_costs_nothing_and_its_reply_reaches_no_other():
    peer = Peer()
    gone = asyncio.ensure_future(_await(peer.ask()))
    stays = asyncio.ensure_future(_await(peer.ask()))
    await settle()
    gone.cancel("enough")
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert peer.connection.unanswered == 1
    peer.feed(b"VA 1 O1\r\na\r\nVA 1 O2\r\nb\r\n")
    assert value_of(await stays) == b"b"
    assert not peer.lost


@in_virtual_time
async def test_a_caller_cancelled_in_the_turn_of_its_reply_is_cancelled():
    peer = Peer()
    task = asyncio.ensure_future(_await(peer.ask()))
    await settle()
    answer(peer)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert peer.connection.pending == 0


@in_virtual_time
async def test_the_end_of_the_connection_is_an_error_for_every_caller():
    peer = Peer()
    tasks = [asyncio.ensure_future(_await(peer.ask())) for _ in range(3)]
    await settle()
    peer.transport.end(None)
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in errors] == [ConnectionLost] * 3
    assert len({id(error) for error in errors}) == 3  # each may be raised with a traceback of its own


@in_virtual_time
async def test_a_deadline_is_an_error():
    peer = Peer()
    with pytest.raises(NodeTimeout):
        await peer.ask(within=0.05)


@in_virtual_time
async def test_a_read_that_is_never_awaited_is_answered_and_forgotten():
    peer = Peer()
    peer.ask()
    kept = peer.ask()
    peer.feed(b"VA 1 O1\r\na\r\nVA 1 O2\r\nb\r\n")
    assert value_of(await kept) == b"b"


@in_virtual_time
async def test_nothing_is_sent_beyond_the_limits():
    peer = Peer(max_pending=1)
    first = peer.ask()
    with pytest.raises(QueueFull):
        peer.ask()
    await settle()
    assert peer.sent == b"mg k v O1\r\n"
    answer(peer)
    assert value_of(await first) == b"v"


@in_virtual_time
async def test_asyncio_takes_it_as_a_future():
    peer = Peer()
    reads = [peer.ask() for _ in range(4)]
    assert all(asyncio.isfuture(read) and read.get_loop() is asyncio.get_running_loop() for read in reads)
    done, waiting = await asyncio.wait(reads, timeout=1)
    assert (done, len(waiting)) == (set(), 4)
    answer(peer, 1)
    done, waiting = await asyncio.wait(reads, timeout=1, return_when=asyncio.FIRST_COMPLETED)
    assert done == {reads[0]}
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reads[1], 1)
    assert reads[1].cancelled()
    both = asyncio.gather(reads[2], asyncio.shield(reads[3]))
    peer.feed(b"VA 1 O2\r\nb\r\nVA 1 O3\r\nc\r\nVA 1 O4\r\nd\r\n")
    assert [value_of(reply) for reply in await both] == [b"c", b"d"]


@in_virtual_time
async def test_a_gather_of_reads_ends_when_it_is_cancelled():
    peer = Peer()
    both = asyncio.gather(peer.ask(), peer.ask())
    await settle()
    both.cancel()
    with pytest.raises(asyncio.CancelledError):
        await both


@in_virtual_time
async def test_a_gather_that_is_cancelled_after_one_read_failed_is_cancelled():
    peer = Peer()
    late, failed = peer.ask(), peer.ask(within=0.01)
    both = asyncio.gather(late, failed, return_exceptions=True)
    await asyncio.sleep(0.02)
    both.cancel()
    with pytest.raises(asyncio.CancelledError):
        await both


@in_virtual_time
async def test_a_gather_returns_the_cancellation_of_one_read():
    peer = Peer()
    gone, stays = peer.ask(), peer.ask()
    both = asyncio.gather(gone, stays, return_exceptions=True)
    await settle()
    gone.cancel("enough")
    answer(peer, 2)
    error, _ = await both
    assert type(error) is asyncio.CancelledError
    assert error.args == ("enough",)


@in_virtual_time
async def test_several_callbacks_run_in_order_each_in_its_context():
    peer = Peer()
    read = peer.ask()
    calls = []
    for name in "abc":
        context = contextvars.copy_context()
        context.run(NAME.set, name)
        read.add_done_callback(lambda done, name=name: calls.append((name, NAME.get(), done)), context=context)
    dropped = lambda _: calls.append("dropped")  # noqa: E731
    read.add_done_callback(dropped)
    assert read.remove_done_callback(dropped) == 1
    answer(peer)
    assert calls == []  # never within the connection
    await settle()
    assert calls == [(name, name, read) for name in "abc"]
    read.add_done_callback(lambda done: calls.append(done))
    await settle()
    assert calls[-1] is read


@in_virtual_time
async def test_a_callback_without_a_context_runs_in_a_copy_of_that_of_its_caller():
    peer = Peer()
    read = peer.ask()
    names = []
    NAME.set("main")
    adder, feeder = contextvars.copy_context(), contextvars.copy_context()
    adder.run(NAME.set, "adder")
    adder.run(read.add_done_callback, lambda _: names.append(NAME.get()))
    feeder.run(NAME.set, "feeder")
    feeder.run(answer, peer)
    await settle()
    assert names == ["adder"]


@in_virtual_time
async def test_a_callback_that_is_removed_delays_no_other():
    peer = Peer()
    first, second = peer.ask(), peer.ask()
    order = []
    dropped, other = (lambda _: None), (lambda _: None)
    for read in first, second:
        read.add_done_callback(dropped)
        read.add_done_callback(other)
        for name in "ab":
            read.add_done_callback(lambda done, name=name: order.append((done is first, name)))
    assert first.remove_done_callback(dropped) == 1
    peer.feed(b"VA 1 O1\r\na\r\nVA 1 O2\r\nb\r\n")
    first.remove_done_callback(other)  # too late: the callers are woken soon
    await settle()
    assert order == [(True, "a"), (True, "b"), (False, "a"), (False, "b")]


@in_virtual_time
async def test_an_exception_of_a_callback_reaches_the_handler_of_the_loop_and_no_caller():
    peer = Peer()
    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
    first, second = peer.ask(), peer.ask()
    first.add_done_callback(lambda _: 1 / 0)
    waits = asyncio.ensure_future(_await(second))
    await settle()
    peer.feed(b"VA 1 O1\r\na\r\nVA 1 O2\r\nb\r\n")
    assert value_of(await waits) == b"b"
    assert [type(error) for error in reported] == [ZeroDivisionError]


@pytest.mark.parametrize("ends", [KeyboardInterrupt, SystemExit])
def test_a_callback_that_ends_the_process_costs_no_other_its_call(ends):
    calls = []

    def end(_):
        raise ends

    async def scenario():
        peer = Peer()
        first, second = peer.ask(), peer.ask()
        first.add_done_callback(end)
        for name, read in ("first", first), ("third", first), ("second", second):
            read.add_done_callback(lambda _, name=name: calls.append(name))
        peer.feed(b"VA 1 O1\r\na\r\nVA 1 O2\r\nb\r\n")
        await asyncio.Event().wait()

    with asyncio.Runner() as runner:
        task = runner.get_loop().create_task(scenario())
        with pytest.raises(ends):
            runner.get_loop().run_until_complete(task)
        runner.run(settle())
    assert sorted(calls) == ["first", "second", "third"]


@in_virtual_time
async def test_a_wake_that_the_loop_refuses_costs_no_later_caller_its_own():
    peer = Peer()
    first, second = peer.ask(), peer.ask()
    first.add_done_callback(lambda _: None)
    waits = asyncio.ensure_future(_await(second))
    await settle()

    def refuse(*_, **__):
        raise RuntimeError("non-thread-safe operation")

    peer.loop.call_soon = refuse  # the loop in debug mode, called by another thread
    with pytest.raises(RuntimeError):
        first.cancel()
    del peer.loop.call_soon
    peer.feed(b"VA 1 O1\r\na\r\nVA 1 O2\r\nb\r\n")
    assert value_of(await waits) == b"b"


@in_virtual_time
async def test_a_caller_may_send_and_end_the_connection_when_it_wakes():
    peer = Peer()

    async def call():
        await peer.ask()
        again = peer.ask()
        peer.connection.abort()
        with pytest.raises(ConnectionLost):
            await again
        with pytest.raises(ConnectionLost):
            peer.ask()

    tasks = [asyncio.ensure_future(call()), asyncio.ensure_future(_await(peer.ask(get(b"other", VALUE), within=FAR)))]
    await settle()
    # The replies of one chunk have all been matched when the first caller wakes, so the second one keeps its own.
    sent = [line.split() for line in peer.sent.splitlines()]
    peer.feed(b"".join(b"VA 1 %b\r\nx\r\n" % line[-1] for line in sent))
    results = await asyncio.gather(*tasks)
    assert value_of(results[1]) == b"x"


@in_virtual_time
async def test_what_has_no_outcome_says_so():
    read = Peer().ask()
    assert not read.done()
    assert not read.cancelled()
    with pytest.raises(asyncio.InvalidStateError):
        read.result()
    with pytest.raises(asyncio.InvalidStateError):
        read.exception()
    assert read.cancel()
    assert not read.cancel()
    with pytest.raises(asyncio.CancelledError):
        read.exception()
