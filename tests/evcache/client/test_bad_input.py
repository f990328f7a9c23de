"""Invalid input: the error names the argument, the client sends nothing, and its state does not change."""

import math
from datetime import datetime, timedelta

import pytest

from evcache import (
    CacheError,
    CodecError,
    EncodeError,
    EVCache,
    Failover,
    Gutter,
    InvalidArgument,
    InvalidKey,
    InvalidTopology,
    LocalZone,
    ValueTooLarge,
)
from evcache.zones import Endpoint, Mode, Topology, Zone
from tests.support.memory_zones import on_zones

NAIVE = datetime.fromisoformat("2026-01-01")

BAD_KEYS = {
    "empty": "",
    "empty bytes": b"",
    "space": "a b",
    "space in bytes": b"a b",
    "CR LF": "a\r\nflush_all",
    "CR LF in bytes": b"a\r\nflush_all",
    "CR": "a\r",
    "LF": b"a\n",
    "NUL": "foo\0x",
    "NUL in bytes": b"foo\0x",
    "tab": "a\tb",
    "DEL": "a\x7f",
    "escape": b"\x1b[0m",
    "control character in a long key": "x" * 300 + "\n",
    "lone surrogate": "\ud800",
    "None": None,
    "a number": 5,
    "bytearray": bytearray(b"k"),
}

# Every operation that takes a key, with it in place.
BY_KEY = {
    "get": lambda cache, key: cache.get(key),
    "get_item": lambda cache, key: cache.get_item(key),
    "get_item for update": lambda cache, key: cache.get_item(key, for_update=True),
    "get_many": lambda cache, key: cache.get_many(["good", key]),
    "get_and_touch": lambda cache, key: cache.get_and_touch(key, 5),
    "set": lambda cache, key: cache.set(key, 1),
    "set_many": lambda cache, key: cache.set_many({"good": 1, key: 1} if key.__hash__ else {b"\0": 1}),
    "delete": lambda cache, key: cache.delete(key),
    "delete_many": lambda cache, key: cache.delete_many(["good", key]),
    "touch": lambda cache, key: cache.touch(key, 5),
    "add": lambda cache, key: cache.add(key, 1),
    "replace": lambda cache, key: cache.replace(key, 1),
    "cas": lambda cache, key: cache.cas(key, 1, 1),
    "append": lambda cache, key: cache.append(key, "x"),
    "prepend": lambda cache, key: cache.prepend(key, "x"),
    "incr": lambda cache, key: cache.incr(key),
    "decr": lambda cache, key: cache.decr(key),
}

BY_TTL = {
    "set": lambda cache, ttl: cache.set("k", 1, ttl=ttl),
    "set_many": lambda cache, ttl: cache.set_many({"k": 1}, ttl=ttl),
    "add": lambda cache, ttl: cache.add("k", 1, ttl=ttl),
    "replace": lambda cache, ttl: cache.replace("k", 1, ttl=ttl),
    "cas": lambda cache, ttl: cache.cas("k", 1, 1, ttl=ttl),
    "touch": lambda cache, ttl: cache.touch("k", ttl),
    "get_and_touch": lambda cache, ttl: cache.get_and_touch("k", ttl),
    "incr": lambda cache, ttl: cache.incr("k", initial=1, ttl=ttl),
    "decr": lambda cache, ttl: cache.decr("k", ttl=ttl),
}

# Every operation, with further options.
BY_OPTION = {
    "get": lambda cache, **options: cache.get("k", **options),
    "get_item": lambda cache, **options: cache.get_item("k", **options),
    "get_item for update": lambda cache, **options: cache.get_item("k", for_update=True, **options),
    "get_many": lambda cache, **options: cache.get_many(["k"], **options),
    "get_many of none": lambda cache, **options: cache.get_many([], **options),
    "get_and_touch": lambda cache, **options: cache.get_and_touch("k", 5, **options),
    "set": lambda cache, **options: cache.set("k", 1, **options),
    "set_many": lambda cache, **options: cache.set_many({"k": 1}, **options),
    "delete": lambda cache, **options: cache.delete("k", **options),
    "delete_many": lambda cache, **options: cache.delete_many(["k"], **options),
    "touch": lambda cache, **options: cache.touch("k", 5, **options),
    "add": lambda cache, **options: cache.add("k", 1, **options),
    "replace": lambda cache, **options: cache.replace("k", 1, **options),
    "cas": lambda cache, **options: cache.cas("k", 1, 1, **options),
    "append": lambda cache, **options: cache.append("k", "x", **options),
    "prepend": lambda cache, **options: cache.prepend("k", "x", **options),
    "incr": lambda cache, **options: cache.incr("k", **options),
    "decr": lambda cache, **options: cache.decr("k", **options),
}

