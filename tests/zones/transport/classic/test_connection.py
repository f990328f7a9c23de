"""The classic transport behind the seam: the same requests and answers as the pipelined one, on a pool of connections."""

import asyncio
import gc
import logging

import pytest

from evcache.zones.errors import (
    ConnectionLost,
    InvalidArgument,
    NodeTimeout,
    NodeUnavailable,
    ProtocolError,
    QueueFull,
    ServerError,
    Unsupported,
)
from evcache.zones.nodes.capabilities import Capabilities
from evcache.zones.nodes.node import Node
from evcache.zones.nodes.settings import NodeSettings
from evcache.zones.protocol.fields import COPY_FIELDS, INSPECT_FIELDS
from evcache.zones.protocol.operations import guarded_store
from evcache.zones.protocol.replies import Hit, Reply, read_hit
from evcache.zones.protocol.requests import PROBE_KEY
from evcache.zones.testing import FakeMemcached
from evcache.zones.topology.model import Endpoint
from evcache.zones.transport.classic.connection import ClassicConnection
from evcache.zones.transport.classic.operations import KEYS_PER_GET
from evcache.zones.transport.classic.pool import PoolLimits
from evcache.zones.transport.limits import ConnectionLimits
from evcache.zones.transport.pipelined import PipelinedConnection
from tests.support.operations import count, delete, get, lease, store, touch
from tests.support.scripted import FAR, MemoryDialer, Notes, outcome
from tests.support.streams import SOON, ScriptedServer, settled
from tests.support.virtual_time import in_virtual_time, now, settle

ENDPOINT = Endpoint.parse("host")


class Bench:
    """A node of one server in memory, closed at the end."""

    def __init__(self, server=None, **settings):
        self.loop = asyncio.get_running_loop()
        self.server = server or FakeMemcached(classic_only=True)
        self.dialer = MemoryDialer(host=self.server)
        self.node = Node(ENDPOINT, NodeSettings(dialer=self.dialer, **settings))

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.node.close()
        await settle()
        assert self.server.connections == 0

    async def connected(self):
        return await self.node.connected(self.loop.time() + FAR)

    async def ask(self, operation, *, within=FAR, waiter=None):
        """A future of the reply, or the waiter that was given."""
        answer = self.loop.create_future() if waiter is None else waiter
        operation(await self.connected(), answer, self.loop.time() + within)
        return answer

    async def reply(self, operation):
        return await (await self.ask(operation))

    async def set(self, key, value):
        return await self.ask(store(key, value))

    async def warm(self):
        """Open every connection of the pool."""
        connection = await self.connected()
        for answer in [await self.ask(get(b"k")) for _ in range(PoolLimits().connections)]:
            await answer
        await settle()
        assert connection.connections == PoolLimits().connections
        return connection

    def value(self, key):
        item = self.server.store.get(key)
        return None if item is None else item.value


@in_virtual_time
async def test_each_request_gets_the_reply_that_its_meta_form_has():
    async with Bench() as bench:
        key = b"k"
        assert await bench.reply(get(key)) == Reply(b"EN", [], None)
        assert await bench.reply(touch(key, 5)) == Reply(b"EN", [], None)
        assert await bench.reply(delete(key)) == Reply(b"NF", [], None)
        for mode in ("replace", "append", "prepend"):
            assert (await bench.reply(store(key, b"x", mode=mode))).status == b"NS"
        assert (await bench.reply(store(key, b"x", compare=1))).status == b"NF"
        assert (await bench.reply(store(key, b"abc", flags=9, ttl=60, mode="add"))).status == b"HD"
        assert (await bench.reply(store(key, b"def", flags=9, ttl=60, mode="add"))).status == b"NS"
        hit = read_hit(await bench.reply(get(key)))
        assert hit == Hit(b"abc", 9, hit.cas, None, stale=False, leased=False)
        assert (await bench.reply(store(key, b"x", compare=hit.cas + 1))).status == b"EX"
        assert (await bench.reply(store(key, b"x", compare=0))).status == b"EX"
        assert (await bench.reply(store(key, b"41", flags=3, compare=hit.cas))).status == b"HD"
        assert (await bench.reply(store(key, b"0", mode="append"))).status == b"HD"
        assert (await bench.reply(touch(key, 5))).status == b"HD"
        look = await bench.reply(get(key, INSPECT_FIELDS))
        assert (look.status, look.tokens[0]) == (b"HD", b"f3")
        assert await bench.reply(count(key, 2)) == Reply(b"VA", [], b"412")
        assert await bench.reply(count(key, 2, decrement=True)) == Reply(b"VA", [], b"410")
        assert (await bench.reply(delete(key))).status == b"HD"
        assert (await bench.reply(count(key, 1))).status == b"NF"
        await bench.reply(store(key, b"abc"))
        assert (await bench.reply(count(key, 1))).status == b"CLIENT_ERROR"
        assert bench.dialer.attempts[0][0] == "host"
        assert bench.server.connections_total == 2  # one that finds out that the server knows no meta commands


