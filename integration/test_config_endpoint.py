"""Configuration endpoints on real servers and real TLS."""

import asyncio
import ssl

import pytest

from evcache.zones.discovery.lookups.config_endpoint import ConfigEndpoint
from evcache.zones.errors import DiscoveryError
from integration.raw import ask
from tests.support.config_endpoints import COMMAND, KEY, OLD_COMMAND, ConfigServer, config


def nodes(source):
    return [node.label for node in asyncio.run(source.nodes()).nodes]


def test_a_memcached_that_is_no_configuration_endpoint_is_named(each_server):
    assert ask(each_server, COMMAND, b"\r\n") == b"ERROR\r\n"
    assert ask(each_server, OLD_COMMAND, b"\r\n") == b"END\r\n"
    with pytest.raises(DiscoveryError) as caught:
        nodes(ConfigEndpoint(each_server))
    assert str(caught.value) == (
        f"configuration endpoint {each_server}: the server has no cluster configuration, so it is no configuration endpoint"
    )


def test_a_list_under_the_old_key_is_read(each_server):
    """A memcached answers as ElastiCache did before memcached 1.4.14."""
    data = config(5, "h1", "h2|2001:db8::1|11212")
    assert ask(each_server, b"set %b 0 0 %d\r\n%b\r\n" % (KEY, len(data), data), b"\r\n") == b"STORED\r\n"
    try:
        assert nodes(ConfigEndpoint(each_server)) == ["h1:11211", "h2:11212"]
    finally:
        assert ask(each_server, b"delete %b\r\n" % KEY, b"\r\n") == b"DELETED\r\n"


def test_an_endpoint_with_tls_is_asked_if_its_certificate_is_trusted(certificate):
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    trusting = ssl.create_default_context(cafile=str(certificate / "cert.pem"))

    async def scenario():
        server = ConfigServer(config(1, "h"))
        await server.start(ssl=served)
        try:
            found = await ConfigEndpoint(server.address, tls=trusting).nodes()
            assert [node.label for node in found.nodes] == ["h:11211"]
            with pytest.raises(DiscoveryError, match="connection failed: .*certificate verify failed"):
                await ConfigEndpoint(server.address, tls=ssl.create_default_context()).nodes()
            with pytest.raises(DiscoveryError, match=r"the connection ended|connection failed|no reply|unexpected reply"):
                await ConfigEndpoint(server.address, timeout=2).nodes()
        finally:
            await server.stop()

    asyncio.run(scenario())


def test_a_plain_endpoint_that_is_asked_with_tls_is_an_error():
    async def scenario():
        async with ConfigServer(config(1, "h")) as server:
            with pytest.raises(DiscoveryError, match=r"connection failed|no reply"):
                await ConfigEndpoint(server.address, tls=ssl.create_default_context(), timeout=2).nodes()

    asyncio.run(scenario())
