"""The only ready connection of a node, which most requests take without a call."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evcache.zones.nodes.connection_set import ConnectionSet


class Connection:
    is_open = True
    requests = 0
    pending = 0

    def retire(self):
        """Take no more requests."""

    def forgive(self):
        """Reset the count of timeouts."""


STEPS = {
    "add": lambda connections, known: connections.add(known),
    "suspend": lambda connections, _: connections.suspend(),
    "resume": lambda connections, _: connections.resume(),
    "retire": lambda connections, known: connections.retire([known]),
    "leave": lambda connections, known: connections.leave(known),
    "forget": lambda connections, known: connections.forget(known),
}


@pytest.mark.parametrize("may_be_sole", [True, False])
@given(st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 2)), max_size=12))
def test_the_sole_connection_is_the_ready_one_if_there_is_one_alone(may_be_sole, steps):
    loop = asyncio.new_event_loop()
    try:
        connections = ConnectionSet(loop)
        connections.may_be_sole = may_be_sole
        known = [Connection() for _ in range(3)]
        for name, number in steps:
            STEPS[name](connections, known[number])
            alone = connections.ready[0] if len(connections.ready) == 1 else None
            assert connections.sole is (alone if may_be_sole else None)
    finally:
        loop.close()
