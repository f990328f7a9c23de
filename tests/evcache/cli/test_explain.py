"""Tests of `evcache explain`: nodes of a key, its coordinator, and features of servers."""

import json

import pytest
from click.testing import CliRunner

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
    assert f"\neu-1b  read-write\n  node       {at['b']}\n  state      ready\n  transport  classic\n" in found
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
    assert explained(zones, key="k" * 300)["key"].startswith("sessions:#sha256-")


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
