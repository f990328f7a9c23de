"""What one server holds, asked directly: plain blocking questions on a connection of their own."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from evcache.codec import FLAG_TOMBSTONE
from evcache.versions import MAX_CAS
from integration.chaos.end_state import Held
from integration.chaos.system import NAMESPACE
from integration.chaos.values import read_value

# A server that hangs is not waited for. One that does not answers within milliseconds.
LOOK_TIMEOUT_SECONDS = 0.5


def look(address: str, keys: Sequence[str]) -> dict[str, Held | None]:
    """What a server holds under these keys; does not count as a use. Raises an `OSError` when it does not answer."""
    host, _, port = address.rpartition(":")
    held: dict[str, Held | None] = {}
    with (
        socket.create_connection((host, int(port)), LOOK_TIMEOUT_SECONDS) as connection,
        connection.makefile("rwb") as stream,
    ):
        stream.write(b"".join(b"mg %s:%s v f c u\r\n" % (NAMESPACE.encode(), key.encode()) for key in keys))
        stream.flush()
        for key in keys:
            line = stream.readline().split()
            if line == [b"EN"]:
                held[key] = None
                continue
            if line[:1] != [b"VA"]:
                raise ConnectionError(f"{address} said {line!r}")
            data = stream.read(int(line[1]) + 2)[:-2]
            flags = {token[:1]: int(token[1:]) for token in line[2:] if token[:1] in (b"f", b"c")}
            value = None if flags[b"f"] == FLAG_TOMBSTONE else read_value(data)[1]
            held[key] = Held(MAX_CAS - flags[b"c"], value)
    return held
