"""HTTP of the metadata services: complete replies in every framing, and no others."""

import asyncio
import socket

import pytest

from evcache.zones.discovery.own_zone.finder import OwnZone, find_own_zone
from evcache.zones.discovery.own_zone.http_client import MAX_REPLY_BYTES, MalformedReply, exchange, socket_opener
from tests.support import virtual_time
from tests.support.virtual_time import settle

URL = "http://169.254.169.254/path?query=1"


class Peer:
    """Server of one connection. It sends parts, each as a packet of its own, and then closes or waits."""

    def __init__(self, parts, *, closes=True):
        self.parts, self.closes = parts, closes
        self.request = b""
        self.places = []

    async def connect(self, host, port):
        self.places.append((host, port))
        self.client, self.server = socket.socketpair()
        self.client.setblocking(False)
        self.task = asyncio.create_task(self.serve())
        return self.client

    async def serve(self):
        reader, writer = await asyncio.open_connection(sock=self.server)
        try:
            self.request = await reader.readuntil(b"\r\n\r\n")
            for part in self.parts:
                await settle(5)
                writer.write(part)
            if not self.closes:
                await reader.read()
        except ConnectionError:
            pass
        finally:
            writer.close()


def get(parts, *, closes=True, method="GET", url=URL, headers=()):
    """Return the reply and the peer."""
    peer = Peer(parts, closes=closes)

    async def scenario():
        try:
            return await asyncio.wait_for(exchange(peer.connect, method, url, dict(headers)), 1)
        finally:
            if peer.places:
                assert peer.client.fileno() == -1
                await asyncio.wait([peer.task])

    return virtual_time.run(scenario()), peer


def split(octets, size):
    return [octets[start : start + size] for start in range(0, len(octets), size)]


OK = b"HTTP/1.1 200 OK\r\n"
COUNTED = OK + b"Content-Length: 5\r\n\r\nhello"
UNTIL_CLOSE = OK + b"\r\nhello"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n0003\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n"
WITH_TRAILER = CHUNKED[:-2] + b"Name: value\r\n\r\n"
OLD = b"HTTP/1.0 200 OK\r\n\r\nhello"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    ("octets", "closes"),
    [
        (COUNTED, True),
        (COUNTED, False),
        (UNTIL_CLOSE, True),
        (CHUNKED, True),
        (CHUNKED, False),
        (WITH_TRAILER, False),
        (OLD, True),
    ],
)
def test_a_reply_in_any_packets_is_complete(octets, closes, size):
    reply, _ = get(split(octets, size), closes=closes)
    assert (reply.status, reply.body) == (200, b"hello")


def test_a_chunk_that_looks_like_the_end_is_not_the_end():
    body = b"0\r\n\r\n"
    octets = OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\n" + body + b"\r\n5\r\n" + body + b"\r\n0\r\n\r\n"
    assert get(split(octets, 1), closes=False)[0].body == body * 2


@pytest.mark.parametrize("status", [301, 401, 404, 500])
def test_an_error_needs_no_complete_page(status):
    reply, _ = get([b"HTTP/1.1 %d No\r\nContent-Length: 100000\r\nLocation: /x\r\n\r\n<html" % status], closes=False)
    assert (reply.status, reply.body) == (status, b"")


@pytest.mark.parametrize("octets", [COUNTED, CHUNKED])
def test_a_reply_that_ends_early_is_malformed(octets):
    for end in range(len(octets) - 5):
        with pytest.raises(MalformedReply):
            get([octets[:end]])


@pytest.mark.parametrize(
    "octets",
    [
        b"\r\n\r\n",
        b"hello",
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"HTTP/1.1 99 Low\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\nhello\r\n0\r\n\r\n",
        OK + b"Content-Length: 99999\r\n\r\n" + b"x" * 99_999,
        OK + b"\r\n" + b"x" * (MAX_REPLY_BYTES + 1),
        OK + b"".join(b"Name-%d: value\r\n" % number for number in range(200)) + b"\r\n",
        OK + b"x" * (MAX_REPLY_BYTES * 2),
    ],
)
def test_other_bytes_are_malformed(octets):
    with pytest.raises(MalformedReply) as caught:
        get([octets])
    assert "hello" not in str(caught.value)
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize(
    "part", [b"x", b"HTTP/1.1 200 OK\r\nName: ", OK + b"\r\nx", OK + b"Transfer-Encoding: chunked\r\n\r\n1"]
)
def test_a_reply_without_an_end_is_limited(part):
    with pytest.raises(MalformedReply, match="more than 65536 bytes"):
        get([part, *([b"1" * 1000] * 100)], closes=False)


def test_a_request_is_complete():
    _, peer = get([COUNTED], method="PUT", headers={"X-Name": "value"})
    assert peer.places == [("169.254.169.254", 80)]
    assert peer.request.split(b"\r\n") == [
        b"PUT /path?query=1 HTTP/1.1",
        b"Host: 169.254.169.254",
        b"Connection: close",
        b"Accept: */*",
        b"Content-Length: 0",
        b"X-Name: value",
        b"",
        b"",
    ]


@pytest.mark.parametrize(
    ("url", "place", "start"),
    [
        ("http://host:8080", ("host", 8080), b"GET / HTTP/1.1\r\nHost: host:8080\r\n"),
        ("http://[fd00:ec2::254]/a", ("fd00:ec2::254", 80), b"GET /a HTTP/1.1\r\nHost: [fd00:ec2::254]\r\n"),
    ],
)
def test_a_url_names_host_port_and_path(url, place, start):
    _, peer = get([COUNTED], url=url)
    assert peer.places == [place]
    assert peer.request.startswith(start)


@pytest.mark.parametrize(
    "url", ["", "host/path", "https://host/", "file:///etc/passwd", "http://", "http://h:x/", "http://h/a b", "http://h/ä"]
)
def test_another_url_is_refused_before_a_connection(url):
    peer = Peer([])
    with pytest.raises(ValueError):
        virtual_time.run(exchange(peer.connect, "GET", url, {}))
    assert peer.places == []


# --- sockets of the system -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("proxy", [None, "http://127.0.0.1:1"])
def test_a_service_on_a_socket_is_asked_without_a_proxy(host, proxy, monkeypatch):
    if proxy is not None:
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setenv("HTTP_PROXY", proxy)
    targets = []

    async def serve(reader, writer):
        targets.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0])
        writer.write(OK + b'Content-Length: 28\r\n\r\n{"AvailabilityZone": "eu-1"}')
        await reader.read()  # the client closes first
        writer.close()

    async def scenario():
        opened = socket_opener()

        async def connect(host, port):
            if host == "169.254.169.254":
                raise OSError("not in a test")
            return await opened(host, port)

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            environment = {"ECS_CONTAINER_METADATA_URI_V4": f"http://{host}:{port}/v4/abc"}
            return await find_own_zone(environment=environment, podinfo="/nonexistent", timeout=20, connect=connect)

    assert asyncio.run(scenario()) == OwnZone(("eu-1",), "ECS")
    assert targets == [b"GET /v4/abc/task HTTP/1.1"]


def test_a_port_without_a_listener_refuses():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        asyncio.run(exchange(socket_opener(), "GET", f"http://127.0.0.1:{port}/", {}))
