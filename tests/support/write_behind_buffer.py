"""Write-behind buffers with predictable batch ids, and short forms of their calls."""

import itertools

from evcache.write_behind.buffer import Buffer

NOW = 1000.0


def make_buffer(**options):
    names = itertools.count(1)
    options = {"max_batch": 4, "interval": 1.0, "max_attempts": 3, "new_id": lambda: f"b{next(names)}", **options}
    return Buffer(**options)


def put(buffer, key, value, now=NOW):
    return buffer.put(key, value, is_delta=False, now=now)


def add(buffer, key, delta, now=NOW):
    return buffer.put(key, delta, is_delta=True, now=now)


def next_batch(buffer, now=NOW + 100):
    """Return the batch to try next. There must be one."""
    tried = buffer.next_batch(now)
    assert tried is not None
    return tried
