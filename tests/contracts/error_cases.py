"""Errors: their texts, and whether what follows is still understood.

`ms @ 2 <something wrong>` with the payload `mn` shows the difference: a server that swallows the payload says
nothing more, one that does not answers MN.
"""

from tests.contracts.running import CLOSED, Case, case

EXPLICIT_CAS = (1, 6, 27)
LAST_WITH_OLD_PARSER = (1, 6, 39)  # as far as known: 1.6.38 still has it, 1.6.45 has not

INVALID = b"CLIENT_ERROR invalid flag\r\n"
DUPLICATE = b"CLIENT_ERROR duplicate flag\r\n"
EITHER = b"CLIENT_ERROR invalid or duplicate flag\r\n"
BAD_TOKEN = b"CLIENT_ERROR bad token in command line format\r\n"
BAD_FORMAT = b"CLIENT_ERROR bad command line format\r\n"
LONG_OPAQUE = b"O12345678901234567890123456789012"
BACKEND_FAILURE = b"SERVER_ERROR backend failure\r\n"
TOO_LARGE = b"SERVER_ERROR object too large for cache\r\n"
SIXTEEN_FLAGS = b" q v k c t s f h l u N1 T1 R1 O1 P1 L1"

ERROR_CASES: list[Case] = [
    case("error: unknown command", (b"foo\r\nmx @\r\nMG @\r\n\r\n\nx\r\n", b"ERROR\r\n" * 6)),
    case("error: no key", (b"mg\r\nms\r\nmd\r\nma\r\nget\r\nme\r\n", b"ERROR\r\n" * 5 + BAD_FORMAT)),
    case("error: unknown flag", (b"mg @ !\r\nms @ 2 !\r\nmn\r\n", INVALID * 2), until=LAST_WITH_OLD_PARSER),
    case("error: unknown letter", (b"mg @ S1\r\nms @ 2 z\r\nmn\r\n", INVALID * 2), until=LAST_WITH_OLD_PARSER),
    case(
        "error: duplicate flag",
        (b"mg @ v v\r\nmg @ la l\r\nms @ 2 T1 T2\r\nmn\r\n", DUPLICATE * 3),
        until=LAST_WITH_OLD_PARSER,
    ),
    case("error: flag beyond ASCII", (b"mg @ \xff\r\n", DUPLICATE), until=LAST_WITH_OLD_PARSER),
    case(
        "error: md and ma name no reason",
        (b"md @ !\r\nmd @ q q\r\nmd @ Tx\r\nma @ z\r\nma @ q q\r\n", EITHER * 5),
        until=LAST_WITH_OLD_PARSER,
    ),
    case(
        "error: bad numbers",
        (b"mg @ Tx\r\nmg @ N\r\nmg @ R1x\r\nms @ 2 T-\r\nmn\r\nms @ 2 Cx\r\nmn\r\nms @ 2 C-1\r\nmn\r\n", BAD_TOKEN * 6),
    ),
    case(
        "error: bad client flags",
        (b"ms @ 2 F-1\r\nmn\r\nms @ 2 Fx\r\nmn\r\nmg @ F\r\n", BAD_FORMAT * 3),
        until=LAST_WITH_OLD_PARSER,
    ),
    case(
        "error: client flags wrap",
        (b"ms @ 1 F4294967296\r\nx\r\nmg @ f\r\n", b"HD\r\nHD f0\r\n"),
        until=LAST_WITH_OLD_PARSER,
    ),
    case(
        "error: bad explicit CAS",
        (b"ms @ 2 E18446744073709551616\r\nmn\r\nms @ 2 E-1\r\nmn\r\nms @ 2 E\r\nmn\r\nmg @ Ex\r\n", BAD_TOKEN * 4),
        (b"mg @\r\n", b"EN\r\n"),
        since=EXPLICIT_CAS,
    ),
    case(
        "error: the last bad number is the one that is reported",
        (b"ms @ 2 Tx MEE\r\nmn\r\n", b"CLIENT_ERROR incorrect length for M token\r\n"),
        until=LAST_WITH_OLD_PARSER,
    ),
    case("error: mode", (b"ms @ 2 Me\r\nmn\r\nms @ 2 MD\r\nmn\r\n", b"CLIENT_ERROR invalid mode for ms M token\r\n" * 2)),
    case("error: foreign flags on a store", (b"ms @ 1 v t h l u D5 J3 R3\r\nx\r\nmg @ v\r\n", b"HD\r\nVA 1\r\nx\r\n")),
    case(
        "error: foreign amounts on a store",
        (b"ms @ 2 Dx\r\nmn\r\n", b"CLIENT_ERROR invalid numeric delta value\r\n"),
        until=LAST_WITH_OLD_PARSER,
    ),
    case(
        "error: base64",
        (b"mg !!! b\r\nms !!! 2 b\r\nmn\r\n", b"CLIENT_ERROR error decoding key\r\n" * 2),
        until=LAST_WITH_OLD_PARSER,
    ),
    case(
        "error: base64 without padding",
        (b"mg Zm9vYg b\r\n", b"CLIENT_ERROR error decoding key\r\n"),
        until=LAST_WITH_OLD_PARSER,
    ),
    case(
        "error: opaque of 32 characters",
        (b"mg @ " + LONG_OPAQUE + b"\r\n", b"CLIENT_ERROR opaque token too long\r\n"),
        (b"ms @ 2 " + LONG_OPAQUE + b"\r\nmn\r\nmg @\r\n", b"CLIENT_ERROR opaque token too long\r\nEN\r\n"),
        (b"ms @ 1\r\nx\r\nmg @ v " + LONG_OPAQUE + b"\r\n", b"HD\r\nCLIENT_ERROR opaque token too long\r\n"),
        (b"md @ " + LONG_OPAQUE + b"\r\nmg @\r\n", b"CLIENT_ERROR opaque token too long\r\nHD\r\n"),
    ),
    case("error: key of 251 bytes", (b"mg <pad251> v\r\nmd <pad251>\r\nma <pad251>\r\nme <pad251>\r\n", BAD_FORMAT * 4)),
    case(
        "error: quiet does not hide errors",
        (b"mg @ q !\r\nms @ 2 q Tx\r\nmn\r\nmg <pad251> q\r\n", INVALID + BAD_TOKEN + BAD_FORMAT),
        until=LAST_WITH_OLD_PARSER,
    ),
    case(
        "desync: key of 251 bytes on a store",
        (b"ms <pad251> 2\r\nmn\r\n", BAD_FORMAT + b"MN\r\n"),
        until=LAST_WITH_OLD_PARSER,
    ),
    case(
        "desync: key of 251 bytes on a classic store",
        (b"set <pad251> 0 0 2\r\nmn\r\n", BAD_FORMAT + b"MN\r\n"),
        until=LAST_WITH_OLD_PARSER,
    ),
    case(
        "desync: length",
        (
            b"ms @\r\nms @ abc\r\nmn\r\nms @ -1\r\nmn\r\nms @ S2\r\nmn\r\nms @ 2147483646\r\nmn\r\n",
            BAD_FORMAT + (BAD_FORMAT + b"MN\r\n") * 4,
        ),
    ),
    case(
        "desync: the length wraps at 2^32",
        (b"ms @ 4294967298\r\nab\r\nmg @ v\r\n", b"HD\r\nVA 2\r\nab\r\n"),
        until=LAST_WITH_OLD_PARSER,
    ),
    case(
        "desync: too many flags on a store",
        (b"ms @ 2" + SIXTEEN_FLAGS + b" F1\r\nmn\r\n", b"CLIENT_ERROR options flags too long\r\nMN\r\n"),
        until=LAST_WITH_OLD_PARSER,
    ),
    case("sixteen flags on a store are not too many", (b"ms @ 2" + SIXTEEN_FLAGS + b"\r\nab\r\n", b"")),
    case(
        "too many flags elsewhere",
        (b"mg @" + SIXTEEN_FLAGS + b" F1 C<other>\r\n", b"CLIENT_ERROR options flags are too long\r\n"),
        (
            b"md @" + SIXTEEN_FLAGS + b" F1 C<other>\r\nma @" + SIXTEEN_FLAGS + b" F1 C<other>\r\n",
            b"CLIENT_ERROR options flags too long\r\n" * 2,
        ),
        until=LAST_WITH_OLD_PARSER,
    ),
    case("desync: longer value than announced", (b"ms @ 3\r\nabcd\r\n", b"CLIENT_ERROR bad data chunk\r\nERROR\r\n")),
    case("desync: shorter value than announced", (b"ms @ 3\r\nab\r\nmn\r\n", b"CLIENT_ERROR bad data chunk\r\nERROR\r\n")),
    case("desync: value ended by a bare newline", (b"ms @ 2\r\nab\nmn\r\n", b"CLIENT_ERROR bad data chunk\r\nERROR\r\n")),
    case("desync: quiet does not hide a bad value", (b"ms @ 3 q\r\nabcd\r\n", b"CLIENT_ERROR bad data chunk\r\nERROR\r\n")),
    case("desync: noreply hides half of it", (b"set @ 0 0 3 noreply\r\nabcd\r\n", b"ERROR\r\n")),
    case(
        "bad value leaves the old one",
        (b"ms @ 1\r\nx\r\nms @ 3\r\nabcd\r\nmg @ v\r\n", b"HD\r\nCLIENT_ERROR bad data chunk\r\nERROR\r\nVA 1\r\nx\r\n"),
    ),
    case("too large: just fits", (b"ms @ <max>\r\n" + b"<payload>" + b"\r\nmg @ s\r\n", b"HD\r\nHD s<max>\r\n")),
    case(
        "too large: the old value is gone, whatever the mode",
        (b"ms @ 1\r\nx\r\nms @ 1048576 ME q\r\n" + b"v" * 1048576 + b"\r\nmg @\r\n", b"HD\r\n" + TOO_LARGE + b"EN\r\n"),
    ),
    case("too large: client flags count", (b"ms @ <max> F1\r\n" + b"<payload>" + b"\r\n", TOO_LARGE)),
    case(
        "too large: append leaves the old value",
        (
            b"ms @ 600000 q\r\n" + b"v" * 600000 + b"\r\nms @ 600000 MA\r\n" + b"v" * 600000 + b"\r\nmg @ s\r\n",
            b"NS\r\nHD s600000\r\n",
        ),
    ),
    case(
        "too large: classic set deletes, classic add does not",
        (
            b"set @ 0 0 1\r\nx\r\nadd @ 0 0 1048576\r\n" + b"v" * 1048576 + b"\r\nget @\r\n",
            b"STORED\r\n" + TOO_LARGE + b"VALUE @ 0 1\r\nx\r\nEND\r\n",
        ),
        (b"set @ 0 0 1048576\r\n" + b"v" * 1048576 + b"\r\nget @\r\n", TOO_LARGE + b"END\r\n"),
    ),
    case(
        "NUL cuts the line",
        (
            b"ms @ 1\r\nx\r\nmg @\0x v k\r\nget @\0y\r\nmd @\0z\r\nmg @\r\n",
            b"HD\r\nHD\r\nVALUE @ 0 1\r\nx\r\nEND\r\nHD\r\nEN\r\n",
        ),
        until=LAST_WITH_OLD_PARSER,
    ),
    case("desync: NUL in the line of a store", (b"ms @\0x 2\r\nmn\r\n", BAD_FORMAT + b"MN\r\n"), until=LAST_WITH_OLD_PARSER),
    case(
        "keys may hold control characters",
        (b"ms @\t\x01\r\x7f\xc3\xa9 1\r\nx\r\nmg @\t\x01\r\x7f\xc3\xa9 k\r\n", b"HD\r\nHD k@\t\x01\r\x7f\xc3\xa9\r\n"),
    ),
    case("closed: 2048 bytes without a newline", (b"mg " + b"k" * 2046, CLOSED)),
    case("closed: HTTP", (b"POST /@ HTTP/1.1\r\n", CLOSED)),
    case("closed: quit", (b"quit\r\n", CLOSED)),
    case(
        "-C: no CAS",
        (b"ms @ 1 c\r\nx\r\nmg @ c\r\n", b"HD c0\r\nHD c0\r\n"),
        (
            b"ms @ 1 C0\r\nx\r\nms @ 1 C<other>\r\nx\r\nmd @ C<other>\r\nma @ C<other>\r\nms @-no 1 C<other>\r\nx\r\n",
            b"EX\r\nEX\r\nEX\r\nEX\r\nNF\r\n",
        ),
        server="no-cas",
    ),
    case(
        "-C: counting with a CAS",
        (b"ms @ 1\r\n1\r\nma @ C<other>\r\nma @ c v\r\n", b"HD\r\nEX\r\nVA 1 c0\r\n2\r\n"),
        server="no-cas",
    ),
    case(
        "-C: explicit CAS is void",
        (b"ms @ 1 E5 c\r\nx\r\nmg @-2 N30 E5 c\r\nmd @ I E7\r\nmg @ c\r\n", b"HD c0\r\nHD c0 W\r\nHD\r\nHD c0 X W\r\n"),
        server="no-cas",
        since=EXPLICIT_CAS,
    ),
    case(
        "-C: shown in the settings",
        (b"stats settings\r\n", b"<any>STAT cas_enabled no\r\n<any>END\r\n"),
        (b"gets @\r\nset @ 0 0 1\r\nx\r\ngets @\r\n", b"END\r\nSTORED\r\nVALUE @ 0 1 0\r\nx\r\nEND\r\n"),
        server="no-cas",
    ),
    case(
        "proxy: one dead backend fails its own keys",
        (b"ms @ 1\r\nv\r\nms dead/@ 2\r\nmn\r\nset dead/@ 0 0 2\r\nmn\r\n", b"HD\r\n" + BACKEND_FAILURE * 2),
        (b"mg dead/@ v\r\nmd dead/@\r\nma dead/@ N0\r\nme dead/@\r\n", BACKEND_FAILURE * 4),
        (b"delete dead/@\r\ntouch dead/@ 1\r\nincr dead/@ 1\r\nget dead/@\r\ngat 5 dead/@\r\n", BACKEND_FAILURE * 5),
        (b"mg @ v\r\nget @\r\n", b"VA 1\r\nv\r\nVALUE @ 0 1\r\nv\r\nEND\r\n"),
        server="proxy",
    ),
    case(
        "proxy: neither q nor noreply hides the failure",
        (b"ms dead/@ 2 q\r\nab\r\nmd dead/@ q\r\nma dead/@ q N0\r\n", BACKEND_FAILURE * 3),
        (b"set dead/@ 0 0 2 noreply\r\nab\r\ndelete dead/@ noreply\r\n", BACKEND_FAILURE * 2),
        (b"ms @ 1\r\nv\r\n", b"HD\r\n"),
        (
            b"mg dead/@ v q O1\r\nmg @ v q O2\r\nmg dead/@ v q O3\r\nmg @-no v q O4\r\n",
            BACKEND_FAILURE + b"VA 1 O2\r\nv\r\n" + BACKEND_FAILURE,
        ),
        server="proxy",
    ),
    case(
        "proxy: of several keys each failure has a line of its own, and END ends them",
        (
            b"ms @ 1\r\nv\r\nget dead/@ @ dead/@ @-no\r\n",
            b"HD\r\n" + BACKEND_FAILURE + b"VALUE @ 0 1\r\nv\r\n" + BACKEND_FAILURE + b"END\r\n",
        ),
        (b"gat 90 @ dead/@\r\n", b"VALUE @ 0 1\r\nv\r\n" + BACKEND_FAILURE + b"END\r\n"),
        server="proxy",
    ),
    case(
        "proxy: a value for the dead backend is read",
        (b"ms dead/@ 2000000\r\n" + b"v" * 2000000 + b"\r\n", BACKEND_FAILURE),
        server="proxy",
    ),
    case("proxy: what has no key is answered", (b"mn\r\nversion\r\n", b"MN\r\nVERSION <any>\r\n"), server="proxy"),
    case(
        "-Y: login",
        (b"mn\r\n", b"CLIENT_ERROR unauthenticated\r\n"),
        (b"version\r\n", b"CLIENT_ERROR unauthenticated\r\n"),
        (b"ms auth 12\r\n", b"CLIENT_ERROR unauthenticated\r\n"),
        (b"set auth 0 0 11\r\nalice wrong\r\n", b"CLIENT_ERROR authentication failure\r\n"),
        (b"set auth 0 0 5\r\nalice\r\n", b"CLIENT_ERROR bad authentication token format\r\n"),
        (b"set auth 0 0 11\r\nalice s3cret!", b"CLIENT_ERROR bad command line termination\r\n"),
        (b"set auth 0 0 12 noreply\r\nalice s3cret\r\n", b"STORED\r\n"),
        (b"mg @\r\nset @ 0 0 12\r\nalice s3cret\r\nget @\r\n", b"EN\r\nSTORED\r\nVALUE @ 0 12\r\nalice s3cret\r\nEND\r\n"),
        server="auth",
    ),
]
