"""The sequences that a client builds on: guarded store, compare-and-set loop, leases, copies between servers."""

from tests.contracts.running import Case, Wait, case

EXPLICIT_CAS = (1, 6, 27)

# Versions are stored inverted, so that the newer of two is the lower number.
OLD = b"18446744073709000300"
NEW = b"18446744073709000200"
NEWEST = b"18446744073709000100"


def guarded(version: bytes, value: bytes, ttl: int = 30, flags: int = 5) -> bytes:
    """One packet: add if absent, take over if what is there is not newer, set the TTL if it is ours."""
    head, size = b"ms @ %d " % len(value), value + b"\r\n"
    return (
        head + b"ME E%b T%d F%d\r\n" % (version, ttl, flags) + size
        + head + b"C%b E%b I F%d\r\n" % (version, version, flags) + size
        + head + b"C%b E%b T%d F%d\r\n" % (version, version, ttl, flags) + size
    )  # fmt: skip


STUB = b"18446744073709551615"


def one_copy(version: bytes, value: bytes, ttl: bytes = b"30", flags: int = 5) -> bytes:
    """One packet: a stub if absent, take over if what is there is not newer, the TTL if it is ours, then no mark."""
    return (
        b"mg @ N2 E%b O1\r\n" % STUB
        + b"ms @ %d T%b F%d C%b E%b I O1\r\n%b\r\n" % (len(value), ttl, flags, version, version, value)
        + b"md @ C%b E%b I T%b O1\r\n" % (version, version, ttl)
        + b"ms @ 0 C%b E%b MA O1\r\n\r\n" % (version, version)
    )


def four(stub: bytes, take_over: bytes, ttl: bytes, unmark: bytes) -> bytes:
    """The replies to it."""
    return b"".join(reply + b"\r\n" for reply in (stub, take_over, ttl, unmark))


MADE = four(b"HD O1 W", b"HD O1", b"HD O1", b"HD O1")
REPLACED = four(b"HD O1", b"HD O1", b"HD O1", b"HD O1")
REFUSED = four(b"HD O1", b"EX O1", b"EX O1", b"EX O1")


def holds(version: bytes, value: bytes, ttl: int = 30, flags: int = 5, marks: bytes = b"") -> tuple[bytes, bytes]:
    return b"mg @ v c t f\r\n", b"VA %d c%b <t%d> f%d%b\r\n%b\r\n" % (len(value), version, ttl, flags, marks, value)


