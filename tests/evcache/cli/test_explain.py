"""Tests of `evcache explain`: nodes of a key, its coordinator, its items, and features of servers."""

import asyncio
import json
import re
import socket

import pytest
from click.testing import CliRunner

from evcache import EVCache, LoadPolicy
from evcache.cli.commands import evcache as command_line
from evcache.compatibility import FEATURES
from evcache.zones.routing.ketama import Ring, ring_position
from evcache.zones.routing.zone_order import coordinator_order
from tests.support.cli_servers import DEAD, servers


def explain(zones, *args, key="user:42", **environment):
    env = {"EVCACHE_NODES": zones, "EVCACHE_ZONE": "eu-1a", "EVCACHE_NAMESPACE": "sessions", **environment}
    return CliRunner().invoke(command_line, ["explain", key, *args], env=env)


def explained(zones, *args, **options):
    done = explain(zones, "--json", *args, **options)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def mixed():
    """Return four zones of different servers. The first has two nodes, the last is dead and write-only."""
    kinds = {
        "a1": {},
        "a2": {},
        "b": {"classic_only": True, "version": "1.4.39", "item_size_max": 4096},
        "c": {"version": "1.6.18"},
    }
    with servers(**kinds) as at:
        yield at, f"eu-1a={at['a1']},{at['a2']};eu-1b={at['b']};eu-1c=label@{at['c']};eu-1d!={DEAD}"


def test_nodes_and_coordinator_of_a_key(mixed):
    at, zones = mixed
    for key in ("user:42", "user:43", "user:44", "user:45"):
        found = explained(zones, key=key)
        full = f"sessions:{key}".encode()
        assert found["key"] == full.decode()
        assert found["position"] == ring_position(full)
        assert found["read_order"][0] == "eu-1a"
        assert sorted(found["read_order"]) == ["eu-1a", "eu-1b", "eu-1c"]
        assert found["coordinator_order"] == list(coordinator_order(full, ("eu-1a", "eu-1b", "eu-1c")))
        labels = [at["a1"], at["a2"]]
        assert found["zones"]["eu-1a"]["node"] == labels[Ring(labels).owner(ring_position(full))]
        assert found["zones"]["eu-1a"]["nodes"] == 2


def test_state_and_features_of_each_node(mixed):
    at, zones = mixed
    found = explained(zones)["zones"]
    a, b, c, d = (found[f"eu-1{letter}"] for letter in "abcd")
    assert (a["transport"], a["server"], a["state"], a["problem"]) == ("meta", "1.6.38", "ready", None)
    assert (a["local"], a["mode"], b["local"]) == (True, "read-write", False)
    assert (b["transport"], b["server"], b["item_bytes"]) == ("classic", "1.4.39", 4096)
    assert (c["transport"], c["server"], c["node"], c["address"]) == ("meta", "1.6.18", "label", at["c"])
    assert (d["mode"], d["state"], d["transport"], d["server"], d["features"]) == ("write-only", "down", None, None, {})
    assert "Connect call failed" in d["problem"]
    names = {feature.plain_name for feature in FEATURES}
    assert a["features"].keys() == b["features"].keys() == c["features"].keys() == names
    assert (a["features"]["versions"], b["features"]["versions"], c["features"]["versions"]) == (True, False, False)
    assert (b["features"]["CAS (not run with -C)"], b["features"]["meta protocol"]) == (True, False)


def test_a_standby_zone_is_read_last_and_is_no_coordinator():
    done = explain(f"eu-1a={DEAD};eu-1b?={DEAD}", "--json")
    found = json.loads(done.stdout)
    assert (found["read_order"], found["coordinator_order"]) == (["eu-1a", "eu-1b"], ["eu-1a"])
    assert found["zones"]["eu-1b"]["mode"] == "standby"


def test_text_output(mixed):
    at, zones = mixed
    done = explain(zones)
    assert (done.exit_code, done.stderr) == (0, "")
    found = done.stdout
    assert found.startswith(
        f"key          sessions:user:42\nposition     {ring_position(b'sessions:user:42')} on the ring\nreads        eu-1a, "
    )
    assert "coordinator  the first reachable zone of eu-1" in found
    assert "\neu-1a  read-write, local\n" in found
    assert ", one of 2\n" in found
    assert (
        f"\neu-1b  read-write\n  node       {at['b']}\n  state      ready\n  holds      nothing\n  transport  classic\n"
        in found
    )
    assert "  server     memcached 1.4.39, items up to 4096 bytes\n  has        CAS (not run with -C)\n" in found
    assert f"  node       label at {at['c']}\n" in found
    assert f"\neu-1d  write-only\n  node       {DEAD}\n  state      down: {DEAD}: it is down: " in found


