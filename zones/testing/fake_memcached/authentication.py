"""The login of a server that was started with `-Y`: a `set` of any key whose value is `user password`."""

from __future__ import annotations

from evcache.zones.testing.fake_memcached.numbers import read_uint32

_MAX_LINE = 2048


class Login:
    """Reads the beginning of a connection until the right credentials have come."""

    def __init__(self, user: str, password: str) -> None:
        self.done = False
        self.tried = False
        """True if the last line or value was a login, right or wrong."""
        self.hung_up = False
        self._credentials = [user.encode(), password.encode()]
        self._missing: int | None = None  # bytes of the value, CR and LF included, once its line is read

    def read(self, buffer: bytearray) -> bytes | None:
        """Take one line or value from the buffer and return the answer; None when more bytes are needed."""
        self.tried = False
        if self._missing is None:
            end = buffer.find(b"\n")
            if end < 0:
                self.hung_up = len(buffer) > _MAX_LINE
                return None
            tokens = [token for token in bytes(buffer[:end]).split(b" ") if token]
            del buffer[: end + 1]
            size = read_uint32(tokens[4]) if len(tokens) > 4 and tokens[0] == b"set" else None
            if size is None:
                return b"CLIENT_ERROR unauthenticated\r\n"
            self._missing = size + 2
        if len(buffer) < self._missing:
            return None
        value = bytes(buffer[: self._missing])
        del buffer[: self._missing]
        self._missing = None
        if not value.endswith(b"\r\n"):
            return b"CLIENT_ERROR bad command line termination\r\n"
        credentials = [token for token in value[:-2].split(b" ") if token]
        if len(credentials) < 2:
            return b"CLIENT_ERROR bad authentication token format\r\n"
        self.tried = True
        self.done = credentials[:2] == self._credentials
        return b"STORED\r\n" if self.done else b"CLIENT_ERROR authentication failure\r\n"
