"""A look at a server from outside: plain blocking questions on a connection of their own."""

from __future__ import annotations

import socket

TIMEOUT_SECONDS = 5.0


def ask(address: str, request: bytes, end: bytes) -> bytes:
    """Send bytes to a server and return what it says, up to and with `end`."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), TIMEOUT_SECONDS) as connection:
        connection.sendall(request)
        answer = b""
        while not answer.endswith(end):
            received = connection.recv(65536)
            if not received:
                raise ConnectionError(f"{address} closed after {answer!r}")
            answer += received
    return answer


def stats(address: str) -> dict[str, str]:
    """A server's statistics."""
    lines = ask(address, b"stats\r\n", b"END\r\n").decode().splitlines()
    return {name: value for _, name, value in (line.split(" ", 2) for line in lines if line.startswith("STAT "))}


def item(address: str, key: str) -> tuple[bytes, int, int] | None:
    """Value, client flags and CAS of an item, or None; does not count as a use."""
    answer = ask(address, f"mg {key} v f c u\r\nmn\r\n".encode(), b"MN\r\n").removesuffix(b"MN\r\n")
    if answer == b"EN\r\n":
        return None
    line, _, rest = answer.partition(b"\r\n")
    flags = {token[:1]: int(token[1:]) for token in line.split()[2:] if token not in (b"W", b"X", b"Z")}
    return rest.removesuffix(b"\r\n"), flags[b"f"], flags[b"c"]


def connections_made(zones: dict[str, list[str]]) -> dict[str, int]:
    """How many connections each server has ever accepted, without the ones that this module makes."""
    made = {}
    for addresses in zones.values():
        for address in addresses:
            # Each look makes a connection itself, and so has every look before it: count those out.
            _looks[address] = _looks.get(address, 0) + 1
            made[address] = int(stats(address)["total_connections"]) - _looks[address]
    return made


_looks: dict[str, int] = {}
