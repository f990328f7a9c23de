"""The source against an API server on loopback: what it does in each failure, and what it leaves behind."""

import asyncio
import contextlib
import gc
import inspect
import itertools
import shutil
import socket
import ssl
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evcache.zones.cluster import Cluster
from evcache.zones.discovery.kubernetes import KubernetesDiscovery, Timing, api
from evcache.zones.errors import DiscoveryError
from evcache.zones.nodes.settings import NodeSettings
from evcache.zones.topology.model import Mode, Topology
from tests.support.endpoint_slices import endpoint, endpoint_slice, error_event
from tests.support.fake_kubernetes import FakeKubernetes
from tests.support.virtual_time import settle

FAST = Timing(timeout=5.0, watch=60.0, margin=5.0, proof=0.01, debounce=0.01, first_retry=0.01, longest_retry=0.05)
PATIENCE = 10.0  # seconds; reached only by a test that fails


def slice_of(*hosts, name="a"):
    return endpoint_slice(name, *(endpoint(f"memcached-{host}", f"10.0.0.{host}") for host in hosts))


def topology(*hosts):
    return Topology.from_node_list("eu-1a=" + ",".join(f"memcached-{host}:11211@10.0.0.{host}" for host in hosts))


def against_a_server(*slices, **options):
    """Make a test of a coroutine function that gets a running server. It fails if a task, socket or warning is left."""

    def decorate(scenario):
        async def main(fixtures):
            async with FakeKubernetes(*slices, **options) as server:
                await asyncio.wait_for(scenario(server, **fixtures), 2 * PATIENCE)
            await settle()
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, left

        def test(**fixtures):
            gc.freeze()  # so that the collection below is about this run only, and quick
            try:
                asyncio.run(main(fixtures), debug=True)  # aiohttp reports open responses in debug mode only
                gc.collect()
            finally:
                gc.unfreeze()

        fixtures = list(inspect.signature(scenario).parameters.values())[1:]
        test.__name__, test.__doc__, test.__signature__ = scenario.__name__, scenario.__doc__, inspect.Signature(fixtures)
        return test

    return decorate


def source(server, **options):
    defaults = {"namespace": "cache", "api_server": server.url, "token_path": None, "ca_path": None, "linger": 0.0}
    return KubernetesDiscovery("memcached", **(defaults | {"timing": FAST} | options))


async def until(condition):
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.002)


class Watching:
    """A task that collects what a source reports."""

    def __init__(self, server, **options):
        self.discovery = source(server, **options)
        self.seen = []
        self._server = server

    @property
    def error(self):
        return self.discovery.status.error

    async def __aenter__(self):
        self.seen.append(await self.discovery.load())
        self._task = asyncio.create_task(self._collect())
        await until(lambda: self._server.watching == 1)
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        await asyncio.wait([self._task])
        assert self._task.cancelled(), self._task

    async def _collect(self):
        async for found in self.discovery.watch():
            self.seen.append(found)

    async def see(self, *hosts):
        """Wait until the last topology has these nodes. Fail if one between had no nodes."""
        await until(lambda: self.seen[-1] == topology(*hosts))


def lines(caplog):
    return [record.message for record in caplog.records if record.name == "evcache.zones.discovery"]


# The normal case.


@against_a_server(slice_of(1), endpoint_slice("x", endpoint("other-0", "10.0.0.9"), service="other"))
async def test_the_source_follows_the_slices_of_its_service(server, caplog):
    async with Watching(server) as watching:
        server.put(slice_of(2, name="b"))
        await watching.see(1, 2)
        server.put(endpoint_slice("x", endpoint("other-0", "10.0.0.8"), service="other"))
        server.remove("a")
        await watching.see(2)
        assert watching.seen == [topology(1), topology(1, 2), topology(2)]
        assert (len(server.lists), len(server.watches)) == (1, 1)
    assert lines(caplog) == []


@against_a_server(slice_of(1))
async def test_the_requests_have_the_parameters_of_the_api(server):
    async with Watching(server):
        listed, watched = server.requests
    assert listed == {"labelSelector": "kubernetes.io/service-name=memcached", "limit": "500", "token": ""}
    assert 48 <= int(watched.pop("timeoutSeconds")) <= 72
    assert watched == {
        "labelSelector": "kubernetes.io/service-name=memcached",
        "watch": "1",
        "resourceVersion": "101",
        "allowWatchBookmarks": "true",
        "token": "",
    }


