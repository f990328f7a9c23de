"""While a node is not asked, one probe at a time looks whether it can be again, and nobody else does."""

import asyncio
from collections import Counter

import pytest

from evcache.zones.errors import NodeUnavailable
from evcache.zones.health.circuit_breaker import CircuitLimits
from evcache.zones.transport.classic.pool import PoolLimits
from evcache.zones.transport.limits import ConnectionLimits
from tests.support.node_bench import FIRST_PAUSE, LONGEST_PAUSE, TIMEOUT, answered, ask, bench_of, call, time_out
from tests.support.virtual_time import in_virtual_time, now, settle

kinds = pytest.mark.parametrize("classic_only", [False, True], ids=["meta", "classic"])


@kinds
@in_virtual_time
async def test_an_open_circuit_meets_many_callers_and_the_server_meets_one_probe(classic_only):
    """Their calls fail at once all the time, while the circuit is open and while it is half-open."""
    async with bench_of(classic_only, circuit=CircuitLimits(jitter=0.0, probe_timeout=0.5)) as bench:
        await bench.connected()
        bench.server.pause()
        await time_out(bench)
        connections = bench.server.connections_total
        sent = bench.server.commands.copy()
        states = set()
        until = now() + 1.4  # one pause, and most of a probe's time
        while now() < until:
            began = now()
            results = await asyncio.gather(*(call(bench) for _ in range(50)))
            assert {type(result) for result in results} == {NodeUnavailable}
            assert now() == began
            states.add(bench.node.circuit)
            await asyncio.sleep(0.01)
        assert states == {"open", "half-open"}
        bench.server.resume()
        await settle(60)
        # A server that stood still reads what timed out, too: the requests, the probe, and the handshake of the one
        # connection that the node tried after the first timeout.
        handshake = {"mg": 1, "mn": 1, "version": 1, "stats": 1}
        expected = Counter({"gets": 4}) if classic_only else Counter({"mg": 3, "mn": 1}) + Counter(handshake)
        assert bench.server.commands - sent == expected
        assert bench.server.connections_total - connections == (1 if classic_only else 0)
        assert bench.node.state == "ready"


@pytest.mark.parametrize("callers", [1, 50])
@in_virtual_time
async def test_each_pause_ends_with_exactly_one_probe(callers):
    """However many calls there are."""
    async with bench_of(circuit=CircuitLimits(jitter=0.0, probe_timeout=0.1)) as bench:
        await bench.connected()
        bench.server.pause()
        await time_out(bench)
        before = bench.server.commands["mn"]
        for _ in range(880):  # pauses of 1, 2, and 4 seconds, and probes of 0.6 seconds
            await asyncio.gather(*(call(bench) for _ in range(callers)))
            await asyncio.sleep(0.01)
        assert bench.node.is_down
        bench.server.resume()
        await settle(40)
        # Each on the old connection, and on a new one; another new one after the first timeout.
        assert bench.server.commands["mn"] - before == 3 * 2 + 1
        assert bench.node.is_down  # they were answered too late


@kinds
@in_virtual_time
async def test_pauses_begin_with_the_first_and_double(classic_only):
    async with bench_of(classic_only, circuit=CircuitLimits(jitter=0.0, probe_timeout=0.1)) as bench:
        await bench.connected()
        bench.server.pause()
        await time_out(bench)
        opened = now()
        begun, state = [], "open"
        while len(begun) < 5:
            await asyncio.sleep(0.005)
            if state != bench.node.circuit == "half-open":
                begun.append(now() - opened)
            state = bench.node.circuit
        # Each probe takes its 0.1 s, and 0.5 s for a new connection. A pool replaces its connections itself.
        takes = 0.1 if classic_only else 0.6
        assert begun == [pytest.approx(2**n - 1 + (n - 1) * takes, abs=0.05) for n in (1, 2, 3, 4, 5)]


