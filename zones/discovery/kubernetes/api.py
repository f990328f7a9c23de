"""Requests to the API server: lists and watches of EndpointSlices. Needs `pip install evcache[kubernetes]`."""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import NoReturn
from urllib.parse import quote

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from evcache.zones.discovery.kubernetes.server import ApiServer
from evcache.zones.discovery.kubernetes.slices import (
    GONE,
    ApiProblem,
    BadEvent,
    ConnectionCut,
    EndpointSlice,
    Expired,
    SliceSet,
    read_page,
    read_status,
)
from evcache.zones.transport.resolver import Resolver

# Slices of one page. It is the page size of kubectl. A slice has 100 endpoints by default.
PAGE_SLICES = 500

# Bytes of one page, and of one event. etcd refuses objects above 1.5 MiB. Their JSON is up to three times as large.
MAX_PAGE_BYTES = 64 * 1024 * 1024
MAX_EVENT_BYTES = 8 * 1024 * 1024

# Bytes that are read of an error.
MAX_ERROR_BYTES = 64 * 1024

OK, UNAUTHORIZED, FORBIDDEN = 200, 401, 403


class SliceRequests:
    """Requests for the slices of one Service. It has one HTTP session, from the first request to `close`."""

    def __init__(self, server: ApiServer, namespace: str, service: str) -> None:
        """Make an object without a session.

        Args:
            server: Access to the API server.
            namespace: Namespace of the Service.
            service: Name of the Service.
        """
        self._server = server
        self._namespace = namespace
        self._path = f"/apis/discovery.k8s.io/v1/namespaces/{quote(namespace)}/endpointslices"
        self._selector = {"labelSelector": f"kubernetes.io/service-name={service}"}
        self._session: aiohttp.ClientSession | None = None
        self._watched: aiohttp.ClientResponse | None = None

    async def list(self) -> SliceSet:
        """Return the present slices.

        The request names no resource version, so the answer is the latest state. An answer from the cache of the server may
        be older than the last list of another server.

        Raises:
            Expired: The server dropped the version of the list before the last page.
            ApiProblem: The server did not answer, refused the request, or its answer is unusable.
        """
        slices: list[EndpointSlice] = []
        parameters = self._selector | {"limit": str(PAGE_SLICES)}
        while True:
            response = await self._get(parameters)
            try:
                page = read_page(await _body(response, MAX_PAGE_BYTES))
            except (aiohttp.ClientError, OSError) as error:
                raise ApiProblem(_text(error)) from error
            finally:
                response.release()
            slices += page.slices
            if not page.next_page:
                return SliceSet(page.version, slices)
            parameters["continue"] = page.next_page

    async def watch(self, version: str, seconds: float) -> EventStream:
        """Return the events after a version.

        Args:
            version: Resource version of a list, or of the last event.
            seconds: Seconds after which the server ends the watch. At least one second applies.

        Raises:
            Expired: The server no longer keeps the version.
            ApiProblem: The server did not answer, or refused the request.
        """
        parameters = {
            "watch": "1",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(max(1, round(seconds))),
        }
        self._watched = await self._get(self._selector | parameters)
        return EventStream(self._watched)

    async def close(self) -> None:
        """Close the session with all its connections. May be called again."""
        session, self._session = self._session, None
        watched, self._watched = self._watched, None
        if session is None:
            return
        try:
            await session.close()  # it waits for the end of the connections
        finally:
            if watched is not None:
                watched.close()

    async def _get(self, parameters: dict[str, str]) -> aiohttp.ClientResponse:
        response = await self._request(parameters)
        if response.status == UNAUTHORIZED:
            # The token may have been replaced after it was read. The second request reads it again.
            response.release()
            response = await self._request(parameters)
        if response.status != OK:
            await self._refuse(response)
        return response

    async def _request(self, parameters: dict[str, str]) -> aiohttp.ClientResponse:
        if self._session is None:
            self._session = self._open()
        headers = {"Accept": "application/json"}
        token = self._server.token()
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        url = self._server.address() + self._path
        try:
            # A redirect would send the token to another server.
            return await self._session.get(url, params=parameters, headers=headers, allow_redirects=False)
        except (aiohttp.ClientError, OSError) as error:
            raise ApiProblem(_text(error)) from error

    def _open(self) -> aiohttp.ClientSession:
        context: ssl.SSLContext | bool = True
        if self._server.address().startswith("https:"):
            path = self._server.ca_path
            try:
                context = ssl.create_default_context(cafile=path)
            except OSError as error:  # a `ssl.SSLError` is one
                raise ApiProblem(f"CA certificate: {path}: {error.strerror or error}") from error
        return aiohttp.ClientSession(
            # The cluster has its own name servers and their cache.
            connector=aiohttp.TCPConnector(ssl=context, resolver=_ThreadResolver(), use_dns_cache=False),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),  # the caller has a timeout of its own
        )

    async def _refuse(self, response: aiohttp.ClientResponse) -> NoReturn:
        body = b""
        with suppress(aiohttp.ClientError, OSError, ApiProblem):
            body = await _body(response, MAX_ERROR_BYTES)
        response.close()
        message = read_status(body) or response.reason or ""
        text = f"HTTP {response.status}: {message}"
        if response.status == GONE:
            raise Expired(text)
        if response.status == UNAUTHORIZED:
            text += f"; the API server refuses the token of {self._server.token_path}"
        if response.status == FORBIDDEN:
            text += (
                "; the service account needs a Role with the verbs list and watch on the resource endpointslices"
                f" in the API group discovery.k8s.io, in the namespace {self._namespace}"
            )
        raise ApiProblem(text)


