"""Each caller gets its own reply or an error, under random requests, cancellations, timeouts and packets."""

import asyncio
import random

import pytest

from evcache.zones.errors import NodeTimeout
from evcache.zones.protocol.fields import READ_FIELDS
from evcache.zones.protocol.replies import Hit, Reply
from tests.support.operations import get
from tests.support.scripted import VALUE, Peer
from tests.support.virtual_time import in_virtual_time, settle

pytestmark = pytest.mark.usefixtures("each_core")


def reply(text, value=None):
    status, *tokens = text.split(b" ")
    return Reply(status, tokens, value)


class Server:
    """Answers requests in order; the value of a key says which key it is."""

    def __init__(self, rng):
        self._rng = rng
        self._buffer = b""
        self.replies = b""

    def receive(self, data):
        self._buffer += data
        while b"\r\n" in self._buffer:
            line, _, rest = self._buffer.partition(b"\r\n")
            command, *tokens = line.split(b" ")
            if command == b"ms":
                size = int(tokens[1])
                if len(rest) < size + 2:
                    return
                assert rest[size : size + 2] == b"\r\n"
                value, rest = rest[:size], rest[size + 2 :]
                self.replies += b"HD s%b %b\r\n" % (value, tokens[-1])
            elif command == b"gets":
                for key in tokens:
                    if not key.startswith(b"miss"):
                        self.replies += b"VALUE %b 0 %d 7\r\nof %b\r\n" % (key, len(key) + 3, key)
                self.replies += b"END\r\n"
            elif command == b"mg":
                key, quiet = tokens[0], b"q" in tokens
                if not key.startswith(b"miss"):
                    self.replies += b"VA %d k%b %b\r\nof %b\r\n" % (len(key) + 3, key, tokens[-1], key)
                elif not quiet:
                    self.replies += b"EN k%b %b\r\n" % (key, tokens[-1])
            else:
                self.replies += b"MN\r\n" if command == b"mn" else b"VERSION 1\r\n"
            self._buffer = rest

    def some(self):
        """Some of the bytes that are due."""
        size = self._rng.choice([1, 2, 5, 20, 200, 10_000])
        piece, self.replies = self.replies[:size], self.replies[size:]
        return piece


class Load:
    """Random requests; for each, its future and a check of what it may get."""

    def __init__(self, peer, rng):
        self._peer = peer
        self._rng = rng
        self._number = 0
        self.waiting = []

    def _key(self):
        self._number += 1
        return b"%b%d" % (self._rng.choice([b"hit", b"miss"]), self._number)

    def send(self):
        within = self._rng.choice([0.003, 0.05, 1_000.0])
        match self._rng.randrange(4):
            case 0:
                key = self._key()
                self.waiting.append((self._peer.ask(get(key, VALUE), within=within), lambda got: self._is_of(got, key)))
            case 1:
                key = self._key()
                future = self._peer.ask_all([b"ms k %d" % len(key)] * 3, key, within=within)
                self.waiting.append((future, lambda got: [found.tokens[0] for found in got] == [b"s" + key] * 3))
            case 2:
                keys = [self._key() for _ in range(self._rng.randrange(5))]
                fields = self._rng.choice([VALUE, READ_FIELDS])
                future = self._peer.ask_many([b"%b" % key for key in keys], within=within, fields=fields)
                hits = [place for place, key in enumerate(keys) if key.startswith(b"hit")]
                self.waiting.append(
                    (
                        future,
                        lambda got: (
                            [place for place, one in enumerate(got) if one is not None] == hits
                            and all(one is None or self._is_of(one, keys[at]) for at, one in enumerate(got))
                        ),
                    )
                )
            case _:
                self.waiting.append((self._peer.ask_text(within=within), lambda got: got == [reply(b"VERSION 1")]))

    def cancel_one(self):
        unfinished = [future for future, _ in self.waiting if not future.done()]
        if unfinished:
            self._rng.choice(unfinished).cancel()

    @staticmethod
    def _is_of(got, key):
        value = None if key.startswith(b"miss") else b"of " + key
        if isinstance(got, Hit):  # of a batch by keys
            return got.value == value
        return got.tokens[0] == b"k" + key and got.value == value


@pytest.mark.parametrize("seed", range(25))
@in_virtual_time
async def test_whoever_is_answered_gets_exactly_its_own_reply(seed):
    """Many requests of all kinds, random cancellations and timeouts, replies in random slices."""
    rng = random.Random(seed)
    peer = Peer(silence=1_000)
    server = Server(rng)
    load = Load(peer, rng)
    taken = 0
    for _ in range(400):
        match rng.randrange(8):
            case 0 | 1 | 2:
                load.send()
            case 3:
                load.cancel_one()
            case 4 | 5:
                await settle(2)
                fresh = peer.sent[taken:]
                taken += len(fresh)
                server.receive(fresh)
            case 6:
                peer.feed(server.some())
            case _:
                await asyncio.sleep(rng.choice([0.001, 0.01]))
    await settle()
    server.receive(peer.sent[taken:])
    while server.replies:
        peer.feed(server.some())

    counts = {"answered": 0, "cancelled": 0, "late": 0}
    for future, is_its_own in load.waiting:
        if future.cancelled():
            counts["cancelled"] += 1
        elif future.exception() is not None:
            assert type(future.exception()) is NodeTimeout
            counts["late"] += 1
        else:
            assert is_its_own(future.result())
            counts["answered"] += 1
    assert all(count >= 5 for count in counts.values()), counts  # the run was about all three
    assert peer.connection.is_open
    assert peer.connection.pending == 0
