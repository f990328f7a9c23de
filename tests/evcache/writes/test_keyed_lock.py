"""Locks by key: in order, one at a time, and without memory for keys that no caller uses."""

import asyncio

import pytest

from evcache._helpers.keyed_lock import KeyedLock
from tests.support.virtual_time import in_virtual_time, settle


@in_virtual_time
async def test_callers_of_one_key_hold_it_in_their_order():
    turns, log = KeyedLock(), []

    async def user(name):
        async with turns.of(b"k"):
            log.append(f"{name} in")
            await asyncio.sleep(1)
            log.append(f"{name} out")

    await asyncio.gather(*(user(name) for name in "abc"))
    assert log == ["a in", "a out", "b in", "b out", "c in", "c out"]
    assert len(turns) == 0


@in_virtual_time
async def test_callers_of_other_keys_do_not_wait():
    turns, inside = KeyedLock(), []

    async def user(key):
        async with turns.of(key):
            inside.append(key)
            await asyncio.sleep(1)

    tasks = [asyncio.create_task(user(key)) for key in (b"a", b"b", b"c")]
    await settle()
    assert inside == [b"a", b"b", b"c"]
    assert len(turns) == 3
    await asyncio.gather(*tasks)
    assert len(turns) == 0


@pytest.mark.parametrize("who", ["holder", "first in line", "last in line", "all"])
@in_virtual_time
async def test_cancelled_caller_leaves_the_queue(who):
    turns, done = KeyedLock(), []

    async def user(name):
        async with turns.of(b"k"):
            await asyncio.sleep(1)
            done.append(name)

    tasks = {name: asyncio.create_task(user(name)) for name in ("holder", "first in line", "last in line")}
    await settle()
    victims = list(tasks) if who == "all" else [who]
    for name in victims:
        tasks[name].cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    assert done == [name for name in tasks if name not in victims]
    assert len(turns) == 0


@in_virtual_time
async def test_error_inside_releases_the_lock():
    turns = KeyedLock()
    with pytest.raises(LookupError):
        async with turns.of(b"k"):
            raise LookupError
    assert len(turns) == 0
    async with turns.of(b"k"):
        assert len(turns) == 1
