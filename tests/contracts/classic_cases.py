"""The classic text commands, which servers without the meta protocol speak too."""

from tests.contracts.running import Case, Wait, case

NOT_FOUND = b"NOT_FOUND\r\n"
BAD_FORMAT = b"CLIENT_ERROR bad command line format\r\n"
BAD_EXPTIME = b"CLIENT_ERROR invalid exptime argument\r\n"
NON_NUMERIC = b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"

CLASSIC_CASES: list[Case] = [
    case(
        "classic: get and gets",
        (b"get @\r\n", b"END\r\n"),
        (b"set @ 7 0 3\r\nabc\r\nget @\r\n", b"STORED\r\nVALUE @ 7 3\r\nabc\r\nEND\r\n"),
        (b"gets @\r\nmg @ c\r\n", b"VALUE @ 7 3 <cas>\r\nabc\r\nEND\r\nHD c<cas>\r\n"),
    ),
    case(
        "classic: several keys",
        (
            b"set @-a 0 0 1\r\na\r\nset @-c 0 0 1\r\nc\r\nget @-a @-b @-c @-a\r\n",
            b"STORED\r\nSTORED\r\nVALUE @-a 0 1\r\na\r\nVALUE @-c 0 1\r\nc\r\nVALUE @-a 0 1\r\na\r\nEND\r\n",
        ),
    ),
    case(
        "classic: many keys",
        (b"set @ 0 0 1\r\nx\r\nget" + b" @" * 200 + b"\r\n", b"STORED\r\n" + b"VALUE @ 0 1\r\nx\r\n" * 200 + b"END\r\n"),
    ),
    case(
        "classic: a key of 251 bytes among others",
        (b"set @ 0 0 1\r\nx\r\n", b"STORED\r\n"),
        (b"get @ <pad251>\r\n", BAD_FORMAT),
    ),
    case(
        "classic: gat and gats",
        (b"gat 30 @\r\n", b"END\r\n"),
        (b"set @ 1 90 1\r\nx\r\ngat 30 @\r\nmg @ t\r\n", b"STORED\r\nVALUE @ 1 1\r\nx\r\nEND\r\nHD <t30>\r\n"),
        (b"gats 0 @\r\nmg @ t\r\n", b"VALUE @ 1 1 <cas>\r\nx\r\nEND\r\nHD t-1\r\n"),
        (b"gat x @\r\ngat 10\r\n", BAD_EXPTIME + b"END\r\n"),
    ),
    case(
        "classic: stores",
        (b"replace @ 0 0 1\r\nx\r\nappend @ 0 0 1\r\nx\r\nprepend @ 0 0 1\r\nx\r\n", b"NOT_STORED\r\n" * 3),
        (b"add @ 3 0 1\r\nb\r\nadd @ 0 0 1\r\nx\r\n", b"STORED\r\nNOT_STORED\r\n"),
        (b"append @ 9 9 1\r\nc\r\nprepend @ 9 9 1\r\na\r\nget @\r\n", b"STORED\r\nSTORED\r\nVALUE @ 3 3\r\nabc\r\nEND\r\n"),
        (b"replace @ 4 0 1\r\nz\r\nget @\r\n", b"STORED\r\nVALUE @ 4 1\r\nz\r\nEND\r\n"),
    ),
    case(
        "classic: cas",
        (b"cas @ 0 0 1 5\r\nx\r\n", NOT_FOUND),
        (b"set @ 0 0 1\r\nx\r\ngets @\r\n", b"STORED\r\nVALUE @ 0 1 <cas>\r\nx\r\nEND\r\n"),
        (
            b"cas @ 0 0 1 <other>\r\ny\r\ncas @ 2 30 1 <cas>\r\nz\r\ncas @ 0 0 1 <cas>\r\ny\r\n",
            b"EXISTS\r\nSTORED\r\nEXISTS\r\n",
        ),
        (b"get @\r\n", b"VALUE @ 2 1\r\nz\r\nEND\r\n"),
    ),
    case(
        "classic: noreply",
        (
            b"set @ 0 0 1 noreply\r\nx\r\nadd @ 0 0 1 noreply\r\ny\r\ncas @ 0 0 1 <other> noreply\r\ny\r\ntouch @ 90 noreply\r\ntouch @-no 1 noreply\r\nget @\r\n",
            b"VALUE @ 0 1\r\nx\r\nEND\r\n",
        ),
        (
            b"delete @ noreply\r\ndelete @ 0 noreply\r\nincr @ 1 noreply\r\ndecr @ 1 noreply\r\nverbosity 1 noreply\r\nget @\r\n",
            b"END\r\n",
        ),
    ),
    case(
        "classic: noreply hides errors",
        (b"incr @ x noreply\r\ntouch @ x noreply\r\ndelete <pad251> noreply\r\nset @ x 0 0 noreply\r\n", b""),
    ),
    case(
        "classic: TTL",
        (b"set @ 0 30 1\r\nx\r\nmg @ t\r\nset @ 0 -1 1\r\nx\r\nget @\r\n", b"STORED\r\nHD <t30>\r\nSTORED\r\nEND\r\n"),
        (b"set @ 0 <at500> 1\r\nx\r\nmg @ t\r\n", b"STORED\r\nHD <~t500>\r\n"),
    ),
    case(
        "classic: bad numbers",
        (
            b"set @ -1 0 2\r\nmn\r\nset @ 0 x 2\r\nmn\r\nset @ 0 0 x\r\nmn\r\nset @ 0 0 -1\r\nmn\r\n",
            (BAD_FORMAT + b"MN\r\n") * 4,
        ),
    ),
    case(
        "classic: wrong number of words",
        (
            b"set @ 0 0\r\nset @ 0 0 1 2 3\r\nincr @\r\ntouch @\r\ndelete\r\ndelete @ 1 2 3\r\ncas @ 0 0 1\r\nverbosity\r\n",
            b"ERROR\r\n" * 8,
        ),
    ),
    case("classic: bad value", (b"set @ 0 0 3\r\nabcd\r\n", b"CLIENT_ERROR bad data chunk\r\nERROR\r\n")),
    case(
        "classic: delete",
        (b"delete @\r\nset @ 0 0 1\r\nx\r\ndelete @\r\nget @\r\n", NOT_FOUND + b"STORED\r\nDELETED\r\nEND\r\n"),
        (
            b"delete @ 0\r\ndelete @ 5\r\n",
            NOT_FOUND + b"CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n",
        ),
        (b"delete <pad251>\r\n", BAD_FORMAT),
    ),
    case(
        "classic: incr and decr",
        (b"incr @ 1\r\ndecr @ 1\r\n", NOT_FOUND * 2),
        (b"set @ 0 0 1\r\n9\r\nincr @ 1\r\ndecr @ 3\r\n", b"STORED\r\n10\r\n7\r\n"),
        (b"mn\r\nget @\r\ndecr @ 99\r\n", b"MN\r\nVALUE @ 0 2\r\n7 \r\nEND\r\n0\r\n"),
        (b"incr @ x\r\nincr @ -1\r\n", b"CLIENT_ERROR invalid numeric delta argument\r\n" * 2),
        (b"set @ 0 0 1\r\nx\r\nincr @ 1\r\n", b"STORED\r\n" + NON_NUMERIC),
        (b"set @ 0 0 20\r\n18446744073709551615\r\nincr @ 2\r\n", b"STORED\r\n1\r\n"),
    ),
    case(
        "classic: touch",
        (b"touch @ 30\r\n", NOT_FOUND),
        (b"set @ 0 0 1\r\nx\r\ntouch @ 30\r\nmg @ t\r\n", b"STORED\r\nTOUCHED\r\nHD <t30>\r\n"),
        (b"touch @ x\r\ntouch <pad251> 1\r\n", BAD_EXPTIME + BAD_FORMAT),
    ),
    case("classic: version", (b"version\r\n", b"VERSION <any>\r\n")),
    case("classic: verbosity", (b"verbosity 0\r\nverbosity x\r\n", b"OK\r\n" + BAD_FORMAT)),
    case(
        "classic: stats",
        (
            b"stats\r\n",
            b"STAT pid <n>\r\nSTAT uptime <n>\r\nSTAT time <n>\r\nSTAT version <any>\r\n<any>STAT curr_connections <n>\r\n<any>STAT cmd_get <n>\r\n<any>STAT get_hits <n>\r\n<any>STAT log_worker_dropped <n>\r\n<any>STAT curr_items <n>\r\n<any>STAT evictions <n>\r\n<any>END\r\n",
        ),
    ),
    case(
        "classic: stats settings",
        (
            b"stats settings\r\n",
            b"STAT maxbytes <n>\r\n<any>STAT evictions on\r\n<any>STAT num_threads <n>\r\n<any>STAT cas_enabled yes\r\n<any>STAT item_size_max 1048576\r\n<any>STAT client_flags_size 4\r\n<any>END\r\n",
        ),
        since=(1, 6, 27),
    ),
    case("classic: stats reset and nonsense", (b"stats reset\r\nstats nonsense\r\n", b"RESET\r\nERROR\r\n")),
    case("classic: shutdown is refused", (b"shutdown\r\n", b"ERROR: shutdown not enabled\r\n")),
    case(
        "classic: flush_all",
        (b"set @ 0 0 1\r\nx\r\nflush_all\r\nget @\r\n", b"STORED\r\nOK\r\nEND\r\n"),
        (b"set @ 0 0 1\r\ny\r\nflush_all x\r\nflush_all noreply\r\nget @\r\n", b"STORED\r\n" + BAD_EXPTIME + b"END\r\n"),
    ),
    case(
        "classic: flush_all with a delay",
        (b"set @ 0 0 1\r\nx\r\nflush_all 2\r\nget @\r\n", b"STORED\r\nOK\r\nVALUE @ 0 1\r\nx\r\nEND\r\n"),
        Wait(3.1),
        (b"get @\r\nset @ 0 0 1\r\ny\r\nget @\r\n", b"END\r\nSTORED\r\nVALUE @ 0 1\r\ny\r\nEND\r\n"),
    ),
]
