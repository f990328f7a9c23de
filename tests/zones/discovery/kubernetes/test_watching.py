"""Times of a watch, in virtual time: debounce, pauses between attempts, hanging watches and nodes that left."""

import asyncio
import logging

import pytest

from evcache.zones.discovery.base import SourceStatus
from evcache.zones.discovery.kubernetes.nodes import NodeRules, ServiceNodes
from evcache.zones.discovery.kubernetes.slices import ApiProblem, BadEvent, ConnectionCut, Expired, SliceSet
from evcache.zones.discovery.kubernetes.watching import SliceWatch, Timing
from evcache.zones.topology.model import Topology
from tests.support.endpoint_slices import bookmark, decoded, endpoint, endpoint_slice, error_event, event
from tests.support.virtual_time import in_virtual_time, now, settle

END = object()
REFUSED = ApiProblem("connection refused")
CUT = ConnectionCut("watch interrupted: reset")
FAILED = "topology update failed"
RECOVERED = "topology source recovered"


def slice_of(*hosts, name="a"):
    return endpoint_slice(name, *(endpoint(f"memcached-{host}", f"10.0.0.{host}") for host in hosts))


def topology(*hosts):
    return Topology.from_node_list("eu-1a=" + ",".join(f"memcached-{host}:11211@10.0.0.{host}" for host in hosts))


class Server:
    """API server in memory. A test sets its slices, and sends lines, ends and errors to the running watch."""

    def __init__(self, *slices):
        self.slices = slices
        self.version = 10
        self.calls = []
        self.failures = []
        """Errors of the next requests, in order. None is a success."""
        self.is_down = False
        self.is_hanging = False
        self.open = 0
        self._queue = None

    def opened(self):
        self.open += 1
        return _Session(self)

    def send(self, *lines):
        """Deliver lines in one read. `END` ends the watch, and an exception cuts it."""
        self._queue.put_nowait(lines)

    async def answer(self, call):
        self.calls.append((now(), *call))
        if self.is_hanging:
            await asyncio.Event().wait()
        if self.is_down:
            raise REFUSED
        if self.failures:
            problem = self.failures.pop(0)
            if problem is not None:
                raise problem

    @property
    def times(self):
        return [call[0] for call in self.calls]


class _Session:
    def __init__(self, server):
        self._server = server

    async def list(self):
        await self._server.answer(("list",))
        return SliceSet(str(self._server.version), decoded(*self._server.slices))

    async def watch(self, version, seconds):
        await self._server.answer(("watch", version, seconds))
        self._server._queue = queue = asyncio.Queue()
        return _Stream(queue)

    async def close(self):
        self._server.open -= 1


class _Stream:
    def __init__(self, queue):
        self._queue = queue

    async def read(self):
        lines = await self._queue.get()
        if lines[0] is END:
            return None
        if isinstance(lines[0], Exception):
            raise lines[0]
        return list(lines)

    def release(self):
        pass


class Watching:
    """A task that collects the topologies of a watch, with the time of each."""

    def __init__(self, server, *, linger=0.0, draw=0.5, **times):
        self.status = SourceStatus("Service memcached")
        self.seen = []
        self._server = server
        self._options = linger, Timing(**times), lambda: draw

    async def __aenter__(self):
        linger, timing, draw = self._options
        nodes = ServiceNodes(NodeRules(), {}, linger)
        self._watch = SliceWatch(self._server.opened, nodes, self.status, timing, draw)
        self._task = asyncio.create_task(self._collect())
        await settle()
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        await asyncio.wait([self._task])
        assert self._task.cancelled()
        assert self._server.open == 0

    async def _collect(self):
        try:
            while True:
                found = await self._watch.next_topology()
                self.seen.append((now(), found))
        finally:
            await self._watch.close()


def logged(caplog):
    return [record.message.partition(":")[0] for record in caplog.records]


@in_virtual_time
async def test_a_watch_lists_and_continues_from_the_version_of_the_list():
    server = Server(slice_of(1))
    async with Watching(server) as watching:
        await asyncio.sleep(10)
        assert watching.seen == [(0.0, topology(1))]
        assert server.calls == [(0.0, "list"), (0.0, "watch", "10", 240.0)]
        assert watching.status.error is None


