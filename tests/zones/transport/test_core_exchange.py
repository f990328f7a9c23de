"""The exchange of the compiled core and its twin in Python do the same with the same calls and bytes.

Each script runs on two connections at once, one on each core, in one event loop of virtual time. After every step the callers
have the same outcomes and the same requests wait. Once no callback is due, the connections have written the same bytes.
"""

import asyncio
import random
from array import array
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evcache.zones.errors import NodeError, NodeSilent
from evcache.zones.protocol.fields import COPY_FIELDS, READ_FIELDS, Fields
from evcache.zones.protocol.packet import LARGE_BYTES
from evcache.zones.protocol.replies import Hit
from evcache.zones.transport.core.selected import COMPILED, PURE
from evcache.zones.transport.in_flight import ExpectAll, ExpectRead, ExpectReply, movable, move_away
from tests.support.cores import running
from tests.support.packets import packet_of
from tests.support.scripted import Encoded, Peer, ScriptedTransport
from tests.support.virtual_time import run, settle

pytestmark = pytest.mark.skipif(COMPILED is None, reason="evcache was built without a compiler")

FIELDS = [READ_FIELDS, COPY_FIELDS, Fields(b"v")]
LIMITS = {"max_pending": 12, "max_queued_bytes": 4 * LARGE_BYTES}
SECONDS = [0.004, 0.02, 0.05, 0.3, 2.0]
VALUES = [b"", b"x", b"END\r\n", b"y" * 300]
KNOWN = (2**64 - 500, 1)  # CAS and flags
TEXTS = [(b"version", None), (b"stats", b"END"), (b"mn", None)]
# Bytes that are seldom the right ones at their place.
WRONG = [
    b"HD O99\r\n",
    b"EN\r\n",
    b"EN O1\r\n",
    b"VA 1 f0 c7 O2\r\nx\r\n",
    b"VA 2 f0 c7 O1\r\nx\r\n",
    b"VA 9999999999 f0 c7 O1\r\nx",
    b"VALUE k0 0 1 7\r\nx\r\n",
    b"VALUE k9 0 1 7\r\nx\r\n",
    b"END\r\n",
    b"MN\r\n",
    b"SERVER_ERROR out of memory storing object\r\n",
    b"SERVER_ERROR backend failure\r\n",
    b"CLIENT_ERROR bad command line format\r\n",
    b"ERROR\r\n",
    b"OK\r\n",
    b"\r\n",
    b"\x00",
    b"V",
    b"x" * 2_100,
]


def plain(result):
    """Return a result in a form that is equal on both cores. The value of a known item may be alone, see `Transport.read`."""
    if type(result) is list:
        return [plain(each) for each in result]
    if type(result) is bytes or (type(result) is Hit and (result.cas, result.flags, result.ttl) == (*KNOWN, None)):
        return "known", result if type(result) is bytes else result.value
    return type(result), str(result) if isinstance(result, BaseException) else result


def outcome_of(read):
    """Return the outcome of an awaitable read, or None. The read then counts as looked at."""
    if not read.done():
        return None
    return "cancelled" if read.cancelled() else plain(read.exception() or read.result())


class Caller:
    """Waiter that the connection calls. It may have given up, and it may act when it is called."""

    def __init__(self, side, name, action, *, gives_up=False):
        self.side = side
        self.name = name
        self.action = action
        self.is_done = gives_up

    def done(self):
        return self.is_done

    def set_result(self, result):
        assert not self.is_done, "called twice"
        self.is_done = True
        self.side.outcomes.append((self.name, plain(result)))
        self.side.act(self.action, self.name)

    set_exception = set_result


class PausingTransport(ScriptedTransport):
    """Pauses the connection within the write of a large value. The step `resume` ends the pause."""

    def write(self, data):
        super().write(data)
        if len(data) >= LARGE_BYTES:
            self._protocol.pause_writing()