BY_VALUE = {
    "set": lambda cache, value: cache.set("k", value),
    "set_many": lambda cache, value: cache.set_many({"good": 1, "k": value}),
    "add": lambda cache, value: cache.add("k", value),
    "replace": lambda cache, value: cache.replace("k", value),
    "cas": lambda cache, value: cache.cas("k", value, 1),
}


async def refused(zones, cache, call, kind, argument):
    """The call raises `kind` naming `argument`; nothing was sent, no connection was lost, and the next call works."""
    await cache.set("before", "value", consistency="all")
    zones.forget()
    made = zones.connections_made()
    with pytest.raises(kind) as caught:
        await call()
    assert isinstance(caught.value, CacheError)
    if argument is not None:
        assert caught.value.argument == argument
        assert str(caught.value).startswith(f"{argument}: ")
    assert zones.all_commands() == dict.fromkeys(zones.names, {})
    assert all(not packets for packets in zones.sent.values())
    assert await cache.get("before") == "value"
    assert zones.connections_made() == made
    assert [fake.connections for zone in zones.names for fake in zones.servers[zone]] == [1, 1, 1]


@pytest.mark.parametrize("operation", BY_KEY.values(), ids=BY_KEY)
@on_zones()
async def test_keys(zones, operation):
    """No operation lets a key through that would break, cut or inject a command."""
    cache = await zones.ready(errors="miss")
    for key in BAD_KEYS.values():
        await refused(zones, cache, lambda key=key: operation(cache, key), InvalidKey, "key")


@pytest.mark.parametrize("operation", BY_KEY.values(), ids=BY_KEY)
@on_zones()
async def test_keys_that_a_jvm_client_would_not_find(zones, operation):
    """They are too long for it, or no text, or have a space of Java's."""
    cache = await zones.ready(interop=True)
    for key in ("x" * 300, "a\u2003b", b"\xff"):
        await refused(zones, cache, lambda key=key: operation(cache, key), InvalidKey, "key")


@pytest.mark.parametrize("operation", BY_TTL.values(), ids=BY_TTL)
@on_zones()
async def test_ttl(zones, operation):
    """0 does not mean "without expiry", and a bool is no number of seconds."""
    cache = await zones.ready()
    for ttl in (0, -1, -0.5, True, math.nan, -math.inf, timedelta(0), timedelta(seconds=-1), "60"):
        await refused(zones, cache, lambda ttl=ttl: operation(cache, ttl), InvalidArgument, "ttl")


@pytest.mark.parametrize("operation", BY_OPTION.values(), ids=BY_OPTION)
@on_zones()
async def test_timeout(zones, operation):
    """Seconds over 0."""
    cache = await zones.ready()
    for timeout in (0, -1, math.nan, math.inf, True, "1"):
        await refused(zones, cache, lambda timeout=timeout: operation(cache, timeout=timeout), InvalidArgument, "timeout")


@pytest.mark.parametrize("operation", BY_OPTION.values(), ids=BY_OPTION)
@on_zones()
async def test_consistency(zones, operation):
    """One of five names."""
    cache = await zones.ready()
    for name in ("most", "", 2, b"all"):
        await refused(zones, cache, lambda name=name: operation(cache, consistency=name), InvalidArgument, "consistency")


@pytest.mark.parametrize(
    "operation",
    ["get", "get_item", "get_item for update", "get_many", "get_and_touch", "set", "set_many", "delete", "touch"],
)
@on_zones()
async def test_errors(zones, operation):
    """ "raise" or "miss"."""
    cache = await zones.ready()
    await refused(zones, cache, lambda: BY_OPTION[operation](cache, errors="ignore"), InvalidArgument, "errors")


@pytest.mark.parametrize("operation", ["set", "set_many"])
@on_zones()
async def test_ordering(zones, operation):
    """ "newest" or "arrival"."""
    cache = await zones.ready()
    await refused(zones, cache, lambda: BY_OPTION[operation](cache, ordering="oldest"), InvalidArgument, "ordering")


@pytest.mark.parametrize("operation", BY_VALUE.values(), ids=BY_VALUE)
@on_zones()
async def test_a_value_over_the_limit(zones, operation):
    """Sending it would delete what the servers have."""
    cache = await zones.ready()
    await refused(zones, cache, lambda: operation(cache, b"x" * 1_100_000), ValueTooLarge, "value")


