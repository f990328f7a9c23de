"""Tests of `evcache doctor`: output, JSON and exit statuses, on fake servers."""

import errno
import json
import os
import re
import threading
import time

import pytest
from click.testing import CliRunner

from evcache.admin.doctor import gather as gather_module
from evcache.admin.doctor.findings import Verdict
from evcache.admin.doctor.hints_disk import look_at
from evcache.admin.doctor.node_questions import clients_of, own_descriptors
from evcache.cli.commands import evcache as command_line
from evcache.replication.hlc import MILLISECONDS_SHIFT, cas_of
from evcache.testing.blocking import LoopThread
from evcache.zones.routing.ketama import ring_of, ring_position
from evcache.zones.testing import FakeMemcached
from tests.support.cli_servers import DEAD, servers

KINDS = {
    "a": {},
    "b": {},
    "c": {},
    "old": {"version": "1.6.18"},
    "large": {"item_size_max": 2 << 20},
    "late": {"wall_clock": lambda: time.time() - 600},
    "hidden": {"may_list_keys": False},
    "no-cas": {"cas_enabled": False},
    "serverless": {"serverless": True},
    "login": {"auth": ("ada", "secret")},
    "full": {"max_connections": 0},
    "twemproxy": {"twemproxy": True},
}


@pytest.fixture(scope="module")
def at():
    """Return addresses of servers by name. No test stores items on them."""
    with servers(**KINDS) as addresses:
        yield addresses | {"dead": DEAD}


@pytest.fixture
def loaded():
    """Return a function that runs servers with items, each given as pairs of key and CAS, and returns their addresses."""
    with LoopThread() as thread:
        started = []

        def start(*contents):
            async def run():
                for content in contents:
                    server = FakeMemcached()
                    for key, cas in content:
                        server.session().receive(b"ms %b 1 E%d\r\nx\r\n" % (key, cas))
                    await server.start()
                    started.append(server)
                return [server.address for server in started]

            return thread.call(run())

        yield start
        for server in started:
            thread.call(server.stop())


def doctor(zones, *args, **environment):
    env = {"EVCACHE_NODES": zones, "EVCACHE_ZONE": "", "EVCACHE_NAMESPACE": "", **environment}
    return CliRunner().invoke(command_line, ["doctor", "--timeout", "20", *args], env=env)


def found_by(zones, *args, **environment):
    """Return the names of the faults, and the JSON object."""
    done = doctor(zones, *args, "--json", **environment)
    assert done.stderr == ""
    result = json.loads(done.stdout)
    names = [finding["name"] for finding in result["findings"] if finding["verdict"] != "ok"]
    assert done.exit_code == (3 if not result["readable"] else 1 if names else 0)
    return names, result


@pytest.mark.parametrize(
    ("zones", "args", "expected"),
    [
        ("a={a};b={b};c={c}", [], []),
        ("a={a},{b}", [], []),
        ("a={a};b={dead}", [], ["zone-down"]),
        ("a={a},{dead}", [], ["node-down"]),
        ("a={dead}", [], ["zone-down"]),
        ("a={a};b={a}", [], ["address-shared"]),
        ("a={a};b={b},{c}", [], ["node-counts-differ"]),
        ("a={a};b={b}", ["--local-zone", "z"], ["local-zone-missing"]),
        ("a={old}", [], ["no-versions"]),
        ("a={old}", ["--ordering", "arrival"], []),
        ("a={a};b={old}", ["--ordering", "arrival"], ["versions-differ-between-zones"]),
        ("a={a},{old}", ["--ordering", "arrival"], ["versions-differ-in-zone"]),
        ("a={a};b={large}", [], ["item-size-differs"]),
        ("a={a};b={late}", [], ["server-clock"]),
        ("a={a};b={hidden}", [], ["lists-disabled"]),
        ("a={a};b={no-cas}", [], ["no-versions", "cas-disabled"]),
        ("a={a};b={login}", [], ["zone-down"]),
        ("a={a};b={login}", ["--user", "ada"], []),
        ("a={a}", ["--transport", "classic"], ["no-versions", "classic-protocol"]),
        ("a={a};b={full}", [], ["zone-down", "connections-near-limit"]),
        ("a={a};b={serverless}", [], ["lists-disabled"]),
        ("a={a};b={twemproxy}", [], ["zone-down"]),
        (
            "a={twemproxy}",
            ["--transport", "classic"],
            ["no-versions", "classic-protocol", "statistics-refused"],
        ),
        ("a={a};b={dead}", ["--ignore", "zone-down"], []),
        ("a={a};b={b}", ["--namespace", "s"], []),
    ],
)
def test_faults_and_exit_status(at, zones, args, expected):
    assert found_by(zones.format(**at), *args, EVCACHE_PASSWORD="secret")[0] == expected


