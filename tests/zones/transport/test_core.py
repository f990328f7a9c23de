"""The compiled core and its twin in Python do the same with the same bytes, and the environment selects one of them."""

import asyncio
import copy
from array import array
from collections import deque
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evcache.zones.errors import NodeError
from evcache.zones.protocol.fields import NO_FLAGS, Fields
from evcache.zones.protocol.packet import LARGE_BYTES
from evcache.zones.protocol.replies import STATUSES, Hit, Reply
from evcache.zones.transport.batches import ExpectEach, ExpectHits, ExpectValues
from evcache.zones.transport.byte_counter import ByteCounter
from evcache.zones.transport.core.looks import Look
from evcache.zones.transport.core.selected import COMPILED, PURE, select
from evcache.zones.transport.in_flight import (
    ExpectAll,
    ExpectRead,
    ExpectReply,
    ExpectStore,
    ExpectText,
)
from evcache.zones.transport.limits import ConnectionLimits
from tests.support.cores import CORES
from tests.support.examples import examples

compiled = pytest.mark.skipif(COMPILED is None, reason="evcache was built without a compiler")
LIMITS = {"max_line": 64, "max_value": 256}  # small, so that random lines and lengths are on both sides of them


@pytest.mark.parametrize("pure", ["1", "yes", "true"])
def test_evcache_pure_selects_the_core_in_python(pure):
    assert select(pure) is PURE


@compiled
@pytest.mark.parametrize("pure", [None, "", "0"])
def test_the_compiled_core_runs_where_it_is_installed(pure):
    assert select(pure) is COMPILED


@compiled
@pytest.mark.parametrize("data", [None, "HD\r\n", bytearray(b"HD\r\n"), 1])
def test_the_compiled_decoder_refuses_anything_but_bytes(data):
    with pytest.raises(TypeError):
        COMPILED.new_decoder().feed(data)


class Caller:
    """Waiter that keeps its results. It may give up after the first request in front of it was answered."""

    def __init__(self, log, name, *, gives_up):
        self.log = log
        self.name = name
        self.gives_up = gives_up

    def done(self):
        return self.gives_up or any(name == self.name for name, _ in self.log)

    def set_result(self, result):
        self.log.append((self.name, result))

    def set_exception(self, error):
        self.log.append((self.name, (type(error), str(error))))


def send(data, expected):
    """Stands in for a connection without room for further requests."""
    del data, expected
    raise NodeError("full")


def request(kind, caller, number):
    opaque = b"O%d" % number
    if kind is ExpectAll:
        return ExpectAll(caller, 1.0, opaque, 3)
    if kind is ExpectHits:
        return ExpectHits(caller, 1.0, [opaque, b"O%d" % (number + 1)], [b"a", b"b"], Fields(b"v"), send)
    if kind is ExpectValues:
        return ExpectValues(caller, 1.0, opaque, [b"k", b"a", b"k"], [2, 3], Fields(b"v"), send)
    if kind is ExpectEach:
        return ExpectEach(caller, 1.0, opaque, [0, 1], [None, None])
    if kind is ExpectText:
        return ExpectText(caller, 1.0, b"END")
    if kind is ExpectRead:
        return ExpectRead(caller, 1.0, opaque, 2.0)
    return kind(caller, 1.0, opaque)


def outcome(core, kinds, slices, timeouts):
    """Return all that a core does with these bytes: results of callers, requests left, replies in time, the error."""
    log = []
    waiting = deque(request(kind, Caller(log, place, gives_up=gone), place) for place, (kind, gone) in enumerate(kinds))
    decoder = core.new_decoder(**LIMITS)
    in_time = []
    try:
        for piece in slices:
            in_time.append(core.match(decoder, waiting, piece, "node", timeouts))
    except NodeError as error:
        return log, len(waiting), in_time, (type(error), str(error))
    return log, len(waiting), in_time, decoder.awaited


# Lines near those of a server: right ones, and such with a wrong opaque, number, order or end.
opaques = st.integers(0, 4).map(lambda number: b"O%d" % number) | st.sampled_from([b"", b"O", b"Ox", b"O00", b"O9" * 3])
numbers = st.integers(0, 2**70).map(lambda number: b"%d" % number) | st.sampled_from([b"", b"-1", b"+1", b"1_0", b"0" * 21])


