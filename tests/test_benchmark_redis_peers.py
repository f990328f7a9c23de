"""The clients of the Redis protocol in `make bench`: when they take part, and that what they read is checked."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from benchmarks import redis_peers, servers
from benchmarks.__main__ import Pace, best_of, compare
from benchmarks.contenders import contenders
from benchmarks.measuring import WrongAnswerError
from benchmarks.redis_peers import REDIS_PY, VALKEY_GLIDE, redis_py_variants, valkey_glide_variants
from benchmarks.works import Work

SHORTEST = Pace(seconds=0, rounds=1, trials=1)
BOTH = pytest.mark.parametrize("variants", [redis_py_variants, valkey_glide_variants])


class RespServer:
    """As much of a Redis server as redis-py needs to store and to read."""

    def __init__(self):
        self.stored = {}
        self.connections = []

    async def serve(self, reader, writer):
        self.connections.append(asyncio.current_task())
        try:
            while line := await reader.readline():
                command = [await self.argument(reader) for _ in range(int(line[1:]))]
                writer.write(self.reply(command))
        finally:
            writer.close()

    async def argument(self, reader):
        size = int((await reader.readline())[1:])
        return (await reader.readexactly(size + 2))[:-2]

    def reply(self, command):
        name, arguments = command[0].upper(), command[1:]
        if name == b"HELLO":
            return b"%1\r\n$5\r\nproto\r\n:3\r\n"
        if name == b"SET":
            self.stored[arguments[0]] = self.value_of(arguments[1])
        if name == b"GET":
            return self.bulk(arguments[0])
        if name == b"MGET":
            return b"*%d\r\n" % len(arguments) + b"".join(map(self.bulk, arguments))
        return b"+OK\r\n"

    def value_of(self, value):
        return value

    def bulk(self, key):
        value = self.stored.get(key)
        return b"_\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value)


class WrongServer(RespServer):
    """Returns the right number of other bytes."""

    def value_of(self, value):
        return value[::-1]


def run(server, use):
    """Run `use(contender, port)` while `server` listens on a port of the loopback address."""

    async def main():
        listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        async with listener:
            port = listener.sockets[0].getsockname()[1]
            contender = next(one for one in contenders(port) if one.name == REDIS_PY)
            try:
                return await use(contender, port)
            finally:
                await asyncio.gather(*server.connections)  # the client has closed them

    return asyncio.run(main())


@pytest.mark.parametrize(
    "work",
    [
        Work("get hit"),
        Work("get hit", callers=32),
        Work("get miss"),
        Work("get_many", keys=3),
        Work("get_many", keys=3, callers=32),
    ],
    ids=lambda work: work.title,
)
def test_redis_py_takes_part_with_the_fastest_of_its_variants(work):
    async def use(contender, port):
        return await compare(work, [contender], [port], SHORTEST)

    results, skipped = run(RespServer(), use)
    assert not skipped
    assert results[REDIS_PY].variant in redis_py_variants(work, server=1)


@pytest.mark.parametrize("work", [Work("get hit"), Work("get_many", keys=3)], ids=lambda work: work.title)
def test_a_value_that_differs_ends_the_benchmark(work):
    async def use(contender, port):
        async with AsyncExitStack() as stack:
            await best_of(stack, contender, work, [port], SHORTEST)

    with pytest.raises(WrongAnswerError):
        run(WrongServer(), use)


@BOTH
@pytest.mark.parametrize(
    "work",
    [Work("set"), Work("near hit"), Work("get miss", zones=3), Work("get_many", keys=100, nodes=6)],
    ids=lambda work: work.title,
)
def test_work_that_is_not_a_read_from_one_server_is_refused_with_a_reason(variants, work):
    assert isinstance(variants(work, server=1), str)


@BOTH
def test_without_a_server_the_reason_is_stated(variants):
    assert variants(Work("get hit"), server="no server") == "no server"


def test_without_its_library_a_client_does_not_take_part(monkeypatch):
    monkeypatch.setattr(redis_peers, "glide", None)
    monkeypatch.setattr(redis_peers.redis.utils, "HIREDIS_AVAILABLE", False)
    assert valkey_glide_variants(Work("get hit"), server=1) == "is not installed"
    assert redis_py_variants(Work("get hit"), server=1) == "hiredis is not installed"


def test_a_bulk_read_of_redis_py_is_tried_as_mget_and_as_a_pipeline():
    assert set(redis_py_variants(Work("get_many", keys=100), server=1)) == {
        "1 connection, MGET",
        "1 connection, pipeline",
        "2 connections, MGET",
        "2 connections, pipeline",
    }


def test_no_server_is_started_without_a_binary(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("EVCACHE_REDIS", raising=False)
    with servers.redis_protocol_server() as (port, about):
        assert port == servers.NO_REDIS
        assert about == "no Redis-protocol server"


def test_both_clients_are_contenders():
    names = [contender.name for contender in contenders("no server")]
    assert {VALKEY_GLIDE, REDIS_PY} <= set(names)