def test_json_has_the_programs_and_each_finding(at):
    _, result = found_by("a={a};b={dead}".format(**at))
    findings = result.pop("findings")
    assert {name: result[name] for name in ("zones", "nodes", "answering", "readable")} == {
        "zones": 2,
        "nodes": 2,
        "answering": 1,
        "readable": True,
    }
    assert set(result) == {"client", "core", "python", "zones", "nodes", "answering", "readable"}
    down = next(finding for finding in findings if finding["name"] == "zone-down")
    assert down == {
        "name": "zone-down",
        "verdict": "problem",
        "subject": "reachability",
        "text": f"zone down: b: 1 of 1 nodes failed, the first is {DEAD}: [Errno 111] Connect call failed ('127.0.0.1', 1)",
        "fix": "start the servers of the zone, or open the network between this host and them",
        "zone": "b",
        "node": None,
    }


def test_lines_have_a_verdict_and_a_fault_has_a_fix(at):
    done = doctor("a={a};b={large}".format(**at))
    head, blank, *lines, last_blank, last = done.stdout.splitlines()
    assert head.startswith("evcache 0.")
    assert " core, Python 3." in head
    assert blank == last_blank == ""
    assert last == "1 problem, 0 warnings"
    fixes = [line for line in lines if line.strip().startswith("fix: ")]
    assert [line.strip() for line in fixes] == ["fix: start all nodes with the same `-I` (item-size-differs)"]
    assert {line.split()[0] for line in lines if line not in fixes} == {"ok", "problem"}
    assert lines[lines.index(fixes[0]) - 1].startswith("problem  settings")


def test_without_a_readable_zone_the_last_line_says_so(at):
    done = doctor("a={dead};b!={a}".format(**at))
    assert done.exit_code == 3
    assert done.stdout.splitlines()[-1] == "no zone can be read; 1 problem, 0 warnings"


def test_the_topology_is_unknown():
    done = doctor("/no/such/file.toml")
    assert done.exit_code in (2, 3)
    assert "/no/such/file.toml" in done.stderr


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["--timeout", "0"], "timeout"),
        (["--ordering", "oldest"], "--ordering"),
        (["--zones", "nonsense"], "zones"),
        (["--namespace", "a:b"], "namespace"),
        (["--ignore", "no-such-fault"], "--ignore"),
    ],
)
def test_arguments_that_cannot_be_used_end_with_status_2(at, args, named):
    done = doctor("a={dead}".format(**at), *args)
    assert done.exit_code == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unreachable_zone_does_not_delay_the_command_beyond_its_timeout():
    """A server that accepts and never answers."""
    with LoopThread() as thread:
        server = FakeMemcached()
        thread.call(server.start())
        server.pause()
        done = doctor(f"a={server.address}", "--timeout", "0.2")
        thread.call(server.stop())
    assert done.exit_code == 3
    assert "zone down: a: 1 of 1 nodes failed" in done.stdout
    assert re.search(r"no (answer|connection|reply) in 0\.\d+ s", done.stdout)


@pytest.mark.parametrize(
    ("refuse", "expected"),
    [
        ({"stats": "ERROR"}, ["statistics-refused"]),
        ({"stats settings": "ERROR"}, []),
        ({"stats conns": "ERROR"}, []),
        ({"stats items": "ERROR"}, ["lists-disabled"]),
        ({"me": "ERROR"}, []),
    ],
)
def test_a_refused_question_leaves_the_answers_to_the_others(refuse, expected):
    with servers(a={"refuse": refuse}) as at:
        assert found_by(f"eu-1a={at['a']}")[0] == expected


def keys(namespace, number):
    return [(f"{namespace}:{place}".encode(), 1 + place) for place in range(number)]


def test_two_nodes_whose_labels_are_swapped_are_both_named(loaded):
    ring = ring_of(["x", "y"])
    of_x = [item for item in keys("s", 200) if ring.owner(ring_position(item[0])) == 0]
    of_y = [item for item in keys("s", 200) if item not in of_x]
    first, second = loaded(of_x, of_y)
    assert found_by(f"a=x@{first},y@{second}")[0] == []
    names, result = found_by(f"a=x@{second},y@{first}")
    assert names == ["labels-swapped"]
    text = next(finding["text"] for finding in result["findings"] if finding["name"] == "labels-swapped")
    assert "has 100% keys of y" in text
    assert "has 100% keys of x" in text


def test_a_zone_with_the_data_of_another_namespace_is_named(loaded):
    addresses = loaded(keys("s", 50), keys("s", 50), keys("t", 50))
    zones = ";".join(f"{name}={address}" for name, address in zip("abc", addresses, strict=True))
    names, result = found_by(zones)
    assert names == ["namespaces-foreign"]
    assert next(finding["zone"] for finding in result["findings"] if finding["name"] == names[0]) == "c"
    assert found_by(zones, "--namespace", "s")[0] == ["namespaces-foreign", "namespace-missing"]
    assert found_by(zones, "--namespace", "u")[0] == ["namespaces-foreign", "namespace-unknown"]


