"""Servers for tests."""

from zones.testing.fake_memcached import FakeMemcached

__all__ = ["FakeMemcached"]
