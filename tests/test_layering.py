"""Imports only point down: what each module imports, read from its source."""

import ast
import tomllib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

# May be missing at run time, so they may be imported where they are used.
OPTIONAL = frozenset({"aiohttp", "atheris", "click", "dns", "docker", "rich", "testcontainers", "uvloop", "zstandard"})
# Modules of ours that need one of those, and are themselves imported only when that is wanted.
NEEDS_AN_EXTRA = frozenset(
    {
        "evcache.cli.commands",
        "evcache.testing.backends.docker",
        "evcache.zones.discovery.lookups.dns_queries",
        "evcache.zones.discovery.kubernetes.api",
    }
)

MOST_LINES = 400
MOST_MODULES = 13
# The public API on one page: each operation with its signature and its documentation, and one line of delegation.
ON_ONE_PAGE = "evcache.client"

IMPURE = frozenset({"asyncio", "concurrent", "datetime", "os", "random", "secrets", "select", "selectors", "signal", "socket"}) | {
    "ssl", "subprocess", "threading", "time",
}  # fmt: skip


class Import(NamedTuple):
    module: str
    """The module that imports."""
    target: str
    line: int
    in_function: bool
    for_types: bool
    """Under `if TYPE_CHECKING`: it never runs."""


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources():
    """Each module by the name by which it is imported. `evcache/zones` is a link to `zones`, so that the package owns one name."""
    found = {name_of(path): path for path in sorted((ROOT / "evcache").rglob("*.py")) if "zones" not in path.parts[-3:-1]}
    return found | {f"evcache.{name_of(path)}": path for path in sorted((ROOT / "zones").rglob("*.py"))}


SOURCES = sources()