@st.composite
def items(draw):
    value = draw(st.binary(max_size=300))
    length = draw(st.just(b"%d" % len(value)) | numbers)
    tokens = [b"f" + draw(numbers), b"c" + draw(numbers)]
    if draw(st.booleans()):
        tokens.append(b"t" + draw(numbers))
    tokens.append(draw(opaques))
    tokens += draw(st.lists(st.sampled_from([b"W", b"X", b"Z", b""]), max_size=2))
    return b" ".join([b"VA", length, *tokens]) + draw(st.sampled_from([b"\r\n", b"\n", b""])) + value + b"\r\n"


@st.composite
def keyed_items(draw):
    value = draw(st.binary(max_size=3) | st.binary(max_size=300))
    key = draw(st.sampled_from([b"k", b"a", b"", b"k" * 40, b"k" * 251, b"a b"]))
    length = draw(st.just(b"%d" % len(value)) | numbers)
    tokens = [b"VALUE", key, draw(numbers), length, *draw(st.lists(numbers, min_size=1, max_size=2))]
    return b" ".join(tokens) + draw(st.sampled_from([b"\r\n", b"\n", b""])) + value + b"\r\n"


likely_values = st.sampled_from(
    [
        b"VALUE k 0 1 7\r\nx\r\n",
        b"VALUE a 0 0 7\r\n\r\n",
        b"VALUE a 9 0 7\r\n\r\n",
        b"END\r\n",
        b"MN\r\n",
        b"SERVER_ERROR x\r\n",
    ]
)
lines = st.builds(
    lambda status, tokens, end: b" ".join([status, *tokens]) + end,
    st.sampled_from([*sorted(STATUSES), b"hd", b""]),
    st.lists(opaques | st.binary(max_size=40), max_size=3),
    st.sampled_from([b"\r\n"] * 9 + [b"\r", b"\n", b""]),
)
likely = st.integers(0, 4).flatmap(
    lambda number: st.sampled_from(
        [b"HD O%d\r\n", b"EN O%d\r\n", b"VA 2 f0 c7 O%d\r\nab\r\n", b"VA 0 f0 c7 t-1 O%d\r\n\r\n"]
    ).map(lambda line: line % number)
)
kinds = st.tuples(
    st.sampled_from([ExpectReply, ExpectRead, ExpectStore, ExpectAll, ExpectHits, ExpectValues, ExpectEach, ExpectText]),
    st.booleans(),
)


@compiled
@settings(max_examples=examples(4))
@given(
    st.lists(kinds, max_size=5),
    st.lists(items() | keyed_items() | lines | likely | likely_values, max_size=8),
    st.lists(st.integers(0, 2_000), max_size=6),
    st.integers(0, 1),
)
def test_both_cores_do_the_same_with_the_same_bytes(requests, parts, places, timeouts):
    data = b"".join(parts)
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    slices = [data[start:stop] for start, stop in zip(edges, edges[1:], strict=False)]
    assert outcome(COMPILED, requests, slices, timeouts) == outcome(PURE, requests, slices, timeouts)


@compiled
@given(
    st.lists(st.binary(min_size=1, max_size=250), max_size=20),
    st.sampled_from([Fields(b"v"), Fields(b"v f c t")]),
    st.integers(1, 2**63),
)
def test_both_cores_encode_the_same_batch(keys, fields, first):
    assert COMPILED.encode_reads(keys, fields, first) == PURE.encode_reads(keys, fields, first)


@compiled
@pytest.mark.parametrize("keys", [[None], ["a"], [b"a", 1], None])
def test_the_compiled_encoder_refuses_keys_that_are_no_bytes(keys):
    with pytest.raises(TypeError):
        COMPILED.encode_reads(keys, Fields(b"v"), 1)


def unusual(key):
    return ("unusual", key)


class Text(str):
    """Kind of str whose methods may return other results."""

    __slots__ = ()


@pytest.mark.parametrize("core", CORES, ids=lambda core: core.name)
@pytest.mark.parametrize(
    ("key", "full"),
    [
        ("k", b"ns:k"),
        ("user:42", b"ns:user:42"),
        ("x" * 8, b"ns:" + b"x" * 8),
        ("~!", b"ns:~!"),
        ("x" * 9, None),
        ("", None),
        ("a b", None),
        ("a\n", None),
        ("a\x00", None),
        ("a\x7f", None),
        ("\xe9", None),
        ("\u20ac", None),
        ("#a", None),
        ("a#", b"ns:a#"),
        (b"k", None),
        (7, None),
        (None, None),
        (Text("k"), None),
    ],
)
def test_a_usual_key_gets_its_prefix_and_others_go_to_the_caller(core, key, full):
    qualify, qualify_all = core.qualifier(b"ns:", 8, "#", unusual)
    expected = unusual(key) if full is None else full
    assert qualify(key) == expected
    if isinstance(key, Text):
        return  # the caller's function makes the same of it, which `unusual` of this test does not
    assert qualify_all([key]) == [expected]
    assert qualify_all(["a", key, "b"]) == [b"ns:a", expected, b"ns:b"]