@in_virtual_time
async def test_a_server_that_goes_on_is_asked_on_the_same_connection():
    """Its late replies are a sign of life: the client probes at once, on the same connection."""
    async with bench_of() as bench:
        connection = await bench.connected()
        bench.server.pause()
        await time_out(bench)
        assert bench.node.pending == 3
        assert connection.is_open
        bench.server.resume()
        assert bench.node.is_down  # until its probe is answered
        await settle(20)
        assert bench.node.pending == 0
        assert bench.node.connection() is connection
        assert await answered(bench)
        assert bench.server.connections == 1


@pytest.mark.parametrize("when", [0.0, 0.5, 1.05], ids=["at once", "in the pause", "in the probe"])
@kinds
@in_virtual_time
async def test_a_connection_that_is_lost_meanwhile_is_replaced(classic_only, when):
    async with bench_of(classic_only) as bench:
        connection = await bench.connected()
        bench.server.pause()
        await time_out(bench)
        await asyncio.sleep(when)
        await bench.hang_up()
        await asyncio.sleep(4 * FIRST_PAUSE)
        assert bench.node.state == "ready"
        if not classic_only:  # whose pool had lost them all to the timeouts
            assert bench.node.connection() is not connection
        assert await answered(bench)


@in_virtual_time
async def test_a_connection_that_stays_silent_is_given_up_and_the_next_probe_connects():
    async with bench_of(limits=ConnectionLimits(silence=5.0)) as bench:
        connection = await bench.connected()
        bench.server.pause()
        await time_out(bench)
        await asyncio.sleep(2)
        assert connection.is_open
        await asyncio.sleep(10)
        assert not connection.is_open
        assert bench.node.is_down
        bench.server.resume()
        await asyncio.sleep(LONGEST_PAUSE)
        assert await answered(bench)
        assert bench.server.connections == 1


@pytest.mark.parametrize(("slow", "back"), [(0.05, True), (0.2, False)])
@in_virtual_time
async def test_a_server_that_answers_probes_too_late_stays_down(slow, back):
    """It is up, and of no use: slower than the time that a read has for it. Nor does a new connection help."""
    async with bench_of(circuit=CircuitLimits(jitter=0.0, slow_start=0.0, probe_timeout=0.1)) as bench:
        latency = 0.0
        connect = bench.server.connect

        async def connect_far(factory):
            transport, connection = await connect(factory)
            write = transport.write
            transport.write = lambda data: bench.loop.call_later(latency, write, data)
            return transport, connection

        bench.server.connect = connect_far
        await bench.connected()
        bench.server.pause()
        await time_out(bench)
        latency = slow
        bench.server.resume()
        await asyncio.sleep(100)
        assert bench.node.is_down is not back
        assert len([1 for connection in bench.dialer.made if connection.is_open]) == 1


@in_virtual_time
async def test_without_a_time_of_its_own_a_probe_has_that_of_a_connect():
    async with bench_of(connect_timeout=0.4) as bench:
        await bench.connected()
        bench.server.pause()
        await time_out(bench)
        await asyncio.sleep(1.7)  # the pause, a probe, and not yet a new connection
        assert bench.node.circuit == "half-open"
        await asyncio.sleep(0.2)
        assert bench.node.circuit == "open"


@in_virtual_time
async def test_a_node_that_is_back_after_a_refusal_is_probed_on_its_new_connection():
    """A server may let itself be connected to and answer nothing that matters."""
    async with bench_of() as bench:
        bench.refuse()
        with pytest.raises(NodeUnavailable):
            await bench.connected()
        bench.accept()
        await asyncio.sleep(FIRST_PAUSE)
        assert bench.server.commands["mn"] == 2  # the first words begin with one
        assert bench.node.state == "ready"


# Coming back.


@kinds
@in_virtual_time
async def test_after_a_return_timeouts_are_counted_from_the_beginning(classic_only):
    async with bench_of(classic_only) as bench:
        await bench.connected()
        bench.server.pause()
        await time_out(bench)
        bench.server.resume()
        await asyncio.sleep(2 * FIRST_PAUSE)
        assert not bench.node.is_down
        bench.server.pause()
        await time_out(bench, 2)
        assert not bench.node.is_down
        await time_out(bench, 1)
        assert bench.node.is_down


