"""FakeMemcached: a memcached server inside the process, for tests."""
