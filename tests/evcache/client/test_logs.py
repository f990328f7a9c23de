"""Log records: one for each change, with the logger of its room, and none for calls."""

import ast
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

from evcache import CacheUnavailable
from evcache.zones import Mode, Topology, Zone
from tests.support.memory_zones import ChangingTopology, on_zones, pass_time

ROOT = Path(__file__).parents[3]
SOURCES = [path for package in ("zones", "evcache") for path in sorted((ROOT / package).rglob("*.py"))]


def said(caplog):
    """Return logger, level and text of each record, and clear the records."""
    records = [(record.name, record.levelname, record.getMessage()) for record in caplog.records]
    caplog.clear()
    return records


@on_zones()
async def test_a_zone_goes_and_comes_back(zones, caplog):
    """However many calls meet it."""
    caplog.set_level(logging.INFO)
    cache = await zones.ready(hints=None)
    assert said(caplog) == []
    await zones.kill("b")
    for _ in range(50):
        await cache.set("k", 1)
        await cache.get("k", consistency="all", errors="miss")
        await pass_time(0.1)
    assert said(caplog) == [
        ("evcache.zones.nodes", "WARNING", "node b/b0:11211 is down: [Errno 111] the server is not running"),
        ("evcache.zones.cluster", "WARNING", "zone b is ejected: 1 of 1 nodes are down; it is read last"),
    ]
    zones.restart("b")
    await pass_time(20)
    await cache.set("k", 1)
    assert said(caplog) == [
        ("evcache.zones.nodes", "INFO", "node b/b0:11211 recovered (memcached 1.6.38)"),
        ("evcache.zones.cluster", "INFO", "zone b recovered: it is read in its usual order"),
    ]


@on_zones()
async def test_the_topology_changes(zones, caplog):
    """Not when its source says the same again."""
    caplog.set_level(logging.INFO)
    a, b, c = zones.topology.zones
    source = ChangingTopology(Topology((a, b)))
    cache = zones.client(zones=source, topology_guard=None)
    await cache.set("k", 1)
    changes = [
        (Topology((a, b)), None),
        (Topology((a, b, c)), "topology changed: 1 nodes added, 0 removed; the zones are a, b, c"),
        (Topology((a, b, c)), None),
        (
            Topology((a, Zone("b", b.nodes, Mode.WRITE_ONLY))),
            "topology changed: 0 nodes added, 1 removed; the zones are a, b (write-only)",
        ),
    ]
    for topology, message in changes:
        source.change(topology)
        await pass_time()
        await cache.set("k", 1)
        assert said(caplog) == ([] if message is None else [("evcache.zones.cluster", "INFO", message)])


@on_zones(zones=2)
async def test_calls_log_nothing(zones, caplog):
    """Calls that hit, miss, have wrong arguments or fail are not logged, because their callers get the result."""
    caplog.set_level(logging.DEBUG, "evcache")
    caplog.set_level(logging.DEBUG, "zones")
    cache = await zones.ready(hints=None)
    await zones.kill("a", "b")
    await cache.set("k", 1, errors="miss")
    await pass_time(1)
    caplog.clear()
    for _ in range(20):
        with pytest.raises(CacheUnavailable):
            await cache.get("k")
        with pytest.raises(CacheUnavailable):
            await cache.set("k", 1)
        with pytest.raises(ValueError, match="key"):
            await cache.get("")
        assert await cache.get("k", errors="miss") is None
        assert await cache.get_many(["k"], errors="miss") == {}
    assert said(caplog) == []


def loggers():
    """Where loggers are asked for: the file, the line, and by which name (None: one that is computed)."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "logging.getLogger":
                yield path, node.lineno, ast.unparse(node.args[0]) if node.args else None


def test_loggers_are_named_after_modules():
    """So that a service can turn one of them, or all of a package, up or down."""
    found = list(loggers())
    assert len(found) > 15
    for path, line, name in found:
        if "cli" in path.parts:
            continue  # it is a program, and has the say there
        place = f"{path}:{line}"
        assert name is not None, place
        literal = re.fullmatch(r"'(evcache[.\w]*)'", name)
        assert name == "self.logger" or literal, place
        if literal:
            stem = ROOT.joinpath(*literal[1].split("."))
            assert stem.with_suffix(".py").exists() or stem.is_dir(), place


def test_nothing_is_printed_where_the_service_has_not_set_logging_up():
    """Python would print warnings of a library to stderr."""
    code = (
        "import logging, evcache\n"
        "for name in ('evcache', 'evcache.read_through', 'evcache.zones.nodes'):\n"
        "    logging.getLogger(name).warning('lost')\n"
        "assert logging.getLogger().handlers == [], 'the root logger is the services own'\n"
        "assert logging.getLogger('evcache.zones').level == logging.getLogger('evcache').level == 0\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