@pytest.mark.parametrize("operation", BY_VALUE.values(), ids=BY_VALUE)
@on_zones()
async def test_a_value_that_cant_be_encoded(zones, operation):
    """What the codec can't make bytes of."""
    cache = await zones.ready()
    for value in (object(), NAIVE, "\ud800", 2**64, {"deep": [object()]}):
        await refused(zones, cache, lambda value=value: operation(cache, value), EncodeError, None)


@pytest.mark.parametrize("value", ["\ud800"])
@pytest.mark.parametrize("operation", ["append", "prepend"])
@on_zones()
async def test_a_value_that_cant_be_joined(zones, operation, value):
    """The same for more of a str, which is checked before the zone is asked for what there is."""
    cache = await zones.ready()
    await cache.set("k", "v", consistency="all")
    await refused(zones, cache, lambda: getattr(cache, operation)("k", value), EncodeError, None)


@pytest.mark.parametrize("operation", ["append", "prepend"])
@on_zones()
async def test_only_str_and_bytes_are_joined(zones, operation):
    """The error names `value`."""
    cache = await zones.ready()
    for value in (5, None, ["x"], bytearray(b"x")):
        await refused(zones, cache, lambda value=value: getattr(cache, operation)("k", value), InvalidArgument, "value")


@pytest.mark.parametrize("argument", ["delta", "initial"])
@pytest.mark.parametrize("operation", ["incr", "decr"])
@on_zones()
async def test_counters(zones, operation, argument):
    """Whole numbers of 64 bits without a sign."""
    cache = await zones.ready()
    call = getattr(cache, operation)
    for number in (-1, 2**64, True, 1.0, "1"):
        await refused(zones, cache, lambda number=number: call("n", **{argument: number}), InvalidArgument, argument)


@pytest.mark.parametrize("expected", [-1, 2**64, True, None, 1.5, "1", b"1"])
@on_zones()
async def test_cas_expected(zones, expected):
    """A version or an item."""
    cache = await zones.ready()
    await refused(zones, cache, lambda: cache.cas("k", 1, expected), InvalidArgument, "expected")


@pytest.mark.parametrize("keys", ["abc", b"abc", 5, None])
@pytest.mark.parametrize("operation", ["get_many", "delete_many"])
@on_zones()
async def test_one_key_where_several_are_meant(zones, operation, keys):
    """A str is not taken for a list of letters."""
    cache = await zones.ready()
    await refused(zones, cache, lambda: getattr(cache, operation)(keys), InvalidArgument, "keys")


@pytest.mark.parametrize("values", [["k"], "k", None, [("k", 1)]])
@on_zones()
async def test_set_many_takes_a_mapping(zones, values):
    """The error names `values`."""
    cache = await zones.ready()
    await refused(zones, cache, lambda: cache.set_many(values), InvalidArgument, "values")


ONE = {"a": ["one:11211"]}


