"""Configuration endpoints in memory: a memcached that has the node list of its cluster, as a node of ElastiCache has it."""

from evcache.zones.discovery.lookups.config_endpoint import ConfigEndpoint
from evcache.zones.testing import FakeMemcached
from tests.support.scripted import MemoryDialer

COMMAND = b"config get cluster\r\n"
OLD_COMMAND = b"get AmazonElastiCache:cluster\r\n"
KEY = b"AmazonElastiCache:cluster"


def config(version, *nodes):
    """A configuration: `host|ip|port` of each node, or only its host."""
    listed = [node if "|" in node else f"{node}|10.0.0.1|11211" for node in nodes]
    return f"{version}\n{' '.join(listed)}\n".encode()


def reply(data, *, length=None, header=b"CONFIG cluster"):
    """A reply with this configuration."""
    return b"%b 0 %d\r\n%b\r\nEND\r\n" % (header, len(data) if length is None else length, data)


class ConfigServer(FakeMemcached):
    """A memcached that answers `config get cluster`, unless it is an old one. It has the items of any memcached, too."""

    def __init__(self, data=None):
        super().__init__()
        self.data = data  # None: as a memcached without clusters
        self.says = None  # bytes in place of the reply to each command
        self.closes = False  # at the end of the reply
        self.asked = []

    def keep_under_key(self, data):
        """Have the configuration as ElastiCache before memcached 1.4.14 has it."""
        self.data = None
        line = b"set %b 0 0 %d\r\n%b\r\n" % (KEY, len(data), data)
        assert super().session().receive(line) == b"STORED\r\n"

    def session(self):
        return _ConfigSession(self, super().session())

    def answer(self, command):
        """Return the reply to a command, or None for that of memcached."""
        self.asked.append(command)
        if self.says is not None:
            return self.says
        return None if self.data is None or command != COMMAND else reply(self.data)


class _ConfigSession:
    def __init__(self, server, behind):
        self.closed = False
        self._server = server
        self._behind = behind

    def receive(self, data):
        said = self._server.answer(data)
        self.closed = self._server.closes
        return self._behind.receive(data) if said is None else said


def endpoint(server, host="cfg", **options):
    """A source that asks the server."""
    return ConfigEndpoint(f"{host}:11211", dialer=MemoryDialer(**{host: server}), **options)