def test_the_transport_can_be_forced(mixed):
    _, zones = mixed
    found = explained(zones, "--transport", "classic")["zones"]
    assert [found[zone]["transport"] for zone in ("eu-1a", "eu-1b", "eu-1c")] == ["classic"] * 3
    found = explained(zones, "--transport", "meta")["zones"]
    assert [found[zone]["transport"] for zone in ("eu-1a", "eu-1b", "eu-1c")] == ["meta", None, "meta"]
    assert "does not support the meta protocol" in found["eu-1b"]["problem"]


def test_a_key_that_is_hashed_is_shown_as_servers_know_it(mixed):
    _, zones = mixed
    found = explained(zones, key="k" * 300)
    assert found["key"].startswith("sessions:#sha256-")
    assert found["hashed"] == "300 bytes, over 241"
    assert "\n             hashed: the key is not plain ASCII\n" in explain(zones, key="\u00e9").stdout
    assert explained(zones)["hashed"] is None


def test_nothing_is_stored_or_read(mixed):
    _, zones = mixed
    explained(zones)
    env = {"EVCACHE_NODES": zones, "EVCACHE_ZONE": "eu-1a", "EVCACHE_NAMESPACE": "sessions"}
    assert CliRunner().invoke(command_line, ["get", "user:42"], env=env).exit_code == 1


def test_without_a_reachable_zone_the_nodes_are_shown_with_status_3():
    done = explain(f"eu-1a={DEAD};eu-1b={DEAD}", "--timeout", "1")
    assert done.exit_code == 3
    assert done.stdout.count("state      down") == 2


@pytest.mark.parametrize(
    ("args", "options", "named"),
    [
        ([], {"key": "a b"}, "key"),
        (["--timeout", "0"], {}, "timeout"),
        (["--transport", "binary"], {}, "--transport"),
        (["--local-zone", "eu-9z"], {}, "local_zone"),
        (["--zones", "nonsense"], {}, "zones"),
    ],
)
def test_arguments_that_can_not_be_used(args, options, named):
    done = explain(f"eu-1a={DEAD}", *args, **options)
    assert done.exit_code == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr


def test_get_and_set_take_a_transport_too(mixed):
    at, _ = mixed
    zones = f"eu-1a={at['b']}"
    env = {"EVCACHE_NODES": zones, "EVCACHE_ZONE": "eu-1a", "EVCACHE_NAMESPACE": "sessions"}

    def call(*args):
        return CliRunner().invoke(command_line, args, env=env)

    assert call("set", "k", "v", "--transport", "classic").exit_code == 0
    assert call("get", "k").stdout == "v\n"
    refused = call("get", "k", "--transport", "meta")
    assert refused.exit_code == 3
    assert "does not support the meta protocol" in refused.stderr


def test_a_server_without_cas_says_that_it_has_no_leases():
    """Features that need a CAS are missing too."""
    with servers(a={"cas_enabled": False}, b={"cas_enabled": False, "classic_only": True}) as at:
        found = explained(f"eu-1a={at['a']};eu-1b={at['b']}")
    for zone in found["zones"].values():
        missing = {name for name, has in zone["features"].items() if not has}
        assert {"leases", "versions", "tombstones", "cas with a version", "CAS (not run with -C)"} <= missing


# --- items ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def three():
    """Three empty zones of one node that keep versions."""
    with servers(a={}, b={}, c={}) as at:
        yield at


def node_list(at, names="abc"):
    return ";".join(f"eu-1{name}={at[name]}" for name in names)


def on(zones, work, **options):
    """Run `work(cache)` with a client of these zones, and return its result."""

    async def main():
        async with EVCache("sessions", zones, write_timeout=5, read_timeout=5, **options) as cache:
            return await work(cache)

    return asyncio.run(main())


def store(zones, value, **options):
    on(zones, lambda cache: cache.set("user:42", value, consistency="all", ttl=600), **options)


def send(address, request):
    """Send a request to a server, and return its reply up to the first line end."""
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(request)
        return connection.makefile("rb").readline()


def relations(found):
    return {zone: report["relation"] for zone, report in found["zones"].items()}


def verdict(found):
    return found["agreement"], found["decider"], found["served_by"], found["repairs"]


