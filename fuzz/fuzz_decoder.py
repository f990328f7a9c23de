"""Looks for bytes that make the decoder do anything but give replies or raise `ProtocolError`.

    python -m fuzz.fuzz_decoder --seconds 10

Valid streams are made, damaged and cut in random ways. It must hold that

- an undamaged stream gives exactly the replies it was made of;
- nothing but `ProtocolError` is raised;
- how the bytes are cut changes neither the replies nor whether there is an error.

With atheris (`pip install atheris`) the same checks run on inputs that follow the branches of the code: `--atheris`, and
whatever libFuzzer takes after it.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time

from evcache.zones.errors import ProtocolError
from evcache.zones.protocol.decoder import Decoder
from evcache.zones.protocol.replies import STATUSES, AnyReply, Hit, Reply

try:
    import atheris
except ImportError:
    atheris = None

# Small, so that random lengths and lines are on both sides of them.
MAX_LINE = 64
MAX_VALUE = 256
ITEMS = 0.5  # of the replies with a value, as reads have them

_WORDS = sorted(STATUSES)
_MARKS = (
    b"\r\n",
    b"END\r\n",
    b"VA 5\r\n",
    b"VA 0 O1\r\n\r\n",
    b"VA 1 f0 c1 O1\r\n",
    b"HD O1\r\n",
    b"\r",
    b"\n",
    b" ",
    b"-",
    b"99999999999",
    b"\0",
)


def fuzz(rng: random.Random, *, iterations: int | None = None, seconds: float | None = None) -> int:
    """Check streams until either limit is reached and return how many it were. AssertionError with the first bad one."""
    stop = None if seconds is None else time.monotonic() + seconds
    for done in itertools.count():
        if done == iterations or (stop is not None and time.monotonic() >= stop):
            return done
        replies = [make_reply(rng) for _ in range(rng.randrange(6))]
        stream = b"".join(encode(reply) for reply in replies)
        found, error = check(stream, rng)
        if (found, error) != (replies, False):
            raise AssertionError(f"{stream!r} became {found!r}, error: {error}")
        check(damage(stream, rng), rng)
    raise AssertionError("unreachable")


def check(stream: bytes, rng: random.Random) -> tuple[list[AnyReply], bool]:
    """Decode the stream whole and in pieces; AssertionError if that differs. The replies, and whether there was an error."""
    whole = decode([stream])
    for slices in (cut(stream, rng), [stream[place : place + 1] for place in range(len(stream))]):
        pieces = decode(slices)
        if pieces != whole:
            raise AssertionError(f"{stream!r} became {whole!r}, but as {slices!r} it became {pieces!r}")
    return whole


def decode(slices: list[bytes]) -> tuple[list[AnyReply], bool]:
    """The replies, and whether there was an error."""
    decoder = Decoder(max_line=MAX_LINE, max_value=MAX_VALUE)
    replies: list[AnyReply] = []
    try:
        for piece in slices:
            for reply in decoder.feed(piece):
                replies.append(reply)  # noqa: PERF402 - what came before an error is kept
    except ProtocolError:
        return replies, True
    except Exception as error:
        raise AssertionError(f"{slices!r} raised {error!r}") from error
    return replies, False


def make_reply(rng: random.Random) -> AnyReply:
    """A reply that a server could send."""
    status = rng.choice(_WORDS)
    tokens = [bytes(rng.choices(range(33, 127), k=rng.randrange(1, 8))) for _ in range(rng.randrange(4))]
    if status != b"VA":
        return Reply(status, tokens, None)
    value = b"".join(rng.choice((*_MARKS, rng.randbytes(rng.randrange(12)))) for _ in range(rng.randrange(8)))
    if rng.random() < ITEMS:
        ttl = rng.choice((None, -1, 0, 60))
        return Hit(value, rng.randrange(100), rng.randrange(2**64), ttl, False, False, b"O%d" % rng.randrange(10_000))
    return Reply(status, tokens, value)


def encode(reply: AnyReply) -> bytes:
    """The bytes of a reply."""
    if reply.value is None:
        return reply.line + b"\r\n"
    return b" ".join([reply.status, b"%d" % len(reply.value), *reply.tokens]) + b"\r\n" + reply.value + b"\r\n"


def damage(stream: bytes, rng: random.Random) -> bytes:
    """The stream with something lost, added, moved or changed in a few places."""
    data = bytearray(stream)
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(len(data) + 1)
        match rng.randrange(5):
            case 0:
                del data[place : place + rng.randrange(1, 6)]
            case 1:
                data[place:place] = rng.choice((*_MARKS, *_WORDS))
            case 2:
                data[place : place + 1] = rng.randbytes(1)
            case 3:
                data[place:place] = data[: rng.randrange(len(data) + 1)]
            case _:
                data[place:place] = b"x" * rng.randrange(MAX_LINE + 4)
    return bytes(data)


def cut(stream: bytes, rng: random.Random) -> list[bytes]:
    """The stream in random pieces, empty ones among them."""
    edges = [0, *sorted(rng.randrange(len(stream) + 1) for _ in range(rng.randrange(6))), len(stream)]
    return [stream[start:stop] for start, stop in itertools.pairwise(edges)]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.fuzz_decoder", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to look (default: %(default)g)")
    parser.add_argument("--iterations", type=int, help="how many streams to look at, instead")
    parser.add_argument("--seed", type=int, help="to repeat a run")
    parser.add_argument("--atheris", action="store_true", help="let atheris choose the inputs")
    options, rest = parser.parse_known_args()
    if options.atheris:
        if atheris is None:
            parser.error("atheris is not installed")
        atheris.instrument_func(Decoder.feed)
        atheris.Setup([sys.argv[0], *rest], lambda data: check(data, random.Random(len(data))))
        atheris.Fuzz()
        return
    if rest:
        parser.error(f"unknown: {' '.join(rest)}")
    seed = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    seconds = options.seconds if options.iterations is None else None
    streams = fuzz(random.Random(seed), iterations=options.iterations, seconds=seconds)
    print(f"{streams} streams, nothing found")


if __name__ == "__main__":
    main()