@in_virtual_time
async def test_a_value_that_is_refused_is_a_reply():
    async with Bench(FakeMemcached(classic_only=True, item_size_max=2_048)) as bench:
        reply = await bench.reply(store(b"k", b"x" * 4_096))
        assert reply.line == b"SERVER_ERROR object too large for cache"
        assert (await bench.connected()).is_open


@in_virtual_time
async def test_no_line_of_a_batch_is_longer_than_servers_take():
    """ElastiCache Serverless refuses lines of `gets` over 16 KiB: 65 of the longest keys."""
    async with Bench(FakeMemcached(classic_only=True, serverless=True)) as bench:
        keys = [b"k%0249d" % number for number in range(150)]
        await (await bench.set(keys[-1], b"v"))
        connection = await bench.connected()
        answer = bench.loop.create_future()
        connection.get_many(keys, COPY_FIELDS, answer, bench.loop.time() + FAR)
        assert [index for index, reply in enumerate(await answer) if reply is not None] == [149]


@in_virtual_time
async def test_a_batch_is_a_few_multi_gets():
    async with Bench() as bench:
        keys = [b"k%d" % number for number in range(2 * KEYS_PER_GET + 50)]
        for key in keys[::3]:
            await (await bench.set(key, b"v" + key))
        connection = await bench.connected()
        bench.server.commands.clear()
        answer = bench.loop.create_future()
        connection.get_many([*keys, keys[0], b"none"], COPY_FIELDS, answer, bench.loop.time() + FAR)
        expected = [b"v" + key if place % 3 == 0 else None for place, key in enumerate(keys)]
        assert [reply and read_hit(reply).value for reply in await answer] == [*expected, b"v" + keys[0], None]
        assert bench.server.commands == {"gets": 3}


WITHOUT_CLASSIC_FORM = [
    store(cas=9),
    store(mode="append", compare=9),
    delete(compare=9),
    count(compare=9),
    count(cas=9),
    lease(),
    lease(cas=9),
    lambda connection, *rest: connection.send_store(guarded_store(b"k", b"x", 0, 0, cas=9, stub=10), *rest),
    lambda connection, *rest: connection.guarded_touch(b"k", 60, 9, *rest),
    lambda connection, *rest: connection.replace_older(b"k", b"x", 0, 9, *rest),
]


@in_virtual_time
async def test_what_the_server_can_not_do_is_said_before_anything_is_sent():
    async with Bench() as bench:
        connection = await bench.connected()
        bench.server.commands.clear()
        notes = Notes()
        with pytest.raises(Unsupported, match="host:11211 does not support leases"):
            connection.lease(b"k", 30, notes, FAR)
        for operation in WITHOUT_CLASSIC_FORM:
            with pytest.raises(Unsupported):
                operation(connection, notes, FAR)
        await settle()
        assert notes.told == []
        assert not bench.server.commands
        assert connection.pending == 0