@in_virtual_time
async def test_after_a_return_timeouts_are_counted_anew_on_each_connection():
    """Also on the one that was not probed."""
    async with bench_of(connections=2) as bench:
        await bench.connected()
        await settle(100)
        bench.server.pause()
        while not bench.node.is_down:
            await time_out(bench, 1)
        bench.server.resume()
        await asyncio.sleep(2 * FIRST_PAUSE)
        assert not bench.node.is_down
        bench.server.pause()
        await time_out(bench, 2)
        assert not bench.node.is_down


@pytest.mark.parametrize("connections", [1, 3])
@in_virtual_time
async def test_all_connections_are_suspended_and_all_of_them_come_back(connections):
    async with bench_of(connections=connections) as bench:
        await bench.connected()
        await settle(200)
        made = set(bench.dialer.made)
        assert len(made) == connections
        bench.server.pause()
        while not bench.node.is_down:
            await time_out(bench, 1)
        assert all(connection.is_open for connection in made)
        bench.server.resume()
        await asyncio.sleep(2 * FIRST_PAUSE)
        assert {bench.node.connection() for _ in range(10)} == made
        assert bench.server.connections == connections


@in_virtual_time
async def test_of_several_suspended_connections_those_that_were_lost_are_replaced():
    async with bench_of(connections=3) as bench:
        await bench.connected()
        await settle(200)
        bench.server.pause()
        while not bench.node.is_down:
            await time_out(bench, 1)
        bench.dialer.made[0].abort()
        bench.dialer.made[2].abort()
        bench.server.resume()
        await asyncio.sleep(2 * FIRST_PAUSE)
        used = {bench.node.connection() for _ in range(10)}
        assert len(used) == 3
        assert used & set(bench.dialer.made[:3]) == {bench.dialer.made[1]}


@in_virtual_time
async def test_a_circuit_that_opens_while_another_connection_is_refused_is_probed_after_its_own_pause():
    """The attempts to have one more connection may be half a minute apart by then."""
    async with bench_of(connections=2) as bench:
        await bench.connected()
        await settle(100)
        bench.refuse()
        bench.dialer.made[0].abort()
        bench.node.connection()  # which asks for another
        await asyncio.sleep(200)
        bench.server.pause()
        await time_out(bench)
        assert bench.node.is_down
        bench.server.resume()
        await asyncio.sleep(FIRST_PAUSE)
        assert not bench.node.is_down
        bench.accept()
        await asyncio.sleep(2 * LONGEST_PAUSE)
        assert bench.server.connections == 2


@in_virtual_time
async def test_a_circuit_that_opens_while_another_connection_is_made_pauses_before_its_probe():
    async with bench_of(connections=2, connect_timeout=5.0) as bench:
        await bench.connected()
        await settle(100)
        bench.dialer.gate = asyncio.Event()
        bench.dialer.made[0].abort()
        bench.node.connection()
        bench.server.pause()
        await time_out(bench)
        assert bench.node.circuit == "open"
        bench.dialer.gate.set()
        await asyncio.sleep(0.5)
        assert bench.node.circuit == "open"
        await asyncio.sleep(FIRST_PAUSE - 0.45)
        assert bench.node.circuit == "half-open"
        bench.server.resume()
        await settle(20)
        assert bench.node.circuit == "closed"
        await asyncio.sleep(FIRST_PAUSE)
        assert bench.server.connections == 2


@kinds
@in_virtual_time
async def test_each_change_is_told_once_when_it_is_so(classic_only):
    async with bench_of(classic_only) as bench:
        await bench.connected()
        assert bench.changes == []
        for _ in range(2):
            bench.server.pause()
            await time_out(bench)
            await asyncio.sleep(20)  # several probes
            bench.server.resume()
            await asyncio.sleep(LONGEST_PAUSE)
        assert [(state, down) for state, down, _ in bench.changes] == [("down", True), ("ready", False)] * 2