GUARDED_CASES: list[Case] = [
    case("guarded store: absent", (guarded(NEW, b"new"), b"HD\r\nHD\r\nHD\r\n"), holds(NEW, b"new"), since=EXPLICIT_CAS),
    case(
        "guarded store: over an older one",
        (guarded(OLD, b"older", ttl=90, flags=1), b"HD\r\nHD\r\nHD\r\n"),
        (guarded(NEW, b"new"), b"NS\r\nHD\r\nHD\r\n"),
        holds(NEW, b"new"),
        since=EXPLICIT_CAS,
    ),
    case(
        "guarded store: under a newer one",
        (guarded(NEW, b"new"), b"HD\r\nHD\r\nHD\r\n"),
        (guarded(OLD, b"older", ttl=90, flags=1), b"NS\r\nEX\r\nEX\r\n"),
        holds(NEW, b"new"),
        since=EXPLICIT_CAS,
    ),
    case(
        "guarded store: the same again",
        (guarded(NEW, b"new") * 2, b"HD\r\nHD\r\nHD\r\nNS\r\nHD\r\nHD\r\n"),
        holds(NEW, b"new"),
        since=EXPLICIT_CAS,
    ),
    case(
        "guarded store: an item with a CAS of the server looks newer",
        (b"ms @ 3 c\r\nset\r\n", b"HD c<cas>\r\n"),
        (guarded(NEW, b"new"), b"NS\r\nEX\r\nEX\r\n"),
        (b"mg @ c u\r\n", b"HD c<cas>\r\n"),
        (b"ms @ 3 C<cas> E" + NEW + b" T30 F5\r\nnew\r\n", b"HD\r\n"),
        holds(NEW, b"new"),
        since=EXPLICIT_CAS,
    ),
    case(
        "guarded store: over a lease stub",
        (b"mg @ v c N10 E18446744073709551600\r\n", b"VA 0 c18446744073709551600 W\r\n\r\n"),
        (guarded(NEW, b"new"), b"NS\r\nHD\r\nHD\r\n"),
        holds(NEW, b"new"),
        (b"ms @ 4 C18446744073709551600 E" + NEWEST + b"\r\nfill\r\n", b"EX\r\n"),
        since=EXPLICIT_CAS,
    ),
    case(
        "guarded store: a reader between the steps sees old or new, never nothing",
        (guarded(OLD, b"old"), b"HD\r\nHD\r\nHD\r\n"),
        (b"ms @ 3 C" + NEW + b" E" + NEW + b" I F6\r\nnew\r\n", b"HD\r\n"),
        holds(NEW, b"new", flags=6, marks=b" X W"),
        (b"ms @ 3 C" + NEW + b" E" + NEW + b" T60 F6\r\nnew\r\n", b"HD\r\n"),
        holds(NEW, b"new", ttl=60, flags=6),
        since=EXPLICIT_CAS,
    ),
    case(
        "guarded store: a newer write between the steps wins",
        (b"ms @ 3 ME E" + OLD + b" T30\r\nold\r\n", b"HD\r\n"),
        (guarded(NEWEST, b"newest"), b"NS\r\nHD\r\nHD\r\n"),
        (b"ms @ 3 C" + OLD + b" E" + OLD + b" I\r\nold\r\n", b"EX\r\n"),
        (b"ms @ 3 C" + OLD + b" E" + OLD + b" T30\r\nold\r\n", b"EX\r\n"),
        holds(NEWEST, b"newest"),
        since=EXPLICIT_CAS,
    ),
    case(
        "tombstone: an empty value with a flag keeps older writes out",
        (guarded(OLD, b"value"), b"HD\r\nHD\r\nHD\r\n"),
        (guarded(NEW, b"", ttl=60, flags=256), b"NS\r\nHD\r\nHD\r\n"),
        (guarded(OLD, b"value"), b"NS\r\nEX\r\nEX\r\n"),
        holds(NEW, b"", ttl=60, flags=256),
        (guarded(NEWEST, b"again"), b"NS\r\nHD\r\nHD\r\n"),
        holds(NEWEST, b"again"),
        since=EXPLICIT_CAS,
    ),
    case(
        "tombstone: on nothing",
        (guarded(NEW, b"", ttl=60, flags=256), b"HD\r\nHD\r\nHD\r\n"),
        holds(NEW, b"", ttl=60, flags=256),
        since=EXPLICIT_CAS,
    ),
]

