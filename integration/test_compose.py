"""The Compose recipe on real servers: flags, health checks, an outage, and the example of a service."""

import asyncio
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from evcache import EVCache
from integration.compose_recipe import check_health, composed, docker, find_compose, one_node, read_stats, wait_until_healthy
from integration.patience import PATIENT_CALLS
from tests.support.recipes import compose, flags_of

ROOT = Path(__file__).parents[1]

SUFFIXES = {"k": 1024, "m": 1024**2}


def in_bytes(size):
    """Return the bytes of a size as memcached writes it."""
    return int(size[:-1]) * SUFFIXES[size[-1]]


@pytest.fixture(scope="module")
def image(servers):
    found = [kind.source for kind in servers.kinds if kind.backend == "docker"]
    if not found:
        pytest.skip("no docker engine, or no image of memcached")
    return found[0]


@pytest.fixture
def node(image):
    with one_node(image) as node:
        read_stats(node["port"])
        yield node


def test_server_has_the_settings_of_its_flags(node):
    flags = flags_of(node["command"])
    settings, stats = read_stats(node["port"], "settings"), read_stats(node["port"])
    assert {
        "-m": int(settings["maxbytes"]),
        "-c": settings["maxconns"],
        "-I": int(settings["item_size_max"]),
        "-o hashpower": stats["hash_power_level"],
        "-F": settings["flush_enabled"] == "no",
    } == flags | {"-m": int(flags["-m"]) * 1024**2, "-I": in_bytes(flags["-I"])}


def test_server_lists_its_keys_because_tools_read_them(node):
    assert read_stats(node["port"], "settings")["dump_enabled"] == "yes"


def test_health_check_recognizes_a_server_that_hangs(node):
    assert check_health(node)
    docker("kill", "--signal", "STOP", node["id"])  # connects succeed, and no reply comes
    assert not check_health(node)
    docker("kill", "--signal", "CONT", node["id"])
    assert check_health(node)


def test_server_ends_on_sigterm_within_its_grace_period(node):
    began = time.monotonic()
    docker("stop", "--time", node["stop_grace_period"].removesuffix("s"), node["id"])
    assert time.monotonic() - began < int(node["stop_grace_period"].removesuffix("s"))
    assert docker("inspect", "--format", "{{.State.ExitCode}}", node["id"]).stdout.strip() == "0"


@pytest.fixture(scope="module")
def nodes(image):
    command = find_compose()
    if command is None:
        pytest.skip("neither docker compose nor docker-compose is installed")
    with composed(command, image) as nodes:
        wait_until_healthy(nodes)
        yield nodes


def zones_of(nodes):
    """Return the topology of the file for processes on this machine, as a node list with the labels of the file."""
    text = compose({})["services"]["shop"]["environment"]["EVCACHE_ZONES"]
    for name, node in nodes.items():
        text = text.replace(f"{name}:11211", f"{name}:11211@127.0.0.1:{node['port']}")
    return text


def test_zones_of_compose_survive_the_death_of_one(nodes):
    async def use():
        async with EVCache("compose", zones_of(nodes), local_zone="eu-1a", **PATIENT_CALLS) as cache:
            found = await cache.check()
            assert found.ready
            assert not found.problems
            keys = {f"k{number}": number for number in range(50)}
            assert all((await cache.set_many(keys, consistency="all")).values())
            for name in ("eu-1a-0", "eu-1a-1"):
                docker("kill", nodes[name]["id"])
            assert await cache.get_many(keys) == keys
            for name in ("eu-1a-0", "eu-1a-1"):
                docker("start", nodes[name]["id"])

    asyncio.run(use())


def test_example_service_runs_with_the_environment_of_the_file(nodes, tmp_path):
    port = next(iter(compose({})["services"]["shop"]["ports"])).rpartition(":")[2]
    assert port == "8000"  # the service listens there unless PORT says otherwise
    environment = compose({})["services"]["shop"]["environment"] | {"EVCACHE_ZONES": zones_of(nodes), "PORT": "0"}
    environment["HOST"] = "127.0.0.1"  # within a container, docker decides who reaches the port
    log = (tmp_path / "log").open("w+")
    service = subprocess.Popen(
        [sys.executable, "-m", "examples.service"], cwd=ROOT, env=os.environ | environment, stderr=log
    )
    try:
        address = address_of(service, log)
        status, text = fetch(f"{address}/products/1")
        assert (status, b"name" in text) == (200, True)
        assert fetch(f"{address}/ready")[0] == 200
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait(30)
        log.close()


def address_of(service, log):
    """Return the address that the service logs when it has started."""
    deadline = time.monotonic() + 60
    while True:
        log.seek(0)
        text = log.read()
        if "http://" in text:
            return "http://" + text.split("http://")[1].split()[0]
        assert service.poll() is None, text
        assert time.monotonic() < deadline, text
        time.sleep(0.1)


def fetch(url):
    try:
        with urllib.request.urlopen(url, timeout=30) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
