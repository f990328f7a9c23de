"""Values at and over the item limits of servers."""

import pytest

from evcache import (
    Outcome,
    ValueTooLarge,
)
from tests.support.memory_zones import on_zones, pass_time
from tests.support.written import STORED, everywhere

DAY = 86400


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("operation", ["set", "set_many", "add", "replace", "cas"])
@on_zones()
async def test_value_over_the_limit_is_not_sent(zones, known, operation):
    """A server that refuses a large value deletes its present item of the key."""
    writer = await zones.ready()
    before = await writer.set("k", "before", consistency="all")
    await pass_time(0.1)
    cache = await zones.ready() if known else zones.client()
    zones.forget()
    large = b"x" * 1_100_000
    arguments = {
        "set_many": ({"j": 1, "k": large},),
        "cas": ("k", large, before.version),
    }.get(operation, ("k", large))
    with pytest.raises(ValueTooLarge) as caught:
        await getattr(cache, operation)(*arguments)
    assert caught.value.argument == "value"
    assert all("ms" not in commands for commands in zones.all_commands().values())
    assert zones.values("k") == everywhere("before")


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("operation", ["set", "set_many", "add", "replace", "cas"])
@on_zones(item_size_max=2048)
async def test_value_over_a_small_limit_is_not_sent(zones, known, operation):
    """A client that is not connected yet does not know that the servers take less than usual."""
    writer = await zones.ready()
    before = await writer.set("k", "before", consistency="all")
    await pass_time(0.1)
    cache = await zones.ready() if known else zones.client()
    large = b"x" * 4000
    arguments = {
        "set_many": ({"j": 1, "k": large},),
        "cas": ("k", large, before.version),
    }.get(operation, ("k", large))
    try:
        result = await getattr(cache, operation)(*arguments)
    except ValueTooLarge as error:
        assert error.argument == "value"
    else:
        assert not known
        assert not (result["k"] if operation == "set_many" else result)
    await pass_time()
    assert zones.values("k") == everywhere("before")


@pytest.mark.parametrize("operation", ["set", "set_many", "add", "replace", "cas", "append"])
@on_zones(item_size_max=2048)
async def test_item_limit_is_read_again_after_a_restart(zones, operation):
    """The limit of a closed connection refuses no value, even if the client only stores large ones."""
    cache = await zones.ready()
    large = b"x" * 4000
    with pytest.raises(ValueTooLarge):
        await cache.set("k", large)
    if operation not in ("set", "add"):
        before = await cache.set("k", b"before", consistency="all")
    for zone in zones.names:
        await zones.one(zone).stop()
        zones.one(zone).store.item_size_max = 8192
        zones.one(zone).revive()
    await pass_time(0.01)
    arguments = {
        "set_many": ({"j": 1, "k": large},),
        "cas": ("k", large, before.version if operation == "cas" else None),
    }.get(operation, ("k", large))
    result = await getattr(cache, operation)(*arguments, consistency="all")
    assert result["k"] if operation == "set_many" else result
    assert zones.values("k") == everywhere(b"before" + large if operation == "append" else large)


@on_zones()
async def test_largest_allowed_value_fits(zones):
    """The server takes it to the byte."""
    cache = await zones.ready()
    with pytest.raises(ValueTooLarge) as caught:
        await cache.set("k", b"x" * 2_000_000)
    limit = int(caught.value.problem.split("over the ")[1].split(" ")[0])
    assert limit > 1_048_000
    assert (await cache.set("k", b"x" * limit, consistency="all")).zones == STORED
    with pytest.raises(ValueTooLarge):
        await cache.set("k", b"x" * (limit + 1))


@on_zones()
async def test_append_over_the_limit_changes_nothing(zones):
    for zone in zones.names:
        zones.one(zone).store.item_size_max = 4096
    cache = await zones.ready()
    await cache.set("k", b"x" * 3000, consistency="all")
    for operation in (cache.append, cache.prepend):
        result = await operation("k", b"y" * 2000)
        assert not result
        assert set(result.zones.values()) == {Outcome.NOT_STORED}
    assert zones.values("k") == everywhere(b"x" * 3000)