ONE_COPY_CASES: list[Case] = [
    case("one copy: absent", (one_copy(NEW, b"new"), MADE), holds(NEW, b"new"), since=EXPLICIT_CAS),
    case(
        "one copy: over an older one",
        (one_copy(OLD, b"older", ttl=b"90", flags=1), MADE),
        (one_copy(NEW, b"new"), REPLACED),
        holds(NEW, b"new"),
        since=EXPLICIT_CAS,
    ),
    case(
        "one copy: under a newer one",
        (one_copy(NEW, b"new"), MADE),
        (one_copy(OLD, b"older", ttl=b"90", flags=1), REFUSED),
        holds(NEW, b"new"),
        since=EXPLICIT_CAS,
    ),
    case(
        "one copy: the same again",
        (one_copy(NEW, b"new") * 2, MADE + REPLACED),
        holds(NEW, b"new"),
        since=EXPLICIT_CAS,
    ),
    case(
        "one copy: the two forms among each other",
        (guarded(OLD, b"old", ttl=90), b"HD\r\nHD\r\nHD\r\n"),
        (one_copy(NEW, b"new"), REPLACED),
        (guarded(OLD, b"old", ttl=90), b"NS\r\nEX\r\nEX\r\n"),
        (guarded(NEWEST, b"newest", ttl=60), b"NS\r\nHD\r\nHD\r\n"),
        (one_copy(NEW, b"new"), REFUSED),
        holds(NEWEST, b"newest", ttl=60),
        since=EXPLICIT_CAS,
    ),
    case(
        "one copy: never expires, after a short life, and the other way round",
        (one_copy(OLD, b"old", ttl=b"10"), MADE),
        (one_copy(NEW, b"new", ttl=b"0") + b"mg @ t\r\n", REPLACED + b"HD t-1\r\n"),
        (one_copy(NEWEST, b"newest", ttl=b"20") + b"mg @ t\r\n", REPLACED + b"HD <t20>\r\n"),
        since=EXPLICIT_CAS,
    ),
    case(
        "one copy: a unix time",
        (one_copy(NEW, b"new", ttl=b"<at500>") + b"mg @ t\r\n", MADE + b"HD <~t500>\r\n"),
        since=EXPLICIT_CAS,
    ),
    case(
        "one copy: a time that is over takes the item away before its mark",
        (one_copy(NEW, b"new", ttl=b"-1") + b"mg @\r\n", four(b"HD O1 W", b"HD O1", b"HD O1", b"NS O1") + b"EN\r\n"),
        since=EXPLICIT_CAS,
    ),
    case(
        "one copy: an item with a CAS of the server looks newer",
        (b"ms @ 3 c\r\nset\r\n", b"HD c<cas>\r\n"),
        (one_copy(NEW, b"new"), REFUSED),
        (b"mg @ v c u\r\n", b"VA 3 c<cas>\r\nset\r\n"),
        since=EXPLICIT_CAS,
    ),
    case(
        "one copy: over a lease stub",
        (b"mg @ v c N10 E18446744073709551600\r\n", b"VA 0 c18446744073709551600 W\r\n\r\n"),
        (one_copy(NEW, b"new"), four(b"HD O1 Z", b"HD O1", b"HD O1", b"HD O1")),
        holds(NEW, b"new"),
        (b"ms @ 4 C18446744073709551600 E" + NEWEST + b"\r\nfill\r\nmd @ C18446744073709551600\r\n", b"EX\r\nEX\r\n"),
        since=EXPLICIT_CAS,
    ),
    case(
        "one copy: its stub is a lease to readers and to those who ask for one",
        (b"mg @ N10 E" + STUB + b"\r\n", b"HD W\r\n"),
        (b"mg @ v f c\r\n", b"VA 0 f0 c" + STUB + b" Z\r\n\r\n"),
        (b"mg @ v c f N30 t E18446744073709551600\r\n", b"VA 0 c" + STUB + b" f0 <t10> Z\r\n\r\n"),
        (one_copy(NEW, b"new"), four(b"HD O1 Z", b"HD O1", b"HD O1", b"HD O1")),
        holds(NEW, b"new"),
        since=EXPLICIT_CAS,
    ),
    case(
        "one copy: the stub goes by itself",
        (b"mg @ N2 E" + STUB + b"\r\nmg @\r\n", b"HD W\r\nHD Z\r\n"),
        Wait(3),
        (b"mg @\r\n", b"EN\r\n"),
        since=EXPLICIT_CAS,
    ),
    case(
        "one copy: without the stub nothing is stored",
        (one_copy(NEW, b"new").split(b"\r\n", 1)[1], b"NF O1\r\nNF O1\r\nNS O1\r\n"),
        (b"mg @\r\n", b"EN\r\n"),
        since=EXPLICIT_CAS,
    ),
    case(
        "one copy: step by step",
        (one_copy(OLD, b"old", ttl=b"90", flags=1), MADE),
        (b"mg @ N2 E" + STUB + b"\r\n", b"HD\r\n"),
        holds(OLD, b"old", ttl=90, flags=1),
        (b"ms @ 3 T30 F5 C" + NEW + b" E" + NEW + b" I\r\nnew\r\n", b"HD\r\n"),
        holds(NEW, b"new", ttl=90, marks=b" X W"),
        (b"md @ C" + NEW + b" E" + NEW + b" I T30\r\n", b"HD\r\n"),
        holds(NEW, b"new", marks=b" X W"),
        (b"ms @ 0 C" + NEW + b" E" + NEW + b" MA c s\r\n\r\n", b"HD c" + NEW + b" s3\r\n"),
        holds(NEW, b"new"),
        since=EXPLICIT_CAS,
    ),
    case(
        "one copy: another write between the steps",
        (one_copy(OLD, b"old", ttl=b"90"), MADE),
        (b"ms @ 3 T30 F5 C" + NEW + b" E" + NEW + b" I\r\nnew\r\n", b"HD\r\n"),
        (one_copy(NEWEST, b"newest", ttl=b"60"), four(b"HD O1 X W", b"HD O1", b"HD O1", b"HD O1")),
        (b"md @ C" + NEW + b" E" + NEW + b" I T30\r\nms @ 0 C" + NEW + b" E" + NEW + b" MA\r\n\r\n", b"EX\r\nEX\r\n"),
        holds(NEWEST, b"newest", ttl=60),
        since=EXPLICIT_CAS,
    ),
    case(
        "one copy: the same again completes what was cut off",
        (one_copy(OLD, b"old", ttl=b"90"), MADE),
        (b"ms @ 3 T30 F5 C" + NEW + b" E" + NEW + b" I\r\nnew\r\n", b"HD\r\n"),
        holds(NEW, b"new", ttl=90, marks=b" X W"),
        (one_copy(NEW, b"new"), four(b"HD O1 Z X", b"HD O1", b"HD O1", b"HD O1")),
        holds(NEW, b"new"),
        since=EXPLICIT_CAS,
    ),
    case(
        "one copy: an invalidation without a time to live keeps the old one",
        (one_copy(OLD, b"old", ttl=b"90"), MADE),
        (b"md @ C" + OLD + b" E" + OLD + b" I\r\n", b"HD\r\n"),
        holds(OLD, b"old", ttl=90, marks=b" X W"),
        since=EXPLICIT_CAS,
    ),
    case(
        "one copy: over a tombstone, and a tombstone over it",
        (guarded(OLD, b"", ttl=60, flags=256), b"HD\r\nHD\r\nHD\r\n"),
        (one_copy(NEW, b"new"), REPLACED),
        holds(NEW, b"new"),
        (guarded(NEWEST, b"", ttl=60, flags=256), b"NS\r\nHD\r\nHD\r\n"),
        (one_copy(NEW, b"new"), REFUSED),
        holds(NEWEST, b"", ttl=60, flags=256),
        since=EXPLICIT_CAS,
    ),
    case(
        "one copy: the longest value, and again over itself",
        (one_copy(OLD, b"<payload>", flags=0).replace(b"ms @ 9 ", b"ms @ <max> "), MADE),
        (one_copy(NEW, b"<payload>", flags=0).replace(b"ms @ 9 ", b"ms @ <max> "), REPLACED),
        holds(NEW, b"<payload>", flags=0)[:1] + (b"VA <max> c" + NEW + b" <t30> f0\r\n<payload>\r\n",),
        since=EXPLICIT_CAS,
    ),
    case(
        "one copy: a value that is too long takes away what is there",
        (one_copy(OLD, b"old"), MADE),
        (
            b"mg @ N2 E"
            + STUB
            + b"\r\n"
            + b"ms @ 1048576 C"
            + NEW
            + b" E"
            + NEW
            + b" I\r\n"
            + b"v" * 1048576
            + b"\r\n"
            + b"md @ C"
            + NEW
            + b" E"
            + NEW
            + b" I T30\r\nms @ 0 C"
            + NEW
            + b" E"
            + NEW
            + b" MA\r\n\r\n",
            b"HD\r\nSERVER_ERROR object too large for cache\r\nNF\r\nNS\r\n",
        ),
        (b"mg @\r\n", b"EN\r\n"),
        since=EXPLICIT_CAS,
    ),
]

