"""A configuration endpoint is asked for nodes. Whatever it sends, the result is a list or a `DiscoveryError`, in time."""

import asyncio
import contextlib
import ssl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evcache.zones.discovery.lookups.cluster_config import CONTRADICTION_SECONDS, MAX_CONFIG_BYTES
from evcache.zones.discovery.lookups.config_endpoint import REPLY_TIMEOUT_SECONDS, ConfigEndpoint
from evcache.zones.errors import DiscoveryError
from evcache.zones.testing.fake_memcached import memory_transport
from tests.support import virtual_time
from tests.support.config_endpoints import COMMAND, OLD_COMMAND, ConfigServer, config, endpoint, reply
from tests.support.scripted import MemoryDialer
from tests.support.streams import ScriptedServer, cancelled, settled
from tests.support.virtual_time import in_virtual_time, now, settle

NAMES = [f"cache.abc.000{n}.euw1.cache.amazonaws.com" for n in (1, 2, 3)]
ONE_NODE = config(1, "h")


async def labels(source):
    return [node.label for node in (await source.nodes()).nodes]


async def failure(source):
    """The text of the error, which names the endpoint."""
    with pytest.raises(DiscoveryError) as caught:
        await source.nodes()
    assert caught.value.source == "configuration endpoint cfg:11211"
    return caught.value.problem


@pytest.fixture
def server():
    """A server with a node list. No connection is left behind."""
    server = ConfigServer(ONE_NODE)
    yield server
    assert server.connections == 0


@in_virtual_time
async def test_the_nodes_of_a_cluster_are_found(server):
    server.data = config(12, f"{NAMES[0]}|10.0.1.4|11211", f"{NAMES[1]}|10.0.1.5|11212")
    found = await endpoint(server).nodes()
    assert [(node.host, node.port, node.label) for node in found.nodes] == [
        (NAMES[0], 11211, f"{NAMES[0]}:11211"),
        (NAMES[1], 11212, f"{NAMES[1]}:11212"),
    ]
    assert found.lifetime is None
    assert server.asked == [COMMAND]


@in_virtual_time
async def test_a_server_before_1_4_14_has_the_list_under_a_key(server):
    server.keep_under_key(config(3, "h", "i"))
    assert await labels(endpoint(server)) == ["h:11211", "i:11211"]
    assert server.asked == [COMMAND, OLD_COMMAND]


@in_virtual_time
async def test_an_empty_reply_to_the_first_command_leads_to_the_second(server):
    server.says = b"END\r\n"
    assert "no cluster configuration" in await failure(endpoint(server))
    assert server.asked == [COMMAND, OLD_COMMAND]


@in_virtual_time
async def test_a_memcached_without_clusters_is_no_configuration_endpoint(server):
    server.data = None
    assert await failure(endpoint(server)) == "the server has no cluster configuration, so it is no configuration endpoint"


# (reply, the connection ends after it, problem)
UNUSABLE = [
    pytest.param(b"ERROR\r\n", False, "no cluster configuration", id="error to both commands"),
    pytest.param(b"ERROR\r\n", True, "connection ended", id="closed after the first error"),
    pytest.param(b"SERVER_ERROR busy\r\n", False, "unexpected reply: 'SERVER_ERROR busy'", id="server error"),
    pytest.param(b"", True, "connection ended before the reply was complete", id="closed without a reply"),
    pytest.param(b"CONFIG clus", True, "connection ended before the reply was complete", id="closed in the first line"),
    pytest.param(reply(ONE_NODE)[:30], True, "connection ended before", id="closed in the middle"),
    pytest.param(reply(ONE_NODE)[:-5], True, "connection ended before", id="closed before END"),
    pytest.param(reply(ONE_NODE)[:30], False, "no reply in 4 s", id="hangs in the middle"),
    pytest.param(b"", False, "no reply in 4 s", id="hangs"),
    pytest.param(reply(ONE_NODE, length=len(ONE_NODE) - 1), False, r"does not end after 18 bytes", id="length too small"),
    pytest.param(
        reply(ONE_NODE, length=len(ONE_NODE) - 8), False, r"does not end after 11 bytes", id="length far too small"
    ),
    pytest.param(reply(ONE_NODE, length=len(ONE_NODE) + 1), True, "connection ended", id="length too large, closed"),
    pytest.param(reply(ONE_NODE, length=len(ONE_NODE) + 1), False, "no reply in 4 s", id="length too large"),
    pytest.param(reply(ONE_NODE) * 9, False, None, id="more than one reply"),
    pytest.param(
        reply(ONE_NODE, length=MAX_CONFIG_BYTES + 1), False, "unexpected reply: a configuration of", id="huge length"
    ),
    pytest.param(b"<html><body>404</body></html>\r\n", True, "unexpected reply: '<html>", id="HTML"),
    pytest.param(b"\x15\x03\x01\x00\x02\x02\x50", True, "connection ended", id="TLS alert"),
    pytest.param(b"\x00\xff" * 5000, False, "a line of more than 4096 bytes", id="garbage without a line"),
    pytest.param(reply(b"7\n\n"), False, "version 7 of the configuration names no nodes", id="no nodes"),
    pytest.param(reply(b"7\nh|10.0.0.1\n"), False, r"'h\|10.0.0.1' is not host\|ip\|port", id="malformed node"),
]


