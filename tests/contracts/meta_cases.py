"""mg, ms, md, ma, mn and me: flags, marks and their order."""

from tests.contracts.running import Case, Wait, case

EXPLICIT_CAS = (1, 6, 27)  # `E` and `x`
BEFORE_EXPLICIT_CAS = (1, 6, 26)
APPEND_CREATES = (1, 6, 20)  # `ms MA N60`, and `ms s`
CONDITIONAL_GET = (1, 6, 40)

GET_CASES: list[Case] = [
    case("get: miss", (b"mg @\r\n", b"EN\r\n"), (b"mg @ v\r\n", b"EN\r\n")),
    case("get: hit", (b"ms @ 1\r\nx\r\n", b"HD\r\n"), (b"mg @\r\n", b"HD\r\n"), (b"mg @ v\r\n", b"VA 1\r\nx\r\n")),
    case("get: empty value", (b"ms @ 0\r\n\r\n", b"HD\r\n"), (b"mg @ v s\r\n", b"VA 0 s0\r\n\r\n")),
    case(
        "get: flags come back in the order of the request",
        (b"ms @ 3 F7 T30\r\nabc\r\n", b"HD\r\n"),
        (b"mg @ s k f t c v\r\n", b"VA 3 s3 k@ f7 <t30> c<cas>\r\nabc\r\n"),
        (b"mg @ c v t f k s O9\r\n", b"VA 3 c<cas> <t30> f7 k@ s3 O9\r\nabc\r\n"),
    ),
    case("get: a miss shows key and opaque", (b"mg @ v O1 k t c\r\n", b"EN O1 k@\r\n"), (b"mg @ k O\r\n", b"EN k@ O\r\n")),
    case("get: quiet hides a miss, not a hit", (b"mg @ q\r\nms @ 1\r\nx\r\nmg @ q v\r\n", b"HD\r\nVA 1\r\nx\r\n")),
    case(
        "get: opaque of 31 characters",
        (b"mg @ O1234567890123456789012345678901\r\n", b"EN O1234567890123456789012345678901\r\n"),
        (b"ms @ 1\r\nx\r\nmg @ O1234567890123456789012345678901\r\n", b"HD\r\nHD O1234567890123456789012345678901\r\n"),
    ),
    case(
        "get: h tells whether there was a fetch before",
        (b"ms @ 1\r\nx\r\n", b"HD\r\n"),
        (b"mg @ h\r\n", b"HD h0\r\n"),
        (b"mg @ h\r\n", b"HD h1\r\n"),
        (b"ms @ 1\r\ny\r\nmg @ h\r\n", b"HD\r\nHD h0\r\n"),
    ),
    case(
        "get: u leaves no trace",
        (b"ms @ 1\r\nx\r\nmg @ v u\r\nmg @ h u\r\nmg @ h\r\nmg @ h\r\n", b"HD\r\nVA 1\r\nx\r\nHD h0\r\nHD h0\r\nHD h1\r\n"),
    ),
    case("get: l of a new item", (b"ms @ 1\r\nx\r\nmg @ l h\r\n", b"HD\r\nHD l<n> h0\r\n")),
    case("get: t without a TTL", (b"ms @ 1\r\nx\r\nmg @ t\r\n", b"HD\r\nHD t-1\r\n")),
    case("get: T touches", (b"ms @ 1 T30\r\nx\r\nmg @ T90 t\r\nmg @ t\r\n", b"HD\r\nHD <t90>\r\nHD <t90>\r\n")),
    case("get: T0 is never", (b"ms @ 1 T30\r\nx\r\nmg @ T0 t\r\n", b"HD\r\nHD t-1\r\n")),
    case("get: t before T shows the old TTL", (b"ms @ 1\r\nx\r\nmg @ t T30\r\nmg @ t\r\n", b"HD\r\nHD t-1\r\nHD <t30>\r\n")),
    case(
        "get: a negative T ends the item after this reply",
        (b"ms @ 1\r\nx\r\nmg @ T-1 v\r\nmg @\r\n", b"HD\r\nVA 1\r\nx\r\nEN\r\n"),
    ),
    case("get: t underflows after T-1", (b"ms @ 1\r\nx\r\nmg @ T-1 t\r\n", b"HD\r\nHD t42949<n>\r\n")),
    case("get: flags of other commands mean nothing", (b"ms @ 1\r\nx\r\nmg @ D5 J3 F9 ME I s\r\n", b"HD\r\nHD s1\r\n")),
    case("get: a CAS does not compare", (b"ms @ 1\r\nx\r\nmg @ v C<other>\r\n", b"HD\r\nVA 1\r\nx\r\n")),
    case(
        "get: an equal CAS leaves the value out",
        (b"ms @ 1 c\r\nx\r\n", b"HD c<cas>\r\n"),
        (b"mg @ v C<cas>\r\n", b"HD\r\n"),
        since=CONDITIONAL_GET,
    ),
    case("get: hints for proxies", (b"ms @ 1 P1 Labc\r\nx\r\nmg @ v Pp Ll\r\n", b"HD\r\nVA 1\r\nx\r\n")),
    case("get: key of 250 bytes", (b"ms <pad250> 1\r\nx\r\nmg <pad250> k\r\n", b"HD\r\nHD k<pad250>\r\n")),
    case("get: spaces and bare newlines", (b"  ms   @  1   T30 \r\nx\r\nmg @  v\n", b"HD\r\nVA 1\r\nx\r\n")),
    case(
        "base64 key: k answers in the form in which it was stored",
        (b"ms <b64> 1 b k\r\nx\r\n", b"HD k<b64> b\r\n"),
        (b"mg <b64> b v k\r\n", b"VA 1 k<b64> b\r\nx\r\n"),
        (b"mg @ v k\r\n", b"VA 1 k<b64> b\r\nx\r\n"),
        (b"get @\r\n", b"VALUE @ 0 1\r\nx\r\nEND\r\n"),
        (b"me <b64> b\r\n", b"ME <b64> exp=-1 la=<n> cas=<n> fetch=yes cls=<n> size=<n>\r\n"),
        (b"md <b64> b k\r\n", b"HD k<b64> b\r\n"),
        (b"mg <b64> k b\r\n", b"EN k<b64> b\r\n"),
    ),
    case(
        "base64 key: an item that N creates shows the raw key",
        (b"mg <b64> b N30 k\r\n", b"HD k@ W\r\n"),
        (b"mg <b64> b k\r\n", b"HD k@ Z\r\n"),
    ),
    case(
        "base64 key: an append loses the form",
        (b"ms <b64> 1 b\r\nx\r\nms <b64> 1 b MA\r\ny\r\nmg <b64> b k v\r\n", b"HD\r\nHD\r\nVA 2 k@\r\nxy\r\n"),
    ),
]