LOOP_CASES: list[Case] = [
    case(
        "compare-and-set loop",
        (b"mg @ c u\r\n", b"EN\r\n"),
        (b"ms @ 2 ME E2010 T30\r\nv1\r\n", b"HD\r\n"),
        (b"mg @ c u\r\nms @ 2 ME E2020 T30\r\nv2\r\n", b"HD c2010\r\nNS\r\n"),
        (b"ms @ 2 C2010 E2020 T30\r\nv2\r\n", b"HD\r\n"),
        (b"ms @ 2 C2010 E2015 T30\r\nxx\r\n", b"EX\r\n"),
        (b"mg @ v c\r\n", b"VA 2 c2020\r\nv2\r\n"),
        since=EXPLICIT_CAS,
    ),
    case(
        "version in the flags, for servers without explicit CAS",
        (b"ms @ 2 ME F7\r\nv1\r\nmg @ c f u\r\n", b"HD\r\nHD c<cas> f7\r\n"),
        (b"ms @ 2 C<cas> F8 c\r\nv2\r\n", b"HD c<cas2>\r\n"),
        (b"ms @ 2 C<cas> F9\r\nv3\r\nmg @ v f\r\n", b"EX\r\nVA 2 f8\r\nv2\r\n"),
    ),
    case(
        "copy to another server keeps what is there",
        (b"ms @ 1 T30 F3 E50\r\nx\r\nmg @ k v c f t u\r\n", b"HD\r\nVA 1 k@ c50 f3 <t30>\r\nx\r\n"),
        (b"ms @-b 1 ME E50 F3 T30\r\nx\r\nms @-b 1 ME E50 F3 T30\r\nx\r\n", b"HD\r\nNS\r\n"),
        (b"md @-b I C50 E50 T30\r\nmg @-b v c f t\r\n", b"HD\r\nVA 1 c50 f3 <t30> X W\r\nx\r\n"),
        since=EXPLICIT_CAS,
    ),
    case(
        "a store that can't match changes nothing",
        (b"ms @ 0 MR C18446744073709551615 q\r\n\r\n", b"NF\r\n"),
        (b"ms @ 1\r\nx\r\nms @ 0 MR C18446744073709551615 q\r\n\r\nmg @ v\r\n", b"HD\r\nEX\r\nVA 1\r\nx\r\n"),
    ),
]