@in_virtual_time
async def test_each_request_has_its_deadline_and_the_next_its_own_reply():
    async with Bench() as bench:
        await (await bench.set(b"a", b"1"))
        await (await bench.set(b"b", b"2"))
        bench.server.pause()
        slow, later = (
            await bench.ask(get(b"a"), within=0.5),
            await bench.ask(get(b"b"), within=9),
        )
        began = now()
        with pytest.raises(NodeTimeout, match="host:11211: no reply in time"):
            await slow
        assert now() - began == pytest.approx(0.5)
        bench.server.resume()
        assert read_hit(await later).value == b"2"
        assert read_hit(await bench.reply(get(b"a"))).value == b"1"


@in_virtual_time
async def test_a_caller_who_leaves_costs_nothing():
    """The request goes on, and its reply is dropped."""
    async with Bench() as bench:
        await (await bench.set(b"k", b"0"))
        made = bench.server.connections_total
        for number in range(50):
            (await bench.set(b"k", b"%d" % number)).cancel()
            if number % 2:
                await settle(number % 5)
        assert read_hit(await bench.reply(get(b"k"))).value == b"49"
        assert bench.server.connections_total == made


@in_virtual_time
async def test_add_after_a_cancelled_set_and_incr_after_a_cancelled_incr():
    async with Bench() as bench:
        await bench.connected()
        bench.server.pause()
        (await bench.set(b"lock", b"mine")).cancel()
        add = await bench.ask(store(b"lock", b"yours", mode="add"))
        (await bench.set(b"n", b"100")).cancel()
        (await bench.ask(count(b"n", 11))).cancel()
        counted = await bench.ask(count(b"n", 1))
        bench.server.resume()
        assert (await add).status == b"NS"
        assert (await counted).value == b"112"
        assert bench.value(b"lock") == b"mine"


@in_virtual_time
async def test_writes_of_one_key_arrive_in_order_and_others_do_not_wait():
    """Each on a connection of its own, the last of them could arrive first, and the first would stay."""
    async with Bench(transport="classic") as bench:
        await bench.connected()
        bench.server.commands.clear()
        bench.server.pause()
        answers = [await bench.set(b"k", b"%d" % number) for number in range(40)]
        seen = await bench.ask(get(b"k"))
        others = [await bench.set(b"other%d" % number, b"x") for number in range(10)]
        await settle()
        assert bench.server.connections == 1 + len(others)
        bench.server.resume()
        assert [(await answer).status for answer in answers + others] == [b"HD"] * 50
        assert read_hit(await seen).value == b"39"
        assert bench.value(b"k") == b"39"


@in_virtual_time
async def test_a_read_that_nobody_waits_for_is_not_sent_and_a_write_is():
    """Calls that are cancelled faster than they are served would otherwise leave the server no time for others."""
    async with Bench(transport="classic", classic=PoolLimits(connections=1)) as bench:
        await bench.connected()
        bench.server.commands.clear()
        bench.server.pause()
        first = await bench.ask(get(b"first"))
        left = [await bench.ask(get(b"k%d" % number)) for number in range(20)]
        write = await bench.set(b"k", b"v")
        last = await bench.ask(get(b"last"))
        await settle()
        for answer in (*left, write):
            answer.cancel()
        bench.server.resume()
        assert [(await answer).status for answer in (first, last)] == [b"EN", b"EN"]
        assert bench.server.commands == {"gets": 2, "set": 1}
        assert bench.value(b"k") == b"v"


@in_virtual_time
async def test_reads_of_one_key_do_not_wait_for_each_other():
    async with Bench(transport="classic") as bench:
        await bench.connected()
        bench.server.pause()
        reads = [await bench.ask(get(b"k")) for _ in range(5)]
        await settle()
        assert bench.server.connections == 5
        bench.server.resume()
        assert [(await read).status for read in reads] == [b"EN"] * 5