@against_a_server(*(slice_of(number, name=f"s{number}") for number in range(1, 6)))
async def test_a_list_has_pages_of_one_version(server, monkeypatch):
    monkeypatch.setattr(api, "PAGE_SLICES", 2)
    assert await source(server).load() == topology(1, 2, 3, 4, 5)
    assert [one.get("continue") is not None for one in server.lists] == [False, True, True]


@against_a_server(slice_of(1))
async def test_changes_between_the_list_and_the_watch_are_not_lost(server):
    discovery = source(server)
    await discovery.load()
    server.put(slice_of(1, 2))
    async with contextlib.aclosing(discovery.watch()) as found:
        assert await anext(found) == topology(1, 2)


@against_a_server(slice_of(1))
async def test_a_watch_without_a_list_before_it_lists(server):
    async with contextlib.aclosing(source(server).watch()) as found:
        assert await anext(found) == topology(1)


@against_a_server(slice_of(1))
async def test_two_watches_of_one_source_are_independent(server):
    discovery = source(server)
    await discovery.load()
    server.put(slice_of(1, 2))
    for _ in range(2):
        async with contextlib.aclosing(discovery.watch()) as found:
            assert await anext(found) == topology(1, 2)


@against_a_server(slice_of(1), endpoint_slice("b", endpoint("memcached-9", "10.0.0.9", "eu-1b")))
async def test_a_zone_may_be_write_only(server):
    found = await source(server, modes={"eu-1b": Mode.WRITE_ONLY}).load()
    assert [(zone.name, zone.mode) for zone in found.zones] == [("eu-1a", Mode.READ_WRITE), ("eu-1b", Mode.WRITE_ONLY)]


# Failures of a load.


def refuse(status, reason="Reason", message="a message"):
    return lambda server: server.refusals.extend([(status, reason, message)] * 2)


@pytest.mark.parametrize(
    ("prepare", "options", "text"),
    [
        pytest.param(refuse(401), {}, "HTTP 401: a message; the API server refuses the token of None", id="401"),
        pytest.param(
            lambda server: None,
            {"namespace": "elsewhere"},
            "HTTP 403: endpointslices.discovery.k8s.io is forbidden; the service account needs a Role with the verbs list and"
            " watch on the resource endpointslices in the API group discovery.k8s.io, in the namespace elsewhere",
            id="403",
        ),
        pytest.param(refuse(404), {}, "HTTP 404: a message", id="404"),
        pytest.param(refuse(429), {}, "HTTP 429: a message", id="429"),
        pytest.param(refuse(500), {}, "HTTP 500: a message", id="500"),
        pytest.param(refuse(302), {}, "HTTP 302: a message", id="redirect"),
        pytest.param(
            lambda server: setattr(server, "delay", 0.3),
            {"timing": Timing(timeout=0.05)},
            "no answer in 0.05 s",
            id="silence",
        ),
        pytest.param(lambda server: server.remove("a"), {}, "there are no endpoints", id="no slices"),
        pytest.param(lambda server: server.put(endpoint_slice("a")), {}, "there are no endpoints", id="no endpoints"),
        pytest.param(
            lambda server: server.put(endpoint_slice("a", endpoint("memcached-0", "10.0.0.1", None))),
            {},
            "endpoint memcached-0 has no zone: its node lacks the label topology.kubernetes.io/zone",
            id="no zone",
        ),
        pytest.param(lambda server: None, {"port": "tls"}, "the Service has no TCP port 'tls'", id="no port"),
        pytest.param(
            lambda server: None, {"modes": {"eu-1a": Mode.WRITE_ONLY}}, "all zones are write-only", id="no zone to read"
        ),
        pytest.param(lambda server: None, {"token_path": "/nothing"}, "token: /nothing: No such file", id="no token"),
    ],
)
def test_a_load_that_fails_names_the_cause(prepare, options, text):
    @against_a_server(slice_of(1))
    async def scenario(server):
        prepare(server)
        with pytest.raises(DiscoveryError) as caught:
            await source(server, **options).load()
        assert text in str(caught.value)
        assert str(caught.value).startswith("Service memcached.")

    scenario()