SET_CASES: list[Case] = [
    case(
        "set: reply flags",
        (b"ms @ 2 Oabc k c\r\nab\r\n", b"HD Oabc k@ c<cas>\r\n"),
        (b"mg @ c\r\n", b"HD c<cas>\r\n"),
    ),
    case("set: s", (b"ms @ 2 s c\r\nab\r\n", b"HD s2 c<cas>\r\n"), since=APPEND_CREATES),
    case("set: s is silent in old releases", (b"ms @ 2 s c\r\nab\r\n", b"HD c<cas>\r\n"), until=(1, 6, 19)),
    case("set: TTL and flags", (b"ms @ 1 T30 F4294967295\r\nx\r\nmg @ t f\r\n", b"HD\r\nHD <t30> f4294967295\r\n")),
    case(
        "set: resets TTL and flags",
        (b"ms @ 1 T30 F5\r\nx\r\nms @ 1\r\ny\r\nmg @ t f v\r\n", b"HD\r\nHD\r\nVA 1 t-1 f0\r\ny\r\n"),
    ),
    case(
        "set: the value may hold anything",
        (b"ms @ 9\r\n\r\nmn\r\n\0\xff \r\nmg @ v\r\n", b"HD\r\nVA 9\r\n\r\nmn\r\n\0\xff \r\n"),
    ),
    case(
        "set: quiet hides only success",
        (b"ms @ 1 q\r\nx\r\nms @ 1 q ME\r\ny\r\nms @ 1 q C<other>\r\ny\r\n", b"NS\r\nEX\r\n"),
        (b"md @ q\r\nms @ 1 q C<other>\r\ny\r\n", b"NF\r\n"),
    ),
    case("set: add", (b"ms @ 1 ME\r\nx\r\nms @ 1 ME c k\r\ny\r\nmg @ v\r\n", b"HD\r\nNS c0 k@\r\nVA 1\r\nx\r\n")),
    case(
        "set: replace",
        (b"ms @ 1 MR\r\nx\r\n", b"NS\r\n"),
        (b"ms @ 1 MS\r\nx\r\nms @ 1 MR\r\ny\r\nmg @ v\r\n", b"HD\r\nHD\r\nVA 1\r\ny\r\n"),
    ),
    case(
        "set: append and prepend keep TTL and flags",
        (b"ms @ 1 MA\r\nx\r\nms @ 1 MP\r\nx\r\n", b"NS\r\nNS\r\n"),
        (b"ms @ 1 T30 F3\r\nb\r\nms @ 1 MA T90 F5\r\nc\r\nms @ 1 MP\r\na\r\n", b"HD\r\nHD\r\nHD\r\n"),
        (b"mg @ v t f\r\n", b"VA 3 <t30> f3\r\nabc\r\n"),
    ),
    case(
        "set: append compares a CAS",
        (b"ms @ 1 c\r\na\r\n", b"HD c<cas>\r\n"),
        (b"ms @ 1 MA C<other> c\r\nb\r\n", b"EX c0\r\n"),
        (b"ms @ 1 MA C<cas> c\r\nb\r\n", b"HD c<cas2>\r\n"),
        (b"mg @ v c\r\n", b"VA 2 c<cas2>\r\nab\r\n"),
    ),
    case(
        "set: append with N creates",
        (b"ms @ 1 MA N60 T90 F5 c s\r\na\r\n", b"HD c<cas> s1\r\n"),
        (b"ms @ 1 MA N90 F6 s\r\nb\r\n", b"HD s2\r\n"),
        (b"ms @ 1 MP N90 s\r\n-\r\nmg @ v t f\r\n", b"HD s3\r\nVA 3 <t60> f5\r\n-ab\r\n"),
        since=APPEND_CREATES,
    ),
    case("set: append with N does not create in old releases", (b"ms @ 1 MA N60\r\na\r\n", b"NS\r\n"), until=(1, 6, 19)),
    case("set: N alone means nothing", (b"ms @ 1 N60\r\na\r\nmg @ t\r\n", b"HD\r\nHD t-1\r\n")),
    case(
        "cas: match, mismatch, miss",
        (b"ms @ 1 C5\r\nx\r\nms @ 1 C0\r\nx\r\nms @ 1 C5 I\r\nx\r\n", b"NF\r\nNF\r\nNF\r\n"),
        (b"ms @ 1 c\r\nx\r\n", b"HD c<cas>\r\n"),
        (b"ms @ 1 C<other> c O7\r\ny\r\n", b"EX c0 O7\r\n"),
        (b"ms @ 1 C0\r\ny\r\n", b"EX\r\n"),
        (b"ms @ 1 C<cas> c\r\nz\r\n", b"HD c<cas2>\r\n"),
        (b"mg @ v c\r\n", b"VA 1 c<cas2>\r\nz\r\n"),
    ),
    case("cas: add ignores it", (b"ms @ 1 ME C<other>\r\nx\r\nms @ 1 ME C<other>\r\ny\r\n", b"HD\r\nNS\r\n")),
    case(
        "cas: replace with it is a cas",
        (b"ms @ 1 MR C<other>\r\nx\r\nms @ 1\r\nx\r\nms @ 1 MR C<other>\r\ny\r\n", b"NF\r\nHD\r\nEX\r\n"),
    ),
    case(
        "explicit CAS",
        (b"ms @ 1 E1000 c\r\na\r\n", b"HD c1000\r\n"),
        (b"ms @ 1 C1000 E2000 c\r\nb\r\n", b"HD c2000\r\n"),
        (b"ms @ 1 C1000 E1500 c\r\nc\r\n", b"EX c0\r\n"),
        (b"ms @ 1 E18446744073709551615 c\r\nd\r\n", b"HD c18446744073709551615\r\n"),
        (b"ms @ 1 E7 MA c\r\ne\r\nmg @ c v\r\n", b"HD c7\r\nVA 2 c7\r\nde\r\n"),
        (b"ms @ 1 c\r\nf\r\n", b"HD c<cas>\r\n"),
        since=EXPLICIT_CAS,
    ),
    case(
        "explicit CAS: may go backwards",
        (b"ms @ 1 E9 c\r\nx\r\nms @ 1 E8 c\r\nx\r\n", b"HD c9\r\nHD c8\r\n"),
        since=EXPLICIT_CAS,
    ),
    case(
        "explicit CAS: 0 on ms is the server's number",
        (b"ms @ 1 E0 c\r\nx\r\nmg @ c\r\n", b"HD c<cas>\r\nHD c<cas>\r\n"),
        since=EXPLICIT_CAS,
    ),
    case(
        "explicit CAS: mg N, md I, ma",
        (b"mg @ N30 E777 c\r\nmg @ c E5\r\n", b"HD c777 W\r\nHD c777 Z\r\n"),
        (b"md @ I E778\r\nmg @ c u\r\n", b"HD\r\nHD c778 X W\r\n"),
        (b"md @ I E0\r\nmg @ c\r\n", b"HD\r\nHD c0 X W\r\n"),
        (b"ms @ 1\r\n0\r\nma @ E51 c v\r\nmg @ c\r\n", b"HD\r\nVA 1 c51\r\n1\r\nHD c51\r\n"),
        (b"md @\r\nma @ N30 J4 E52 c v\r\nmg @ c\r\n", b"HD\r\nVA 1 c52\r\n4\r\nHD c52\r\n"),
        since=EXPLICIT_CAS,
    ),
    case("explicit CAS: probe", (b"mg @ E1\r\n", b"EN\r\n"), since=EXPLICIT_CAS),
    case(
        "explicit CAS: refused by old releases",
        (b"mg @ E1\r\n", b"CLIENT_ERROR invalid flag\r\n"),
        (b"ms @ 2 E1\r\nmn\r\n", b"CLIENT_ERROR invalid flag\r\n"),
        (b"md @ I E1\r\nmd @ x\r\nma @ E1\r\n", b"CLIENT_ERROR invalid or duplicate flag\r\n" * 3),
        until=BEFORE_EXPLICIT_CAS,
    ),
]

