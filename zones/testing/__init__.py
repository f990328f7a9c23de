"""Servers for tests."""

from evcache.zones.testing.fake_memcached.server import FakeMemcached

__all__ = ["FakeMemcached"]
