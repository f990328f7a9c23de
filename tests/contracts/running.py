"""How a contract case is written and run.

A case is a list of steps, each some bytes to send and the bytes that must come back. Both are templates:

    @          a key that no other case uses            <pad250>   the key, filled up to 250 bytes
    <b64>      the key in base64                        <max>      the length of the longest value that fits
                                                          the item limit; <payload> is such a value
    <cas...>   a number; the first time it is learned, later it must be the same, and every name stands for
               another number; may be sent too. <other> is a CAS that no item of the case has
    <t30>      `t30` or `t29`: the server's clock may tick between two commands
    <at500>    (in what is sent) the unix time in 500 seconds; <~t500> (in a reply) about 500 seconds left
    <n> <any>  some digits; any bytes

After each case the connection must still be in step: `mn` must be answered with `MN` and nothing else, unless the
case ends with CLOSED.
"""

import asyncio
import base64
import itertools
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

REPLY_TIMEOUT = 5.0  # seconds; a server that does not answer in time has failed the case
NEVER = (9, 9, 9)
ITEM_SIZE_MAX = 1024 * 1024


class RawClient(Protocol):
    """A connection that knows no protocol."""

    async def send(self, data: bytes) -> None:
        """Send bytes; must not fail when the server has closed the connection."""

    async def read(self, enough: Callable[[bytes], bool]) -> bytes:
        """What has come since the last read, once that is enough, the connection is closed or time is up."""

    def closed(self) -> bool:
        """Whether the server has closed the connection."""


class _Closed:
    def __repr__(self) -> str:
        return "CLOSED"


CLOSED = _Closed()


@dataclass(frozen=True)
class Wait:
    """Let time pass on the server's clock."""

    seconds: float


Step = tuple[bytes, "bytes | _Closed"] | Wait


@dataclass(frozen=True)
class Case:
    name: str
    steps: tuple[Step, ...]
    since: tuple[int, int, int] = (1, 6, 18)
    until: tuple[int, int, int] = NEVER  # inclusive
    server: str = "plain"  # "no-cas": started with -C; "auth": with -Y, user `alice` and password `s3cret`;
    # "proxy": memcached's proxy with two backends, of which the one of keys under "dead/" is dead
    at_once: bool = (
        False  # a step must arrive in one piece: between its commands, the server's own threads change the result
    )

    def applies_to(self, version: str) -> bool:
        number = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
        return self.since <= number <= self.until


def case(name: str, *steps: Step, **options) -> Case:
    return Case(name, steps, **options)


# --- running ------------------------------------------------------------------------------------------------------

_numbers = itertools.count(1)
_STARTED = f"{time.time_ns() // 1_000_000_000 % 1_000_000:06d}"  # two runs may share a server that outlives them
_PLACEHOLDER = re.compile(rb"<(b64|max|payload|other|n|any|cas[0-9]*|(?:pad|at|t|~t)[0-9]+)>|@")


