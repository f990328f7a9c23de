"""For the tests of services that use evcache: zones that can die and come back, a fake server, a faulty network."""

from evcache.testing.backends.base import BackendUnavailable
from evcache.testing.local_zones import LocalZones
from evcache.testing.running import RunningZones
from zones.testing.fake_memcached import FakeMemcached
from zones.testing.fault_proxy import FaultProxy

__all__ = ["BackendUnavailable", "FakeMemcached", "FaultProxy", "LocalZones", "RunningZones"]