class Side:
    """One connection, its callers, and what each of them got."""

    def __init__(self, core):
        with running(core):
            self.peer = Peer(open_it=False, **LIMITS)
        self.peer.transport = PausingTransport(self.peer.connection)
        self.peer.connection.connection_made(self.peer.transport)
        self.connection = self.peer.connection
        self.reads = []
        self.tasks = []
        self.outcomes = []  # of waiters that the connection calls
        self.woken = []  # of tasks and callbacks that wait for a read, in the order in which they woke
        self.others = {}  # of tasks that await a read within another function of asyncio

    def read(self, name, fields, seconds, way, action):
        """Send a read, and wait for it in one of several ways."""
        latest = None if name % 2 else self.peer.deadline(4 * seconds)
        known = KNOWN if name % 3 else ()
        read = self.connection.read(b"k%d" % (name % 5), fields, self.peer.deadline(seconds), latest, *known)
        self.reads.append(read)
        if way == 1:
            read.add_done_callback(lambda done: self.woken.append((name, "callback", done is read)))
        elif way == 2:
            self.start(self.await_other(name, partial(asyncio.wait_for, read, seconds / 2)))
        elif way == 3:
            self.start(self.await_other(name, partial(asyncio.shield, read)))
        elif way == 4:
            reads = read, self.reads[name % len(self.reads)]
            self.start(self.await_other(name, partial(asyncio.gather, *reads, return_exceptions=True)))
        elif way == 5:
            self.start(self.await_other(name, partial(asyncio.wait, [read], timeout=seconds / 2)))
        elif way:
            self.start(self.await_read(name, read, action))
        if way == 6:  # two tasks await it
            self.start(self.await_read(name, read, 0))

    def start(self, coroutine):
        self.tasks.append(asyncio.ensure_future(coroutine))

    async def await_read(self, name, read, action):
        try:
            result = await read
        except (NodeError, asyncio.CancelledError) as error:
            result = error
        self.woken.append((name, plain(result)))
        self.act(action, name)

    async def await_other(self, name, begin):
        try:
            result = await begin()
        except (NodeError, TimeoutError, asyncio.CancelledError) as error:
            result = error
        # asyncio.wait returns sets of reads, which differ
        self.others[name] = [len(each) for each in result] if type(result) is tuple else plain(result)

    def act(self, action, name):
        """Act within the call of a waiter, or in a task that wakes."""
        try:
            if action == 1:
                self.read(name + 100, READ_FIELDS, 0.02, 0, 0)
            elif action == 2:
                self.connection.get_many([b"a", b"b"], READ_FIELDS, Caller(self, name + 200, 0), self.peer.deadline(1))
            elif action == 3 and self.reads:
                self.reads[name % len(self.reads)].cancel()
            elif action == 4 and self.tasks:
                self.tasks[name % len(self.tasks)].cancel()
            elif action == 5 and name % 3 == 0:
                self.connection.abort()
            elif action == 6 and name % 3 == 0:
                self.connection.retire()
        except NodeError as error:
            self.outcomes.append((name, "acts", plain(error)))

    def waiting(self):
        """Return what is known of each request in flight, with the classes of the core in Python."""
        twins = {"Read": ExpectReply, "PacketEntry": ExpectAll}
        found = []
        for entry in self.connection.waiting:
            kind = twins.get(type(entry).__name__, type(entry))
            if kind is ExpectReply and entry.latest is not None:
                kind = ExpectRead
            found.append((kind, entry.opaque, entry.deadline, entry.latest, entry.payload, entry.waiter.done()))
        return found

    def state(self):
        """Return what must be equal on both cores after each step."""
        exchange = self.connection._exchange  # noqa: SLF001
        return {
            "waiting": self.waiting(),
            "reads": [outcome_of(read) for read in self.reads],
            "outcomes": self.outcomes,
            "numbers": (exchange.opaque, exchange.batched, exchange.awaited, exchange.room, exchange.waiting_since),
            "connection": (self.connection.requests, self.connection.unanswered, self.connection.is_open),
            "lost": [plain(error) for error in self.peer.lost],
            "late": self.peer.late,
        }

    def settled_state(self):
        """Return what must be equal besides when no callback is due."""
        exchange = self.connection._exchange  # noqa: SLF001
        return {
            "woken": self.woken,
            "others": self.others,
            "timer": exchange.timer_at,
            "queued": exchange.queued_bytes,
            "tasks": [task.done() for task in self.tasks],
        }