MARK_CASES: list[Case] = [
    case(
        "vivify: the first reader wins",
        (b"mg @ v c N30 t\r\n", b"VA 0 c<cas> <t30> W\r\n\r\n"),
        (b"mg @ v c N30 t\r\n", b"VA 0 c<cas> <t30> Z\r\n\r\n"),
        (b"mg @ s q N30\r\n", b"HD s0 Z\r\n"),
        (b"get @\r\n", b"VALUE @ 0 0\r\n\r\nEND\r\n"),
    ),
    case("vivify: quiet still tells the winner", (b"mg @ q N30\r\n", b"HD W\r\n")),
    case("vivify: t before N shows no TTL", (b"mg @ k t N30\r\nmg @ t\r\n", b"HD k@ t-1 W\r\nHD <t30> Z\r\n")),
    case("vivify: N of a hit changes nothing", (b"ms @ 1 T90\r\nx\r\nmg @ v N30 t\r\n", b"HD\r\nVA 1 <t90>\r\nx\r\n")),
    case("vivify: the second fetch sees h1", (b"mg @ N30 h\r\nmg @ h\r\n", b"HD h0 W\r\nHD h1 Z\r\n")),
    case(
        "recache: one win below R, until the next store",
        (b"ms @ 1 T30\r\nx\r\nmg @ v t R20\r\n", b"HD\r\nVA 1 <t30>\r\nx\r\n"),
        (b"mg @ v t R60\r\n", b"VA 1 <t30> W\r\nx\r\n"),
        (b"mg @ v t R60\r\n", b"VA 1 <t30> Z\r\nx\r\n"),
        (b"mg @ T40 t R60\r\n", b"HD <t40> Z\r\n"),
        (b"ms @ 1 T30\r\ny\r\nmg @ R60\r\n", b"HD\r\nHD W\r\n"),
    ),
    case("recache: never without a TTL", (b"ms @ 1\r\nx\r\nmg @ R1000\r\nmg @ R-1\r\n", b"HD\r\nHD\r\nHD\r\n")),
    case("recache: T before R counts", (b"ms @ 1 T90\r\nx\r\nmg @ T10 R60\r\nmg @ R60\r\n", b"HD\r\nHD W\r\nHD Z\r\n")),
    case(
        "stale: one win for all readers",
        (b"ms @ 3 T60 F7 c\r\nold\r\n", b"HD c<cas>\r\n"),
        (b"md @ I T30\r\n", b"HD\r\n"),
        (b"mg @ v c t f\r\n", b"VA 3 c<cas2> <t30> f7 X W\r\nold\r\n"),
        (b"mg @ v c t f\r\n", b"VA 3 c<cas2> <t30> f7 Z X\r\nold\r\n"),
        (b"md @ I\r\n", b"HD\r\n"),
        (b"mg @ c t\r\n", b"HD c<cas3> <t30> X W\r\n"),
        (b"ms @ 3\r\nnew\r\nmg @ v\r\n", b"HD\r\nVA 3\r\nnew\r\n"),
    ),
    case(
        "stale: u takes the win, without a value too",
        (b"ms @ 1\r\nx\r\nmd @ I T30\r\nmg @ u\r\nmg @ v\r\n", b"HD\r\nHD\r\nHD X W\r\nVA 1 Z X\r\nx\r\n"),
    ),
    case(
        "stale: classic reads see nothing and take nothing",
        (b"ms @ 1\r\nx\r\nmd @ I T30\r\nget @\r\ngat 30 @\r\n", b"HD\r\nHD\r\n" + b"VALUE @ 0 1\r\nx\r\nEND\r\n" * 2),
        (b"mg @\r\n", b"HD X W\r\n"),
    ),
    case(
        "stale: a touch keeps the mark",
        (
            b"ms @ 1\r\nx\r\nmd @ I T30\r\nmg @ T90\r\ntouch @ 60\r\nmg @ t\r\n",
            b"HD\r\nHD\r\nHD X W\r\nTOUCHED\r\nHD <t60> Z X\r\n",
        ),
    ),
    case(
        "stale: append clears the mark",
        (b"ms @ 1\r\nx\r\nmd @ I T30\r\nms @ 1 MA\r\ny\r\nmg @ v t\r\n", b"HD\r\nHD\r\nHD\r\nVA 2 <t30>\r\nxy\r\n"),
    ),
    case(
        "stale: counting in place keeps the mark",
        (b"ms @ 1\r\n1\r\nmd @ I T30\r\nma @ v\r\nmg @ v\r\n", b"HD\r\nHD\r\nVA 1\r\n2\r\nVA 1 X W\r\n2\r\n"),
    ),
    case(
        "stale: a digit more clears the mark",
        (b"ms @ 1\r\n9\r\nmd @ I T30\r\nma @ v\r\nmg @ v\r\n", b"HD\r\nHD\r\nVA 2\r\n10\r\nVA 2\r\n10\r\n"),
    ),
    case(
        "stale: md I without T keeps the TTL", (b"ms @ 1 T60\r\nx\r\nmd @ I\r\nmg @ t\r\n", b"HD\r\nHD\r\nHD <t60> X W\r\n")
    ),
    case(
        "stale: quiet", (b"md @ I q T30\r\n", b"NF\r\n"), (b"ms @ 1\r\nx\r\nmd @ I q T30\r\nmg @\r\n", b"HD\r\nHD X W\r\n")
    ),
    case(
        "stale store: a lower CAS replaces the value and keeps TTL and win",
        (b"ms @ 3 T30 F1 E100\r\nold\r\nms @ 5 T90 F2 C50 E60 I c\r\nolder\r\n", b"HD\r\nHD c60\r\n"),
        (b"mg @ v c t f\r\n", b"VA 5 c60 <t30> f2 X W\r\nolder\r\n"),
        (b"ms @ 6 C40 E50 I\r\noldest\r\nmg @ v t f\r\n", b"HD\r\nVA 6 <t30> f0 Z X\r\noldest\r\n"),
        (b"ms @ 3 C50 E50 I T60\r\nnew\r\nmg @ v c t\r\n", b"HD\r\nVA 3 c50 <t60>\r\nnew\r\n"),
        since=EXPLICIT_CAS,
    ),
    case(
        "stale store: the next higher CAS is too high",
        (
            b"ms @ 1 E100\r\nx\r\nms @ 1 C101 I\r\ny\r\nms @ 1 C99 I\r\nz\r\nmg @ v\r\n",
            b"HD\r\nEX\r\nHD\r\nVA 1 X W\r\nz\r\n",
        ),
        since=EXPLICIT_CAS,
    ),
    case(
        "stale store: with the server's own numbers",
        (b"ms @ 3 T30 c\r\nold\r\n", b"HD c<cas>\r\n"),
        (b"ms @ 5 T90 C<cas> c\r\nnewer\r\n", b"HD c<cas2>\r\n"),
        (b"ms @ 4 C<cas> I c\r\nlate\r\n", b"HD c<cas3>\r\n"),
        (b"mg @ v c t\r\n", b"VA 4 c<cas3> <t90> X W\r\nlate\r\n"),
        (b"ms @ 1 C99999999999 I\r\nx\r\n", b"EX\r\n"),
        (b"ms @ 1 C0 I\r\nx\r\n", b"EX\r\n"),
    ),
]

