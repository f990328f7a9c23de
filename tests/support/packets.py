"""Packets of any commands, and the commands of a packet: the opposite of what requests make and connections send."""

from evcache.zones.protocol.packet import LARGE_BYTES, Packet

OPAQUE = b"O7"


def packet_of(commands):
    """A packet of (line, payload), None for a command without one."""
    groups, pieces, end = [], [], b""
    for line, payload in commands:
        pieces.append(end + line + b" ")
        if payload is None:
            end = b"\r\n"
        elif len(payload) < LARGE_BYTES:
            end = b"\r\n" + payload + b"\r\n"
        else:
            groups += [[*pieces, b"\r\n"], memoryview(payload)]
            pieces, end = [], b"\r\n"
    first, *rest = [*groups, [*pieces, end]]
    return Packet(len(commands), first, rest)


def parts_of(packet, opaque=OPAQUE):
    """What a connection hands on: bytes up to the first large payload, its view, and so on."""
    rest = [part if isinstance(part, memoryview) else opaque.join(part) for part in packet.rest]
    return [opaque.join(packet.first), *rest]


def commands_of(packet):
    """Return lines and payloads, divided by the lengths in the lines as a server does."""
    data = b"".join(parts_of(packet))
    commands = []
    while data:
        line, _, data = data.partition(b"\r\n")
        assert line.endswith(b" " + OPAQUE)
        line = line.removesuffix(b" " + OPAQUE)
        payload = None
        if line.startswith(b"ms "):
            size = int(line.split(b" ")[2])
            payload, data = data[:size], data[size:]
            assert data[:2] == b"\r\n"
            data = data[2:]
        commands.append((line, payload))
    assert len(commands) == packet.commands
    return commands