@pytest.mark.parametrize(("says", "closes", "problem"), UNUSABLE)
@in_virtual_time
async def test_a_reply_that_can_not_be_used_is_an_error_with_the_reason(server, says, closes, problem):
    server.says, server.closes = says, closes
    source = endpoint(server)
    if problem is None:
        assert await labels(source) == ["h:11211"]
    else:
        with pytest.raises(DiscoveryError, match=f"^configuration endpoint cfg:11211: .*{problem}"):
            await source.nodes()
    assert now() <= REPLY_TIMEOUT_SECONDS


@pytest.mark.parametrize("size", [1, 2, 7])
@in_virtual_time
async def test_a_reply_may_arrive_in_pieces(server, size, monkeypatch):
    monkeypatch.setattr(memory_transport, "_READ_SIZE", size)
    server.data = config(1, "h", "i")
    assert await labels(endpoint(server)) == ["h:11211", "i:11211"]


@in_virtual_time
async def test_a_large_list_is_read(server):
    server.data = config(1, *(f"host-{number}" for number in range(5_000)))
    assert len(await labels(endpoint(server))) == 5_000


@settings(derandomize=True, database=None, max_examples=100)
@given(st.one_of(st.binary(max_size=60), st.binary(max_size=60).map(lambda data: reply(b"1\n" + data))), st.booleans())
def test_any_reply_is_a_list_or_a_discovery_error_in_time(says, closes):
    async def scenario():
        server = ConfigServer()
        server.says, server.closes = says, closes
        with contextlib.suppress(DiscoveryError):
            assert (await endpoint(server).nodes()).nodes
        assert now() <= REPLY_TIMEOUT_SECONDS
        await settle()
        assert server.connections == 0

    virtual_time.run(scenario())


@in_virtual_time
async def test_a_paused_server_costs_the_timeout(server):
    server.pause()
    assert await failure(endpoint(server)) == "no reply in 4 s"
    assert now() == REPLY_TIMEOUT_SECONDS
    assert await failure(endpoint(server, timeout=0.5)) == "no reply in 0.5 s"
    assert now() == REPLY_TIMEOUT_SECONDS + 0.5
    server.resume()


@in_virtual_time
async def test_a_connect_that_hangs_costs_the_timeout():
    dialer = MemoryDialer()
    dialer.gate = asyncio.Event()
    assert await failure(ConfigEndpoint("cfg:11211", dialer=dialer)) == "no reply in 4 s"


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (ConnectionRefusedError(111, "refused"), "connection failed: [Errno 111] refused"),
        (OSError("'cfg' has no address"), "connection failed: 'cfg' has no address"),
        (TimeoutError(110, "timed out"), "connection failed: [Errno 110] timed out"),
        (ssl.SSLError("certificate verify failed"), "connection failed: "),
        (OSError(), "connection failed: OSError"),
    ],
)
@in_virtual_time
async def test_a_failed_connect_is_an_error_with_the_reason(error, problem):
    async def dial(*_):
        raise error

    assert (await failure(ConfigEndpoint("cfg:11211", dialer=dial))).startswith(problem)


@in_virtual_time
async def test_a_reset_is_an_error(server):
    looking = asyncio.create_task(failure(endpoint(server)))
    server.pause()
    await settle()
    await server.kill()
    assert (await looking).startswith("connection failed: ")