DELETE_CASES: list[Case] = [
    case("delete: hit and miss", (b"md @\r\n", b"NF\r\n"), (b"ms @ 1\r\nx\r\nmd @\r\nmg @\r\n", b"HD\r\nHD\r\nEN\r\n")),
    case("delete: echoes", (b"md @ O1 k\r\n", b"NF O1 k@\r\n"), (b"ms @ 1\r\nx\r\nmd @ k O1\r\n", b"HD\r\nHD k@ O1\r\n")),
    case("delete: quiet", (b"md @ q\r\nms @ 1\r\nx\r\nmd @ q\r\nmg @\r\n", b"NF\r\nHD\r\nEN\r\n")),
    case(
        "delete: compares a CAS",
        (b"ms @ 1 c\r\nx\r\n", b"HD c<cas>\r\n"),
        (b"md @ C<other>\r\nmd @ C0 q\r\nmg @\r\n", b"EX\r\nEX\r\nHD\r\n"),
        (b"md @ C<cas>\r\nmd @ C<cas>\r\n", b"HD\r\nNF\r\n"),
    ),
    case(
        "delete: x leaves an empty item",
        (b"ms @ 3 T90 F7\r\nabc\r\nmd @ x I T30 E5000 F99\r\n", b"HD\r\nHD\r\n"),
        (b"mg @ v c t f s\r\n", b"VA 0 c5000 <t30> f99 s0 X W\r\n\r\n"),
        since=EXPLICIT_CAS,
    ),
    case(
        "delete: x alone keeps the CAS and drops TTL and flags",
        (b"ms @ 3 T90 F7 c\r\nabc\r\n", b"HD c<cas>\r\n"),
        (b"md @ x\r\nmg @ v c t f\r\n", b"HD\r\nVA 0 c<cas> t-1 f0\r\n\r\n"),
        since=EXPLICIT_CAS,
    ),
]