class EventStream:
    """Events of one watch, as lines."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._rest = bytearray()

    async def read(self) -> list[bytes] | None:
        """Return the next complete lines. None means that the server ended the watch.

        Cancellation loses no bytes, so a timeout may end the call.

        Raises:
            ConnectionCut: The connection ended in the middle of the watch.
            BadEvent: An event is too large.
        """
        while True:
            try:
                # `readline` loses the beginning of a line when it is cancelled.
                chunk = await self._response.content.readany()
            except (aiohttp.ClientError, OSError, RuntimeError) as error:
                # A RuntimeError reports a connection that is closed already.
                raise ConnectionCut(f"watch interrupted: {_text(error)}") from error
            if not chunk:
                return None
            searched = len(self._rest)
            self._rest += chunk
            end = self._rest.rfind(b"\n", searched)
            if end >= 0:
                lines = bytes(self._rest[:end]).split(b"\n")
                del self._rest[: end + 1]
                return [line for line in lines if line.strip()]
            if len(self._rest) > MAX_EVENT_BYTES:
                raise BadEvent(f"watch event: more than {MAX_EVENT_BYTES} bytes")

    def release(self) -> None:
        """Return the connection for the next request, after the end of the watch."""
        self._response.release()


class _ThreadResolver(AbstractResolver):
    """Lookup of the API server in threads of the client.

    The default of aiohttp uses the executor of the service, and waits for it on close. In a pod the server is an address.
    """

    def __init__(self) -> None:
        self._look_up = Resolver()

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        found = await self._look_up(host, port)
        return [
            ResolveResult(hostname=host, host=address[0], port=port, family=kind, proto=0, flags=0)
            for kind, address in found
            if family in {0, kind}
        ]

    async def close(self) -> None:
        """Return at once. A lookup that is under way ends in its thread."""


async def _body(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Return the body of an answer.

    Raises:
        ApiProblem: It has more bytes than `limit`.
    """
    body = bytearray()
    while chunk := await response.content.readany():
        body += chunk
        if len(body) > limit:
            response.close()
            raise ApiProblem(f"answer: more than {limit} bytes")
    return bytes(body)


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