class Server:
    """Reads what a connection has written, and makes replies as memcached does, seldom wrong ones."""

    def __init__(self):
        self.position = 0
        self.replies = b""
        """Bytes of replies that are not delivered."""

    def serve(self, written, count, chance):
        """Reply to the next requests.

        Args:
            written: All bytes that were written.
            count: Number of requests.
            chance: Source of random numbers.
        """
        for _ in range(count):
            end = written.find(b"\r\n", self.position)
            if end < 0:
                return
            command, *words = written[self.position : end].split(b" ")
            self.position = end + 2
            if command == b"ms":
                self.position += int(words[1]) + 2
            reply = self.reply(command, words, chance)
            self.replies += 2 * reply if chance.random() < 0.01 else reply

    def reply(self, command, words, chance):
        if chance.random() < 0.02:
            return chance.choice(WRONG)
        if chance.random() < 0.03:
            return b"SERVER_ERROR backend failure\r\n"
        if command == b"mn":
            return b"MN\r\n"
        if command == b"version":
            return b"VERSION 1.6.38\r\n"
        if command == b"stats":
            return b"STAT a 1\r\nSTAT b 2\r\nEND\r\n"
        if command == b"gets":
            return b"".join(self.keyed_item(key, chance) for key in words) + b"END\r\n"
        opaque = words[-1]
        if command != b"mg":
            return b"%b %b\r\n" % (chance.choice([b"HD", b"NS", b"EX", b"NF"]), opaque)
        if chance.random() < 0.4:
            return b"" if b"q" in words else b"EN %b\r\n" % opaque
        value = chance.choice(VALUES)
        left = b" t-1" if b"t" in words else b""
        marks = chance.choice([b""] * 9 + [b" W", b" X Z"])
        numbers = len(value), chance.randrange(3), chance.choice([KNOWN[0], chance.randrange(2**64)])
        return b"VA %d f%d c%d%b %b%b\r\n%b\r\n" % (*numbers, left, opaque, marks, value)

    def keyed_item(self, key, chance):
        if chance.random() < 0.4:
            return b""
        value = chance.choice(VALUES)
        cas = chance.choice([KNOWN[0], chance.randrange(2**64)])
        return b"VALUE %b %d %d %d\r\n%b\r\n" % (key, chance.randrange(3), len(value), cas, value)