LEASE_CASES: list[Case] = [
    case(
        "lease: the winner fills",
        (b"mg @ v c f N10 t R5 O1\r\n", b"VA 0 c<cas> f0 <t10> O1 W\r\n\r\n"),
        (b"mg @ v c f N10 t R5 O2\r\n", b"VA 0 c<cas> f0 <t10> O2 Z\r\n\r\n"),
        (b"ms @ 5 C<cas> T60 F1\r\nvalue\r\n", b"HD\r\n"),
        (b"mg @ v f N10 t R5 O3\r\n", b"VA 5 f1 <t60> O3\r\nvalue\r\n"),
    ),
    case(
        "lease: a write in between makes the fill fail",
        (b"mg @ c N10\r\n", b"HD c<cas> W\r\n"),
        (b"ms @ 5 T60\r\nother\r\nms @ 5 C<cas> T60\r\nvalue\r\nmg @ v\r\n", b"HD\r\nEX\r\nVA 5\r\nother\r\n"),
    ),
    case(
        "lease: a delete in between makes the fill fail",
        (b"mg @ c N10\r\n", b"HD c<cas> W\r\n"),
        (b"md @\r\nms @ 5 C<cas> T60\r\nvalue\r\nmg @\r\n", b"HD\r\nNF\r\nEN\r\n"),
    ),
    case(
        "lease: an invalidation in between makes the fill fail, or stale",
        (b"mg @ c N10\r\n", b"HD c<cas> W\r\n"),
        (b"md @ I T30\r\nms @ 5 C<cas> T60\r\nvalue\r\n", b"HD\r\nEX\r\n"),
        (b"ms @ 5 C<cas> I T60\r\nvalue\r\nmg @ v t\r\nmg @\r\n", b"HD\r\nVA 5 <t30> X W\r\nvalue\r\nHD Z X\r\n"),
    ),
    case(
        "lease: given back",
        (b"mg @ c N10\r\n", b"HD c<cas> W\r\n"),
        (b"md @ C<cas> q\r\nmg @ c N10\r\n", b"HD c<cas2> W\r\n"),
        (b"md @ C<cas> q\r\nmg @\r\n", b"EX\r\nHD Z\r\n"),
    ),
    case(
        "lease: a refresh given back keeps its CAS and is stale",
        (b"ms @ 1 T30 E70\r\nx\r\nmg @ c R60\r\n", b"HD\r\nHD c70 W\r\n"),
        (b"md @ I C70 E70 T30\r\nmg @ v c\r\n", b"HD\r\nVA 1 c70 X W\r\nx\r\n"),
        since=EXPLICIT_CAS,
    ),
]