@in_virtual_time
async def test_events_of_one_update_are_joined():
    """The controller moves endpoints from one slice to another: between two events, a node is missing."""
    server = Server(slice_of(1, 2))
    async with Watching(server) as watching:
        server.send(event("DELETED", slice_of(1, 2), 11))
        await asyncio.sleep(0.05)
        server.send(event("ADDED", slice_of(1, name="b"), 12))
        await asyncio.sleep(0.09)
        server.send(event("ADDED", slice_of(2, 3, name="c"), 13))
        await asyncio.sleep(1)
        assert watching.seen == [(0.0, topology(1, 2)), (pytest.approx(0.24), topology(1, 2, 3))]


@in_virtual_time
async def test_events_in_a_row_delay_the_topology_up_to_a_limit():
    server = Server(slice_of(1))
    async with Watching(server) as watching:
        for number in range(40):
            server.send(event("MODIFIED", slice_of(number % 9 + 1), 11 + number))
            await asyncio.sleep(0.05)
        times = [at for at, _ in watching.seen]
        assert times[1] == pytest.approx(1.0)
        assert len(times) == 2


@in_virtual_time
async def test_an_event_without_a_change_of_nodes_is_no_topology():
    server = Server(slice_of(1))
    async with Watching(server) as watching:
        server.send(event("MODIFIED", slice_of(1) | {"ports": [{"name": "other", "port": 11211}]}, 11), bookmark(12))
        await asyncio.sleep(10)
        assert len(watching.seen) == 1


@in_virtual_time
async def test_a_watch_that_ends_in_order_continues_at_once_from_the_last_version(caplog):
    caplog.set_level("INFO")
    server = Server(slice_of(1))
    async with Watching(server) as watching:
        server.send(bookmark(15))
        await asyncio.sleep(240)
        server.send(END)
        await settle()
        assert server.calls[2:] == [(240.0, "watch", "15", 240.0)]
        assert len(watching.seen) == 1
        assert logged(caplog) == []


@in_virtual_time
async def test_a_change_that_waits_is_used_when_the_watch_has_ended():
    server = Server(slice_of(1))
    async with Watching(server) as watching:
        server.send(event("MODIFIED", slice_of(1, 2), 11))
        server.send(END)
        await asyncio.sleep(1)
        assert watching.seen[1:] == [(pytest.approx(0.1), topology(1, 2))]


@in_virtual_time
async def test_a_proxy_that_ends_each_watch_at_once_is_asked_with_pauses(caplog):
    server = Server(slice_of(1))
    async with Watching(server, draw=1.0) as watching:
        for pause in (1, 2, 4, 8, 16, 30, 30):
            server.send(END)
            await settle()
            assert watching.status.error == "Service memcached: watch ended by the API server at once"
            before = len(server.calls)
            await asyncio.sleep(pause - 0.1)
            assert len(server.calls) == before
            await asyncio.sleep(0.1)
            await settle()
            assert len(server.calls) == before + 1
        assert logged(caplog) == [FAILED]
        await asyncio.sleep(1)
        assert watching.status.error is None


@in_virtual_time
async def test_a_cut_is_normal_and_the_watch_continues_after_a_pause(caplog):
    server = Server(slice_of(1))
    async with Watching(server, draw=0.0) as watching:
        server.send(bookmark(15))
        await asyncio.sleep(20)
        server.send(CUT)
        await asyncio.sleep(1)
        assert server.calls[2:] == [(20.5, "watch", "15", pytest.approx(192.0))]
        assert watching.status.error is None
        assert logged(caplog) == []


@in_virtual_time
async def test_watches_that_are_cut_at_once_are_a_failure(caplog):
    server = Server(slice_of(1))
    async with Watching(server, draw=1.0) as watching:
        server.send(CUT)
        await asyncio.sleep(1.5)
        assert watching.status.error is None
        server.send(CUT)
        await settle()
        assert watching.status.error == "Service memcached: watch interrupted: reset"


@in_virtual_time
async def test_the_pause_is_short_again_after_a_watch_that_worked():
    server = Server(slice_of(1))
    async with Watching(server, draw=1.0):
        for _ in range(3):
            await asyncio.sleep(20)
            server.send(CUT)
            await settle()
        await asyncio.sleep(20)
        assert server.times[2:] == [21.0, 41.0, 61.0]


@in_virtual_time
async def test_a_bookmark_confirms_the_topology():
    server = Server(slice_of(1))
    async with Watching(server) as watching:
        began = asyncio.get_running_loop().time()
        assert watching.status.confirmed_at == began
        await asyncio.sleep(60)
        server.send(bookmark(15))
        await settle()
        assert watching.status.confirmed_at == began + 60