@against_a_server(slice_of(1))
async def test_a_server_that_is_down_is_named(server):
    await server.stop()
    with pytest.raises(DiscoveryError, match="Cannot connect to host 127"):
        await source(server).load()


@against_a_server(slice_of(1))
async def test_a_load_that_fails_leaves_the_time_of_the_last_answer(server):
    discovery = source(server)
    await discovery.load()
    answered = discovery.status.confirmed_at
    assert answered is not None
    await server.stop()
    with pytest.raises(DiscoveryError):
        await discovery.load()
    assert discovery.status.confirmed_at == answered


@against_a_server(slice_of(1))
async def test_a_load_after_a_failed_one_fails_without_a_request_for_a_second(server):
    discovery = source(server)
    server.refusals.append((500, "InternalError", "down"))
    for _ in range(3):
        with pytest.raises(DiscoveryError, match="down"):
            await discovery.load()
    assert len(server.requests) == 1
    discovery._failed_at -= 1.0
    assert await discovery.load() == topology(1)


@against_a_server(slice_of(1))
async def test_a_load_with_an_ignored_endpoint_succeeds_and_reports_it(server, caplog):
    server.put(endpoint_slice("b", endpoint("memcached-2", "10.0.0.2", None)))
    discovery = source(server)
    assert await discovery.load() == topology(1)
    assert "memcached-2 has no zone" in discovery.status.error
    assert len(lines(caplog)) == 1


@against_a_server(*(slice_of(number, name=f"s{number}") for number in range(1, 4)))
async def test_a_page_that_is_too_old_fails_the_load(server, monkeypatch):
    monkeypatch.setattr(api, "PAGE_SLICES", 2)
    original = server._list

    def forgetful(request, service):
        server._continued.clear()
        return original(request, service)

    server._list = forgetful
    with pytest.raises(DiscoveryError, match="HTTP 410"):
        await source(server).load()


@against_a_server(slice_of(1, 2, 3))
async def test_an_answer_that_is_too_large_is_refused(server, monkeypatch):
    monkeypatch.setattr(api, "MAX_PAGE_BYTES", 100)
    with pytest.raises(DiscoveryError, match="answer: more than 100 bytes"):
        await source(server).load()


# Failures of a watch: the table of what the source does.


@against_a_server(slice_of(1))
async def test_a_cut_connection_continues_from_the_last_version(server, caplog):
    async with Watching(server) as watching:
        server.put(slice_of(1, 2))
        await watching.see(1, 2)
        server.cut()
        server.put(slice_of(3))
        await watching.see(3)
        assert server.watches[-1]["resourceVersion"] == "102"
        assert len(server.lists) == 1
    assert lines(caplog) == []


@against_a_server(slice_of(1))
async def test_a_server_that_restarts_is_logged_once_and_the_topology_stays(server, caplog):
    caplog.set_level("INFO")
    async with Watching(server) as watching:
        server.put(slice_of(1, 2))
        await watching.see(1, 2)
        await server.stop()
        await until(lambda: watching.error is not None)
        assert "Cannot connect to host" in watching.error
        server.put(slice_of(3))
        await server.start()
        await watching.see(3)
        assert watching.error is None
        assert watching.seen == [topology(1), topology(1, 2), topology(3)]
    assert [line.partition(":")[0] for line in lines(caplog)] == ["topology update failed", "topology source recovered"]


@against_a_server(slice_of(1))
async def test_a_watch_that_ends_in_order_continues_from_the_last_bookmark(server, caplog):
    async with Watching(server) as watching:
        server.advance()
        server.bookmark()
        server.end_watches()
        await until(lambda: len(server.watches) == 2 and server.watching == 1)
        assert server.watches[-1]["resourceVersion"] == "111"
        server.put(slice_of(1, 2))
        await watching.see(1, 2)
    assert lines(caplog) == []


@pytest.mark.parametrize("gone_as", ["event", "status"])
def test_a_compacted_history_leads_to_a_list(gone_as, caplog):
    @against_a_server(slice_of(1), gone_as=gone_as)
    async def scenario(server):
        async with Watching(server) as watching:
            server.put(slice_of(1, 2))
            await watching.see(1, 2)
            server.cut()
            server.put(slice_of(3))
            server.advance()
            server.compact()
            await watching.see(3)
            assert len(server.lists) == 2

    scenario()
    assert lines(caplog) == []