@in_virtual_time
async def test_over_its_limits_a_request_fails_at_once():
    async with Bench(transport="classic", limits=ConnectionLimits(max_pending=3)) as bench:
        await bench.connected()
        bench.server.pause()
        waiting = [await bench.ask(get(b"k")) for _ in range(3)]
        with pytest.raises(QueueFull, match="3 requests are waiting already"):
            await bench.ask(get(b"k"))
        bench.server.resume()
        await asyncio.gather(*waiting)
        assert (await bench.reply(get(b"k"))).status == b"EN"
    async with Bench(transport="classic", limits=ConnectionLimits(max_queued_bytes=10)) as bench:
        await bench.connected()
        bench.server.pause()
        first = await bench.set(b"a", b"x" * 10)
        with pytest.raises(QueueFull, match="10 bytes are waiting"):
            await bench.set(b"b", b"x")
        bench.server.resume()
        await first
        assert (await (await bench.set(b"b", b"x"))).status == b"HD"


@in_virtual_time
async def test_retiring_answers_what_was_asked_and_takes_no_more():
    async with Bench() as bench:
        await bench.connected()
        bench.server.pause()
        waiting = [await bench.set(b"k%d" % number, b"v") for number in range(30)]
        connection = await bench.connected()
        closing = asyncio.ensure_future(bench.node.close(9))
        await settle()
        with pytest.raises(ConnectionLost):
            get(b"k")(connection, Notes(), FAR)
        assert connection.pending == 30
        bench.server.resume()
        assert [(await answer).status for answer in waiting] == [b"HD"] * 30
        await closing
        assert now() == 0
        assert bench.server.connections == 0


@in_virtual_time
async def test_aborting_tells_everyone_at_once_and_leaves_no_task():
    async with Bench() as bench:
        await bench.connected()
        bench.server.pause()
        waiting = [await bench.set(b"k", b"v") for _ in range(30)]  # most of them wait for the one before
        connection = await bench.connected()
        connection.abort("enough")
        connection.abort("again")
        assert {str(outcome(answer)) for answer in waiting} == {"host:11211: enough"}
        assert not connection.is_open
        await settle()
        assert connection.pending == 0
        bench.server.resume()


@in_virtual_time
async def test_a_waiter_that_asks_again_when_it_is_told_of_the_end_gets_another_connection():
    async with Bench() as bench:
        old = await bench.connected()
        again = []
        bench.server.pause()
        await bench.ask(get(b"k"), waiter=Notes(on_error=lambda _: again.append(bench.node.connection())))
        old.abort()
        await settle()
        bench.server.resume()
        assert again == [None]


# What the node does with it.


@in_virtual_time
async def test_a_node_finds_out_what_its_server_speaks():
    async with Bench() as bench:
        assert bench.node.transport is None
        assert isinstance(await bench.connected(), ClassicConnection)
        assert bench.node.transport == "classic"
        assert bench.node.capabilities == Capabilities("1.6.38", explicit_cas=False, cas=True, transport="classic")
        assert repr(bench.node) == "<Node host:11211 ready classic connections=1>"
        assert not bench.node.capabilities.versions
    async with Bench(FakeMemcached()) as bench:
        assert isinstance(await bench.connected(), PipelinedConnection)
        assert bench.node.transport == "meta"


@in_virtual_time
async def test_what_a_classic_server_says_of_itself_is_known():
    server = FakeMemcached(classic_only=True, version="1.4.39", item_size_max=4_096, cas_enabled=False)
    async with Bench(server) as bench:
        await bench.connected()
        expected = Capabilities("1.4.39", explicit_cas=False, cas=False, item_bytes=4_096, transport="classic")
        assert bench.node.capabilities == expected


@in_virtual_time
async def test_a_transport_can_be_forced():
    async with Bench(FakeMemcached(), transport="classic") as bench:
        assert isinstance(await bench.connected(), ClassicConnection)
        assert bench.server.commands["mn"] == 0
        assert bench.server.connections_total == 1
    async with Bench(transport="meta") as bench:
        with pytest.raises(NodeUnavailable, match="host:11211 does not support the meta protocol"):
            await bench.connected()
        assert bench.node.is_down