class _Names:
    """What the placeholders of one run of one case stand for."""

    def __init__(self) -> None:
        self.key = b"k%s.%04d" % (_STARTED.encode(), next(_numbers))
        self.learned: dict[str, bytes] = {}

    def sent(self, template: bytes) -> bytes:
        return _PLACEHOLDER.sub(lambda match: self._value(match), template)

    def expected(self, template: bytes) -> "re.Pattern[bytes]":
        pattern, position = b"", 0
        fresh: set[str] = set()
        for match in _PLACEHOLDER.finditer(template):
            pattern += re.escape(template[position : match.start()])
            pattern += self._pattern(match, fresh)
            position = match.end()
        return re.compile(pattern + re.escape(template[position:]), re.DOTALL)

    def learn(self, match: "re.Match[bytes]") -> None:
        for name, number in match.groupdict().items():
            assert number not in self.learned.values(), f"<{name}> is not a new number: {number!r}"
            self.learned[name] = number

    def _value(self, match: "re.Match[bytes]") -> bytes:
        name = (match[1] or b"").decode()
        if match[0] == b"@":
            return self.key
        if name == "b64":
            return base64.b64encode(self.key)
        if name == "max":
            return b"%d" % max_value_length(self.key)
        if name == "other":
            return b"%d" % (2**64 - 2)
        if name == "payload":
            return b"v" * max_value_length(self.key)
        if name.startswith("pad"):
            return self.key.ljust(int(name[3:]), b"k")
        if name.startswith("at"):
            return b"%d" % (int(time.time()) + int(name[2:]))
        return self.learned[name]

    def _pattern(self, match: "re.Match[bytes]", fresh: set[str]) -> bytes:
        name = (match[1] or b"").decode()
        if name == "n":
            return rb"[0-9]+"
        if name == "any":
            return rb".*?"
        if re.fullmatch("t[0-9]+", name):
            seconds = int(name[1:])
            return b"t(?:%d|%d)" % (seconds, seconds - 1)
        if name.startswith("~t"):
            return b"t(?:%s)" % b"|".join(b"%d" % (int(name[2:]) + near) for near in range(-3, 2))
        if name.startswith("cas") and name not in self.learned:
            if name in fresh:
                return b"(?P=%s)" % name.encode()
            fresh.add(name)
            return b"(?P<%s>[0-9]+)" % name.encode()
        return re.escape(self._value(match))


async def run_case(
    case: Case,
    client: RawClient,
    *,
    wait: Callable[[float], Awaitable[None]],
    slices: Callable[[bytes], list[bytes]] = lambda data: [data],
) -> None:
    """Run one case; AssertionError when the server answers otherwise. `slices` cuts what is sent in one step."""
    names = _Names()
    for number, step in enumerate(case.steps, 1):
        if isinstance(step, Wait):
            await wait(step.seconds)
            continue
        request, reply = names.sent(step[0]), step[1]
        for part in slices(request):
            await client.send(part)
        if isinstance(reply, _Closed):
            got = await client.read(lambda _: client.closed())
            assert (got, client.closed()) == (b"", True), f"step {number} of {case.name}: {request[:200]!r}"
            return
        pattern = names.expected(reply)
        got = await client.read(lambda data, pattern=pattern: pattern.fullmatch(data) is not None)
        match = pattern.fullmatch(got)
        assert match is not None, (
            f"step {number} of {case.name}\n  sent     {request[:300]!r}\n  expected {reply!r} as {pattern.pattern[:300]!r}"
            f"\n  got      {got[:600]!r}"
        )
        names.learn(match)
    await client.send(b"mn\r\n")
    got = await client.read(lambda data: data.endswith(b"MN\r\n"))
    assert got == b"MN\r\n", f"{case.name} left the connection out of step: {got[:300]!r}"


def byte_by_byte(data: bytes) -> list[bytes]:
    """Single bytes; large payloads in some hundred pieces."""
    size = 1 if len(data) < 5000 else len(data) // 300
    return [data[start : start + size] for start in range(0, len(data), size)]


def max_value_length(key: bytes) -> int:
    """The item limit counts a header of 56 bytes, the key and its end, and CR LF."""
    return ITEM_SIZE_MAX - 56 - (len(key) + 1) - 2


class SocketClient(asyncio.Protocol):
    """A RawClient on any asyncio transport: sockets, or the fake's own in memory."""

    def __init__(self) -> None:
        self._data = b""
        self._gone = False
        self._news = asyncio.Event()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        self._news.set()

    async def send(self, data: bytes) -> None:
        if not self._gone:
            self._transport.write(data)
            await asyncio.sleep(0)  # lets the server read what was sent so far

    async def read(self, enough: Callable[[bytes], bool]) -> bytes:
        try:
            async with asyncio.timeout(REPLY_TIMEOUT):
                while not enough(self._data) and not self._gone:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            pass
        data, self._data = self._data, b""
        return data

    def closed(self) -> bool:
        return self._gone

    async def close(self) -> None:
        if not self._gone:
            self._transport.close()
        while not self._gone:
            self._news.clear()
            await self._news.wait()