@compiled
@settings(max_examples=examples(2))
@given(st.text(max_size=12) | st.text(st.characters(max_codepoint=130), max_size=12) | st.binary(max_size=12))
def test_both_cores_make_the_same_of_every_key(key):
    made = [core.qualifier(b"ns:", 8, "#", unusual) for core in CORES]
    assert made[0][0](key) == made[1][0](key)
    assert made[0][1]([key, "k"]) == made[1][1]([key, "k"])


class Data(bytes):
    """A subclass, which a codec may return."""

    __slots__ = ()


# Around the sizes from which a value travels once, and uncopied.
values = st.binary(max_size=200) | st.sampled_from([128, 129, LARGE_BYTES - 1, LARGE_BYTES, LARGE_BYTES + 1]).map(bytes)
stores = st.tuples(
    st.binary(max_size=250),
    values | values.map(Data),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**31) | st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
)


@compiled
@given(stores, st.integers(0, 2**64 - 1))
def test_both_cores_encode_a_store_alike(store, stub):
    for made, twin in (
        (COMPILED.guarded_store(*store, stub), PURE.guarded_store(*store, stub)),
        (COMPILED.plain_store(*store), PURE.plain_store(*store)),
    ):
        assert made == twin
        assert type(made) is type(twin)
        assert type(made.packet) is type(twin.packet)
        assert hash(made._replace(packet=None)) == hash(twin._replace(packet=None))


@compiled
@pytest.mark.parametrize(
    "store", [(b"k", "v", 0, 0, 1), (b"k", b"v", -1, 0, 1), (b"k", b"v", 0, -1, 1), (b"k", b"v", 0, 0, 2**64)]
)
def test_the_core_in_c_refuses_a_store_that_it_would_cut(store):
    with pytest.raises((TypeError, OverflowError)):
        COMPILED.guarded_store(*store, 9)
    with pytest.raises((TypeError, OverflowError)):
        COMPILED.plain_store(*store)


class Item(NamedTuple):
    """Item as a reader of a zone makes it."""

    hit: Hit
    zone: str
    version: int


@pytest.mark.parametrize("core", CORES, ids=lambda core: core.name)
def test_replies_and_items_have_the_hash_of_their_fields(core):
    """Python 3.14 keeps the hash in the tuple, so a tuple that is made without its type must begin with none."""
    hit, keyed = core.new_decoder().feed(b"VA 1 f0 c7 O1\r\nx\r\nVALUE k 0 1 7\r\nx\r\n")
    found = {}
    core.accept_hits(Look(0, 100, Item, 1), 100, "a", [hit], [b"k"], ["k"], array("Q", [0]), NO_FLAGS, {}, found)
    for made in hit, keyed, keyed.hit, found[b"k"]:
        assert hash(made) == hash(tuple(made))
        assert hash(made) == hash(type(made)(*made))


def exchange_and_read():
    loop = asyncio.new_event_loop()
    exchange = COMPILED.new_exchange("node-1", loop, ConnectionLimits(), None, lambda: None, lambda _: None, ByteCounter())
    exchange.room = 1
    read = exchange.read(b"k", Fields(b"v"), 1.0)
    loop.close()
    return exchange, read


@compiled
def test_objects_of_the_compiled_core_are_not_copied():
    for thing in exchange_and_read():
        with pytest.raises(TypeError):
            copy.copy(thing)


@compiled
def test_an_object_without_its_exchange_is_an_error_and_no_crash():
    exchange, read = exchange_and_read()
    assert type(read).__new__(type(read)).get_loop() is None
    for call in (
        lambda: type(exchange).__new__(type(exchange)).queued_bytes,
        lambda: type(exchange).__new__(type(exchange)).awaited,
    ):
        with pytest.raises(AttributeError):
            call()
    with pytest.raises(TypeError):
        type(read)()
    assert list(COMPILED.new_decoder.__new__(COMPILED.new_decoder).feed(b"HD\r\n")) == [Reply(b"HD", [], None)]