@in_virtual_time
async def test_cancellation_closes_the_connection(server):
    server.pause()
    looking = asyncio.create_task(endpoint(server).nodes())
    await settle()
    assert server.connections == 1
    looking.cancel()
    await asyncio.wait([looking])
    assert looking.cancelled()
    server.resume()


@in_virtual_time
async def test_each_look_opens_a_connection_of_its_own(server):
    source = endpoint(server)
    for _ in range(3):
        await source.nodes()
        await settle()
        assert server.connections == 0
    assert server.connections_total == 3


@in_virtual_time
async def test_the_endpoint_gets_no_other_commands(server):
    await endpoint(server).nodes()
    assert server.asked == [COMMAND]
    assert not server.commands


# Versions.


@in_virtual_time
async def test_a_lower_version_with_other_nodes_is_an_error_until_it_stays(server, caplog):
    caplog.set_level("INFO", "evcache.zones.discovery")
    source = endpoint(server)
    server.data = config(7, "h")
    assert await labels(source) == ["h:11211"]
    server.data = config(2, "i")
    assert await failure(source) == "stale configuration: version 2 after version 7"
    await asyncio.sleep(CONTRADICTION_SECONDS - 1)
    assert await failure(source) == "stale configuration: version 2 after version 7"
    assert caplog.records == []
    await asyncio.sleep(1)
    assert await labels(source) == ["i:11211"]
    server.data = config(3, "j")
    assert await labels(source) == ["j:11211"]
    assert [record.getMessage() for record in caplog.records] == [
        "configuration version went back: configuration endpoint cfg:11211 sends version 2 after version 7"
    ]


@in_virtual_time
async def test_a_lower_version_with_the_same_nodes_is_an_ordinary_answer(server, caplog):
    caplog.set_level("INFO", "evcache.zones.discovery")
    source = endpoint(server)
    for version in (7, 6):
        server.data = config(version, "h")
        assert await labels(source) == ["h:11211"]
    assert caplog.records == []


@in_virtual_time
async def test_a_higher_version_replaces_the_nodes(server):
    source = endpoint(server)
    await source.nodes()
    server.data = config(2, "i", "j")
    assert await labels(source) == ["i:11211", "j:11211"]


@in_virtual_time
async def test_endpoints_know_nothing_of_each_others_versions(server):
    first, second = endpoint(server), endpoint(server)
    server.data = config(7, "h")
    await first.nodes()
    server.data = config(2, "i")
    assert await labels(second) == ["i:11211"]


# Sockets.


@pytest.fixture(params=["asyncio", "uvloop"])
def runner(request):
    factory = asyncio.new_event_loop if request.param == "asyncio" else pytest.importorskip("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        yield runner


def test_an_endpoint_on_a_socket_is_asked(runner):
    async def scenario():
        async with ScriptedServer(b"ERROR\r\n", reply(config(1, "h"), header=b"VALUE AmazonElastiCache:cluster")) as server:
            assert await labels(ConfigEndpoint(server.address)) == ["h:11211"]
            assert server.lines == [COMMAND, OLD_COMMAND]

    runner.run(scenario())


def test_a_socket_that_ends_in_the_middle_is_an_error(runner):
    async def scenario():
        async with ScriptedServer((reply(ONE_NODE)[:30], ScriptedServer.CLOSE)) as server:
            with pytest.raises(DiscoveryError, match=f"^configuration endpoint {server.address}: the connection ended"):
                await ConfigEndpoint(server.address).nodes()

    runner.run(scenario())


def test_a_cancelled_look_closes_its_socket(runner):
    async def scenario():
        async with ScriptedServer(None) as server:
            looking = asyncio.create_task(ConfigEndpoint(server.address).nodes())
            await server.heard.wait()
            await cancelled(looking)
            assert looking.cancelled()
            await settled(lambda: not server.writers)

    runner.run(scenario())


def test_an_endpoint_that_is_not_there_is_an_error(runner):
    async def scenario():
        async with ScriptedServer() as server:
            address = server.address
        with pytest.raises(DiscoveryError, match=f"^configuration endpoint {address}: connection failed: .*111"):
            await ConfigEndpoint(address).nodes()

    runner.run(scenario())
