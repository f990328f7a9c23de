"""The ways to a server: TCP over IPv4 and IPv6, unix sockets, TLS, and servers that ask for a login."""

import asyncio
import os
import shutil
import socket
import ssl
import subprocess
from dataclasses import replace

import pytest

from evcache import CacheUnavailable, EVCache
from evcache.zones import SocketDialer
from integration.patience import PATIENT_CALLS, PATIENT_NODES
from tests.support.cores import TRANSPORTS, name_of, running

BINARY = shutil.which("memcached")
pytestmark = [pytest.mark.memcached, pytest.mark.skipif(BINARY is None, reason="no memcached binary on PATH")]


async def works(zones, **settings):
    async with EVCache("ns", zones, local_zone="only", nodes=replace(PATIENT_NODES, **settings), **PATIENT_CALLS) as cache:
        assert await cache.set("key", {"a": 1})
        assert await cache.get("key") == {"a": 1}
        assert await cache.get_many(["key"]) == {"key": {"a": 1}}
        return True


@pytest.fixture(params=TRANSPORTS, ids=name_of)
def transport(request):
    """Each way is tried with both protocols, and on both cores."""
    name, core = request.param
    with running(core):
        yield name


def free_port(host="127.0.0.1"):
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        return probe.getsockname()[1]


def memcached(*arguments, environment=None):
    return subprocess.Popen([BINARY, "-U", "0", "-u", "root", *arguments], env={**os.environ, **(environment or {})})


async def until_it_works(zones, **settings):
    """A server takes a moment to listen."""
    for _ in range(100):
        try:
            return await works(zones, **settings)
        except CacheUnavailable:
            await asyncio.sleep(0.05)
    return False


def test_unix_socket(tmp_path, transport):
    path = tmp_path / "memcached.sock"
    server = memcached("-s", str(path), "-a", "0777")
    try:
        assert asyncio.run(until_it_works({"only": [f"unix:{path}"]}, transport=transport))
    finally:
        server.kill()
        server.wait()


def test_ipv6(transport):
    port = free_port("::1")
    server = memcached("-l", "::1", "-p", str(port))
    try:
        assert asyncio.run(until_it_works({"only": [f"[::1]:{port}"]}, transport=transport))
    finally:
        server.kill()
        server.wait()


def test_login(tmp_path):
    """With the right password it works; with a wrong one the error says that the login was refused; without one, too."""
    file = tmp_path / "users"
    file.write_text("ada:s3cr:et\n")
    port = free_port()
    server = memcached("-l", "127.0.0.1", "-p", str(port), "-Y", str(file))
    zones = {"only": [f"127.0.0.1:{port}"]}
    try:
        assert asyncio.run(until_it_works(zones, auth=("ada", "s3cr:et")))
        with pytest.raises(CacheUnavailable, match="login was refused"):
            asyncio.run(works(zones, auth=("ada", "wrong")))
        with pytest.raises(CacheUnavailable, match="unauthenticated"):
            asyncio.run(works(zones))
        with pytest.raises(CacheUnavailable, match="does not support a login over the classic protocol"):
            asyncio.run(works(zones, auth=("ada", "s3cr:et"), transport="classic"))
        with pytest.raises(CacheUnavailable, match="unauthenticated"):
            asyncio.run(works(zones, transport="classic"))
    finally:
        server.kill()
        server.wait()


def items_on(address):
    """The number of items that a server holds."""
    host, port = address.split(":")
    with socket.create_connection((host, int(port))) as raw, raw.makefile("rwb") as stream:
        stream.write(b"stats\r\n")
        stream.flush()
        return next(int(line.split()[2]) for line in stream if line.startswith(b"STAT curr_items "))


def test_a_login_is_not_stored_by_a_server_that_asks_for_none(transport):
    port = free_port()
    server = memcached("-l", "127.0.0.1", "-p", str(port))
    address = f"127.0.0.1:{port}"
    try:
        assert asyncio.run(until_it_works({"only": [address]}, auth=("ada", "s3cr:et"), transport=transport))
        assert items_on(address) == 1  # that of `works`
    finally:
        server.kill()
        server.wait()


@pytest.mark.parametrize("auth", [None, ("ada", "s3cr:et")], ids=["no login", "login"])
@pytest.mark.parametrize("option", [("-B", "binary"), ("-S",)], ids=" ".join)
def test_a_server_of_the_binary_protocol_is_told_apart(tmp_path, transport, option, auth):
    (tmp_path / "memcached.conf").write_text(f"mech_list: plain\nsasldb_path: {tmp_path}/users\n")
    port = free_port()
    server = memcached("-l", "127.0.0.1", "-p", str(port), *option, environment={"SASL_CONF_PATH": str(tmp_path)})

    async def refused():
        for _ in range(100):
            try:
                await works({"only": [f"127.0.0.1:{port}"]}, transport=transport, auth=auth)
            except CacheUnavailable as error:
                if "refused" not in str(error) and "Connect call failed" not in str(error):
                    return str(error)
            if server.poll() is not None:
                pytest.skip("this memcached has no SASL")
            await asyncio.sleep(0.05)
        return "it works"

    try:
        assert ("in place of `-S`" if option == ("-S",) else 'without "-B binary"') in asyncio.run(refused())
    finally:
        server.kill()
        server.wait()


def test_tls(certificate, transport):
    """With its certificate trusted it works; the certificate is checked; plain text to a TLS port does not hang."""
    options = [f"ssl_chain_cert={certificate}/cert.pem", f"ssl_key={certificate}/key.pem"]
    port = free_port()
    server = memcached("-l", "127.0.0.1", "-p", str(port), "-Z", "-o", ",".join(options))
    zones = {"only": [f"127.0.0.1:{port}"]}
    try:
        trusting = ssl.create_default_context(cafile=str(certificate / "cert.pem"))
        assert asyncio.run(until_it_works(zones, dialer=SocketDialer(trusting), transport=transport))
        with pytest.raises(CacheUnavailable, match="certificate verify failed"):
            asyncio.run(works(zones, dialer=SocketDialer(ssl.create_default_context()), transport=transport))
        with pytest.raises(CacheUnavailable):
            asyncio.run(works(zones, transport=transport))
    finally:
        server.kill()
        server.wait()
