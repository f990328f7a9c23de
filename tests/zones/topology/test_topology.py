"""Zones and nodes are read from four forms, written back, compared; and what is malformed says where."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evcache.zones.errors import InvalidTopology
from evcache.zones.topology.model import Endpoint, Mode, Topology, Zone, difference
from evcache.zones.topology.parsing import DEFAULT_PORT

quick = settings(deadline=None, derandomize=True, database=None, max_examples=200)


def tcp(host, port=DEFAULT_PORT, label=None):
    host_port = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return Endpoint(host, port, "", label or host_port)


def unix(path, label=None):
    return Endpoint("", 0, path, label or path)


ENDPOINTS = {
    "cache-1": tcp("cache-1"),
    "cache-1:11212": tcp("cache-1", 11212),
    "cache-1.eu.example.org:1": tcp("cache-1.eu.example.org", 1),
    "10.0.1.4:65535": tcp("10.0.1.4", 65535),
    "10.0.1.4": tcp("10.0.1.4"),
    "[::1]": tcp("::1"),
    "[::1]:11212": tcp("::1", 11212),
    "[fe80::1%eth0]:11211": tcp("fe80::1%eth0"),
    "unix:/run/memcached.sock": unix("/run/memcached.sock"),
    "/run/memcached.sock": unix("/run/memcached.sock"),
    "a@cache-1:11211": tcp("cache-1", 11211, "a"),
    "a@cache-1": tcp("cache-1", 11211, "a"),
    "a@[::1]:11212": tcp("::1", 11212, "a"),
    "a@unix:/run/memcached.sock": unix("/run/memcached.sock", "a"),
    "a@/run/memcached.sock": unix("/run/memcached.sock", "a"),
    "10.0.0.1/10.0.0.1:11211@10.0.0.1:11211": tcp("10.0.0.1", 11211, "10.0.0.1/10.0.0.1:11211"),
    "  cache-1:11211\n": tcp("cache-1"),
    "unix:/run/memcached@1.sock": unix("/run/memcached@1.sock"),
    "a@unix:/run/memcached@1.sock": unix("/run/memcached@1.sock", "a"),
}


@pytest.mark.parametrize("text", ENDPOINTS)
def test_an_endpoint_is_read(text):
    assert Endpoint.parse(text) == ENDPOINTS[text]


@pytest.mark.parametrize("text", ENDPOINTS)
def test_an_endpoint_is_written_as_it_can_be_read(text):
    endpoint = ENDPOINTS[text]
    assert Endpoint.parse(str(endpoint)) == endpoint
    assert Endpoint.parse(endpoint.address, endpoint.label) == endpoint


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("cache-1", "cache-1:11211"),
        ("[::1]", "[::1]:11211"),
        ("/run/m.sock", "unix:/run/m.sock"),
        ("a@cache-1", "a@cache-1:11211"),
        ("cache-1:11211@cache-1", "cache-1:11211"),
    ],
)
def test_an_endpoint_is_written_in_full_and_with_a_label_only_if_it_has_its_own(text, written):
    assert str(Endpoint.parse(text)) == written


def test_a_label_that_is_given_is_used_instead_of_the_written_one():
    assert Endpoint.parse("a@cache-1", "b") == tcp("cache-1", 11211, "b")


NO_ENDPOINTS = [
    "", " ", ":", ":11211", "cache-1:", "cache-1:0", "cache-1:65536", "cache-1:-1", "cache-1:+1", "cache-1:1_1", "cache-1:x",
    "cache-1:11211:11211", "::1", "fe80::1", "[::1", "[::1]11211", "[::1]:", "[]:11211", "[]", "cache 1:11211", "cache-1: 11211",
    "cache-1 :11211", "a,b:1", "a;b:1", "a=b:1", "cache-1/x:1", "http://cache-1:11211", "unix:", "unix:memcached.sock",
    "./memcached.sock", "@cache-1", "@", "a b@cache-1", "ä@cache-1", "a\0b@cache-1", "/run/my cache.sock", "/run/käse.sock",
    "cache-1:\u0661\u0661", "x" * 256 + "@cache-1", "a@", "a@:1", "cache-1:" + "9" * 10,
    pytest.param("cache-1:" + "9" * 5_000, id="a port of 5,000 digits"),
]  # fmt: skip


@pytest.mark.parametrize("text", NO_ENDPOINTS)
def test_what_is_no_endpoint_is_an_invalid_topology_that_names_zones(text):
    with pytest.raises(InvalidTopology) as caught:
        Endpoint.parse(text)
    assert caught.value.argument == "zones"
    assert str(caught.value).startswith("zones: ")
    assert repr(text) in str(caught.value)


@quick
@given(st.text(st.sampled_from("ab.:@/[]=;, 019-u\0ä\u0661"), max_size=12), st.one_of(st.none(), st.text(max_size=4)))
def test_any_text_is_an_endpoint_that_can_be_written_and_read_or_an_invalid_topology(text, label):
    try:
        endpoint = Endpoint.parse(text, label)
    except InvalidTopology:
        return
    assert Endpoint.parse(str(endpoint)) == endpoint
    assert Endpoint.parse(endpoint.address, endpoint.label) == endpoint


A, B, C = tcp("10.0.1.4"), tcp("10.0.1.5"), tcp("10.0.2.4")
TWO_ZONES = Topology((Zone("eu-1a", (A, B)), Zone("eu-1b", (C,), Mode.WRITE_ONLY)))

STANDBY_FORMS = {
    "mapping": lambda: Topology.from_mapping({"a": ["h:1"], "b": Zone("b", (tcp("h", 2),), Mode.STANDBY)}),
    "node list": lambda: Topology.from_node_list("a=h:1; b ? = h:2"),
    "TOML": lambda: Topology.from_toml('[zones]\na = {nodes = ["h:1"]}\nb = {nodes = ["h:2"], mode = "standby"}'),
}


@pytest.mark.parametrize("form", STANDBY_FORMS)
def test_a_topology_can_have_standby_zones(form):
    topology = STANDBY_FORMS[form]()
    assert [zone.mode for zone in topology.zones] == [Mode.READ_WRITE, Mode.STANDBY]
    assert [zone.name for zone in topology.readable] == ["a"]
    assert [zone.name for zone in topology.standby] == ["b"]
    assert topology.names_and_modes == "a, b (standby)"


FORMS = {
    "mapping": lambda: Topology.from_mapping(
        {"eu-1a": ["10.0.1.4:11211", "10.0.1.5"], "eu-1b": Zone("eu-1b", (C,), Mode.WRITE_ONLY)}
    ),
    "mapping of endpoints": lambda: Topology.from_mapping(
        {"eu-1a": (A, "10.0.1.5:11211"), "eu-1b": Zone("eu-1b", (C,), Mode("write-only"))}
    ),
    "mapping of generators": lambda: Topology.from_mapping(
        {"eu-1a": (node for node in (A, B)), "eu-1b": Zone("eu-1b", (C,), Mode.WRITE_ONLY)}
    ),
    "node list": lambda: Topology.from_node_list("eu-1a=10.0.1.4:11211,10.0.1.5:11211;eu-1b!=10.0.2.4:11211"),
    "node list with spaces and an end": lambda: Topology.from_node_list(
        "\n eu-1a = 10.0.1.4 , 10.0.1.5:11211, ;\n eu-1b ! = 10.0.2.4 ;\n"
    ),
    "TOML": lambda: Topology.from_toml(
        """
        [zones.eu-1a]
        nodes = ["10.0.1.4:11211", "10.0.1.5"]
        mode = "read-write"
        [zones.eu-1b]
        nodes = ["10.0.2.4:11211"]
        mode = "write-only"
        """
    ),
    "TOML with inline tables": lambda: Topology.from_toml(
        """
        something-else = 1
        [zones]
        eu-1a = {nodes = [{address = "10.0.1.4"}, {address = "10.0.1.5:11211"}]}
        eu-1b = {nodes = [{address = "10.0.2.4", label = "10.0.2.4:11211"}], mode = "write-only"}
        """
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_gives_the_same_topology(form):
    assert FORMS[form]() == TWO_ZONES


def test_labels_are_read_in_each_form():
    expected = Topology((Zone("z", (tcp("h", 1, "a"),)),))
    assert Topology.from_mapping({"z": ["a@h:1"]}) == expected
    assert Topology.from_node_list("z=a@h:1") == expected
    assert Topology.from_toml('[zones.z]\nnodes = ["a@h:1"]') == expected
    assert Topology.from_toml('[zones.z]\nnodes = [{address = "h:1", label = "a"}]') == expected


def test_a_topology_can_be_written_as_a_node_list():
    written = ";".join(
        f"{zone.name}{'!' if zone.mode is Mode.WRITE_ONLY else ''}={','.join(map(str, zone.nodes))}"
        for zone in TWO_ZONES.zones
    )
    assert Topology.from_node_list(written) == TWO_ZONES


def test_the_order_of_zones_and_nodes_is_kept():
    topology = Topology.from_node_list("b=h:2,h:1;a=h:3")
    assert [zone.name for zone in topology.zones] == ["b", "a"]
    assert [node.port for node in topology.zones[0].nodes] == [2, 1]


def test_write_only_zones_are_not_readable():
    assert [zone.name for zone in TWO_ZONES.readable] == ["eu-1a"]


def test_a_zone_is_found_by_name():
    assert TWO_ZONES.zone("eu-1b") == TWO_ZONES.zones[1]
    assert TWO_ZONES.zone("eu-1") is None


@pytest.mark.parametrize("name", ["a", "eu-1a", "A.b_c-9", "0", "x" * 63])
def test_zone_names(name):
    assert Zone(name, (A,)).name == name


NO_ZONE_NAMES = ["", " ", "-a", ".a", "_a", "a b", "ä", "a\n", "a/b", "a!", "x" * 64]


@pytest.mark.parametrize("name", NO_ZONE_NAMES)
def test_what_is_no_zone_name(name):
    with pytest.raises(InvalidTopology, match="^zones: zone name") as caught:
        Zone(name, (A,))
    assert repr(name) in str(caught.value)


MALFORMED = {
    "no zones in a mapping": (lambda: Topology.from_mapping({}), "there are none"),
    "a name that is no text": (lambda: Topology.from_mapping({1: ["h:1"]}), "1"),
    "a text for a list": (lambda: Topology.from_mapping({"a": "h:1"}), "zone 'a'"),
    "bytes for a list": (lambda: Topology.from_mapping({"a": b"h:1"}), "zone 'a'"),
    "None for a list": (lambda: Topology.from_mapping({"a": None}), "zone 'a'"),
    "a number for a node": (lambda: Topology.from_mapping({"a": [11211]}), "zone 'a'"),
    "bytes for a node": (lambda: Topology.from_mapping({"a": [b"h:1"]}), "zone 'a'"),
    "a pair for a node": (lambda: Topology.from_mapping({"a": [("h", 1)]}), "zone 'a'"),
    "a bad node": (lambda: Topology.from_mapping({"a": ["h:x"]}), "'h:x'"),
    "no nodes": (lambda: Topology.from_mapping({"a": []}), "zone 'a' has no nodes"),
    "a label twice in a zone": (lambda: Topology.from_mapping({"a": ["x@h:1", "x@h:2"]}), "'x'"),
    "a node twice in a zone": (lambda: Topology.from_mapping({"a": ["h", "h:11211"]}), "'h:11211'"),
    "a zone twice": (lambda: Topology((Zone("a", (A,)), Zone("a", (B,)))), "a zone is named twice: a"),
    "a zone twice in a node list": (lambda: Topology.from_node_list("a=h:1;a=h:2"), "named twice"),
    "a zone twice, once write-only": (lambda: Topology.from_node_list("a=h:1;a!=h:2"), "named twice"),
    "nothing to read": (lambda: Topology.from_node_list("a!=h:1;b!=h:2"), "all zones are write-only, so none can be read"),
    "only standby zones": (lambda: Topology.from_node_list("a?=h:1"), "all zones are standby, so none can be read"),
    "no read-write zone": (lambda: Topology.from_node_list("a?=h:1;b!=h:2"), "are write-only or standby, so none"),
    "two marks": (lambda: Topology.from_node_list("a=h:1;b?!=h:2"), "zone name 'b?'"),
    "only a standby mark for a name": (lambda: Topology.from_node_list("?=h:1"), "zone name ''"),
    "an empty node list": (lambda: Topology.from_node_list(""), "zone 1"),
    "a node list of ends": (lambda: Topology.from_node_list(";;"), "zone 1"),
    "a zone without =": (lambda: Topology.from_node_list("a=h:1;h:2"), "zone 2"),
    "a zone without name": (lambda: Topology.from_node_list("a=h:1;b=h:2;=h:3"), "zone 3"),
    "a gap between zones": (lambda: Topology.from_node_list("a=h:1;;b=h:2"), "zone 2"),
    "only a mark for a name": (lambda: Topology.from_node_list("!=h:1"), "zone name ''"),
    "a zone of the list without nodes": (lambda: Topology.from_node_list("a=;b=h:1"), "zone 'a' has no nodes"),
    "a bad node in the list": (lambda: Topology.from_node_list("a=h:1,h:x"), "'h:x'"),
    "an = in a node": (lambda: Topology.from_node_list("a=b=h:1"), "'b=h:1'"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_malformed_names_the_argument_and_the_culprit(name):
    make, culprit = MALFORMED[name]
    with pytest.raises(InvalidTopology) as caught:
        make()
    assert caught.value.argument == "zones"
    assert culprit in str(caught.value)


# The line that must be named is marked; without a mark, the problem is the whole file's.
TOML = {
    "not TOML": "[zones.a]\nnodes = [   # here\n",
    "no zones": "x = 1\n",
    "empty": "",
    "zones is a number": "x = 1\nzones = 1  # here\n",
    "zones is a list": "zones = []  # here\n",
    "an empty table of zones": "x = 1\n[zones]\n",
    "a zone is a number": "[zones]\nx = 1  # here\n",
    "a zone without nodes": '[zones.a]\nnodes = ["h:1"]\n[zones.bcd]  # here\nmode = "read-write"\n',
    "a text for a list": '[zones.a]  # here\nnodes = "h:1"\n',
    "an empty list": "[zones.a]  # here\nnodes = []\n",
    "a number for a node": "[zones.a]  # here\nnodes = [11211]\n",
    "a list for a node": '[zones.a]  # here\nnodes = [["h:1"]]\n',
    "a node without address": '[zones.a]  # here\nnodes = [{label = "x"}]\n',
    "a node with an address that is a number": "[zones.a]  # here\nnodes = [{address = 1}]\n",
    "a node with a label that is a number": '[zones.a]  # here\nnodes = [{address = "h:1", label = 5}]\n',
    "a node with something else": '[zones.a]  # here\nnodes = [{address = "h:1", port = 2}]\n',
    "a bad node": '[zones.a]\nnodes = ["h:1"]\n[zones.bcd]  # here\nnodes = ["h:x"]\n',
    "an unknown setting": '[zones.a]\nnodes = ["h:1"]\nwieght = 2  # here\n',
    "an unknown mode": '[zones.a]\nnodes = ["h:1"]\nmode = "read-only"  # here\n',
    "a mode that is a number": '[zones.a]\nnodes = ["h:1"]\nmode = 77  # here\n',
    "a mode that is true": '[zones.a]\nnodes = ["h:1"]\nmode = true  # here\n',
    "a mode that is a list": '[zones.a]\nnodes = ["h:1"]\nmode = ["write-only"]  # here\n',
    "a bad zone name": '[zones.a]\nnodes = ["h:1"]\n[zones."b c"]  # here\nnodes = ["h:2"]\n',
    "an empty zone name": '[zones.a]\nnodes = ["h:1"]\n[zones.""]  # here\nnodes = ["h:2"]\n',
    "a label twice": '[zones.a]\nnodes = ["h:1"]\n[zones.bcd]  # here\nnodes = ["x@h:1", "x@h:2"]\n',
    "a zone whose name begins another's": '[zones.eu-10]\nnodes = ["h:1"]\n[zones.eu-1]  # here\nnodes = []\n',
    "a zone whose name is in a comment": '# zones: eu-1\n[zones.a]\nnodes = ["h:1"]\n[zones.eu-1]  # here\nnodes = []\n',
    "nothing to read": '[zones.a]\nnodes = ["h:1"]\nmode = "write-only"\n',
    "standby alone": '[zones.a]\nnodes = ["h:1"]\nmode = "standby"\n',
}


@pytest.mark.parametrize("name", TOML)
def test_malformed_toml_names_the_file_and_the_line(name):
    text = TOML[name]
    with pytest.raises(InvalidTopology) as caught:
        Topology.from_toml(text, "zones.toml")
    assert caught.value.argument == "zones"
    assert "zones.toml" in str(caught.value)
    marked = [number for number, line in enumerate(text.splitlines(), 1) if "# here" in line]
    if name == "not TOML":  # tomllib gives the line and column itself; it notices at the end
        assert "at line" in str(caught.value) or "at end of document" in str(caught.value)
    elif marked:
        assert f"zones.toml, line {marked[0]}: " in str(caught.value)


@quick
@given(
    st.recursive(
        st.one_of(st.integers(0, 99999), st.booleans(), st.sampled_from(["h:1", "a@h:2", "write-only", "/s", ""])),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["nodes", "mode", "address", "label", "a"]), inner)
        ),
        max_leaves=8,
    )
)
def test_any_toml_is_a_topology_or_an_invalid_topology(value):
    with contextlib.suppress(InvalidTopology):
        Topology.from_toml(f"zones = {toml(value)}")


def toml(value):
    match value:
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case str():
            return f'"{value}"'
        case list():
            return f"[{', '.join(map(toml, value))}]"
        case _:
            return f"{{{', '.join(f'{key} = {toml(inner)}' for key, inner in value.items())}}}"


@pytest.mark.parametrize(
    ("before", "after", "added", "removed"),
    [
        (None, "a=h:1,h:2", ["a h:1", "a h:2"], []),
        ("a=h:1", "a=h:1", [], []),
        ("a=h:1,h:2", "a=h:2,h:1", [], []),
        ("a=h:1", "a=h:1,h:2", ["a h:2"], []),
        ("a=h:1,h:2", "a=h:2", [], ["a h:1"]),
        ("a=h:1;b=h:2", "a=h:1", [], ["b h:2"]),
        ("a=h:1", "a=h:1;b=h:1", ["b h:1"], []),
        ("a=h:1", "b=h:1", ["b h:1"], ["a h:1"]),
        ("a=x@h:1", "a=x@h:2", ["a x@h:2"], ["a x@h:1"]),
        ("a=x@h:1", "a=y@h:1", ["a y@h:1"], ["a x@h:1"]),
        ("a=h:1;b=h:2", "a=h:1;b!=h:2", [], []),
        ("a=h:1;b?=h:2", "a?=h:1;b=h:2", [], []),
        ("a=h:1;b=h:2", "b=h:2;a=h:1", [], []),
    ],
)
def test_difference(before, after, added, removed):
    change = difference(None if before is None else Topology.from_node_list(before), Topology.from_node_list(after))
    written = [[f"{zone} {node}" for zone, node in places] for places in (change.added, change.removed)]
    assert written == [added, removed]


node_sets = st.dictionaries(
    st.sampled_from(["a", "b", "c"]),
    st.lists(st.integers(1, 6), min_size=1, max_size=4, unique=True).map(lambda ports: [f"h:{port}" for port in ports]),
    min_size=1,
).map(Topology.from_mapping)


@quick
@given(node_sets, node_sets)
def test_a_difference_leads_from_one_topology_to_the_other(before, after):
    def places(topology):
        return {(zone.name, node) for zone in topology.zones for node in zone.nodes}

    change = difference(before, after)
    assert (places(before) - set(change.removed)) | set(change.added) == places(after)


def test_topologies_are_values():
    assert len({FORMS["TOML"](), FORMS["mapping"](), TWO_ZONES, zones_of("a=h:1")}) == 2


def zones_of(text):
    return Topology.from_node_list(text)