COUNT_CASES: list[Case] = [
    case("count: miss", (b"ma @\r\nma @ q O1 k\r\n", b"NF\r\nNF O1 k@\r\n")),
    case(
        "count: created with N and J",
        (b"ma @ N60 J10 v t c O5 k\r\n", b"VA 2 <t60> c<cas> O5 k@\r\n10\r\n"),
        (b"ma @ N90 J10 v t c\r\n", b"VA 2 <t60> c<cas2>\r\n11\r\n"),
        (b"mg @ v f\r\n", b"VA 2 f0\r\n11\r\n"),
    ),
    case(
        "count: quiet hides an update, not a creation",
        (b"ma @ N60 q v\r\nma @ N60 q v\r\nmg @ v\r\n", b"VA 1\r\n0\r\nVA 1\r\n1\r\n"),
    ),
    case(
        "count: delta",
        (
            b"ms @ 1\r\n1\r\nma @\r\nma @ D5 v\r\nma @ MI v\r\nma @ M+ D0 v\r\n",
            b"HD\r\nHD\r\nVA 1\r\n7\r\nVA 1\r\n8\r\nVA 1\r\n8\r\n",
        ),
    ),
    case(
        "count: down stops at 0 and pads with spaces",
        (b"ms @ 2\r\n10\r\nma @ MD D1 v\r\n", b"HD\r\nVA 1\r\n9\r\n"),
        (b"mn\r\nmg @ v s\r\nma @ M- D100 v\r\n", b"MN\r\nVA 2 s2\r\n9 \r\nVA 1\r\n0\r\n"),
    ),
    case("count: wraps at 2^64", (b"ms @ 20\r\n18446744073709551615\r\nma @ v\r\n", b"HD\r\nVA 1\r\n0\r\n")),
    case(
        "count: CAS",
        (b"ms @ 1 c\r\n1\r\n", b"HD c<cas>\r\n"),
        (b"ma @ C<other> O2\r\nma @ C0 v\r\n", b"EX O2\r\nVA 1\r\n2\r\n"),
        (b"ma @ C<cas>\r\n", b"EX\r\n"),
    ),
    case(
        "count: not a number",
        (b"ms @ 3\r\nabc\r\nma @ q\r\n", b"HD\r\nCLIENT_ERROR cannot increment or decrement non-numeric value\r\n"),
        (b"ms @ 0\r\n\r\nma @\r\n", b"HD\r\nCLIENT_ERROR cannot increment or decrement non-numeric value\r\n"),
        (
            b"ms @ 21\r\n111111111111111111111\r\nma @\r\n",
            b"HD\r\nCLIENT_ERROR cannot increment or decrement non-numeric value\r\n",
        ),
        (b"md @\r\nmg @ N30\r\nma @\r\n", b"HD\r\nHD W\r\nCLIENT_ERROR cannot increment or decrement non-numeric value\r\n"),
    ),
    case(
        "count: a number may be followed by a word",
        (b"ms @ 5\r\n12 ab\r\nma @ v\r\nmg @ v\r\n", b"HD\r\nVA 2\r\n13\r\nVA 5\r\n13   \r\n"),
    ),
    case("count: T touches", (b"ms @ 1 T90\r\n1\r\nma @ T30 t\r\nmg @ t\r\n", b"HD\r\nHD <t30>\r\nHD <t30>\r\n")),
    case(
        "count: T is lost with a digit more",
        (b"ms @ 1 T90\r\n9\r\nma @ T30 t v\r\nmg @ t v\r\n", b"HD\r\nVA 2 <t30>\r\n10\r\nVA 2 <t90>\r\n10\r\n"),
    ),
    case(
        "count: E is lost with a digit more",
        (b"ms @ 1 E900\r\n9\r\nma @ E1000 c v\r\n", b"HD\r\nVA 2 c1000\r\n10\r\n"),
        (b"mg @ c v\r\n", b"VA 2 c<cas>\r\n10\r\n"),
        since=EXPLICIT_CAS,
        until=(1, 6, 39),
    ),
    case("count: bad mode", (b"ma @ ME\r\n", b"CLIENT_ERROR invalid mode for ma M token\r\n")),
    case(
        "count: bad numbers",
        (b"ma @ Dx\r\nma @ J-1\r\n", b"CLIENT_ERROR invalid or duplicate flag\r\n" * 2),
        until=(1, 6, 39),
    ),
]

