"""`evcache doctor` on real servers: planted faults are found with their fix, and healthy zones have none."""

import asyncio
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from contextlib import ExitStack, closing, contextmanager

import pytest
from click.testing import CliRunner

from evcache import EVCache
from evcache.admin.doctor.catalog import FAULTS
from evcache.cli.commands import evcache as command_line
from evcache.testing import LocalZones
from evcache.testing.backends.base import ReservedPort
from evcache.testing.blocking import LoopThread
from evcache.zones.testing import FakeMemcached
from evcache.zones.testing.fault_proxy.proxy import FaultProxy
from integration.conftest import LEAST_VERSION
from integration.patience import PATIENT
from integration.raw import ask

KEYS = 120
HELD = 31  # connections; with -c 64, a server accepts 35 to 39
LISTED_SECONDS = 30.0
POLL_SECONDS = 0.1
FIXES = {fault.name: fault.fix for fault in FAULTS}


def started(kind, zones, *options):
    """Return zones of a kind of server with options, not started."""
    if kind.backend == "docker":
        return LocalZones(zones, backend="docker", image=kind.source, extra_args=options)
    return LocalZones(zones, backend=kind.backend, binary=kind.source or None, extra_args=options)


def node_list(zones):
    return ";".join(f"{name}={','.join(nodes)}" for name, nodes in zones.items())


def doctor(zones, *args, kind=None, version=None):
    """Run the command, and return the faults that it found by name.

    A published port of a container is a TCP proxy, and old servers keep no versions: both are true, and not planted.
    """
    if kind is not None and kind.backend == "docker":
        args += ("--ignore", "connection-relayed")
    if version is not None and tuple(map(int, version.split("."))) < LEAST_VERSION:
        args += ("--ignore", "no-versions")
    zones = zones if isinstance(zones, str) else node_list(zones)
    env = {"EVCACHE_NODES": zones, "EVCACHE_ZONE": "", "EVCACHE_NAMESPACE": ""}
    done = CliRunner().invoke(command_line, ["doctor", "--json", "--timeout", "20", *args], env=env)
    assert done.stderr == ""
    result = json.loads(done.stdout)
    found = {finding["name"]: finding for finding in result["findings"] if finding["verdict"] != "ok"}
    assert done.exit_code == (3 if not result["readable"] else 1 if found else 0)
    for name, finding in found.items():
        assert finding["fix"] == FIXES[name]
    return found


def write(zones, namespace, **options):
    """Write keys to all zones, and wait until each server lists some of them."""

    async def main():
        async with EVCache(namespace, zones, **(PATIENT | options)) as cache:
            await cache.set_many({f"key-{number}": "v" for number in range(KEYS)}, consistency="all", ttl=600)

    asyncio.run(main())
    deadline = time.monotonic() + LISTED_SECONDS
    for nodes in zones.values():
        for node in nodes:
            address = node.rpartition("@")[2]
            while not is_listed(address):
                assert time.monotonic() < deadline, f"{address} lists no keys"
                time.sleep(POLL_SECONDS)


def is_listed(address):
    """Return True if most items of a server have left the HOT part of its LRU, which is not listed."""
    reply = ask(address, b"stats items\r\n", b"END\r\n").decode()
    figures = dict(line.split()[1:3] for line in reply.splitlines() if line.startswith("STAT"))
    hot = sum(int(value) for name, value in figures.items() if name.endswith(":number_hot"))
    everything = sum(int(value) for name, value in figures.items() if name.endswith(":number"))
    return everything > 0 and hot < everything / 2


@pytest.fixture
def two_zones(each_kind):
    """Two zones of one node on each kind of server."""
    with started(each_kind, {"eu-1a": 1, "eu-1b": 1}).running() as zones:
        yield zones


def test_healthy_zones_have_no_fault(zones_of_each_kind, each_kind, namespace):
    zones = zones_of_each_kind
    write(zones.zones, namespace)
    assert doctor(zones.zones, "--namespace", namespace, kind=each_kind, version=zones.version) == {}