@in_virtual_time
async def test_a_server_that_restarts_is_one_failure_and_one_recovery_in_the_log(caplog):
    caplog.set_level("INFO")
    server = Server(slice_of(1))
    async with Watching(server, draw=1.0) as watching:
        await asyncio.sleep(20)
        server.is_down = True
        server.send(CUT)
        await asyncio.sleep(100)
        assert watching.status.error == "Service memcached: connection refused"
        assert watching.status.confirmed_at < asyncio.get_running_loop().time() - 99
        assert server.times[2:] == [21.0, 23.0, 27.0, 35.0, 51.0, 81.0, 111.0]  # the pause doubles, up to 30 s
        assert logged(caplog) == [FAILED]
        server.is_down = False
        server.slices = (slice_of(1, 2),)
        await asyncio.sleep(30)
        server.send(event("MODIFIED", slice_of(1, 2), 11))
        await asyncio.sleep(1)
        assert [found for _, found in watching.seen] == [topology(1), topology(1, 2)]
        assert watching.status.error is None
        assert logged(caplog) == [FAILED, RECOVERED]


@pytest.mark.parametrize(("draw", "pause"), [(0.0, 0.5), (0.5, 0.75), (1.0, 1.0)])
def test_pauses_differ_between_clients(draw, pause):
    @in_virtual_time
    async def scenario():
        server = Server(slice_of(1))
        async with Watching(server, draw=draw):
            await asyncio.sleep(20)
            server.send(CUT)
            await asyncio.sleep(2)
            assert server.times[2] == 20 + pause

    scenario()


@in_virtual_time
async def test_a_watch_that_hangs_is_cut_after_its_duration_and_a_margin(caplog):
    server = Server(slice_of(1))
    async with Watching(server) as watching:
        await asyncio.sleep(254.9)
        assert watching.status.error is None
        await asyncio.sleep(0.2)
        assert watching.status.error == "Service memcached: watch hangs: no end after 255 s"
        await asyncio.sleep(1)
        assert server.calls[2:] == [(pytest.approx(255.75), "watch", "10", 240.0)]
        await asyncio.sleep(1)
        assert watching.status.error is None
        assert logged(caplog) == [FAILED]


@in_virtual_time
async def test_a_server_that_does_not_answer_is_a_failure():
    server = Server(slice_of(1))
    server.is_hanging = True
    async with Watching(server, timeout=3.0) as watching:
        await asyncio.sleep(3.5)
        assert watching.status.error == "Service memcached: no answer in 3 s"
        server.is_hanging = False
        await asyncio.sleep(2)
        assert [found for _, found in watching.seen] == [topology(1)]


@pytest.mark.parametrize(
    "problem", [Expired("HTTP 410: too old"), error_event(410, "Expired", "too old")], ids=["status", "event"]
)
def test_a_version_that_is_too_old_leads_to_a_list_at_once(problem, caplog):
    @in_virtual_time
    async def scenario():
        server = Server(slice_of(1))
        async with Watching(server) as watching:
            server.send(bookmark(15))
            await asyncio.sleep(20)
            server.slices, server.version = (slice_of(1, 2),), 99
            if isinstance(problem, Exception):
                server.failures.append(problem)
                server.send(END)
            else:
                server.send(problem)
            await settle()
            assert server.calls[-2:] == [(20.0, "list"), (20.0, "watch", "99", 240.0)]
            assert watching.seen[1:] == [(20.0, topology(1, 2))]
            assert logged(caplog) == []

    scenario()


EXPIRED = Expired("HTTP 410: too old")


@pytest.mark.parametrize("failures", [[EXPIRED] * 5, [None, EXPIRED] * 5], ids=["list", "first watch after the list"])
def test_a_version_that_is_too_old_at_once_leads_to_lists_with_pauses(failures):
    @in_virtual_time
    async def scenario():
        server = Server(slice_of(1))
        server.failures = list(failures)
        async with Watching(server, draw=1.0) as watching:
            await asyncio.sleep(40)
            lists = [call[0] for call in server.calls if call[1] == "list"]
            assert lists == [0.0, 1.0, 3.0, 7.0, 15.0, 31.0]
            assert [found for _, found in watching.seen] == [topology(1)]

    scenario()


@pytest.mark.parametrize(
    "line", [b"{", error_event(500, "InternalError", "etcd"), BadEvent("watch event: more than 8 bytes")]
)
def test_an_event_that_cannot_be_used_leads_to_a_list_after_a_pause(line):
    @in_virtual_time
    async def scenario():
        server = Server(slice_of(1))
        async with Watching(server, draw=1.0) as watching:
            await asyncio.sleep(20)
            server.send(line)
            await settle()
            assert "watch" in watching.status.error
            server.slices, server.version = (slice_of(1, 2),), 99
            await asyncio.sleep(1.5)
            assert server.calls[-2:] == [(21.0, "list"), (21.0, "watch", "99", pytest.approx(288.0))]
            assert watching.seen[1:] == [(21.0, topology(1, 2))]

    scenario()