OTHER_CASES: list[Case] = [
    case("noop: arguments mean nothing", (b"mn\r\nmn k O1\r\n", b"MN\r\nMN\r\n")),
    case(
        "quiet pipeline",
        (b"ms @ 1\r\nx\r\n", b"HD\r\n"),
        (b"mg @ v q Oa\r\nmg @-no v q Ob\r\nms @ 3 q\r\nabc\r\nmd @-no q\r\nmn\r\n", b"VA 1 Oa\r\nx\r\nNF\r\nMN\r\n"),
    ),
    case("long quiet pipeline", (b"mg @ v q k\r\n" * 500 + b"mn\r\n", b"MN\r\n")),
    case(
        "long pipeline",
        (
            b"ms @ 100\r\n" + b"v" * 100 + b"\r\n" + b"mg @ v k\r\n" * 200,
            b"HD\r\n" + (b"VA 100 k@\r\n" + b"v" * 100 + b"\r\n") * 200,
        ),
    ),
    case(
        "debug",
        (b"me @\r\n", b"EN\r\n"),
        (b"ms @ 3 T30\r\nabc\r\nme @\r\n", b"HD\r\nME @ exp=<any> la=<n> cas=<n> fetch=no cls=<n> size=<n>\r\n"),
    ),
    case(
        "debug: size",
        (b"ms @ 10 F1\r\n0123456789\r\nme @\r\n", b"HD\r\nME @ exp=-1 la=<n> cas=<n> fetch=no cls=<n> size=85\r\n"),
    ),
    case("debug: exp", (b"ms @ 1 T100000\r\nx\r\nme @\r\n", b"HD\r\nME @ exp=<n> <any>\r\n"), since=(1, 6, 24)),
    case(
        "debug: exp is negative in old releases",
        (b"ms @ 1 T100000\r\nx\r\nme @\r\n", b"HD\r\nME @ exp=-<n> <any>\r\n"),
        until=(1, 6, 23),
    ),
    case(
        "TTL: past",
        (
            b"ms @ 1 T-1\r\nx\r\nmg @\r\nms @ 1 T2592001\r\nx\r\nmg @\r\nms @ 1 T4294967295\r\nx\r\nmg @\r\n",
            b"HD\r\nEN\r\n" * 3,
        ),
    ),
    case("TTL: unix time", (b"ms @ 1 T<at500>\r\nx\r\nmg @ t\r\n", b"HD\r\nHD <~t500>\r\n")),
    case("TTL: 30 days", (b"ms @ 1 T2592000\r\nx\r\nmg @ t\r\n", b"HD\r\nHD <t2592000>\r\n")),
    case("TTL: 2^32 is 0", (b"ms @ 1 T4294967296\r\nx\r\nmg @ t\r\n", b"HD\r\nHD t-1\r\n")),
    case(
        "TTL: expires",
        (
            b"ms @ 1 T2\r\nx\r\nmg @-2 N2\r\nms @-3 1 T30\r\nx\r\nmd @-3 I T2\r\nms @-4 1\r\nx\r\nmg @-4 T2\r\n",
            b"HD\r\nHD W\r\nHD\r\nHD\r\nHD\r\nHD\r\n",
        ),
        (b"ms @-5 1 T90\r\nx\r\nmg @-5 t\r\n", b"HD\r\nHD <t90>\r\n"),
        Wait(3.1),
        (
            b"mg @\r\nmg @-2\r\nmg @-3\r\nmg @-4\r\nms @ 1 C<other>\r\nx\r\nmd @-2\r\nma @-3\r\n",
            b"EN\r\n" * 4 + b"NF\r\n" * 3,
        ),
        (b"mg @-5 t\r\n", b"HD <t87>\r\n"),
        (b"ms @ 1 ME\r\nx\r\nmg @-2 N30\r\n", b"HD\r\nHD W\r\n"),
    ),
]

META_CASES: list[Case] = GET_CASES + SET_CASES + MARK_CASES + DELETE_CASES + COUNT_CASES + OTHER_CASES