@pytest.mark.parametrize(
    ("arguments", "options", "argument"),
    [
        (("", ONE), {}, "namespace"),
        (("a:b", ONE), {}, "namespace"),
        (("a b", ONE), {}, "namespace"),
        (("n" * 200, ONE), {}, "namespace"),
        ((None, ONE), {}, "namespace"),
        (("t", {}), {}, "zones"),
        (("t", {"a": []}), {}, "zones"),
        (("t", {"a": ["one", "x@two", "x@three"]}), {}, "zones"),
        (("t", {"a": ["one:11211", "one"]}), {}, "zones"),
        (("t", {"a": ["one:99999"]}), {}, "zones"),
        (("t", {"a": ["one:1\r\nflush_all"]}), {}, "zones"),
        (("t", {"a": ["::1:11211"]}), {}, "zones"),
        (("t", {"a": "one:11211"}), {}, "zones"),
        (("t", "a=one;a=two"), {}, "zones"),
        (("t", "a=one;b"), {}, "zones"),
        (("t", "one:11211,two:11211"), {}, "zones"),
        (("t", ""), {}, "zones"),
        (("t", None), {}, "zones"),
        (("t", ONE), {"local_zone": LocalZone("b", strict=True)}, "local_zone"),
        (("t", ONE), {"local_zone": 5}, "local_zone"),
        (("t", ONE), {"topology_guard": 0.5}, "topology_guard"),
        (("t", ONE), {"local_zone": ""}, "local_zone"),
        (("t", ONE), {"read_timeout": 0}, "read_timeout"),
        (("t", ONE), {"read_timeout": math.nan}, "read_timeout"),
        (("t", ONE), {"write_timeout": -1}, "write_timeout"),
        (("t", ONE), {"read_consistency": "two"}, "read_consistency"),
        (("t", ONE), {"write_consistency": 2}, "write_consistency"),
        (("t", ONE), {"ttl": 0}, "ttl"),
        (("t", ONE), {"ttl": True}, "ttl"),
        (("t", ONE), {"tombstone_ttl": 0}, "tombstone_ttl"),
        (("t", ONE), {"tombstone_ttl": -5}, "tombstone_ttl"),
        (("t", ONE), {"errors": "ignore"}, "errors"),
        (("t", ONE), {"ordering": "latest"}, "ordering"),
        (("t", ONE), {"hints": 5}, "hints"),
        (("t", ONE), {"hints": Failover()}, "hints"),
        (("t", ONE), {"failover": None}, "failover"),
        (("t", ONE), {"failover": 0.5}, "failover"),
        (("t", ONE), {"hedging": True}, "hedging"),
        (("t", ONE), {"gutter": ["g:11211"]}, "gutter"),
        (("t", ONE), {"read_repair_chance": 1.5}, "read_repair_chance"),
        (("t", ONE), {"read_repair_chance": True}, "read_repair_chance"),
        (("t", ONE), {"remember_versions": -1}, "remember_versions"),
        (("t", ONE), {"remember_versions": 1.5}, "remember_versions"),
        (("t", {"gutter": ["one"]}), {"local_zone": None, "gutter": Gutter(["two"])}, "gutter"),
    ],
)
def test_clients_that_cant_be_made(arguments, options, argument):
    """The constructor names what can't be used; it needs no loop and starts nothing."""
    with pytest.raises(InvalidArgument) as caught:
        EVCache(*arguments, **options)
    assert caught.value.argument == argument
    assert str(caught.value).startswith(f"{argument}: ")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Topology(()),
        lambda: Zone("a", ()),
        lambda: Zone("a", (Endpoint.parse("one"), Endpoint.parse("one:11211"))),
        lambda: Topology((Zone("a", (Endpoint.parse("one"),), Mode.WRITE_ONLY),)),
        lambda: Topology((Zone("a", (Endpoint.parse("one"),)), Zone("a", (Endpoint.parse("two"),)))),
    ],
)
def test_topologies_that_cant_be_made(make):
    """The same checks for topologies that are made in code."""
    with pytest.raises(InvalidTopology) as caught:
        make()
    assert caught.value.argument == "zones"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('[zones.a]\nnodes = ["one"]\n\n[zones.b\nnodes = ["two"]\n', 4),
        ('[zones.a]\nnodes = ["one"]\n\n[zones.b]\nnodes = []\n', 4),
        ('[zones.a]\nnodes = ["one"]\n\n[zones.b]\nnodes = "two"\n', 4),
        ('[zones.a]\nnodes = ["one"]\nmode = "read-only"\n', 3),
        ('[zones.a]\nnodes = ["one"]\nweight = 5\n', 3),
        ('[zones.a]\nnodes = ["one"]\n\n[zones.b]\nnodes = ["two", "two:11211"]\n', 4),
        ('# nothing\n[other]\nnodes = ["one"]\n', 1),
    ],
)
def test_a_toml_file_that_cant_be_used(tmp_path, text, line):
    """The first call says which file and which line."""
    path = tmp_path / "zones.toml"
    path.write_text(text)

    @on_zones()
    async def main(zones):
        cache = zones.client(zones=path, local_zone=None)
        with pytest.raises(InvalidTopology) as caught:
            await cache.get("k", errors="miss")
        assert caught.value.argument == "zones"
        assert str(path) in str(caught.value)
        assert f"line {line}" in str(caught.value)

    main()


@on_zones()
async def test_a_file_without_the_local_zone(zones, tmp_path):
    """A local zone that the file does not have is found out with the first call."""
    path = tmp_path / "zones.toml"
    path.write_text('[zones.b]\nnodes = ["one"]\n')
    with pytest.raises(InvalidTopology) as caught:
        await zones.client(zones=path, local_zone=LocalZone("a", strict=True)).get("k")
    assert caught.value.argument == "local_zone"


def test_codec_errors_are_cache_errors():
    """One `except` catches all that is raised on purpose."""
    assert issubclass(CodecError, CacheError)
    assert issubclass(InvalidArgument, (CacheError, ValueError))