def test_watches_that_fail_after_good_lists_are_one_failure(caplog):
    """A list shows that the server answers, and not that changes arrive."""
    caplog.set_level(logging.INFO)

    @in_virtual_time
    async def scenario():
        server = Server(slice_of(1))
        async with Watching(server) as watching:
            await asyncio.sleep(20)
            for _ in range(4):
                server.send(error_event(500, "InternalError", "etcd"))
                await asyncio.sleep(0.9)
            assert logged(caplog) == [FAILED]
            await asyncio.sleep(5)
            assert logged(caplog) == [FAILED, RECOVERED]
            assert watching.status.error is None

    scenario()


@in_virtual_time
async def test_an_exception_of_a_library_does_not_end_the_watch():
    server = Server(slice_of(1))
    async with Watching(server) as watching:
        await asyncio.sleep(20)
        server.send(ValueError("of the library"))
        await settle()
        assert watching.status.error == "Service memcached: of the library"
        await asyncio.sleep(2)
        assert watching.status.error is None


@in_virtual_time
async def test_a_service_that_loses_all_endpoints_keeps_its_topology(caplog):
    server = Server(slice_of(1))
    async with Watching(server) as watching:
        server.send(event("MODIFIED", slice_of(), 11))
        await asyncio.sleep(5)
        server.send(bookmark(12))
        await asyncio.sleep(5)
        assert watching.seen == [(0.0, topology(1))]
        assert watching.status.error == "Service memcached: there are no endpoints"
        assert logged(caplog) == [FAILED]
        server.send(event("MODIFIED", slice_of(2), 13))
        await asyncio.sleep(5)
        assert watching.seen[1:] == [(pytest.approx(10.1), topology(2))]
        assert watching.status.error is None


@in_virtual_time
async def test_an_endpoint_without_a_zone_is_logged_once_and_the_others_change(caplog):
    server = Server(slice_of(1))
    zoneless = endpoint("memcached-2", "10.0.0.2", None)
    async with Watching(server) as watching:
        for version, host in ((11, 3), (12, 4)):
            made = endpoint_slice("a", zoneless, endpoint(f"memcached-{host}", f"10.0.0.{host}"))
            server.send(event("MODIFIED", made, version))
            await asyncio.sleep(5)
        assert [found for _, found in watching.seen] == [topology(1), topology(3), topology(4)]
        assert "memcached-2 has no zone" in watching.status.error
        assert logged(caplog) == ["topology incomplete"]


@in_virtual_time
async def test_a_pod_that_stays_away_leaves_when_its_time_is_over():
    server = Server(slice_of(1, 2))
    async with Watching(server, linger=30.0) as watching:
        await asyncio.sleep(5)
        server.send(event("MODIFIED", slice_of(1), 11))
        await asyncio.sleep(60)
        assert watching.seen[1:] == [(pytest.approx(35.1), topology(1))]


@in_virtual_time
async def test_a_pod_that_left_stays_while_the_server_does_not_answer():
    """A client that sees no slices removes no nodes."""
    server = Server(slice_of(1, 2))
    async with Watching(server, linger=30.0) as watching:
        server.send(event("MODIFIED", slice_of(1), 11))
        await asyncio.sleep(5)
        server.is_down = True
        server.send(CUT)
        await asyncio.sleep(100)
        assert len(watching.seen) == 1
        server.is_down = False
        await asyncio.sleep(40)
        assert [found for _, found in watching.seen] == [topology(1, 2), topology(1)]


@in_virtual_time
async def test_a_watch_may_continue_from_slices_that_were_listed_before():
    server = Server(slice_of(1))
    watch = SliceWatch(server.opened, ServiceNodes(NodeRules(), {}, 0.0), SourceStatus("s"), Timing(), lambda: 0.5)
    assert watch.start(SliceSet("7", decoded(slice_of(1)))) == topology(1)
    task = asyncio.create_task(watch.next_topology())
    await settle()
    assert server.calls == [(0.0, "watch", "7", 240.0)]
    server.send(event("MODIFIED", slice_of(2), 11))
    assert await task == topology(2)
    await watch.close()
    await watch.close()
    assert server.open == 0