def imports_of(module):
    """Every import, those in functions and under TYPE_CHECKING included."""
    found = []
    package = module if SOURCES[module].name == "__init__.py" else module.rpartition(".")[0]

    def visit(node, *, in_function, for_types):
        if isinstance(node, ast.Import):
            found.extend(Import(module, alias.name, node.lineno, in_function, for_types) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:  # `from evcache.zones.protocol import requests` imports a module
                inner = f"{source}.{alias.name}"
                found.append(Import(module, inner if inner in SOURCES else source, node.lineno, in_function, for_types))
        inside = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        typing = for_types or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        for child in ast.iter_child_nodes(node):
            visit(child, in_function=inside, for_types=typing)

    visit(ast.parse(SOURCES[module].read_text("utf-8")), in_function=False, for_types=False)
    return found


IMPORTS = {module: imports_of(module) for module in SOURCES}


def within(module, package):
    return module == package or module.startswith(f"{package}.")


def show(found):
    return [f"{one.module}:{one.line} imports {one.target}" for one in found]


def test_the_sources_are_found():
    assert {"evcache.zones.protocol.decoder", "evcache.zones.testing", "evcache.client", "evcache"} <= SOURCES.keys()
    assert {"evcache.zones.errors", "evcache.zones.protocol.replies"} <= {
        one.target for one in IMPORTS["evcache.zones.protocol.decoder"]
    }
    assert "evcache.zones.protocol.requests" in {one.target for one in IMPORTS["evcache.zones.nodes.handshake"]}


# The rooms from the top down. Rooms of one line do not import each other.
ORDER = """
    __main__
    cli testing
    admin
    client
    _runtime
    _lifecycle
    config
    telemetry
    decorators write_behind
    read_through
    writes
    reads
    stats readiness
    invalidation
    near_cache
    interop
    replication
    channels
    _cluster_access
    options
    values
    load_policy
    _helpers
    hooks
    results consistency errors compatibility
    zones.testing
    zones
    zones.cluster
    zones.discovery
    zones.snapshot
    zones.zone_pool zones.zone_traffic zones.admin
    zones.nodes
    zones.transport
    zones.health
    zones.routing
    zones.topology
    zones.protocol
    zones.validation
    zones._tasks zones._pause zones._live
    zones.errors
"""
ORDER = [{f"evcache.{room}" for room in line.split()} for line in ORDER.strip().splitlines()]
RANKS = {room: rank for rank, line in enumerate(ORDER) for room in line}


def room_of(module):
    """Return the room of a module: the longest name in `ORDER` that holds it."""
    return max((room for room in RANKS if within(module, room)), key=len, default=None)


def test_every_module_is_in_a_room():
    assert [module for module in SOURCES if module != "evcache" and room_of(module) is None] == []
    assert [room for room in RANKS if not any(within(module, room) for module in SOURCES)] == []


def points_up(module, target):
    return RANKS[room_of(target)] < RANKS[room_of(module)]


@pytest.mark.parametrize("module", [module for module in SOURCES if module != "evcache"])
def test_a_room_imports_from_rooms_below_it_only(module):
    """A room imports from rooms after it in `ORDER` only, and never what the package exports."""
    targets = [one for one in IMPORTS[module] if within(one.target, "evcache")]
    wrong = [one for one in targets if one.target == "evcache" or points_up(module, one.target)]
    assert show(wrong) == []


def test_an_import_that_points_up_is_found():
    assert points_up("evcache.values.keys", "evcache.client")
    assert points_up("evcache.zones.transport.base", "evcache.zones.nodes.node")
    assert not points_up("evcache.client", "evcache.values.keys")
    assert not points_up("evcache.replication.hlc", "evcache.zones.errors")


def test_no_room_has_more_than_13_modules():
    """A newcomer reads the names of a room at one glance. Python gives the names of `__init__` and `__main__`."""
    rooms = Counter(path.parent for path in SOURCES.values() if path.name not in {"__init__.py", "__main__.py"})
    assert {str(room): number for room, number in rooms.items() if number > MOST_MODULES} == {}


def test_no_file_is_longer_than_400_lines():
    long = {module: len(path.read_text("utf-8").splitlines()) for module, path in SOURCES.items()}
    assert {module: lines for module, lines in long.items() if lines > MOST_LINES and module != ON_ONE_PAGE} == {}


def test_zones_knows_nothing_of_evcache():
    """Transport and topology can be used, tested and understood without values and policies."""
    wrong = [
        one
        for module in SOURCES
        if within(module, "evcache.zones")
        for one in IMPORTS[module]
        if within(one.target, "evcache") and not within(one.target, "evcache.zones")
    ]
    assert show(wrong) == []


def test_the_protocol_has_no_io_and_no_clock():
    """Also not through a module of ours that it imports."""
    reached = [module for module in SOURCES if within(module, "evcache.zones.protocol")]
    for module in reached:
        reached += [one.target for one in IMPORTS[module] if one.target in SOURCES and one.target not in reached]
    wrong = [one for module in reached for one in IMPORTS[module] if one.target.partition(".")[0] in IMPURE]
    assert show(wrong) == []
    assert {module for module in reached if not within(module, "evcache.zones.protocol")} == {"evcache.zones.errors"}


def test_only_zones_encodes_requests():
    """Above zones, a request is a call of a `Transport` method with plain arguments."""
    assert "evcache.zones.protocol.requests" in SOURCES
    wrong = [
        one
        for module in SOURCES
        if not within(module, "evcache.zones")
        for one in IMPORTS[module]
        if within(one.target, "evcache.zones.protocol.requests")
    ]
    assert show(wrong) == []


def test_only_telemetry_knows_opentelemetry():
    assert any(within(one.target, "opentelemetry") for one in IMPORTS["evcache.telemetry.activation"])
    wrong = [
        one
        for module in SOURCES
        if not within(module, "evcache.telemetry")
        for one in IMPORTS[module]
        if within(one.target, "opentelemetry")
    ]
    assert show(wrong) == []


def test_telemetry_knows_the_api_alone():
    """Which does nothing by itself: a service that wants more installs an SDK, and chooses it. And nothing private of it."""
    api = {"opentelemetry", "opentelemetry.context", "opentelemetry.metrics", "opentelemetry.trace"}
    ours = [module for module in SOURCES if within(module, "evcache.telemetry")]
    reached = {one.target for module in ours for one in IMPORTS[module] if within(one.target, "opentelemetry")}
    assert reached <= api
    assert [name for name in ("opentelemetry-sdk", "exporter") if name in dependencies()] == []
    assert "opentelemetry-api" in dependencies()


def dependencies():
    """What is installed with the package itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return " ".join(project["dependencies"])


def test_only_the_classic_transport_knows_aiomcache():
    wrong = [
        one
        for module in SOURCES
        if not within(module, "evcache.zones.transport")
        for one in IMPORTS[module]
        if within(one.target, "aiomcache")
    ]
    assert show(wrong) == []


def test_test_servers_are_not_needed_by_anything_but_tests():
    wrong = [
        one
        for module in SOURCES
        if not within(module, "evcache.zones.testing")
        and not within(module, "evcache.testing")
        and not within(module, "evcache.cli")
        for one in IMPORTS[module]
        if within(one.target, "evcache.zones.testing") or within(one.target, "evcache.testing")
    ]
    assert show(wrong) == []


def test_imports_form_no_cycle():
    graph = {
        module: sorted({one.target for one in IMPORTS[module] if one.target in SOURCES and not one.for_types} - {module})
        for module in SOURCES
    }
    assert cycles(graph) == []


def cycles(graph):
    """Each cycle that a walk from every module finds, as the list of its modules."""
    found, finished = [], set()

    def walk(module, path):
        if module in path:
            found.append([*path[path.index(module) :], module])
        elif module not in finished:
            for target in graph[module]:
                walk(target, [*path, module])
            finished.add(module)

    for module in graph:
        walk(module, [])
    return found


def test_cycles_are_found():
    assert cycles({"a": ["b"], "b": ["c"], "c": []}) == []
    assert cycles({"a": ["b"], "b": ["c"], "c": ["b"]}) == [["b", "c", "b"]]


def test_imports_stand_at_the_top():
    """Except those of packages that may not be installed."""
    wrong = [
        one
        for module in SOURCES
        for one in IMPORTS[module]
        if one.in_function and one.target.partition(".")[0] not in OPTIONAL and one.target not in NEEDS_AN_EXTRA
    ]
    assert show(wrong) == []


def test_what_is_imported_late_for_an_extra_needs_one():
    for module in NEEDS_AN_EXTRA & SOURCES.keys():
        packages = {one.target.partition(".")[0] for one in IMPORTS[module] if not one.in_function and not one.for_types}
        assert packages & OPTIONAL, module
