"""Tally of one packet in several zones, on each core: when its owner is called, with which results, and when it completes."""

import asyncio
import gc
import weakref

import pytest

from evcache.zones.errors import NodeTimeout, QueueFull, Unsupported
from evcache.zones.protocol.replies import Reply
from tests.support.cores import CORES

pytestmark = pytest.mark.parametrize("core", CORES, ids=lambda core: core.name)

STORED = [Reply(b"NS", [], None), Reply(b"HD", [], None), Reply(b"HD", [], None)]
REFUSED = [Reply(b"NS", [], None), Reply(b"EX", [], None), Reply(b"EX", [], None)]


USUAL = (None, frozenset({b"HD", b"EN"}), frozenset({b"HD"}))


class Node:
    """Connection that keeps the waiter of a packet, or refuses the packet."""

    def __init__(self, refusal=None):
        self.refusal = refusal
        self.sent = []

    def send_store(self, store, waiter, deadline):
        if self.refusal is not None:
            raise self.refusal
        self.sent.append((store, deadline))
        self.waiter = waiter


class Loop:
    """Event loop that runs what is due when the test asks for it."""

    def __init__(self):
        self.due = []

    def create_future(self):
        return asyncio.Future(loop=self)

    def get_debug(self):
        return False

    def call_soon(self, callback, *args, context=None):
        self.due.append((callback, args, context))

    def run(self):
        while self.due:
            callback, args, context = self.due.pop(0)
            context.run(callback, *args) if context else callback(*args)


class Owner:
    def __init__(self):
        self.calls = []

    def reach(self, stored):
        self.calls.append(("reach", "".join(name for name, *_ in stored)))

    def finish(self, stored):
        self.calls.append(("finish", "".join(name for name, *_ in stored)))

    def settle(self, zone, answer):
        self.calls.append((zone[0], answer))


class Lane:
    def __init__(self):
        self.freed = []

    def ended(self, write):
        self.freed.append(write)


class Write:
    """A packet in zones a, b and c, of which c does not count."""

    def __init__(self, core, required, *, lane=None, **refusals):
        self.loop = Loop()
        self.owner = Owner()
        self.nodes = {name: Node(refusals.get(name)) for name in "abc"}
        self.tally = core.tally(self.owner, self.loop, required, USUAL, "pending", "stored")
        self.zones = [(name, name != "c", node, lane) for name, node in self.nodes.items()]
        self.tally.send(self.zones, "store", 5.0)

    def answer(self, zone, replies=STORED):
        self.nodes[zone].waiter.set_result(list(replies))

    @property
    def taken(self):
        return [zone[0] for zone in self.tally.take()]


def test_each_zone_gets_the_packet(core):
    write = Write(core, 2)
    assert [node.sent for node in write.nodes.values()] == [[("store", 5.0)]] * 3
    assert not any(node.waiter.done() for node in write.nodes.values())
    assert write.tally.outcomes == dict.fromkeys("abc", "pending")


@pytest.mark.parametrize(
    ("required", "order", "calls", "completed_by"),
    [
        (1, "abc", {"a": [("reach", "a")], "c": [("finish", "bc")]}, "a"),
        (2, "abc", {"b": [("reach", "ab")], "c": [("finish", "c")]}, "b"),
        (2, "cab", {"b": [("reach", "cab"), ("finish", "")]}, "b"),
        (1, "cab", {"a": [("reach", "ca")], "b": [("finish", "b")]}, "a"),
        (0, "abc", {"a": [("reach", "a")], "c": [("finish", "bc")]}, ""),
        (3, "abc", {"c": [("finish", "abc")]}, "c"),  # more than count
    ],
)
def test_the_owner_is_called_when_enough_zones_that_count_have_it_and_at_the_end(core, required, order, calls, completed_by):
    write = Write(core, required)
    for number, zone in enumerate(order, 1):
        write.answer(zone)
        assert write.tally.completion.done() == (completed_by in order[:number])
        assert write.tally.outcomes[zone] == "stored"
        assert write.tally.left == 3 - number
        assert write.tally.acknowledged == len(set(order[:number]) - {"c"})
        assert write.owner.calls == calls.get(zone, [])
        write.owner.calls.clear()
    assert write.tally.completion.done()
    assert write.taken == []


def test_a_cancelled_caller_changes_nothing_for_the_owner(core):
    write = Write(core, 2)
    write.tally.completion.cancel()
    for zone in "abc":
        write.answer(zone)
    assert write.owner.calls == [("reach", "ab"), ("finish", "c")]
    assert write.tally.completion.cancelled()


