"""Metadata services of the clouds, and the machines from which they are reached, on socket pairs.

Each service requires the proof that the real one requires of a client. It answers requests for another cloud with the
errors of the real one.
"""

import asyncio
import errno
import json
import socket
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

METADATA = "169.254.169.254"
ECS = "169.254.170.2"
ECS_URI = f"http://{ECS}/v4/3f3a7b5c"

HTML = "text/html"
AWS_ERROR = '<?xml version="1.0" encoding="iso-8859-1"?>\n<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0//EN">\n<html><body><h1>{}</h1></body></html>\n'
GOOGLE_ERROR = "<!DOCTYPE html>\n<html lang=en>\n<title>Error {0}</title>\n<p><b>{0}.</b> <ins>That's an error.</ins>\n"


class Request(NamedTuple):
    method: str
    target: str
    headers: dict
    """Values by names in lower case."""

    @property
    def path(self):
        return urlsplit(self.target).path

    @property
    def query(self):
        return parse_qs(urlsplit(self.target).query)


class Answer(NamedTuple):
    status: int
    body: str
    kind: str = "text/plain"
    headers: tuple = ()


# --- services: functions of a request ------------------------------------------------------------------------------


class Ec2:
    """Instance metadata service of EC2, which requires version 2: a token in each request."""

    def __init__(self, zone="eu-west-1a", zone_id="euw1-az2"):
        self.values = {"availability-zone": zone, "availability-zone-id": zone_id}
        self.tokens = set()

    def __call__(self, request):
        if request.path == "/latest/api/token" and request.method == "PUT":
            lifetime = request.headers.get("x-aws-ec2-metadata-token-ttl-seconds", "")
            if not lifetime.isdecimal() or not 1 <= int(lifetime) <= 21600:
                return self.error(400)
            if "x-forwarded-for" in request.headers:
                return self.error(403)
            self.tokens.add(f"AQAEAL{len(self.tokens)}_vJ3yqA==")
            return Answer(200, max(self.tokens), headers=(("X-aws-ec2-metadata-token-ttl-seconds", lifetime),))
        if request.headers.get("x-aws-ec2-metadata-token") not in self.tokens:
            return self.error(401)
        place, _, name = request.path.rpartition("/")
        if request.method != "GET" or place != "/latest/meta-data/placement" or not self.values.get(name):
            return self.error(404)
        return Answer(200, self.values[name])

    @staticmethod
    def error(status):
        return Answer(status, AWS_ERROR.format(status), HTML)


def ec2_disabled(request):
    """Answer as an EC2 instance whose metadata service is switched off."""
    return Ec2.error(403)


def openstack(request):
    """Answer as OpenStack, which imitates version 1 of the service of EC2."""
    if request.method == "GET" and request.path == "/latest/meta-data/placement/availability-zone":
        return Answer(200, "nova")
    return Answer(404, "<html><head><title>404 Not Found</title></head></html>", HTML)


def gce(request, text="projects/123456789012/zones/europe-west1-b", flavor="Google"):
    headers = (("Metadata-Flavor", flavor), ("Server", "Metadata Server for VM"))
    if request.method != "GET":
        return Answer(405, GOOGLE_ERROR.format("405 (Method Not Allowed)!!1"), HTML, headers)
    if request.headers.get("metadata-flavor") != "Google" or "x-forwarded-for" in request.headers:
        return Answer(403, GOOGLE_ERROR.format("403 (Forbidden)!!1"), HTML, headers)
    if request.path != "/computeMetadata/v1/instance/zone":
        return Answer(404, GOOGLE_ERROR.format("404 (Not Found)!!1"), HTML, headers)
    return Answer(200, text, "application/text", headers)


def azure(request, zone="1", location="westeurope"):
    if request.headers.get("metadata") != "true" or "x-forwarded-for" in request.headers:
        return Answer(400, '{ "error": "Bad request. Required metadata header not specified" }', "application/json")
    name = request.path.removeprefix("/metadata/instance/compute/")
    value = {"zone": zone, "location": location}.get(name)
    if request.method != "GET" or value is None:
        return Answer(404, '{ "error": "Not found" }', "application/json")
    if request.query.get("api-version") not in (["2017-12-01"], ["2021-02-01"]) or request.query.get("format") != ["text"]:
        return Answer(400, '{ "error": "Bad request. api-version is invalid or was not specified" }', "application/json")
    return Answer(200, value)


def ecs(request, **fields):
    """Answer as the agent of ECS does, with the fields of the task's description."""
    if request.method != "GET" or request.path != "/v4/3f3a7b5c/task":
        return Answer(404, "404 page not found")
    task = {"Cluster": "arn:aws:ecs:eu-west-1:1:cluster/c", "Family": "f", "Containers": [{"DockerId": "c", "Labels": {}}]}
    return Answer(200, json.dumps(task | ({"AvailabilityZone": "eu-west-1c"} | fields)), "application/json")


