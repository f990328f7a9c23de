"""Fixtures on real servers. Tests are plain functions that call asyncio.run(); the servers live in a thread."""

import os
import shutil
import subprocess
import uuid
from contextlib import ExitStack

import pytest

from integration.jvm.build import require_java
from integration.servers import NoServers, Servers, find_servers

LEAST_VERSION = (1, 6, 27)
"""The first memcached that keeps versions."""

SERVERS = pytest.StashKey[Servers]()


def pytest_configure(config):
    # Servers are published on the loopback address, so testcontainers need not guess an address. Its cleaner is off because
    # its image is not available everywhere. LocalZones removes its own containers.
    os.environ.setdefault("TESTCONTAINERS_HOST_OVERRIDE", "127.0.0.1")
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    try:
        config.stash[SERVERS] = find_servers()
    except NoServers as reason:
        pytest.exit(f"integration tests: {reason}", returncode=1)


def pytest_report_header(config):
    return [f"integration servers, {line}" for line in config.stash[SERVERS].report]


def pytest_generate_tests(metafunc):
    if "each_kind" in metafunc.fixturenames:
        metafunc.parametrize("each_kind", metafunc.config.stash[SERVERS].kinds, ids=str, scope="session", indirect=True)


@pytest.fixture(scope="session")
def servers(pytestconfig):
    """Every kind of server that can be started here."""
    return pytestconfig.stash[SERVERS]


@pytest.fixture(scope="session")
def each_kind(request):
    """A ServerKind; the test runs once for each that there is."""
    return request.param


@pytest.fixture
def zones(servers):
    """Three fresh zones of two nodes (eu-1a, eu-1b, eu-1c), for this test alone to break; a RunningZones."""
    with servers.best.local_zones().running() as zones:
        yield zones


@pytest.fixture(scope="session")
def shared_zones(servers):
    """The same for the whole session: quick, and to be left in one piece. Use `namespace` to stay apart from others."""
    with servers.best.local_zones().running() as zones:
        yield zones


@pytest.fixture
def zones_of_each_kind(each_kind):
    """Three fresh zones of two nodes; the test runs once for each kind of server."""
    with each_kind.local_zones().running() as zones:
        yield zones


@pytest.fixture
def versioned_zones(each_kind):
    """Three zones of one node whose servers keep versions."""
    with each_kind.local_zones({"eu-1a": 1, "eu-1b": 1, "eu-1c": 1}).running() as zones:
        if tuple(map(int, zones.version.split("."))) < LEAST_VERSION:
            pytest.skip(f"memcached {zones.version} keeps no versions: 1.6.27 and newer do")
        yield zones


@pytest.fixture(scope="session")
def each_server(each_kind):
    """The address of one server that lives as long as the session; the test runs once for each kind of server."""
    with each_kind.local_zones({"one": 1}).running() as zones:
        yield zones.zones["one"][0]


@pytest.fixture(scope="session")
def memcached_addresses(servers):
    """One server of each kind that there is: a dict of names and addresses. They live as long as the session."""
    with ExitStack() as stack:
        running = {str(kind): stack.enter_context(kind.local_zones({"one": 1}).running()) for kind in servers.kinds}
        yield {f"{name} {zones.version}": zones.zones["one"][0] for name, zones in running.items()}


@pytest.fixture(scope="session")
def java():
    """The command of the JVM up to the class path. The tests are skipped without a JDK, and fail if CI is set."""
    return require_java()


@pytest.fixture(scope="module")
def addressed_zones(servers):
    """Two groups, g0 and g1, of three nodes that have addresses of their own, as the client for the JVM needs."""
    if servers.best.backend == "embedded":
        pytest.skip("the client for the JVM uses the binary protocol, and embedded servers do not have it")
    with servers.best.local_zones({"g0": 3, "g1": 3}, own_addresses=True).running() as zones:
        yield zones


@pytest.fixture
def namespace():
    """A namespace that no other test uses: flush_all is no way to be alone, it misses items with a CAS of the client's."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 that signs itself, made with the openssl command."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl command")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"],
            *("-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")),
        ],
        check=True,
        capture_output=True,
    )
    return folder