class Pair:
    """A connection on each core, and one server. Both write the same bytes, so the server reads those of the first."""

    def __init__(self):
        self.sides = [Side(PURE), Side(COMPILED)]
        self.server = Server()
        self.count = 0

    async def step(self, name, a, b):
        """Take one step on both connections, and compare them. Two numbers choose its details."""
        self.count += 1
        # A task begins, and a socket ends, while no caller waits to be woken. Their places among these callers would differ,
        # because the compiled core wakes all callers at the place of the first.
        is_apart = name in {"end", "await_read"} or (name == "read" and a % 9 > 1)
        if is_apart or name == "serve":
            await settle()
        if name == "wait":
            if a % 2:
                await asyncio.sleep(SECONDS[b % len(SECONDS)])
            await settle()  # timers of the same time run in any order
        elif name == "serve":
            self.compare(Side.settled_state, name, a, b)
            self.compare_bytes()
            self.server.serve(self.sides[0].peer.sent, a % 6, random.Random(a * 256 + b))
        else:
            errors = [self.take(side, name, a, b) for side in self.sides]
            assert errors[0] == errors[1], (name, a, b)
        if name == "feed":
            self.server.replies = self.server.replies[a:]
        elif name == "feed_all":
            self.server.replies = b""
        if is_apart:
            await settle()
        self.compare(Side.state, name, a, b)

    def take(self, side, name, a, b):
        try:
            getattr(self, name)(side, a, b)
        except NodeError as error:
            return plain(error)
        return None

    def compare(self, state, *step):
        pure, compiled = map(state, self.sides)
        for part, value in pure.items():
            assert compiled[part] == value, (part, *step)

    def compare_bytes(self):
        pure, compiled = (side.peer.sent for side in self.sides)
        if not self.sides[0].connection.is_open:  # a caller may have ended it before or after the last write
            size = min(len(pure), len(compiled))
            pure, compiled = pure[:size], compiled[:size]
        assert compiled == pure

    async def finish(self):
        """End the connections. No caller is left without an outcome."""
        for side in self.sides:
            side.connection.abort()
        await asyncio.sleep(10)
        await settle()
        self.compare(Side.state)
        self.compare(Side.settled_state)
        self.compare_bytes()
        for side in self.sides:
            assert all(task.done() for task in side.tasks)
            assert all(read.done() for read in side.reads)
            assert not side.connection.waiting

    # Steps on one connection.

    def read(self, side, a, b):
        side.read(self.count, FIELDS[a % 3], SECONDS[b % 5], a % 9, b % 7)

    def await_read(self, side, a, b):
        if side.reads:
            side.start(side.await_read(self.count, side.reads[a % len(side.reads)], b % 7))

    def get(self, side, a, b):
        side.connection.get(b"k%d" % (a % 5), FIELDS[b % 3], *self.caller(side, a, b), self.latest(side, a))

    def get_many(self, side, a, b):
        keys = [b"k%d" % ((a + index) % 5) for index in range(b % 6)]
        known = (array("Q", [KNOWN[0]] * len(keys)), KNOWN[1]) if a % 4 else ()
        side.connection.get_many(keys, FIELDS[a % 3], *self.caller(side, a, b), self.latest(side, a), *known)

    def packet(self, side, a, b):
        value = bytes(LARGE_BYTES) if a % 5 == 0 else b"x"
        commands = [(b"ms k %d" % len(value), value), (b"md k", None), (b"mt k", None)][: a % 3 + 1]
        side.connection.send_store(Encoded(packet_of(commands)), *self.caller(side, a, b))

    def store(self, side, a, b):
        side.connection.store(b"k", bytes(LARGE_BYTES) if a % 5 == 0 else b"x", 0, 0, *self.caller(side, a, b))

    def text(self, side, a, b):
        line, until = TEXTS[a % 3]
        side.connection.request_text(line, *self.caller(side, a, b), until=until, may_be_unknown=b % 4 == 0)

    def caller(self, side, a, b):
        """Return a waiter and its deadline."""
        return Caller(side, self.count, b % 7, gives_up=a % 8 == 7), side.peer.deadline(SECONDS[b % 5])

    def latest(self, side, a):
        return side.peer.deadline(3.0) if a % 2 else None

    def cancel_read(self, side, a, _):
        if side.reads:
            side.reads[a % len(side.reads)].cancel()

    def cancel_task(self, side, a, _):
        if side.tasks:
            side.tasks[a % len(side.tasks)].cancel()

    def move(self, side, a, _):
        move_away(movable(side.connection.waiting)[: a % 4], lambda: NodeSilent("moved", "node-1"))

    def pause(self, side, *_):
        side.connection.pause_writing()

    def resume(self, side, *_):
        side.connection.resume_writing()

    def retire(self, side, *_):
        side.connection.retire()

    def abort(self, side, *_):
        side.connection.abort()

    def end(self, side, a, _):
        side.peer.transport.end(ConnectionResetError("reset") if a % 2 else None)

    def feed(self, side, a, _):
        side.peer.feed(self.server.replies[:a])

    def feed_all(self, side, *_):
        side.peer.feed(self.server.replies)

    def feed_wrong(self, side, a, _):
        side.peer.feed(WRONG[a % len(WRONG)])


# Some steps are more likely, so that most scripts have replies before the connection ends.
LIKELY = ["read", "await_read", "get_many", "serve", "feed", "feed_all"] * 8 + ["get", "packet", "store", "text", "wait"] * 4
UNLIKELY = ["cancel_read", "cancel_task", "move", "pause", "resume", "resume"] * 2 + ["retire", "abort", "end", "feed_wrong"]
STEPS = LIKELY + UNLIKELY


async def play(script):
    """Run a script on both cores."""
    pair = Pair()
    for step in script:
        await pair.step(*step)
    await pair.finish()


def random_script(seed, longest):
    chance = random.Random(seed)
    size = chance.randrange(1, longest)
    return [(chance.choice(STEPS), chance.randrange(256), chance.randrange(256)) for _ in range(size)]


@settings(max_examples=100, derandomize=True, database=None)
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 255), st.integers(0, 255)), max_size=40))
def test_both_cores_do_the_same_with_the_same_calls(script):
    run(play(script))


def test_both_cores_do_the_same_with_the_same_calls_of_longer_scripts():
    async def play_all():
        for seed in range(300):
            await play(random_script(seed, longest=100))

    run(play_all())
