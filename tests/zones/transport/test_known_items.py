"""Reads that name a CAS and flags which the caller knows. On the compiled core, the value alone is then the reply."""

import asyncio
from array import array

import pytest

from evcache.zones.protocol.fields import COPY_FIELDS, NO_FLAGS, READ_FIELDS
from evcache.zones.protocol.replies import Hit
from evcache.zones.transport.core.selected import COMPILED, PURE
from tests.support.cores import CORES, running
from tests.support.scripted import FAR, Peer
from tests.support.virtual_time import in_virtual_time

CAS, FLAGS = 2**64 - 500, 2048

each_core = pytest.mark.parametrize("core", CORES, ids=lambda core: core.name)


def is_alone(core, reply, value):
    """Return True if the value is alone, False if it is in a hit with its CAS. The core in Python has hits alone."""
    if core is PURE or type(reply) is Hit:
        assert type(reply) is Hit
        assert reply.value == value
        return False
    assert reply == value
    return True


READS = [
    (b"VA 1 f2048 c%d O1" % CAS, {}, True),
    (b"VA 1 f2048 c%d O1" % CAS, {"cas": CAS - 1}, False),
    (b"VA 1 f2048 c%d O1" % CAS, {"flags": 0}, False),
    (b"VA 1 f2048 c%d O1" % CAS, {"flags": NO_FLAGS}, False),
    (b"VA 1 f2048 c%d t-1 O1" % CAS, {"fields": COPY_FIELDS}, False),  # the reply says more
    (b"VA 1 f2048 c%d O1 X" % CAS, {}, False),  # stale
    (b"VA 1 f2048 c%d O1" % (CAS + 2**64), {}, False),  # equal in its last 64 bits
    (b"VA 1 f2048 c0 O1", {"cas": 0}, False),  # of a server without CAS
    (b"VA 1 f2048 c%d O1" % CAS, {"key": b"k" * 250}, True),
]


@each_core
@pytest.mark.parametrize(("line", "asked", "alone"), READS)
@in_virtual_time
async def test_a_read_of_a_known_item(core, line, asked, alone):
    with running(core):
        peer = Peer()
    asked = {"key": b"k", "fields": READ_FIELDS, "cas": CAS, "flags": FLAGS} | asked
    read = peer.connection.read(asked["key"], asked["fields"], FAR, FAR, asked["cas"], asked["flags"])
    peer.feed(line + b"\r\nv\r\n")
    reply = await read
    if type(reply) is bytes or type(reply) is Hit:
        assert is_alone(core, reply, b"v") is (alone and core is COMPILED)
    else:  # with marks
        assert (reply.value, alone) == (b"v", False)


@each_core
@pytest.mark.parametrize(
    ("line", "cas", "flags", "alone"),
    [
        (b"VALUE b 2048 1 %d" % CAS, CAS, FLAGS, True),
        (b"VALUE b 2048 1 %d" % CAS, CAS - 1, FLAGS, False),
        (b"VALUE b 2048 1 %d" % CAS, CAS, 0, False),
        (b"VALUE b 2048 1 %d" % CAS, CAS, NO_FLAGS, False),
        (b"VALUE b 2048 1 %d" % (CAS + 2**64), CAS, FLAGS, False),
        (b"VALUE b 2048 1 0", 0, FLAGS, False),
        (b"VALUE b 0 1 %d" % CAS, CAS, 0, True),
    ],
)
@pytest.mark.parametrize("first", [b"", b"VALUE a 0 1 7\r\nx\r\n"], ids=["miss", "hit"])
@in_virtual_time
async def test_a_batch_with_a_known_item(core, line, cas, flags, alone, first):
    """The known item is the second. After a miss, the core in C compares the reply with the CAS of another key."""
    with running(core):
        peer = Peer()
    answer = asyncio.get_running_loop().create_future()
    peer.connection.get_many([b"a", b"b", b"c"], READ_FIELDS, answer, FAR, FAR, array("Q", [1, cas, 3]), flags)
    peer.feed(first + line + b"\r\nv\r\nEND\r\nMN\r\n")
    before, reply, after = await answer
    assert (before is None, after) == (not first, None)
    assert is_alone(core, reply, b"v") is (alone and bool(first) and core is COMPILED)


@each_core
@in_virtual_time
async def test_an_empty_value_without_flags_is_read_again(core):
    """It may be the stub of a lease, which no reply to `gets` shows."""
    with running(core):
        peer = Peer()
    answer = asyncio.get_running_loop().create_future()
    peer.connection.get_many([b"a", b"b"], READ_FIELDS, answer, FAR, FAR, array("Q", [CAS, CAS]), 0)
    peer.feed(b"VALUE a 0 0 %d\r\n\r\nVALUE b 0 1 %d\r\nv\r\nEND\r\nMN\r\n" % (CAS, CAS))
    assert not answer.done()
    peer.feed(b"EN O1\r\n")
    empty, reply = await answer
    assert empty is None
    assert is_alone(core, reply, b"v") is (core is COMPILED)


@pytest.mark.skipif(COMPILED is None, reason="evcache was built without a compiler")
@pytest.mark.parametrize("cas", [array("Q", [CAS]), array("d", [1.0, 2.0])])
@in_virtual_time
async def test_the_core_in_c_checks_the_known_cas(cas):
    """It reads the numbers without a look at their type."""
    with running(COMPILED):
        peer = Peer()
    answer = asyncio.get_running_loop().create_future()
    with pytest.raises(TypeError):
        peer.connection.get_many([b"a", b"b"], READ_FIELDS, answer, FAR, FAR, cas, FLAGS)