def test_two_swapped_labels_are_both_named(each_kind, namespace):
    with started(each_kind, {"eu-1a": 2, "eu-1b": 2}).running() as zones:
        labelled = {name: [f"{name}-x@{first}", f"{name}-y@{second}"] for name, (first, second) in zones.zones.items()}
        write(labelled, namespace)
        assert doctor(labelled, kind=each_kind, version=zones.version) == {}
        first, second = zones.zones["eu-1b"]
        labelled["eu-1b"] = [f"eu-1b-x@{second}", f"eu-1b-y@{first}"]
        found = doctor(labelled, kind=each_kind, version=zones.version)
    assert set(found) == {"labels-swapped"}
    assert f"eu-1b-x at {second} in eu-1b has 100% keys of eu-1b-y" in found["labels-swapped"]["text"]
    assert f"eu-1b-y at {first} in eu-1b has 100% keys of eu-1b-x" in found["labels-swapped"]["text"]


def test_a_zone_of_another_namespace_is_named(each_kind, namespace):
    with started(each_kind, {"eu-1a": 1, "eu-1b": 1, "eu-1c": 1}).running() as zones:
        write({name: zones.zones[name] for name in ("eu-1a", "eu-1b")}, namespace)
        write({"eu-1c": zones.zones["eu-1c"]}, "other")
        found = doctor(zones.zones, kind=each_kind, version=zones.version)
    assert set(found) == {"namespaces-foreign"}
    assert found["namespaces-foreign"]["text"] == f"no common namespace: eu-1c has other; eu-1a, eu-1b have {namespace}"


def test_an_old_release_among_newer_ones_is_named(servers):
    with ExitStack() as stack:
        zones, versions = {}, set()
        for kind in servers.kinds:
            running = stack.enter_context(kind.local_zones({"one": 1}).running())
            versions.add(running.version)
            zones[str(kind.backend)] = running.zones["one"]
        thread = stack.enter_context(LoopThread())
        for place, version in enumerate({"1.6.18", "1.6.38"} - versions):  # where there is one kind only
            server = FakeMemcached(version=version)
            thread.call(server.start())
            stack.callback(lambda server=server: thread.call(server.stop()))
            zones[f"fake-{place}"] = [server.address]
        found = doctor(zones, "--ignore", "connection-relayed", "--ignore", "memory-differs")
    assert set(found) == {"versions-differ-between-zones", "no-versions"}
    assert "1.6.18 in" in found["versions-differ-between-zones"]["text"]
    assert "memcached 1.6.18 is older than 1.6.27" in found["no-versions"]["text"]


def test_a_limit_of_connections_that_is_too_small_is_named(each_kind):
    if each_kind.backend == "embedded":
        pytest.skip("the embedded server takes no option -c")
    with started(each_kind, {"eu-1a": 1}, "-c", "64").running() as zones, ExitStack() as stack:
        (address,) = zones.zones["eu-1a"]
        host, _, port = address.rpartition(":")
        for _ in range(HELD):
            stack.enter_context(socket.create_connection((host, int(port)), 5))
        deadline = time.monotonic() + LISTED_SECONDS
        while int(dict(line.split()[1:3] for line in _stats(address))["curr_connections"]) < HELD:
            assert time.monotonic() < deadline
            time.sleep(POLL_SECONDS)
        found = doctor(zones.zones, kind=each_kind, version=zones.version)
    assert set(found) == {"connections-near-limit", "connection-limit-low"}
    assert "(-c 64 less " in found["connections-near-limit"]["text"]


def _stats(address):
    return [line for line in ask(address, b"stats\r\n", b"END\r\n").decode().splitlines() if line.startswith("STAT")]


def test_a_clock_that_is_90_seconds_ahead_names_its_writer(versioned_zones, each_kind, namespace):
    write(versioned_zones.zones, namespace, wall_clock=lambda: time.time() + 90)
    found = doctor(versioned_zones.zones, kind=each_kind)
    assert set(found) == {"item-versions-refused"}
    assert "by writer " in found["item-versions-refused"]["text"]
    (seconds,) = re.findall(r"up to (\d+) s ahead$", found["item-versions-refused"]["text"])
    assert 60 < int(seconds) <= 90