@pytest.mark.parametrize("name", ["", "binary", "META", None, 1])
def test_any_other_transport_is_an_argument_error(name):
    with pytest.raises(InvalidArgument, match="transport: .* is none of 'auto', 'meta', 'classic'"):
        NodeSettings(transport=name)


@in_virtual_time
async def test_there_is_no_login_on_a_classic_server_that_asks_for_one():
    for auth in (("ada", "secret"), None):
        async with Bench(FakeMemcached(auth=("ada", "secret")), transport="classic", auth=auth) as bench:
            with pytest.raises(NodeUnavailable, match="does not support a login over the classic protocol") as caught:
                await bench.connected()
            assert "secret" not in str(caught.value)
            assert bench.server.commands["set"] == 0


@in_virtual_time
async def test_one_transport_is_enough_whatever_number_of_connections_is_wanted():
    async with Bench(connections=3) as bench:
        await bench.connected()
        await settle()
        assert bench.server.connections == 1
        assert {id(await bench.connected()) for _ in range(9)} == {id(bench.node.connection())}
    async with Bench(FakeMemcached(), connections=3) as bench:
        await bench.connected()
        await settle()
        assert bench.server.connections == 3


@pytest.mark.parametrize(("before", "after"), [(True, False), (False, True)], ids=["upgraded", "downgraded"])
@in_virtual_time
async def test_a_server_that_comes_back_as_another_kind_is_asked_again(before, after):
    async with Bench(FakeMemcached(classic_only=before)) as bench:
        await bench.connected()
        was = bench.node.transport
        await bench.server.kill()
        other = bench.dialer.servers["host"] = FakeMemcached(classic_only=after)
        await settle()
        assert bench.node.state == "idle"
        answer = await bench.reply(get(b"k"))
        assert answer.status == b"EN"
        assert {was, bench.node.transport} == {"meta", "classic"}
        assert await bench.reply(store(b"k", b"x"))
        assert other.store.get(b"k").value == b"x"
        await bench.node.close()
        await settle()
        assert other.connections == 0


@in_virtual_time
async def test_connections_made_for_a_server_of_another_kind_are_not_used():
    """Behind a balancer one connection may end at an old server while another lives on at a new one."""
    async with Bench(FakeMemcached(), connections=2) as bench:
        await bench.connected()
        await settle()
        first, second = bench.node.connections.ready
        asked = bench.loop.create_future()
        bench.server.pause()
        get(b"k")(second, asked, bench.loop.time() + FAR)
        other = bench.dialer.servers["host"] = FakeMemcached(classic_only=True)
        first.abort()
        await bench.connected()
        await settle()
        bench.node.connection()  # which notices that one is missing
        await settle()
        assert bench.node.transport == "classic"
        assert [type(connection) for connection in bench.node.connections.ready] == [ClassicConnection]
        assert not second.is_open
        bench.server.resume()
        assert (await asked).status == b"EN", "what was asked before is still answered"
        assert (await bench.reply(get(b"k"))).status == b"EN"
        await bench.node.close()
        await settle()
        assert other.connections == 0


@in_virtual_time
async def test_a_request_whose_task_somebody_else_cancels_is_told():
    async with Bench() as bench:
        await bench.connected()
        bench.server.pause()
        waiting = [await bench.set(b"k", b"v") for _ in range(3)]
        for task in asyncio.all_tasks():
            if task.get_name().startswith("evcache-classic"):
                task.cancel()
        await settle()
        assert {str(outcome(answer)) for answer in waiting} == {"host:11211: given up"}
        bench.server.resume()
        assert (await bench.reply(get(b"other"))).status == b"EN"