def test_zones_with_one_version_agree(three):
    store(node_list(three), "Ada")
    found = explained(node_list(three))
    assert verdict(found) == ("same version", "eu-1a", "eu-1a", [])
    items = [zone["item"] for zone in found["zones"].values()]
    assert len({item["version"]["number"] for item in items}) == 1
    for item in items:
        assert (item["content"], item["bytes"], item["flags"], item["meaning"]) == ("value", 3, 0, "str")
        assert 590 < item["ttl"] <= 600
        assert (item["is_stale"], item["envelope"], item["problem"]) == (False, None, None)
        assert item["version"]["is_believed"] is True
        assert 0 <= item["version"]["age"] < 60
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", item["version"]["written_at"])


def test_an_explanation_is_no_use_of_the_item(three):
    store(node_list(three), "Ada")
    for _ in range(2):
        zones = explained(node_list(three))["zones"]
        assert [zone["item"]["was_read"] for zone in zones.values()] == [False] * 3
    assert send(three["a"], b"mg sessions:user:42 h u\r\n") == b"HD h0\r\n"
    send(three["a"], b"mg sessions:user:42 v\r\n")
    zones = explained(node_list(three))["zones"]
    assert [zone["item"]["was_read"] for zone in zones.values()] == [True, False, False]


def test_the_latest_version_decides_and_the_zones_behind_would_be_repaired(three):
    store(node_list(three), "Ada")
    store(node_list(three, "bc"), "Grace")
    send(three["c"], b"md sessions:user:42\r\n")
    found = explained(node_list(three))
    assert verdict(found) == ("different", "eu-1b", "eu-1a", ["eu-1a", "eu-1c"])
    assert relations(found) == {"eu-1a": "older version", "eu-1b": "same version", "eu-1c": "missing"}
    assert [zone["item"] and zone["item"]["bytes"] for zone in found["zones"].values()] == [3, 5, None]
    text = explain(node_list(three)).stdout
    assert "\nagreement    different\ndecides      eu-1b\nread at one  the value of eu-1a\n" in text
    assert "\nrepair       eu-1a (older version); eu-1c (missing)\n" in text


def test_nothing_is_repaired_by_an_explanation(three):
    store(node_list(three, "ab"), "Ada")
    first = explained(node_list(three))
    assert relations(explained(node_list(three))) == relations(first)
    assert first["zones"]["eu-1c"]["item"] is None
    assert send(three["c"], b"mg sessions:user:42 v u\r\n") == b"EN\r\n"


def test_a_tombstone_decides_over_older_values(three):
    store(node_list(three), "Ada")
    on(node_list(three, "b"), lambda cache: cache.delete("user:42"))
    found = explained(node_list(three))
    assert verdict(found) == ("different", "eu-1b", "eu-1a", ["eu-1a", "eu-1c"])
    assert found["zones"]["eu-1b"]["item"]["content"] == "tombstone"
    on(node_list(three, "a"), lambda cache: cache.delete("user:42"))
    assert "\nread at one  a miss: eu-1a holds a tombstone\n" in explain(node_list(three)).stdout


def test_a_dead_zone_has_no_part_in_the_verdict(three):
    store(node_list(three, "bc"), "Ada")
    zones = f"eu-1a={DEAD};{node_list(three, 'bc')}"
    found = explained(zones)
    assert found["agreement"] == "same version"
    assert found["decider"] in ("eu-1b", "eu-1c")
    assert found["served_by"] == found["read_order"][1]
    assert (found["zones"]["eu-1a"]["relation"], found["zones"]["eu-1a"]["item"]) == ("unknown", None)
    assert "Connect call failed" in found["zones"]["eu-1a"]["problem"]


def test_a_write_only_zone_is_compared_and_decides_nothing(three):
    store(node_list(three, "ab"), "Ada")
    found = explained(node_list(three).replace("eu-1c=", "eu-1c!="))
    assert verdict(found) == ("same version", "eu-1a", "eu-1a", ["eu-1c"])
    assert found["zones"]["eu-1c"]["relation"] == "missing"


@pytest.mark.parametrize("transport", ["auto", "classic"])
def test_servers_without_versions_are_compared_by_value(transport):
    kind = {"version": "1.6.18"} if transport == "auto" else {"classic_only": True, "version": "1.4.39"}
    with servers(a=kind, b=kind, c=kind) as at:
        zones = node_list(at)
        store(zones, "Ada", ordering="arrival")
        same = explained(zones, "--transport", transport)
        store(node_list(at, "a"), "Grace", ordering="arrival")
        other = explained(zones, "--transport", transport)
        text = explain(zones, "--transport", transport).stdout
    assert verdict(same) == ("same value", "eu-1a", "eu-1a", [])
    assert verdict(other) == ("different, order unknown", other["read_order"][1], "eu-1a", [])
    assert other["unrepaired"] == {"eu-1a": "an item without a version is never replaced"}
    assert relations(other) == {"eu-1a": "other value", "eu-1b": "same value", "eu-1c": "same value"}
    item = other["zones"]["eu-1a"]["item"]
    assert (item["version"], item["bytes"], item["meaning"]) == (None, 5, "str")
    assert (item["ttl"] is None) is (transport == "classic")
    assert "\n  version    none\n" in text
    assert ("\n  ttl        unknown\n" in text) is (transport == "classic")


