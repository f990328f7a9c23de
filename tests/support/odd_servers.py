"""Servers in memory that do not answer as memcached does."""

import struct

from evcache.zones.testing import FakeMemcached

HEADER = struct.Struct(">BBHBBHIIQ")


class BinarySession:
    """As memcached 1.6 with `-B binary` or `-S`, before a login."""

    def __init__(self, *, sasl):
        self.closed = False
        self._sasl = sasl
        self._buffer = b""

    def receive(self, data):
        self._buffer += data
        replies = b""
        while len(self._buffer) >= HEADER.size and not self.closed:
            magic, opcode, *_ = HEADER.unpack(self._buffer[: HEADER.size])
            self._buffer = self._buffer[HEADER.size :]
            if magic != 0x80:
                self.closed = True
            elif opcode == 0x0B:
                replies += self._response(opcode, 0, b"1.6.38")
            elif opcode == 0x20 and self._sasl:
                replies += self._response(opcode, 0, b"PLAIN")
            else:
                replies += self._response(opcode, 0x81, b"Unknown command")
        return replies

    def _response(self, opcode, status, body):
        return HEADER.pack(0x81, opcode, 0, 0, 0, status, len(body), 0, 0) + body


class Twemproxy:
    """A proxy that has some classic commands, and closes the connection on any other."""

    def __init__(self, behind):
        self.closed = False
        self._behind = behind

    def receive(self, data):
        if not data.startswith((b"get ", b"gets ", b"set ", b"delete ")):
            self.closed = True
            return b""
        return self._behind.receive(data)


class Restarting:
    """A session that closes at the first request."""

    def __init__(self):
        self.closed = False

    def receive(self, _):
        self.closed = True
        return b""


class Server(FakeMemcached):
    """A server in memory whose connections are made by `make(session)`."""

    def __init__(self, make):
        super().__init__()
        self._make = make
        self.made = 0

    def session(self):
        self.made += 1
        return self._make(self, super().session())