def login_page(request):
    """Answer as a captive portal or a proxy: with a page of status 200 for everything."""
    return Answer(200, "<html><body>Please log in</body></html>", HTML)


def parrot(request):
    """Answer with one word of status 200 for everything."""
    return Answer(200, "OK")


# --- delivery of an answer: coroutine functions of a writer ------------------------------------------------------------


def head(answer, *fields):
    lines = [f"HTTP/1.1 {answer.status} Reason", f"Content-Type: {answer.kind}"]
    lines += [f"{name}: {value}" for name, value in (*answer.headers, *fields)]
    return "\r\n".join([*lines, "", ""]).encode()


async def whole(writer, answer):
    body = answer.body.encode()
    writer.write(head(answer, ("Content-Length", len(body))) + body)


async def whole_and_open(writer, answer):
    """Deliver and leave the connection open, although the client asked to close it."""
    await whole(writer, answer)
    await asyncio.sleep(3600)


async def until_close(writer, answer):
    writer.write(head(answer) + answer.body.encode())


async def chunked(writer, answer):
    """Deliver in chunks of three bytes, each in its own packet, with sizes that have leading zeros."""
    writer.write(head(answer, ("Transfer-Encoding", "chunked")))
    body = answer.body.encode()
    for start in range(0, len(body), 3):
        chunk = body[start : start + 3]
        for part in (b"00", b"0%x;name=value\r\n" % len(chunk), chunk, b"\r\n"):
            writer.write(part)
            await asyncio.sleep(0.001)
    writer.write(b"0\r\n\r\n")
    await asyncio.sleep(3600)


def dripping(seconds):
    """Return a delivery of single bytes, with a pause before each."""

    async def deliver(writer, answer):
        for byte in head(answer, ("Content-Length", len(answer.body))) + answer.body.encode():
            await asyncio.sleep(seconds)
            writer.write(bytes([byte]))
            await writer.drain()

    return deliver


def after(seconds, delivery=whole):
    async def deliver(writer, answer):
        await asyncio.sleep(seconds)
        await delivery(writer, answer)

    return deliver


async def silence(writer, answer):
    await asyncio.sleep(3600)


async def nothing(writer, answer):
    """Close without a byte."""


def these(octets):
    """Return a delivery of these bytes, whatever the answer is."""

    async def deliver(writer, answer):
        writer.write(octets)

    return deliver


def on_path(part, delivery, other=whole):
    """Return a delivery for requests whose target contains `part`, and another one for the others."""

    async def deliver(writer, answer, request):
        await (delivery if part in request.target else other)(writer, answer)

    deliver.wants_request = True
    return deliver


# --- machines ------------------------------------------------------------------------------------------------------------


class Server:
    def __init__(self, service, delivery=whole):
        self.service, self.delivery = service, delivery

    async def serve(self, sock, requests):
        """Serve one request, until the client has closed its side."""
        reader, writer = await asyncio.open_connection(sock=sock)
        try:
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")
            method, target, version = lines[0].split(" ")
            assert version == "HTTP/1.1"
            fields = (line.split(": ", 1) for line in lines[1:] if line)
            request = Request(method, target, {name.lower(): value for name, value in fields})
            assert request.headers["host"]
            requests.append(request)
            extra = (request,) if hasattr(self.delivery, "wants_request") else ()
            delivery = asyncio.ensure_future(self.delivery(writer, self.service(request), *extra))
            gone = asyncio.ensure_future(reader.read())
            await asyncio.wait([delivery, gone], return_when=asyncio.FIRST_COMPLETED)
            for task in (delivery, gone):
                task.cancel()
            await asyncio.wait([delivery, gone])
            if not delivery.cancelled() and not isinstance(delivery.exception(), ConnectionError):
                delivery.result()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


class Machine:
    """The network of a machine. Hosts without a server are unreachable."""

    def __init__(self, servers=(), *, error=errno.ENETUNREACH):
        self.servers = dict(servers)
        """Servers by host. If a value is None, packets to the host are dropped."""
        self.requests = []
        self.hosts = []
        self.sockets = []
        self._error = error
        self._tasks = set()

    async def connect(self, host, port):
        """Connect like the opener of the client."""
        self.hosts.append(host)
        if host not in self.servers:
            raise OSError(self._error, "Connect call failed")
        if self.servers[host] is None:
            await asyncio.sleep(3600)
        assert port == 80
        client, server = socket.socketpair()
        client.setblocking(False)
        self.sockets.append(client)
        task = asyncio.create_task(self.servers[host].serve(server, self.requests))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return client

    @property
    def is_quiet(self):
        """True if the client has closed all sockets."""
        return all(sock.fileno() == -1 for sock in self.sockets)


def cloud(service, delivery=whole, **others):
    """Return the machine of a cloud."""
    return Machine({METADATA: Server(service, delivery), **others})