@contextmanager
def small_disk(folder):
    """Mount a full file system of 64 KiB."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small disk")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], check=False, capture_output=True)
    if done.returncode:
        pytest.skip(f"mount failed: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_of_hints_is_named(two_zones, each_kind, tmp_path):
    with small_disk(tmp_path) as disk:
        path = str(disk / "hints.db")
        roomy = doctor(two_zones.zones, "--hints", path, kind=each_kind, version=two_zones.version)
        (disk / "filler").write_bytes(bytes(40 * 1024))
        found = doctor(two_zones.zones, "--hints", path, kind=each_kind, version=two_zones.version)
    assert set(roomy) == {"hints-disk-low"}
    assert set(found) == {"hints-disk-full"}
    assert "No space left on device" in found["hints-disk-full"]["text"]


def test_item_sizes_that_differ_between_zones_are_named(each_kind):
    if each_kind.backend == "embedded":
        pytest.skip("the embedded server takes no option -I")
    with (
        started(each_kind, {"eu-1a": 1}).running() as small,
        started(each_kind, {"eu-1b": 1}, "-I", "2m").running() as large,
    ):
        found = doctor(small.zones | large.zones, kind=each_kind, version=small.version)
    assert set(found) == {"item-size-differs"}
    assert found["item-size-differs"]["text"] == "item size differs: 1,048,576 bytes in eu-1a; 2,097,152 bytes in eu-1b"


@contextmanager
def encrypted(kind, certificate):
    """Run a server that speaks TLS only, a real one where there is a binary, and yield its address."""
    files = certificate / "cert.pem", certificate / "key.pem"
    if kind.backend == "memcached":
        with closing(ReservedPort()) as port:
            port.lend()
            command = [kind.source, "-l", "127.0.0.1", "-p", str(port.number), "-U", "0", "-u", "root", "-Z"]
            process = subprocess.Popen([*command, "-o", f"ssl_chain_cert={files[0]},ssl_key={files[1]}"])
            try:
                yield f"127.0.0.1:{port.number}"
            finally:
                process.kill()
                process.wait()
        return
    with LoopThread() as thread:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)
        server = FakeMemcached(version="1.6.38")
        thread.call(server.start(ssl=context))
        yield server.address
        thread.call(server.stop())


def test_tls_on_one_node_only_is_named_from_both_sides(two_zones, each_kind, certificate):
    with encrypted(each_kind, certificate) as address:
        zones = two_zones.zones | {"eu-1c": [address]}
        trusted = ("--tls-ca", str(certificate / "cert.pem"), "--timeout", "4")
        deadline = time.monotonic() + LISTED_SECONDS
        while "tls-required" not in (plain := doctor(zones, kind=each_kind, version=two_zones.version)):
            assert time.monotonic() < deadline, plain  # the server is starting
        secure = doctor(zones, *trusted, kind=each_kind, version=two_zones.version)
        strange = doctor({"eu-1c": [address]}, "--tls", "--timeout", "4")
    assert set(plain) == {"tls-required"}
    assert plain["tls-required"]["text"] == (
        f"TLS required: {address} in eu-1c answers with TLS only; 2 nodes answer without TLS"
    )
    assert set(secure) == {"tls-missing"}
    assert secure["tls-missing"]["text"].endswith("answers without TLS only; 1 node answers with TLS")
    assert set(strange) == {"certificate-refused"}


def test_a_proxy_in_front_of_one_node_is_named(servers):
    direct = [kind for kind in servers.kinds if kind.backend == "memcached"]
    if not direct:
        pytest.skip("only memcached processes list the client's own address: a published port is a proxy, too")
    with started(direct[0], {"eu-1a": 1, "eu-1b": 1}).running() as zones, LoopThread() as thread:
        proxy = FaultProxy(zones.zones["eu-1b"][0])
        thread.call(proxy.start())
        found = doctor({"eu-1a": zones.zones["eu-1a"], "eu-1b": [proxy.address]}, version=zones.version)
        thread.call(proxy.stop())
    assert set(found) == {"connection-relayed"}
    assert found["connection-relayed"]["text"].endswith("is not in the client list of eu-1b")


def test_a_dead_zone_is_named(each_kind):
    with started(each_kind, {"eu-1a": 1, "eu-1b": 2}).running() as zones:
        zones.kill("eu-1b")
        found = doctor(zones.zones, "--ignore", "node-counts-differ", kind=each_kind, version=zones.version)
    assert set(found) == {"zone-down"}
    assert found["zone-down"]["text"].startswith("zone down: eu-1b: 2 of 2 nodes failed, the first is 127.0.0.1:")
