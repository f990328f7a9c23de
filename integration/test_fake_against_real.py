"""Random conversations: FakeMemcached and real memcached must say the same, CAS numbers included.

The contract test covers known cases. This test finds cases that no test describes. The examples are the same in every run.
"""

import re
import socket

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from evcache.zones.testing import FakeMemcached
from integration.test_memcached_contract import find_binaries, running
from tests.support.examples import examples

pytestmark = pytest.mark.memcached

TRIES = 3  # a difference must show every time: a tick of the clock between two commands is none
# On a normal server, `ma` replaces an item instead of changing it in place while a background thread refers to the item.
# The thread does that for some milliseconds after every second fetch. Without these threads the server is deterministic.
SERVER_OPTIONS = ["-o", "no_lru_maintainer,no_lru_crawler"]
REPLY_TIMEOUT = 2.0  # seconds
END = b"mg nothing Oend\r\n"  # a command whose answer no other one can have


def mostly(usual: list[bytes], odd: list[bytes]) -> st.SearchStrategy[bytes]:
    """One odd argument in ten: a command that is refused says little about what the others do."""
    return st.integers(0, 9).flatmap(lambda dice: st.sampled_from(usual if dice else odd))


KEYS = [b"a", b"b", b"Zm9v", b"foo"]  # Zm9v is foo in base64, for the b flag
KEYS_BY_USE = [b"a"] * 5 + [b"b"] * 2 + [b"Zm9v"]
numbers = mostly(
    [b"0", b"1", b"2", b"5", b"10", b"99"], b"18446744073709551615 18446744073709551616 4294967296 -1 +3 x 1\t2".split(b" ")
)
ttls = mostly([b"0", b"30", b"60", b"100"], b"2592000 -1 2592001 4294967295 4294967296 x".split())
values = st.sampled_from(
    [b"", b"x", b"9", b"99", b"10", b"abc", b"12 34", b"-5", b"+7", b" 8", b"1" * 21, b"18446744073709551615"]
)
recent_cas = st.integers(0, 4).map(lambda back: b"<cas-%d>" % back)  # replaced when the number is known
cas_numbers = recent_cas | st.sampled_from([b"1000", b"2000", b"2001"]) | numbers
arguments = {
    "T": ttls,
    "N": mostly([b"30", b"60"], [b"0", b"x"]),
    "R": mostly([b"20", b"45", b"90"], [b"0", b"-1", b"x"]),
    "C": cas_numbers,
    "E": cas_numbers,
    "F": numbers,
    "J": numbers,
    "D": numbers,
    "O": mostly([b"", b"1", b"x" * 31], [b"y" * 32]),
    "M": mostly([b"E", b"A", b"P", b"R", b"S", b"I", b"D", b"+", b"-"], [b"e", b"EE", b""]),
}
# What each command knows; and what it accepts and ignores.
letters = {"mg": "vkOqtTcfshluNREvtcNRT", "ms": "kOqTcFsNCIEMCIEM", "md": "kOqTCIExCI", "ma": "vkOqtTcNCEMJDNvE"}
foreign = "vkOqtTcfFshlubNRCIExMJDPL"


@st.composite
def meta_flags(draw, name):
    chosen = draw(st.lists(st.sampled_from(letters[name]), max_size=6, unique=draw(st.integers(0, 15)) > 0))
    if draw(st.integers(0, 5)) == 0:
        chosen.append(draw(st.sampled_from(foreign)))
    if draw(st.integers(0, 30)) == 0:
        chosen.append(draw(st.sampled_from("zS!Z")))
    return b"".join(b" " + letter.encode() + draw(arguments.get(letter, st.just(b""))) for letter in chosen)


@st.composite
def meta_commands(draw):
    key, name = (
        draw(st.sampled_from(KEYS_BY_USE)),
        draw(st.sampled_from(["mg", "mg", "mg", "ms", "ms", "ms", "md", "md", "ma", "ma", "me"])),
    )
    if name == "me":
        return b"me " + key + draw(st.sampled_from([b"", b" b", b" x"])) + b"\r\n"
    if name != "ms":
        return name.encode() + b" " + key + draw(meta_flags(name)) + b"\r\n"
    value = draw(values)
    return b"ms %b %d%b\r\n%b\r\n" % (key, len(value), draw(meta_flags(name)), value)


@st.composite
def classic_commands(draw):
    key, value = draw(st.sampled_from(KEYS_BY_USE)), draw(values)
    noreply = draw(st.sampled_from([b"", b"", b"", b" noreply"]))
    name = draw(st.sampled_from(b"get gets gat gats set add replace append prepend cas delete incr decr touch".split()))
    if name in (b"get", b"gets"):
        return b"%b %b a\r\n" % (name, key)
    if name in (b"gat", b"gats"):
        return b"%b %b %b\r\n" % (name, draw(ttls), key)
    if name == b"delete":
        return b"delete %b%b\r\n" % (key, noreply)
    if name in (b"incr", b"decr"):
        return b"%b %b %b%b\r\n" % (name, key, draw(numbers), noreply)
    if name == b"touch":
        return b"touch %b %b%b\r\n" % (key, draw(ttls), noreply)
    cas = b" " + draw(recent_cas | numbers) if name == b"cas" else b""
    head = b"%b %b %b %b %d" % (name, key, draw(numbers), draw(ttls), len(value))
    return b"%b%b%b\r\n%b\r\n" % (head, cas, noreply, value)


