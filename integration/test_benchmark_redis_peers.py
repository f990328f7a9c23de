"""The clients of the Redis protocol in `make bench` read from a real server, which the benchmark starts and ends."""

import asyncio
import socket

import pytest

from benchmarks.__main__ import Pace, compare
from benchmarks.contenders import contenders
from benchmarks.measuring import REDIS_PY, VALKEY_GLIDE
from benchmarks.servers import redis_protocol_server
from benchmarks.works import Work
from integration.redis_server import find_redis

SHORTEST = Pace(seconds=0, rounds=1, trials=1)
WORKS = [
    Work("get hit"),
    Work("get hit", callers=32),
    Work("get hit", size=1_000_000),
    Work("get miss"),
    Work("get_many", keys=100),
    Work("get_many", keys=100, callers=32),
]


def test_both_clients_read_what_they_have_stored():
    find_redis()
    with redis_protocol_server() as (port, about):
        assert "version" in about
        clients = [contender for contender in contenders(port) if contender.name in (VALKEY_GLIDE, REDIS_PY)]
        for work in WORKS:
            results, skipped = asyncio.run(compare(work, clients, [], SHORTEST))
            assert set(results) == {VALKEY_GLIDE, REDIS_PY}
            assert not skipped
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
