"""API server of Kubernetes on loopback, with EndpointSlices only.

It has resource versions, pages, watches with bookmarks, a history that can be compacted, and a token check. A test can end,
cut, or stop its watches, refuse requests, and restart it on the same port.
"""

import asyncio
import json
from collections import deque
from contextlib import suppress

from aiohttp import web

from tests.support.endpoint_slices import error_event, event, status

PATH = "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"


class FakeKubernetes:
    """The server. `async with` starts and stops it."""

    def __init__(self, *slices, token=None, tls=None, gone_as="event", namespace="cache"):
        self.token = token
        """Token that a request must have. None accepts all requests."""
        self.requests = []
        """Parameters of each request, with the token under `token`."""
        self.refusals = deque()
        """Statuses of the next requests, each with a reason and a message."""
        self.delay = 0.0
        """Seconds before each answer."""
        self.hanging = False
        """Watches send nothing, and do not end."""
        self.watching = 0
        """Number of watches that run."""
        self._tls = tls
        self._gone_as = gone_as
        self._namespace = namespace
        self._version = 100
        self._compacted = 0
        self._objects = {}
        self._history = []  # version, service, line
        self._continued = {}
        self._port = 0
        self._runner = None
        self._changed = asyncio.Event()
        self._connections = set()
        self._ending = False
        for one in slices:
            self.put(one)

    async def __aenter__(self):
        await self.start()
        return self

    async def __aexit__(self, *_):
        await self.stop()

    @property
    def url(self):
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self._port}"

    @property
    def lists(self):
        return [one for one in self.requests if "watch" not in one]

    @property
    def watches(self):
        return [one for one in self.requests if "watch" in one]

    async def start(self):
        """Listen, on the port of the last start if there was one."""
        application = web.Application()
        application.router.add_get(PATH, self._answer)
        self._runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=self._tls, reuse_address=True)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def stop(self):
        """Cut all connections, and refuse new ones."""
        self.cut()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    # The state of the cluster.

    def put(self, made):
        """Create a slice, or replace it."""
        name = made["metadata"]["name"]
        kind = "MODIFIED" if name in self._objects else "ADDED"
        self._objects[name] = made
        self._record(kind, made)

    def remove(self, name):
        """Remove a slice."""
        self._record("DELETED", self._objects.pop(name))

    def advance(self, versions=10):
        """Let other objects of the cluster change."""
        self._version += versions

    def compact(self):
        """Forget all events before now."""
        self._compacted = self._version

    def bookmark(self):
        """Send the present version to all watches that accept bookmarks."""
        metadata = {"resourceVersion": str(self._version), "creationTimestamp": None}
        line = json.dumps({"type": "BOOKMARK", "object": {"kind": "EndpointSlice", "metadata": metadata}}).encode()
        self._history.append((self._version, None, line))
        self._wake()

    def send(self, line):
        """Send any line to all watches."""
        self._history.append((self._version, "*", line))
        self._wake()

    # The state of the connections.

    def end_watches(self):
        """End all watches in order, as after `timeoutSeconds`."""
        self._ending = True
        self._wake()

    def cut(self):
        """Abort the connections of all watches."""
        for transport in list(self._connections):
            transport.abort()
        self._wake()

    def _wake(self):
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _record(self, kind, made):
        self._version += 1
        service = made["metadata"]["labels"]["kubernetes.io/service-name"]
        made["metadata"]["resourceVersion"] = str(self._version)
        self._history.append((self._version, service, event(kind, made, self._version)))
        self._wake()

    async def _answer(self, request):
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.requests.append(dict(request.query) | {"token": given})
        if self.delay:
            await asyncio.sleep(self.delay)
        if self.refusals:
            return _refusal(*self.refusals.popleft())
        if self.token is not None and given != self.token:
            return _refusal(401, "Unauthorized", "Unauthorized")
        if request.match_info["namespace"] != self._namespace:
            return _refusal(403, "Forbidden", "endpointslices.discovery.k8s.io is forbidden")
        label, _, service = request.query["labelSelector"].partition("=")
        assert label == "kubernetes.io/service-name"
        if "watch" in request.query:
            return await self._watch(request, service)
        return self._list(request, service)

    def _list(self, request, service):
        token = request.query.get("continue")
        if token is None:
            items, version = [one for one in self._objects.values() if _service(one) == service], self._version
        elif token in self._continued:
            items, version = self._continued.pop(token)
        else:
            return _refusal(410, "Expired", "The provided continue parameter is too old")
        limit = int(request.query.get("limit", len(items) or 1))
        metadata = {"resourceVersion": str(version)}
        if len(items) > limit:
            metadata["continue"] = f"page-{len(self.requests)}"
            self._continued[metadata["continue"]] = (items[limit:], version)
        return web.json_response(
            {
                "kind": "EndpointSliceList",
                "apiVersion": "discovery.k8s.io/v1",
                "metadata": metadata,
                "items": items[:limit] or None,
            }
        )

    async def _watch(self, request, service):
        seen = int(request.query["resourceVersion"])
        seconds = int(request.query["timeoutSeconds"])
        too_old = (410, "Expired", f"too old resource version: {seen} ({self._compacted})")
        is_gone = seen < self._compacted
        if is_gone and self._gone_as == "status":
            return _refusal(*too_old)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        if is_gone:
            await response.write(error_event(*too_old) + b"\n")
            return response
        self._ending = False
        position = next((at for at, (version, _, _) in enumerate(self._history) if version > seen), len(self._history))
        self._connections.add(request.transport)
        self.watching += 1
        try:
            async with asyncio.timeout(seconds):
                while True:
                    changed = self._changed
                    while position < len(self._history) and not self.hanging:
                        _, owner, line = self._history[position]
                        position += 1
                        if owner in {service, "*"} or (owner is None and "allowWatchBookmarks" in request.query):
                            await response.write(line + b"\n")
                    is_cut = request.transport is None or request.transport.is_closing()
                    if is_cut or (self._ending and not self.hanging):
                        break
                    await changed.wait()
        except TimeoutError:
            pass
        except ConnectionError:
            pass
        finally:
            self.watching -= 1
            self._connections.discard(request.transport)
        with suppress(ConnectionError):
            await response.write_eof()
        return response


def _service(made):
    return made["metadata"]["labels"]["kubernetes.io/service-name"]


def _refusal(code, reason, message):
    headers = {"Location": "/elsewhere"} if 300 <= code < 400 else None
    return web.json_response(status(code, reason, message), status=code, headers=headers)