odd_commands = st.sampled_from(
    [
        *(
            b"\r\n",
            b"\n",
            b"m\r\n",
            b"mx\r\n",
            b"mg\r\n",
            b"ms\r\n",
            b"ms a\r\n",
            b"ma\r\n",
            b"me\r\n",
            b"get\r\n",
            b"gat x a\r\n",
        ),
        *(
            b"mg a" + b" q" * 19 + b"\r\n",
            b"mg a\0b v\r\n",
            b"md b\0 q\r\n",
            b"get a\n",
            b"  mg   a   v  \r\n",
            b"mg a \xff\r\n",
        ),
        *(name + b" " + b"k" * 251 + b"\r\n" for name in (b"mg", b"md", b"ma", b"me", b"get", b"delete")),
        *(
            b"ms " + b"k" * 251 + b" 2\r\nmn\r\n",
            b"set " + b"k" * 251 + b" 0 0 2\r\nmn\r\n",
            b"delete a 1\r\n",
            b"delete a 0\r\n",
        ),
        *(b"ms a 3\r\nabcd\r\n", b"ms a 3 E777\r\nabcd\r\n", b"set a 0 0 3\r\nabcd\r\n", b"set a 0 0 3 noreply\r\nabcd\r\n"),
        *(
            b"ms a -1\r\nmn\r\n",
            b"ms a x\r\nmn\r\n",
            b"ms a 4294967297\r\nx\r\n",
            b"flush_all\r\n",
            b"flush_all x\r\n",
            b"verbosity\r\n",
        ),
        *(b"stats foo\r\n", b"shutdown\r\n", b"incr a\r\n", b"touch a\r\n", b"verbosity 0 noreply\r\n", b"mn x\r\n"),
    ]
)
commands = st.integers(0, 15).flatmap(
    lambda dice: [odd_commands, classic_commands(), classic_commands()][dice] if dice < 3 else meta_commands()
)
conversations = st.lists(commands, min_size=1, max_size=40)


class RealConnection:
    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=REPLY_TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes) -> bytes:
        """The reply, up to that of the END that is sent behind the request."""
        self._socket.sendall(request + END)
        reply = b""
        while not reply.endswith(b"EN Oend\r\n"):
            reply += self._socket.recv(1 << 16)
        return reply

    def close(self) -> None:
        self._socket.close()


def first_difference(port: int, version: str, conversation: list[bytes]) -> str | None:
    real = RealConnection(port)
    fake = FakeMemcached(version=version)
    session = fake.session()
    try:
        real.ask(b"".join(b"md %b q\r\n" % key for key in KEYS))
        # Both servers count on from here.
        fake.store.last_cas = int(re.search(rb"c([0-9]+)", real.ask(b"ms sync 0 c\r\n\r\n"))[1])
        for number, template in enumerate(conversation):
            request = re.sub(rb"<cas-([0-9])>", lambda match: b"%d" % (fake.store.last_cas - int(match[1])), template)
            theirs, ours = real.ask(request), session.receive(request + END)
            if not same(theirs, ours):
                return f"after {conversation[:number]}\n  sent {request!r}\n  real {theirs!r}\n  fake {ours!r}"
        return None
    finally:
        real.close()


# What depends on the moment: seconds left, seconds since the last access; and the slab class, which the fake ignores.
VOLATILE = re.compile(rb"( t[0-9]+| exp=-?[0-9]+| l[0-9]+| la=[0-9]+| cls=[0-9]+)")


def same(theirs: bytes, ours: bytes) -> bool:
    left, right = VOLATILE.split(theirs), VOLATILE.split(ours)
    return len(left) == len(right) and all(a == b or close(a, b) for a, b in zip(left, right, strict=True))


def close(a: bytes, b: bytes) -> bool:
    if not (VOLATILE.fullmatch(a) and VOLATILE.fullmatch(b) and a[:3] == b[:3] or a[:2] == b[:2] == b" t"):
        return False
    if a.startswith(b" cls="):
        return True
    left, right = (int(re.search(rb"-?[0-9]+", token)[0]) for token in (a, b))
    return abs(left - right) <= 2 or min(left, right) > 2**31  # an underflown TTL shows the uptime of the server


@pytest.fixture(scope="module", params=find_binaries() or [None])
def real_server(request):
    if request.param is None:
        pytest.skip("no memcached: put one on PATH, or name binaries in EVCACHE_MEMCACHED")
    with running(request.param, *SERVER_OPTIONS) as target:
        connection = socket.create_connection((target.host, target.port), timeout=REPLY_TIMEOUT)
        connection.sendall(b"version\r\n")
        version = connection.recv(100).split()[1].decode()
        connection.close()
        yield target.port, version


@settings(
    max_examples=examples(2),
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(conversation=conversations)
def test_fake_says_what_memcached_says(real_server, conversation):
    port, version = real_server
    differences = []
    for _ in range(TRIES):
        difference = first_difference(port, version, conversation)
        if difference is None:
            return
        differences.append(difference)
    pytest.fail(differences[-1])