@against_a_server(slice_of(1))
async def test_an_error_event_leads_to_a_list(server):
    async with Watching(server) as watching:
        server.send(error_event(500, "InternalError", "etcd is away"))
        await until(lambda: watching.error is not None)
        assert "watch failed: 500 etcd is away" in watching.error
        await until(lambda: len(server.lists) == 2 and watching.error is None)


@against_a_server(slice_of(1))
async def test_an_event_above_the_limit_leads_to_a_list(server, monkeypatch):
    monkeypatch.setattr(api, "MAX_EVENT_BYTES", 1_000_000)
    async with Watching(server) as watching:
        server.send(b"x" * 3_000_000)
        await until(lambda: watching.error is not None)
        assert "watch event: more than 1000000 bytes" in watching.error
        await until(lambda: len(server.lists) == 2)


@against_a_server(slice_of(1))
async def test_an_event_in_many_pieces_is_read(server):
    many = endpoint_slice("big", *(endpoint(f"memcached-{n}", f"10.1.{n // 250}.{n % 250}") for n in range(1_000)))
    async with Watching(server) as watching:
        server.put(many)
        await until(lambda: len(watching.seen[-1].zones[0].nodes) == 1_000)


@against_a_server(slice_of(1))
async def test_a_watch_that_hangs_is_cut(server):
    timing = Timing(timeout=5.0, watch=0.1, margin=0.1, proof=0.01, debounce=0.01, first_retry=0.01, longest_retry=0.05)
    async with Watching(server, timing=timing) as watching:
        server.hanging = True
        server.put(slice_of(1, 2))
        await until(lambda: watching.error is not None)
        assert "watch hangs" in watching.error
        server.hanging = False
        await watching.see(1, 2)


@against_a_server(slice_of(1, 2))
async def test_an_update_of_several_events_is_one_topology(server):
    async with Watching(server) as watching:
        server.remove("a")
        server.put(slice_of(2, 3, name="b"))
        await watching.see(2, 3)
        assert watching.seen == [topology(1, 2), topology(2, 3)]


@against_a_server(slice_of(1), token="new")
async def test_a_token_that_is_replaced_is_read_again(server, tmp_path, monkeypatch):
    path = tmp_path / "token"
    tokens = iter(["old", "new"])
    path.write_text("new", "utf-8")
    original = api.ApiServer.token
    monkeypatch.setattr(api.ApiServer, "token", lambda self: next(tokens, None) or original(self))
    async with Watching(server, token_path=path) as watching:
        assert [one["token"] for one in server.requests] == ["old", "new", "new"]
        server.token = "newer"
        path.write_text("newer", "utf-8")
        server.cut()
        server.put(slice_of(3))
        await watching.see(3)
        assert server.requests[-1]["token"] == "newer"


@against_a_server(slice_of(1))
async def test_lost_access_is_reported_with_the_remedy_and_the_topology_stays(server):
    async with Watching(server) as watching:
        server.refusals.extend([(403, "Forbidden", "no access")] * 3)
        server.cut()
        await until(lambda: watching.error is not None)
        assert "needs a Role with the verbs list and watch" in watching.error
        await until(lambda: watching.error is None)
        assert watching.seen == [topology(1)]


@against_a_server(slice_of(1))
async def test_a_service_that_is_deleted_and_made_again_keeps_its_topology_between(server):
    async with Watching(server) as watching:
        server.remove("a")
        await until(lambda: watching.error is not None)
        server.put(slice_of(2, name="b"))
        await watching.see(2)
        assert watching.seen == [topology(1), topology(2)]
        assert watching.error is None


@against_a_server(slice_of(1, 2))
async def test_a_pod_that_restarts_with_another_address_keeps_its_label(server):
    async with Watching(server, linger=PATIENCE) as watching:
        server.put(slice_of(1))
        server.put(endpoint_slice("a", endpoint("memcached-1", "10.0.0.1"), endpoint("memcached-2", "10.0.0.9")))
        await until(lambda: len(watching.seen) == 2)
        assert watching.seen[1] == Topology.from_node_list("eu-1a=memcached-1:11211@10.0.0.1,memcached-2:11211@10.0.0.9")


