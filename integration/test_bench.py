"""`evcache bench` on real servers: a measurement of healthy zones, and zones of which one dies or hangs during it."""

import json
import os
import socket
import subprocess
import sys

import pytest

from integration.conftest import LEAST_VERSION
from integration.patience import PATIENT_SECONDS

LOAD = ["--seconds", "60", "--rate", "200", "--keys", "50"]


def start(zones, *args):
    nodes = ";".join(f"{zone}={','.join(addresses)}" for zone, addresses in zones.zones.items())
    return subprocess.Popen(
        [sys.executable, "-c", "from evcache.cli import main; main()", "bench", "--json", *args],
        env={**os.environ, "EVCACHE_NODES": nodes, "EVCACHE_ZONE": "eu-1a"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_load(process):
    """Return when the measurement has printed the first second of its load."""
    for line in process.stderr:
        if "operations" in line:
            return
    raise AssertionError(f"ended before the load with status {process.wait()}")


def items(address):
    """Return the number of items of a server that are no tombstones: those with a value."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(b"lru_crawler metadump all\r\n")
        text = b""
        while not text.endswith(b"END\r\n"):
            text += connection.recv(65536)
        keys = [line.split()[0].removeprefix(b"key=") for line in text.splitlines() if line.startswith(b"key=")]
        found = 0
        for key in keys:
            connection.sendall(b"mg %b s\r\n" % key.replace(b"%3A", b":"))
            found += not connection.recv(1024).startswith((b"EN", b"HD s0"))
    return found


def test_a_measurement_of_healthy_zones_is_complete_and_leaves_no_value(zones_of_each_kind):
    zones = zones_of_each_kind
    with start(zones, "--seconds", "2", "--rate", "200", "--keys", "50", "--max-p99", "0", "--timeout", "5") as process:
        output, _ = process.communicate()
    found = json.loads(output)
    assert (process.returncode, found["stopped"], found["errors"]) == (0, None, {})
    # A machine that stalls at the end lets no caller begin the last operations. The report counts those as abandoned.
    assert (found["completed"] + found["abandoned"], found["keys_left"]) == (400, 0)
    assert found["sources"].get("local", 0) > 200
    assert all(node["before"]["count"] for node in found["nodes"])
    # The estimate is that of guarded writes, which servers without versions do not get.
    counted, estimated = found["cross_zone_whole"], found["plan"]["cross_zone"]
    assert counted < 1.5 * estimated
    if tuple(map(int, zones.version.split("."))) >= LEAST_VERSION:
        assert counted > estimated / 1.5
    for addresses in zones.zones.values():
        assert sum(map(items, addresses)) == 0


@pytest.mark.parametrize("how", ["kill", "pause"])
def test_a_zone_that_fails_during_a_measurement_stops_it(zones, how):
    # A machine that stalls for a second must not reach the other limit first.
    with start(zones, *LOAD, "--max-p99", f"{PATIENT_SECONDS * 1000:.0f}", "--timeout", "5") as process:
        wait_for_load(process)
        getattr(zones, how)("eu-1c")
        output, errors = process.communicate(timeout=60)
    found = json.loads(output)
    assert process.returncode == 1, errors
    assert found["stopped"].startswith("zone eu-1c: ")
    assert found["seconds"] < 50
    assert found["errors"] == {}
    assert found["keys_left"] == 50  # in the failed zone
    for zone in ("eu-1a", "eu-1b"):
        assert sum(map(items, zones.zones[zone])) == 0


def test_without_a_limit_a_dead_zone_is_measured(zones):
    options = ["--seconds", "4", "--rate", "200", "--keys", "50", "--max-p99", "0", "--timeout", "5"]
    with start(zones, *options) as process:
        wait_for_load(process)
        zones.kill("eu-1a")
        output, errors = process.communicate(timeout=60)
    found = json.loads(output)
    assert (process.returncode, found["stopped"], found["errors"]) == (0, None, {}), errors
    assert found["completed"] + found["not_sent"] == 800
    assert found["sources"]["fallback"] > 0
    assert sum(found["missed_writes"]["eu-1a"].values()) > 0