@pytest.mark.parametrize(("ahead", "expected"), [(0, []), (30, ["item-versions-ahead"]), (90, ["item-versions-refused"])])
def test_versions_in_the_future_name_their_writer(loaded, ahead, expected):
    version = int((time.time() + ahead) * 1000) << MILLISECONDS_SHIFT | 77
    (address,) = loaded([(b"s:1", cas_of(version))])
    names, result = found_by(f"a={address}")
    assert names == expected
    assert ("writer 77" in json.dumps(result)) is bool(expected)


def test_a_server_without_tls_is_named_if_the_command_uses_tls(at):
    names, _ = found_by("a={a}".format(**at), "--tls", "--timeout", "2")
    assert names == ["tls-missing"]


def test_nothing_is_stored_and_no_read_is_counted():
    with LoopThread() as thread:
        server = FakeMemcached()
        thread.call(server.start())
        server.session().receive(b"set s:1 0 0 1\r\nx\r\n")
        before = server.store.counts.copy()
        assert doctor(f"a={server.address}").exit_code == 0
        written = {
            name for name in server.commands if name.startswith(("ms", "md", "ma", "set", "delete", "touch", "flush"))
        }
        after = server.store.counts.copy()
        thread.call(server.stop())
    assert written == {"set"}
    assert after["get_hits"] == before["get_hits"]


def test_hints_are_examined_if_their_path_is_named(at, tmp_path):
    zones = "a={a}".format(**at)
    assert found_by(zones, "--hints", str(tmp_path / "h.db"))[0] == []
    assert list(tmp_path.iterdir()) == []
    assert found_by(zones, "--hints", str(tmp_path / "none" / "h.db"))[0] == ["hints-no-folder"]
    assert found_by(zones, "--hints", str(tmp_path))[0] == ["hints-no-journal"]
    (tmp_path / "notes.txt").write_text("a text")
    assert found_by(zones, "--hints", str(tmp_path / "notes.txt"))[0] == ["hints-no-journal"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_access_is_a_fault_of_hints(tmp_path):
    tmp_path.chmod(0o500)
    assert look_at(str(tmp_path / "h.db")).write_error == "Permission denied"


def test_a_full_disk_is_distinguished_from_other_errors(monkeypatch, tmp_path):
    def fail(number):
        def temporary(**_):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr("tempfile.TemporaryFile", temporary)
        return look_at(str(tmp_path / "h.db"))

    assert (fail(28).is_full, fail(122).is_full, fail(13).is_full) == (True, True, False)
    assert fail(13).write_error == "Permission denied"


def test_clients_are_the_connections_with_a_listener():
    reply = {
        "23:addr": "tcp:127.0.0.1:11211",
        "23:state": "conn_listening",
        "24:addr": "tcp:127.0.0.1:50992",
        "24:listen_addr": "tcp:127.0.0.1:11211",
    }
    assert clients_of(reply) == ("tcp:127.0.0.1:50992",)
    assert own_descriptors(reply) == 24
    assert clients_of({}) is None
    assert own_descriptors({}) is None


def test_the_verdicts_are_those_of_the_help():
    text = CliRunner().invoke(command_line, ["doctor", "--help"]).output
    assert all(verdict in text for verdict in Verdict)
    assert "evcache doctor --namespace sessions --hints /var/lib/sessions/hints.db" in text


def test_a_pipe_in_place_of_the_hints_is_a_fault_and_is_not_read(at, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert found_by(f"eu-1a={at['a']};eu-1b={at['b']}", "--hints", str(tmp_path / "pipe"))[0] == ["hints-no-journal"]


def test_a_disk_that_does_not_answer_ends_neither_the_time_limit_nor_the_end_of_the_command(at, monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(gather_module, "look_at", lambda _: released.wait(60))
    began = time.monotonic()
    try:
        done = doctor(f"eu-1a={at['a']};eu-1b={at['b']}", "--hints", "/mnt/x/h.db", "--timeout", "1")
    finally:
        released.set()
    assert time.monotonic() - began < 20
    assert done.exit_code == 1
    assert "no answer in time" in done.stdout


def test_a_disk_that_fails_is_a_fault_with_its_cause(at, monkeypatch):
    def fail(_):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(gather_module, "look_at", fail)
    names, result = found_by(f"eu-1a={at['a']};eu-1b={at['b']}", "--hints", "/mnt/x/h.db")
    assert names == ["hints-unwritable"]
    assert os.strerror(errno.ESTALE) in json.dumps(result)


@pytest.mark.parametrize("name", ["x", "", "--1"])
def test_a_descriptor_that_is_no_number_is_ignored(name):
    assert own_descriptors({f"{name}:state": "conn_listening", "7:state": "conn_listening"}) == 8