def test_callers_are_woken_by_the_event_loop_once(core):
    write = Write(core, 2)
    woken = []
    write.tally.completion.add_done_callback(woken.append)
    for zone in "abc":
        write.answer(zone)
    assert woken == []
    write.loop.run()
    assert woken == [write.tally.completion]
    assert write.tally.completion.result() is None


@pytest.mark.parametrize("last", ["usual", "another"])
def test_a_tally_that_has_ended_keeps_no_owner(core, last):
    """The owner has a reference to its tally, which would keep both until the garbage collector runs."""
    write = Write(core, 2)
    gone = weakref.ref(write.owner)
    write.answer("a")
    write.answer("b", REFUSED if last == "another" else STORED)
    write.answer("c")
    gc.disable()
    try:
        del write.owner
        assert gone() is None
    finally:
        gc.enable()


def test_another_result_goes_to_the_owner_with_its_replies(core):
    write = Write(core, 2)
    write.answer("a")
    write.answer("b", REFUSED)
    assert write.owner.calls == [("b", REFUSED)]
    assert write.tally.outcomes == {"a": "stored", "b": "pending", "c": "pending"}
    assert write.taken == ["a"]
    assert (write.tally.acknowledged, write.tally.left) == (1, 1)


@pytest.mark.parametrize("how", ["another result", "an error"])
def test_after_another_result_the_owner_gets_each(core, how):
    """Only the owner knows whether that zone will count."""
    write = Write(core, 2)
    if how == "an error":
        write.nodes["a"].waiter.set_exception(NodeTimeout("late"))
    else:
        write.answer("a", REFUSED)
    write.owner.calls.clear()
    write.answer("c")
    write.answer("b")
    assert write.owner.calls == [("c", STORED), ("b", STORED)]
    assert write.tally.outcomes == dict.fromkeys("abc", "pending")


@pytest.mark.parametrize(
    ("statuses", "is_usual"),
    [
        ([b"NS", b"HD", b"HD"], True),
        ([b"SERVER_ERROR", b"EN", b"HD"], True),  # the first does not matter
        ([b"HD", b"NS", b"HD"], False),
        ([b"HD", b"HD", b"EN"], False),
    ],
)
def test_a_result_is_usual_if_each_reply_is(core, statuses, is_usual):
    write = Write(core, 2)
    write.answer("a", [Reply(status, [], None) for status in statuses])
    assert write.tally.outcomes["a"] == ("stored" if is_usual else "pending")


def test_an_error_goes_to_the_owner(core):
    write = Write(core, 2)
    late = NodeTimeout("late")
    write.nodes["a"].waiter.set_exception(late)
    assert write.owner.calls == [("a", late)]


@pytest.mark.parametrize("full", [QueueFull("full"), Unsupported("versions", "a")], ids=lambda error: type(error).__name__)
def test_a_node_that_refuses_the_packet_is_settled_and_the_others_get_it(core, full):
    write = Write(core, 1, a=full)
    assert write.owner.calls == [("a", full)]
    assert write.nodes["b"].sent
    assert write.nodes["c"].sent
    assert list(write.tally.outcomes) == ["a", "b", "c"]


def test_a_zone_has_one_result(core):
    write = Write(core, 2)
    write.answer("a")
    waiter = write.nodes["a"].waiter
    assert waiter.done()
    waiter.set_exception(NodeTimeout("late"))
    waiter.set_result(REFUSED)
    assert write.owner.calls == []
    assert write.taken == ["a"]


@pytest.mark.parametrize("replies", [STORED[:2], [*STORED, STORED[0]]], ids=["too few", "too many"])
def test_another_number_of_replies_is_an_error(core, replies):
    with pytest.raises(IndexError):
        Write(core, 1).answer("a", replies)


def test_the_usual_result_frees_the_place_in_the_lane(core):
    lane = Lane()
    write = Write(core, 2, lane=lane)
    for number, zone in enumerate("cab", 1):
        write.answer(zone)
        assert lane.freed == [write.owner] * number


def test_the_owner_frees_the_place_of_a_zone_that_it_settles(core):
    lane = Lane()
    write = Write(core, 2, lane=lane, b=QueueFull("full"))
    write.answer("a", REFUSED)
    write.answer("c")
    assert [zone for zone, _ in write.owner.calls] == ["b", "a", "c"]
    assert lane.freed == []
