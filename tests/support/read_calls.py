"""The read operations of a client, as functions that return the value of one key."""

import pytest


async def get(cache, key="k", **options):
    return await cache.get(key, **options)


async def get_item(cache, key="k", **options):
    item = await cache.get_item(key, **options)
    return None if item is None else item.value


async def get_many(cache, key="k", **options):
    return (await cache.get_many([key], **options)).get(key)


async def get_and_touch(cache, key="k", **options):
    return await cache.get_and_touch(key, 500, **options)


READS = {read.__name__: read for read in (get, get_item, get_many)}
"""Reads of one key and of many keys, which follow the same rules."""

ALL_READS = {**READS, get_and_touch.__name__: get_and_touch}

reads = pytest.mark.parametrize("read", READS.values(), ids=READS)
all_reads = pytest.mark.parametrize("read", ALL_READS.values(), ids=ALL_READS)