@in_virtual_time
async def test_a_server_that_goes_while_calls_wait_is_connected_to_again():
    async with Bench() as bench:
        await bench.warm()
        bench.server.pause()
        waiting = [await bench.ask(get(b"k%d" % number)) for number in range(40)]
        await settle()
        await bench.server.stop()
        await settle(100)
        errors = [outcome(answer) for answer in waiting]
        # Calls on a connection lost it. Calls that waited for one found no server.
        assert {type(error) for error in errors} == {ConnectionLost, NodeUnavailable}
        assert now() == 0
        assert bench.node.is_down
        bench.server.revive()
        await asyncio.sleep(10)
        assert (await bench.reply(get(b"k"))).status == b"EN"


@in_virtual_time
async def test_one_connection_that_ends_fails_its_own_call_only():
    """The other calls are answered on their connections while the node repeats the handshake."""
    async with Bench(transport="classic") as bench:
        old = await bench.warm()
        bench.server.pause()
        waiting = [await bench.set(b"k%d" % number, b"v") for number in range(20)]
        await settle()
        bench.dialer.made[3].streams.writer.transport.hang_up(None)
        bench.server.resume()
        await settle(50)
        outcomes = [outcome(answer) for answer in waiting]
        assert [type(told) for told in outcomes].count(ConnectionLost) == 1
        assert [type(told) for told in outcomes].count(Reply) == 19
        assert not old.is_open
        new = await bench.connected()
        assert new is not old
        assert old.pending == 0


@in_virtual_time
async def test_an_idle_end_is_no_outage(caplog):
    caplog.set_level(logging.INFO, "evcache.zones")
    async with Bench() as bench:
        await bench.connected()
        await bench.server.stop()
        bench.server.revive()
        await asyncio.sleep(60)
        assert bench.node.state == "idle"
        assert (await bench.reply(get(b"k"))).status == b"EN"
        assert caplog.records == []


# Servers that do as they like, on sockets.


def on_sockets(scenario):
    """Run a coroutine as a test on the real loop."""

    def run():
        async def main():
            problems = []
            asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
            async with asyncio.timeout(2 * SOON):
                await scenario()
            await settled(lambda: asyncio.all_tasks() == {asyncio.current_task()})
            gc.collect()
            assert problems == []

        asyncio.run(main())

    run.__name__, run.__doc__ = scenario.__name__, scenario.__doc__
    return run


FIRST_WORDS = (b"END\r\n", b"VERSION 1.4.39\r\n", b"END\r\n")


async def node_on(server, **settings):
    return Node(Endpoint.parse(server.address), NodeSettings(connect_timeout=SOON, **{"transport": "classic", **settings}))


async def told(node, operation):
    """The reply, or the error."""
    loop = asyncio.get_running_loop()
    answer = loop.create_future()
    operation(await node.connected(loop.time() + SOON), answer, loop.time() + SOON)
    await asyncio.wait([answer])
    return outcome(answer)


@on_sockets
async def test_a_proxy_that_closes_on_questions_it_does_not_know_is_used_all_the_same():
    async with ScriptedServer(b"END\r\n", ScriptedServer.CLOSE, ScriptedServer.CLOSE, b"END\r\n") as server:
        node = await node_on(server)
        assert (await told(node, get(b"k"))).status == b"EN"
        assert node.capabilities == Capabilities("unknown", explicit_cas=False, cas=True, transport="classic")
        assert server.lines == [b"gets %b\r\n" % PROBE_KEY, b"version\r\n", b"stats settings\r\n", b"gets k\r\n"]
        await node.close()


@on_sockets
async def test_one_that_answers_nothing_at_all_is_down():
    async with ScriptedServer(ScriptedServer.CLOSE) as server:
        node = await node_on(server)
        with pytest.raises(NodeUnavailable, match="closed by the server"):
            await node.connected(asyncio.get_running_loop().time() + SOON)
        await node.close()