def test_the_times_of_an_envelope(three):
    async def load():
        return {"name": "Ada"}

    policy = LoadPolicy(stale_while_revalidate=300)
    on(node_list(three, "a"), lambda cache: cache.get_or_load("user:42", load, ttl=60, policy=policy))
    item = explained(node_list(three, "a"))["zones"]["eu-1a"]["item"]
    inside = item["envelope"]
    assert (item["content"], item["meaning"]) == ("envelope", "envelope")
    assert (inside["meaning"], inside["is_past_ttl"]) == ("msgpack", False)
    assert inside["made_at"] < inside["expires_at"] < inside["stale_until"]
    text = explain(node_list(three, "a")).stdout
    assert f"\n  envelope   made {inside['made_at']}, holds {inside['bytes']} bytes, 0xec00: msgpack\n" in text
    assert f"\n  fresh      until {inside['expires_at']}\n  stale      until {inside['stale_until']}\n" in text


def test_a_value_past_its_ttl_is_a_miss_for_a_read(three):
    store(node_list(three), "Ada")
    on(node_list(three), lambda cache: cache.invalidate("user:42", stale_while_revalidate=300))
    text = explain(node_list(three)).stdout
    assert "\nread at one  a miss: eu-1a holds a value past its TTL\n" in text
    assert re.search(r"\n  fresh      until \S+Z, over\n  stale      until \S+Z\n", text)


def test_a_lease_stub_a_stale_mark_and_foreign_flags_are_shown(three):
    assert send(three["a"], b"mg sessions:user:42 N30 E18446744073709551615\r\n") == b"HD W\r\n"
    assert send(three["b"], b"ms sessions:user:42 2 F76\r\nhi\r\n") == b"HD\r\n"
    assert send(three["b"], b"md sessions:user:42 I T50\r\n") == b"HD\r\n"
    found = explained(node_list(three))
    assert verdict(found) == ("different", "eu-1b", "eu-1b", [])
    stub, stale = (found["zones"][zone]["item"] for zone in ("eu-1a", "eu-1b"))
    assert (stub["content"], stub["version"], stub["bytes"]) == ("lease stub", None, 0)
    assert (stale["is_stale"], stale["meaning"], 40 < stale["ttl"] <= 50) == (True, "unknown", True)
    assert found["unrepaired"] == dict.fromkeys(["eu-1a", "eu-1c"], "the item has no version")
    text = explain(node_list(three)).stdout
    assert "\n  holds      value, 2 bytes, same value, marked stale\n" in text
    assert "\n  flags      0x4c: unknown\n" in text


@pytest.mark.parametrize("transport", ["meta", "classic"])
def test_a_large_value_is_compared_over_each_transport(three, transport):
    store(node_list(three), b"x" * 600_000)
    found = explained(node_list(three), "--transport", transport)
    assert found["agreement"] == "same version"
    assert {zone["item"]["bytes"] for zone in found["zones"].values()} == {600_000}


def test_text_of_an_item(three):
    store(node_list(three), [1, 2])
    text = explain(node_list(three)).stdout
    assert re.search(
        r"\n  holds      value, 3 bytes, same version"
        r"\n  version    \d+: \S+Z, \d+\.\d{3} s ago, writer \d+, counter \d+"
        r"\n  ttl        \d+ s left"
        r"\n  flags      0xec00: msgpack"
        r"\n  last use   \d s ago, not read since the write\n",
        text,
    )
    assert "\nrepair       -\n" in text


def test_without_an_answer_a_read_is_an_error():
    done = explain(f"eu-1a={DEAD};eu-1b={DEAD}", "--timeout", "1")
    assert (
        "\nagreement    unknown\ndecides      -\nread at one  an error: no zone of reads answered\nrepair       -\n"
        in done.stdout
    )


def test_a_server_that_refuses_the_read_is_no_answer():
    with servers(a={"refuse": {"mg sessions:user:42": "SERVER_ERROR backend failure"}}) as at:
        done = explain(f"eu-1a={at['a']}")
    assert done.exit_code == 3
    assert "\n  state      ready: " in done.stdout
    assert "backend failure" in done.stdout
