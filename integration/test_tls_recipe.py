"""The TLS recipe: its script makes the certificates, servers run with its flags, and the client of its page uses them."""

import asyncio
import shutil
import socket
import ssl
import subprocess
import time
from contextlib import ExitStack, contextmanager

import pytest

from evcache import CacheUnavailable, EVCache, NodeSettings, SocketDialer
from integration.patience import PATIENT_CALLS, PATIENT_SECONDS
from tests.deploy.pages import OPERATIONS, blocks_of
from tests.support.recipes import DEPLOY, with_patches

SCRIPT = DEPLOY / "tls" / "make-certificates.sh"


@pytest.fixture(scope="module")
def binary(servers):
    found = [kind.source for kind in servers.kinds if kind.backend == "memcached"]
    for binary in found:
        if "--enable-ssl" in subprocess.run([binary, "-h"], capture_output=True, text=True, check=True).stdout:
            return binary
    pytest.skip("no memcached binary with TLS")


def make(folder, *names):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    done = subprocess.run([SCRIPT, folder, *names], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    make(folder, "127.0.0.1,localhost", "elsewhere.example")
    return folder


def flags(folder, *extra):
    """Return the flags of the overlay, with the files of a node in place of those of the Secret."""
    _, resource = next(found for found in with_patches("tls") if found[1]["kind"] == "StatefulSet")
    args = resource["spec"]["template"]["spec"]["containers"][0]["args"]
    return [
        arg.replace("/etc/memcached/tls", str(folder)) + "".join(f",{one}" for one in extra if "ssl_key" in arg)
        for arg in args
    ]


@contextmanager
def node(binary, folder, *extra):
    """Run a server with the flags of the recipe. Yield its port."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    server = subprocess.Popen([binary, "-u", "root", "-l", "127.0.0.1", "-p", str(port), *flags(folder, *extra)])
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
                break
            except OSError:
                assert server.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield port
    finally:
        server.terminate()
        server.wait(30)


def test_client_of_the_page_writes_and_reads(binary, certificates):
    with ExitStack() as stack:
        ports = [stack.enter_context(node(binary, certificates / "127.0.0.1")) for _ in range(2)]
        (block,) = blocks_of(OPERATIONS / "tls.md")
        block = block.replace("/etc/evcache/tls", str(certificates))
        for zone, port in zip(("a", "b"), ports, strict=True):
            block = block.replace(f"cache-0.eu-1{zone}.example:11211", f"127.0.0.1:{port}")

        async def use():
            names = {}
            exec(compile(block, "tls.md", "exec"), names)
            async with names["secure"] as cache:
                assert await cache.set("k", {"name": "Ada"}, consistency="all")
                assert await cache.get("k") == {"name": "Ada"}

        asyncio.run(use())


def failure(zones, context):
    """Return the text of the error of a read."""

    async def read():
        async with EVCache(
            "tls", zones, nodes=NodeSettings(connect_timeout=PATIENT_SECONDS, dialer=SocketDialer(context)), **PATIENT_CALLS
        ) as cache:
            with pytest.raises(CacheUnavailable) as raised:
                await cache.get("k")
            return str(raised.value)

    return asyncio.run(read())


def alert(port, context):
    """Return the text of the alert that a client receives which sends no request.

    A server that closes a connection with an unread request resets it. A client that then writes loses the alert.
    """
    with (
        socket.create_connection(("127.0.0.1", port), timeout=PATIENT_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
        pytest.raises(ssl.SSLError) as raised,
    ):
        connection.recv(1)
    return str(raised.value).lower().replace("_", " ")


def test_certificate_of_another_name_is_refused_as_the_page_says(binary, certificates):
    context = ssl.create_default_context(cafile=certificates / "ca.crt")
    with node(binary, certificates / "elsewhere.example") as port:
        assert "IP address mismatch" in failure(f"a=127.0.0.1:{port}", context)


def test_certificate_of_another_authority_is_refused_as_the_page_says(binary, certificates, tmp_path):
    make(tmp_path, "127.0.0.1")
    context = ssl.create_default_context(cafile=tmp_path / "ca.crt")
    with node(binary, certificates / "127.0.0.1") as port:
        text = failure(f"a=127.0.0.1:{port}", context)
    assert "unable to get local issuer certificate" in text or "self-signed certificate in certificate chain" in text


def test_server_that_asks_for_a_certificate_takes_that_of_the_authority(binary, certificates):
    extra = ("ssl_verify_mode=2", f"ssl_ca_cert={certificates / 'ca.crt'}")
    context = ssl.create_default_context(cafile=certificates / "ca.crt")
    with node(binary, certificates / "127.0.0.1", *extra) as port:
        assert "certificate required" in alert(port, context)
        text = failure(f"a=127.0.0.1:{port}", context).lower().replace("_", " ")
        assert "certificate required" in text or "connection reset by peer" in text
        own = certificates / "elsewhere.example"
        context.load_cert_chain(own / "tls.crt", own / "tls.key")

        async def use():
            settings = NodeSettings(connect_timeout=PATIENT_SECONDS, dialer=SocketDialer(context))
            async with EVCache("tls", f"a=127.0.0.1:{port}", nodes=settings, **PATIENT_CALLS) as cache:
                assert await cache.set("k", 1)
                assert await cache.get("k") == 1

        asyncio.run(use())


def test_renewed_certificate_is_used_after_refresh_certs(binary, tmp_path):
    make(tmp_path, "127.0.0.1")
    context = ssl.create_default_context(cafile=tmp_path / "ca.crt")

    def connect(port):
        return context.wrap_socket(
            socket.create_connection(("127.0.0.1", port), timeout=PATIENT_SECONDS), server_hostname="127.0.0.1"
        )

    with node(binary, tmp_path / "127.0.0.1") as port:
        with connect(port) as first:
            make(tmp_path, "127.0.0.1")
            first.sendall(b"refresh_certs\r\n")
            assert first.recv(100) == b"OK\r\n"
            with connect(port) as second:
                before, after = (connection.getpeercert()["serialNumber"] for connection in (first, second))
        assert before != after


@pytest.mark.parametrize("names", [(), ("..",), ("../x",), ("a b",), ("-x",), ("",)])
def test_script_refuses_names_that_are_none(tmp_path, names):
    done = subprocess.run([SCRIPT, tmp_path / "tls", *names], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "usage" in done.stderr or "invalid name" in done.stderr


def test_keys_are_readable_by_their_owner_only(certificates):
    keys = [certificates / "ca.key", *certificates.glob("*/tls.key")]
    assert len(keys) == 3
    assert {key.stat().st_mode & 0o777 for key in keys} == {0o600}
