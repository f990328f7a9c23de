"""What one server holds, asked directly: plain blocking questions on a connection of their own."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

from evcache.errors import DecodeError
from evcache.replication.hlc import MAX_CAS, NOT_A_VERSION
from evcache.values.codec import StandardCodec
from evcache.values.flags import FLAG_ABSENT, FLAG_TOMBSTONE
from integration.chaos.end_state import Held
from integration.chaos.keys import Reading
from integration.chaos.system import NAMESPACE
from integration.chaos.values import TORN

# A server that hangs is not waited for. One that does not answers within milliseconds.
LOOK_TIMEOUT_SECONDS = 0.5

_CODEC = StandardCodec()
_ABSENCES = {FLAG_TOMBSTONE: "tombstone", FLAG_ABSENT: "absence"}


def look(address: str, keys: Sequence[str], now: Callable[[], float]) -> dict[str, Held | None]:
    """Return what a server holds under these keys; does not count as a use. Raises an `OSError` when it does not answer.

    `now` gives the seconds since the history began.
    """
    host, _, port = address.rpartition(":")
    held: dict[str, Held | None] = {}
    with (
        socket.create_connection((host, int(port)), LOOK_TIMEOUT_SECONDS) as connection,
        connection.makefile("rwb") as stream,
    ):
        stream.write(b"".join(b"mg %s:%s v f c t u\r\n" % (NAMESPACE.encode(), key.encode()) for key in keys))
        stream.flush()
        for key in keys:
            line = stream.readline().split()
            if line == [b"EN"]:
                held[key] = None
                continue
            if line[:1] != [b"VA"]:
                raise ConnectionError(f"{address} said {line!r}")
            data = stream.read(int(line[1]) + 2)[:-2]
            tokens = {token[:1]: token[1:] for token in line[2:]}
            held[key] = held_of(key, data, tokens, now())
    return held


def held_of(key: str, data: bytes, tokens: dict[bytes, bytes], now: float) -> Held:
    """Return an item by its bytes and the tokens of a meta get."""
    flags, cas, left = int(tokens[b"f"]), int(tokens[b"c"]), int(tokens[b"t"])
    version = None if cas < NOT_A_VERSION or MAX_CAS - cas < NOT_A_VERSION else MAX_CAS - cas
    # What is marked stale is being replaced, and has the time of what was there before.
    expires = None if left < 0 or b"X" in tokens else now + left
    absence = _ABSENCES.get(flags, "")
    if not data and not absence and not {b"W", b"Z"}.isdisjoint(tokens) and b"X" not in tokens:
        absence = "stub"
    if absence:
        return Held(version, None, expires=expires, absence=absence)
    try:
        reading = Reading(key, _CODEC.decode(data, flags))
    except DecodeError:
        return Held(version, TORN, data=data, flags=flags, expires=expires)
    return Held(version, reading.value, reading.number, data, flags, expires, reading.elements)
