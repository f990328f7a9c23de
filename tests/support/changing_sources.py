"""Sources of each kind whose nodes a test changes, for virtual time."""

import asyncio
import itertools

from evcache.zones.discovery.file import FileDiscovery
from evcache.zones.discovery.kubernetes import KubernetesDiscovery
from evcache.zones.discovery.kubernetes.slices import SliceSet
from evcache.zones.topology.model import Topology
from tests.support.endpoint_slices import decoded, endpoint, endpoint_slice, event
from tests.support.memory_zones import PolledZones


class ChangingPolled:
    """A source that is asked every ten seconds."""

    def __init__(self, directory):
        self.discovery = PolledZones(self.topology(1))

    def topology(self, host):
        return Topology.from_node_list(f"eu-1a=10.0.0.{host}")

    def change(self, host):
        self.discovery.topology = self.topology(host)


class ChangingFile:
    """A TOML file. Each version has another size, because two may be written within one tick of the file system's clock."""

    def __init__(self, directory):
        self._path = directory / "zones.toml"
        self._versions = itertools.count()
        self.change(1)
        self.discovery = FileDiscovery(self._path)

    def topology(self, host):
        return Topology.from_node_list(f"eu-1a=10.0.0.{host}")

    def change(self, host):
        self._path.write_text(f'[zones.eu-1a]\nnodes = ["10.0.0.{host}"]\n' + "#" * next(self._versions), "utf-8")


class ChangingKubernetes:
    """A Service with one endpoint, at an API server in memory that sends each event to all of its watches."""

    def __init__(self, directory):
        self.discovery = KubernetesDiscovery("memcached", namespace="cache", api_server="http://127.0.0.1:1", linger=0.0)
        self.discovery._make_requests = lambda *_: _Requests(self)
        self.version = 10
        self.streams = set()
        self.slice = self._slice(1)

    def topology(self, host):
        return Topology.from_node_list(f"eu-1a=memcached-{host}:11211@10.0.0.{host}")

    def change(self, host):
        self.version += 1
        self.slice = self._slice(host)
        for stream in self.streams:
            stream.put_nowait(event("MODIFIED", self.slice, self.version))

    def _slice(self, host):
        return endpoint_slice("a", endpoint(f"memcached-{host}", f"10.0.0.{host}"))


class _Requests:
    def __init__(self, server):
        self._server = server
        self._events = asyncio.Queue()

    async def list(self):
        return SliceSet(str(self._server.version), decoded(self._server.slice))

    async def watch(self, version, seconds):
        if int(version) < self._server.version:
            self._events.put_nowait(event("MODIFIED", self._server.slice, self._server.version))
        self._server.streams.add(self._events)
        return self

    async def read(self):
        return [await self._events.get()]

    def release(self):
        self._server.streams.discard(self._events)

    async def close(self):
        self.release()


CHANGING_SOURCES = {"polled": ChangingPolled, "file": ChangingFile, "kubernetes": ChangingKubernetes}