# The time to live of a number stays what it was, and its version must be the one that the client sent.
COUNTER_CASES: list[Case] = [
    case(
        "counter: compared, and versioned",
        (b"ms @ 1 T30 F9 E" + OLD + b"\r\n5\r\n", b"HD\r\n"),
        (
            b"ma @ D1 C" + OLD + b" E" + NEW + b" v t c\r\nmg @ v c u\r\n",
            b"VA 1 <t30> c" + NEW + b"\r\n6\r\nVA 1 c" + NEW + b"\r\n6\r\n",
        ),
        (b"ma @ D1 C" + OLD + b" E" + NEWEST + b" v t c\r\nmg @ v c u\r\n", b"EX\r\nVA 1 c" + NEW + b"\r\n6\r\n"),
        since=EXPLICIT_CAS,
    ),
    case(
        "counter: a number that gains a digit has a CAS of the server's, and the reply says otherwise",
        (b"ms @ 1 T30 F9 E" + OLD + b"\r\n9\r\n", b"HD\r\n"),
        (b"ma @ D1 C" + OLD + b" E" + NEW + b" v c\r\n", b"VA 2 c" + NEW + b"\r\n10\r\n"),
        (b"mg @ v c u\r\n", b"VA 2 c<cas>\r\n10\r\n"),
        (b"ms @ 0 T0 F0 C<cas> E" + NEW + b" MA\r\n\r\n", b"HD\r\n"),
        holds(NEW, b"10", flags=9),
        since=EXPLICIT_CAS,
    ),
    case(
        "counter: padding is taken off",
        (b"ms @ 2 T30 F9 E" + OLD + b"\r\n10\r\n", b"HD\r\n"),
        (
            b"ma @ D1 MD C" + OLD + b" E" + NEW + b" v c\r\nmg @ v c u\r\n",
            b"VA 1 c" + NEW + b"\r\n9\r\nVA 2 c" + NEW + b"\r\n9 \r\n",
        ),
        (
            b"ms @ 1 T0 F9 C" + NEWEST + b" E" + NEWEST + b" I\r\n9\r\n"
            b"ms @ 0 T0 F0 C" + NEWEST + b" E" + NEWEST + b" MA\r\n\r\n",
            b"HD\r\nHD\r\n",
        ),
        holds(NEWEST, b"9", flags=9),
        since=EXPLICIT_CAS,
    ),
    case(
        "touch: exactly one version, without its value",
        (b"ms @ 5 T30 F9 E" + NEW + b"\r\nvalue\r\n", b"HD\r\n"),
        (
            b"md @ C" + NEW + b" E" + NEW + b" I T60\r\nms @ 0 T0 F0 C" + NEW + b" E" + NEW + b" MA\r\n\r\n",
            b"HD\r\nHD\r\n",
        ),
        holds(NEW, b"value", ttl=60, flags=9),
        (
            b"md @ C" + OLD + b" E" + OLD + b" I T90\r\nms @ 0 T0 F0 C" + OLD + b" E" + OLD + b" MA\r\n\r\n",
            b"EX\r\nEX\r\n",
        ),
        holds(NEW, b"value", ttl=60, flags=9),
        since=EXPLICIT_CAS,
    ),
]

RECIPE_CASES: list[Case] = GUARDED_CASES + ONE_COPY_CASES + LOOP_CASES + LEASE_CASES + COUNTER_CASES
