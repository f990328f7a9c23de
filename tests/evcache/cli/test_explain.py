"""`evcache explain`: where a key lives, who decides about it, what its nodes are and can do."""

import json
from contextlib import contextmanager

import pytest
from click.testing import CliRunner

from evcache.cli.commands import evcache as command_line
from evcache.testing.blocking import LoopThread
from evcache.zones.nodes.capabilities import FEATURES
from evcache.zones.routing.ketama import Ring, ring_position
from evcache.zones.routing.zone_order import coordinator_order
from evcache.zones.testing import FakeMemcached

DEAD = "127.0.0.1:1"  # nothing listens there


@contextmanager
def servers(**kinds):
    """Servers by name, each with the options of FakeMemcached, in a loop of their own."""
    with LoopThread() as thread:

        async def start():
            made = {name: FakeMemcached(**options) for name, options in kinds.items()}
            for server in made.values():
                await server.start()
            return made

        started = thread.call(start())
        try:
            yield {name: server.address for name, server in started.items()}
        finally:
            for server in started.values():
                thread.call(server.stop())


def explain(zones, *args, key="user:42", **environment):
    env = {"EVCACHE_NODES": zones, "EVCACHE_ZONE": "eu-1a", "EVCACHE_NAMESPACE": "sessions", **environment}
    return CliRunner().invoke(command_line, ["explain", key, *args], env=env)


def explained(zones, *args, **options):
    done = explain(zones, "--json", *args, **options)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def mixed():
    """Three zones of different servers, the first with two nodes, the last one dead and write-only."""
    kinds = {
        "a1": {},
        "a2": {},
        "b": {"classic_only": True, "version": "1.4.39", "item_size_max": 4096},
        "c": {"version": "1.6.18"},
    }
    with servers(**kinds) as at:
        yield at, f"eu-1a={at['a1']},{at['a2']};eu-1b={at['b']};eu-1c=label@{at['c']};eu-1d!={DEAD}"


def test_where_a_key_lives_and_who_decides(mixed):
    at, zones = mixed
    for key in ("user:42", "user:43", "user:44", "user:45"):
        told = explained(zones, key=key)
        full = f"sessions:{key}".encode()
        assert told["key"] == full.decode()
        assert told["place"] == ring_position(full)
        assert told["read_order"][0] == "eu-1a"
        assert sorted(told["read_order"]) == ["eu-1a", "eu-1b", "eu-1c"]
        assert told["coordinator_order"] == list(coordinator_order(full, ("eu-1a", "eu-1b", "eu-1c")))
        labels = [at["a1"], at["a2"]]
        assert told["zones"]["eu-1a"]["node"] == labels[Ring(labels).owner(ring_position(full))]
        assert told["zones"]["eu-1a"]["nodes"] == 2


def test_what_each_node_is_and_can_do(mixed):
    at, zones = mixed
    told = explained(zones)["zones"]
    a, b, c, d = (told[f"eu-1{letter}"] for letter in "abcd")
    assert (a["transport"], a["server"], a["state"], a["problem"]) == ("meta", "1.6.38", "ready", None)
    assert (a["local"], a["mode"], b["local"]) == (True, "read-write", False)
    assert (b["transport"], b["server"], b["item_bytes"]) == ("classic", "1.4.39", 4096)
    assert (c["transport"], c["server"], c["node"], c["address"]) == ("meta", "1.6.18", "label", at["c"])
    assert (d["mode"], d["state"], d["transport"], d["server"], d["features"]) == ("write-only", "down", None, None, {})
    assert "Connect call failed" in d["problem"]
    names = {feature.name.replace("`", "") for feature in FEATURES}
    assert a["features"].keys() == b["features"].keys() == c["features"].keys() == names
    assert (a["features"]["versions"], b["features"]["versions"], c["features"]["versions"]) == (True, False, False)
    assert (b["features"]["CAS (not run with -C)"], b["features"]["meta protocol"]) == (True, False)


def test_for_people(mixed):
    at, zones = mixed
    done = explain(zones)
    assert (done.exit_code, done.stderr) == (0, "")
    told = done.stdout
    assert told.startswith(
        f"key      sessions:user:42\nplace    {ring_position(b'sessions:user:42')} of the ring\nreads    eu-1a, "
    )
    assert "decides  the first that can be reached of eu-1" in told
    assert "\neu-1a  read-write, local\n" in told
    assert ", one of 2\n" in told
    assert f"\neu-1b  read-write\n  node       {at['b']}\n  state      ready\n  transport  classic\n" in told
    assert "  server     memcached 1.4.39, items up to 4096 bytes\n  can        CAS (not run with -C)\n" in told
    assert f"  node       label at {at['c']}\n" in told
    assert f"\neu-1d  write-only\n  node       {DEAD}\n  state      down: {DEAD}: it is down: " in told


def test_the_transport_can_be_forced(mixed):
    _, zones = mixed
    told = explained(zones, "--transport", "classic")["zones"]
    assert [told[zone]["transport"] for zone in ("eu-1a", "eu-1b", "eu-1c")] == ["classic"] * 3
    told = explained(zones, "--transport", "meta")["zones"]
    assert [told[zone]["transport"] for zone in ("eu-1a", "eu-1b", "eu-1c")] == ["meta", None, "meta"]
    assert "does not support the meta protocol" in told["eu-1b"]["problem"]


def test_a_key_that_is_hashed_is_shown_as_servers_know_it(mixed):
    _, zones = mixed
    assert explained(zones, key="k" * 300)["key"].startswith("sessions:#sha256-")


def test_nothing_is_stored_or_read(mixed):
    _, zones = mixed
    explained(zones)
    env = {"EVCACHE_NODES": zones, "EVCACHE_ZONE": "eu-1a", "EVCACHE_NAMESPACE": "sessions"}
    assert CliRunner().invoke(command_line, ["get", "user:42"], env=env).exit_code == 1


def test_no_zone_at_all_is_status_3_and_still_says_where_the_key_would_be():
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
    """It has none of the other features that need a CAS, either."""
    with servers(a={"cas_enabled": False}, b={"cas_enabled": False, "classic_only": True}) as at:
        found = explained(f"eu-1a={at['a']};eu-1b={at['b']}")
    for zone in found["zones"].values():
        missing = {name for name, has in zone["features"].items() if not has}
        assert {"leases", "versions", "tombstones", "cas with a version", "CAS (not run with -C)"} <= missing
