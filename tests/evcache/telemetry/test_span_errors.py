"""Spans of failed calls, and the protection of keys in spans."""

import asyncio
import hashlib

import pytest

from evcache import (
    CacheUnavailable,
    ConsistencyError,
    ServerError,
)
from tests.support.memory_zones import on_zones, pass_time
from tests.support.observed_clients import MOST, ONE, left, observed_client
from tests.support.sources import Source, started
from tests.support.telemetry import Bench, call
from tests.support.virtual_time import settle

# Errors.


@on_zones(zones=2)
async def test_no_zone_answers(zones):
    bench = Bench()
    cache = await observed_client(zones, bench)
    await zones.kill("a", "b")
    with pytest.raises(CacheUnavailable):
        await cache.get("k")
    bench.take()
    with pytest.raises(CacheUnavailable):
        await cache.get("k")
    seen = bench.one()
    said = {**ONE, "error.type": "CacheUnavailable", "evcache.fallback.reason": "NodeUnavailable"}
    assert seen == call("get", said, events=[left("a", "NodeUnavailable")], error=seen.error)
    assert "no zone could answer" in seen.error
    assert await cache.get("k", "default", errors="miss") == "default"
    hidden = ("evcache.error_as_miss", {"error.type": "CacheUnavailable"})
    said = {**ONE, "evcache.fallback.reason": "NodeUnavailable"}
    assert bench.one() == call("get", said, events=[left("a", "NodeUnavailable"), hidden])


@on_zones()
async def test_too_few_zones_answer(zones):
    bench = Bench()
    cache = await observed_client(zones, bench)
    await zones.kill("a")
    with pytest.raises(ConsistencyError):
        await cache.get("k", consistency="all")
    seen = bench.one()
    assert seen == call("get", {"evcache.consistency": "all", "error.type": "ConsistencyError"}, error=seen.error)
    assert "3 zones that must answer" in seen.error


@pytest.mark.parametrize("keys", ["none", "hashed", "clear"])
@on_zones(zones=1)
async def test_server_refuses(zones, keys):
    """The first word of the reply is the status code. An error that the client raises itself has none."""
    bench = Bench()
    cache = await observed_client(zones, bench, telemetry={"keys": keys})
    await cache.set("secret", "text")
    bench.take()
    with pytest.raises(ServerError):
        await cache.incr("secret")
    seen = bench.one()
    assert seen.attributes["error.type"] == "ServerError"
    assert seen.attributes.get("db.response.status_code") in (None, "CLIENT_ERROR", "SERVER_ERROR", "ERROR")
    assert seen.error is not None
    if keys != "clear":
        assert "secret" not in repr(list(seen.everything()))


@on_zones(zones=1)
async def test_status_code_is_the_first_word_of_the_reply(zones, monkeypatch):
    bench = Bench()
    cache = await observed_client(zones, bench)

    async def refused(*_, **__):
        raise ServerError("SERVER_ERROR out of memory storing object", "a0:11211")

    monkeypatch.setattr(cache._runtime.writer, "coordinate", refused)
    with pytest.raises(ServerError):
        await cache.incr("k", initial=1)
    said = {**MOST, "error.type": "ServerError", "db.response.status_code": "SERVER_ERROR"}
    seen = bench.one()
    assert seen == call("incr", said, error=seen.error)


@on_zones(zones=1)
async def test_cancelled_call(zones):
    bench = Bench()
    cache = await observed_client(zones, bench)
    zones.pause("a")
    reading = asyncio.ensure_future(cache.get("k"))
    await settle()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    seen = bench.one()
    assert seen == call("get", {**ONE, "error.type": "CancelledError"}, error="the caller was cancelled")
    zones.resume("a")


@on_zones(zones=1)
async def test_cancelled_caller_of_a_shared_load(zones):
    """The load continues for the second caller."""
    bench = Bench()
    cache = await observed_client(zones, bench)
    source = Source("v", seconds=1)
    first, second = (asyncio.ensure_future(cache.get_or_load("k", source.load)) for _ in range(2))
    await started(source)
    first.cancel()
    assert await second == "v"
    seen = bench.take()
    assert [one.attributes.get("error.type") for one in seen] == ["CancelledError", None]


# Keys.


@pytest.mark.parametrize("key", ["secret", b"secret", "geh\u00e9im"])
@pytest.mark.parametrize("by_name", [False, True])
@on_zones(zones=2)
async def test_spans_show_keys_as_the_setting_demands(zones, key, by_name):
    raw = key if isinstance(key, bytes) else key.encode()
    said = {"none": None, "hashed": hashlib.sha256(raw).hexdigest()[:32], "clear": raw.decode()}
    for keys, shown in said.items():
        bench = Bench()
        cache = await observed_client(zones, bench, telemetry={"keys": keys})
        await (cache.get(key=key) if by_name else cache.get(key))
        seen = bench.one()
        assert seen.attributes.get("evcache.key") == shown, keys
        if keys != "clear":
            assert raw.decode() not in repr(list(seen.everything()))


@on_zones(zones=1)
async def test_error_texts_in_spans_contain_no_keys(zones):
    """Only the exception that the caller receives names the key."""
    bench = Bench()
    cache = await observed_client(zones, bench)
    source = Source("v", seconds=60, error=LookupError("no row for secret"))
    with pytest.raises(TimeoutError, match="secret"):
        await cache.get_or_load("secret", source.load, timeout=1)
    source.seconds = 0
    with pytest.raises(LookupError):
        await cache.get_or_load("secret2", source.load)
    with pytest.raises(ValueError, match="secret"):
        await cache.get("secret and\nspaces" * 100)
    zones.write_as_another_client("secret", b"\xc1", 0x2, "a")
    with pytest.raises(Exception, match="secret"):
        await cache.get("secret")
    await pass_time(100)
    seen = bench.take()
    assert len(seen) >= 4
    assert all(one.error is not None for one in seen[:4])
    assert "secret" not in repr([list(one.everything()) for one in seen])