@on_sockets
async def test_a_memcached_with_too_many_connections_is_not_taken_for_a_classic_server():
    """Or it would be used without versions until the next reconnect."""
    for words in (b"ERROR Too many open connections\r\n", b"SERVER_ERROR busy\r\n"):
        async with ScriptedServer((words, ScriptedServer.CLOSE)) as server:
            node = await node_on(server, transport="auto")
            with pytest.raises(NodeUnavailable, match=words.decode().strip()):
                await node.connected(asyncio.get_running_loop().time() + SOON)
            assert node.transport is None
            await node.close()


@on_sockets
async def test_one_that_closes_at_the_first_question_is_not_taken_for_a_classic_server():
    async with ScriptedServer(ScriptedServer.CLOSE) as server:
        node = await node_on(server, transport="auto")
        with pytest.raises(NodeUnavailable):
            await node.connected(asyncio.get_running_loop().time() + SOON)
        assert node.transport is None
        assert server.total == 3  # two of them find out why it closes
        await node.close()


WRONG = {
    "a store's, to a read": (get(b"k"), (b"STORED\r\n",), ProtocolError),
    "another key's value": (get(b"k"), (b"VALUE other 0 6 5\r\nsecret\r\nEND\r\n",), ProtocolError),
    "one of the meta protocol": (get(b"k"), (b"EN\r\n",), ProtocolError),
    "two": (delete(b"k"), (b"DELETED\r\nDELETED\r\n",), ProtocolError),
    "a proxy without a server": (get(b"k"), (b"SERVER_ERROR unavailable\r\n",), NodeUnavailable),
    "a refusal": (get(b"k"), (b"SERVER_ERROR out of memory writing get response\r\n",), ServerError),
    "an unknown command": (delete(b"k"), (b"ERROR\r\n",), ProtocolError),
    "a lost thread": (
        store(b"k", b"x"), (b"CLIENT_ERROR bad data chunk\r\n",), ProtocolError,
    ),
    "nothing": (delete(b"k"), (ScriptedServer.CLOSE,), ConnectionLost),
    "half a value": (
        get(b"k"), ((b"VALUE k 0 10 5\r\nhal", ScriptedServer.CLOSE),), ConnectionLost,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_an_answer_that_makes_no_sense_is_an_error_of_this_call_only(name):
    operation, answer, error = WRONG[name]

    @on_sockets
    async def scenario():
        async with ScriptedServer(*FIRST_WORDS, *answer) as server:
            node = await node_on(server)
            problem = await told(node, operation)
            assert type(problem) is error
            assert problem.node == node.label
            server.script[:] = [*FIRST_WORDS, b"END\r\n"] if error is ConnectionLost else [b"END\r\n"]
            assert (await told(node, get(b"k"))).status == b"EN"
            await node.close()

    scenario()


def test_on_the_event_loop_that_services_use():
    """uvloop's transports are not of asyncio's classes."""
    uvloop = pytest.importorskip("uvloop")

    async def main():
        async with FakeMemcached(classic_only=True) as server:
            node = await node_on(server, transport="auto")
            stores = [told(node, store(b"k%d" % n, b"v")) for n in range(50)]
            assert {reply.status for reply in await asyncio.gather(*stores)} == {b"HD"}
            assert read_hit(await told(node, get(b"k7"))).value == b"v"
            assert node.transport == "classic"
            gone = asyncio.get_running_loop().create_future()
            get(b"k7")(node.connection(), gone, asyncio.get_running_loop().time() + SOON)
            await server.stop()
            await asyncio.wait([gone])
            gone.exception()
            await node.close()

    uvloop.run(main())


@on_sockets
async def test_on_a_unix_socket_and_with_a_pool_of_its_own_size():
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        server = FakeMemcached(classic_only=True)
        await server.start_unix(f"{folder}/socket")
        settings = NodeSettings(classic=PoolLimits(connections=2), connect_timeout=SOON)
        node = Node(Endpoint.parse(server.address), settings)
        answers = await asyncio.gather(*(told(node, get(b"k%d" % n)) for n in range(20)))
        assert {answer.status for answer in answers} == {b"EN"}
        assert server.connections == 2
        await node.close()
        await server.stop()