@in_virtual_time
async def test_outages_are_remembered_with_their_beginning_and_end():
    async with bench_of() as bench:
        await bench.connected()
        assert bench.node.outages == []
        for _ in range(2):
            bench.server.pause()
            await time_out(bench)
            bench.server.resume()
            assert len(bench.changes) == 2 * len(bench.node.outages) + 1  # while it lasts it is not among them
            await asyncio.sleep(60)
        times = [time for _, _, time in bench.changes]
        outages = [(outage.began, outage.ended) for outage in bench.node.outages]
        start = bench.loop.time() - now()
        assert outages == [
            (pytest.approx(start + began), pytest.approx(start + ended))
            for began, ended in zip(times[::2], times[1::2], strict=True)
        ]


# Closing.


@pytest.mark.parametrize("turns", range(30))
@pytest.mark.parametrize("lost", [False, True], ids=["kept", "lost"])
@kinds
@in_virtual_time
async def test_close_at_any_moment_of_a_probe_leaves_nothing(classic_only, lost, turns):
    """`Bench` and `run` look for tasks, connections and a health that are left."""
    async with bench_of(classic_only, circuit=CircuitLimits(jitter=0.0)) as bench:
        await bench.connected()
        bench.server.pause()
        await time_out(bench)
        if lost:
            await bench.hang_up()
        else:
            bench.server.resume()
        while bench.node.circuit != "half-open":
            await asyncio.sleep(0.0005)
            if bench.node.circuit == "closed":
                break  # it took no time
        await settle(turns)
        await bench.node.close()
        await settle()
        assert bench.node.state == "closed"
        assert bench.health.unhealthy == 0
        assert bench.server.connections == 0
        changes = len(bench.changes)
        await asyncio.sleep(600)
        assert len(bench.changes) == changes


@pytest.mark.parametrize("turns", range(30))
@pytest.mark.parametrize("connections", [1, 2])
@in_virtual_time
async def test_close_at_any_turn_after_the_pause_leaves_nothing(connections, turns):
    """From the turn in which the keeper wakes."""
    async with bench_of(connections=connections, circuit=CircuitLimits(jitter=0.0)) as bench:
        await bench.connected()
        await settle(100)
        bench.server.pause()
        while not bench.node.is_down:
            await time_out(bench, 1)
        bench.server.resume()
        opened = bench.changes[-1][2]
        await asyncio.sleep(opened + 1.0 - now())
        await settle(turns)
        await bench.node.close()
        await settle()
        assert (bench.health.unhealthy, bench.server.connections) == (0, 0)
        await asyncio.sleep(600)
        assert bench.health.unhealthy == 0


@pytest.mark.parametrize("drain", [0.0, 1.0])
@pytest.mark.parametrize("state", ["open", "half-open"])
@kinds
@in_virtual_time
async def test_close_while_it_is_down_takes_no_time(classic_only, state, drain):
    """Nobody waits for anything on it any more."""
    async with bench_of(classic_only) as bench:
        await bench.connected()
        bench.server.pause()
        await time_out(bench)
        while bench.node.circuit != state:
            await asyncio.sleep(0.01)
        began = now()
        await bench.node.close(drain)
        assert now() == began
        assert (bench.node.state, bench.health.unhealthy, bench.node.failure) == ("closed", 0, None)


@in_virtual_time
async def test_requests_that_still_have_time_when_it_opens_are_answered():
    """They were on their way, with a later deadline."""
    async with bench_of() as bench:
        await bench.connected()
        bench.server.pause()
        patient = await ask(bench, within=5)
        await time_out(bench)
        assert bench.node.is_down
        assert not patient.told
        bench.server.resume()
        await settle()
        assert patient.told[0].status == b"EN"


@in_virtual_time
async def test_a_pool_that_is_exhausted_by_a_silent_server_is_probed_too():
    async with bench_of(classic_only=True, classic=PoolLimits(connections=2, acquire=60.0)) as bench:
        await bench.connected()
        bench.server.pause()
        for _ in range(4):
            await ask(bench)
        await asyncio.sleep(1.1 * TIMEOUT)
        assert bench.node.is_down
        bench.server.resume()
        await asyncio.sleep(2 * FIRST_PAUSE)
        assert await answered(bench)