class _Content:
    """Body of a watch that arrives in given pieces."""

    def __init__(self, pieces):
        self._pieces = [piece for piece in pieces if piece]

    @property
    def content(self):
        return self

    async def readany(self):
        return self._pieces.pop(0) if self._pieces else b""


@given(st.lists(st.binary(max_size=5).filter(lambda line: b"\n" not in line), max_size=6), st.data())
def test_pieces_of_the_body_have_no_influence_on_the_lines(made, data):
    body = b"".join(line + b"\n" for line in made)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=5)))
    pieces = [body[begin:end] for begin, end in itertools.pairwise([0, *cuts, len(body)])]

    async def main():
        stream, found = api.EventStream(_Content(pieces)), []
        while (read := await stream.read()) is not None:
            found += read
        return found

    assert asyncio.run(main()) == [line for line in made if line.strip()]


# The end.


@pytest.mark.parametrize("turns", range(12))
def test_cancellation_of_a_load_leaves_nothing(turns):
    @against_a_server(slice_of(1))
    async def scenario(server):
        task = asyncio.create_task(source(server).load())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    scenario()


@pytest.mark.parametrize("turns", [*range(0, 40, 3)])
def test_cancellation_of_a_watch_leaves_nothing(turns):
    @against_a_server(slice_of(1))
    async def scenario(server):
        found = source(server).watch()

        async def collect():
            async for _ in found:
                pass

        task = asyncio.create_task(collect())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await found.aclose()

    scenario()


@against_a_server(slice_of(1))
async def test_a_cluster_follows_the_source_until_it_is_closed(server):
    cluster = Cluster(NodeSettings(), "eu-1a")
    await cluster.start(source(server))
    server.put(slice_of(1, 2))
    await until(lambda: cluster.view.topology == topology(1, 2))
    await cluster.close(0)
    await until(lambda: server.watching == 0)


@against_a_server(slice_of(1))
async def test_a_watch_that_is_cancelled_during_a_pause_leaves_nothing(server):
    timing = Timing(first_retry=60.0)
    async with Watching(server, timing=timing) as watching:
        await server.stop()
        await settle()
        assert watching.seen == [topology(1)]


def test_a_source_may_be_used_on_another_loop():
    async def main():
        async with FakeKubernetes(slice_of(1)) as server:
            discovery._server = source(server)._server
            assert await discovery.load() == topology(1)
            server.put(slice_of(1, 2))
            async with contextlib.aclosing(discovery.watch()) as found:
                assert await anext(found) == topology(1, 2)

    discovery = KubernetesDiscovery("memcached", namespace="cache", token_path=None, ca_path=None, timing=FAST)
    asyncio.run(main())
    asyncio.run(main())


# TLS and names.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 that signs itself, made with the openssl command."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl command")
    path = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=kubernetes"],
            *["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", path / "key.pem", "-out", path / "ca.crt"],
        ],
        check=True,
        capture_output=True,
    )
    return path


@pytest.fixture
def tls(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "ca.crt", certificate / "key.pem")
    return context


def test_the_certificate_is_checked_against_the_file(certificate, tls, tmp_path):
    @against_a_server(slice_of(1), tls=tls, token="secret")
    async def scenario(server):
        token = tmp_path / "token"
        token.write_text("secret", "utf-8")
        async with Watching(server, ca_path=certificate / "ca.crt", token_path=token) as watching:
            server.put(slice_of(1, 2))
            await watching.see(1, 2)
        with pytest.raises(DiscoveryError, match="certificate verify failed"):
            await source(server, token_path=token).load()
        assert len(server.requests) == 2
        with pytest.raises(DiscoveryError, match="CA certificate: /nothing: No such file"):
            await source(server, ca_path="/nothing", token_path=token).load()

    scenario()


@against_a_server(slice_of(1))
async def test_a_name_is_looked_up_without_the_executor_of_the_service(server, monkeypatch):
    monkeypatch.setattr(asyncio.get_running_loop(), "run_in_executor", None)
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest, **more: real("127.0.0.1" if host == "localhost" else host, *rest, **more)
    )
    assert await source(server, api_server=server.url.replace("127.0.0.1", "localhost")).load() == topology(1)
