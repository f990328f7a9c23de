"""Tools for tests of services that use evcache: zones that can fail, a fake server, a faulty network."""

from evcache.testing.backends.base import BackendUnavailable
from evcache.testing.blocking import RunningZones
from evcache.testing.local_zones import LocalZones
from evcache.zones.testing.fake_memcached.server import FakeMemcached
from evcache.zones.testing.fault_proxy.proxy import FaultProxy

__all__ = ["BackendUnavailable", "FakeMemcached", "FaultProxy", "LocalZones", "RunningZones"]
