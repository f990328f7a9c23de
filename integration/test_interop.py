"""This client and the EVCache client for the JVM, on the same servers."""

import asyncio
from pathlib import Path

import pytest

from evcache import DecodeError, EVCache, LoadPolicy, Unsupported
from evcache.interop import Interop, InteropCodec, JavaObject
from evcache.zones.routing.ketama import Ring, ring_position
from integration.interop_matrix import BOTH, FORMS, ROWS, is_read, is_same, table, to_python, verdict
from integration.jvm import JavaValue, JvmClient
from integration.patience import PATIENT_NODES
from integration.raw import ask, item

PAGE = Path(__file__).parents[1] / "docs" / "interop.md"
RACES = 600
TEXT = JavaValue("String", "text")


def app_of(form):
    return f"EVCACHE_{FORMS.index(form)}"


@pytest.fixture(scope="module")
def jvms(java, addressed_zones):
    """A JVM for the forms without properties of groups, and one for each other form."""
    started = {}
    with_groups = [form for form in FORMS if form.group_properties]
    batches = [[form for form in FORMS if not form.group_properties], *([form] for form in with_groups)]

    def jvm_of(form):
        (batch,) = (batch for batch in batches if form in batch)
        key = app_of(batch[0])
        if key not in started:
            properties = {f"{app_of(one)}.{name}": value for one in batch for name, value in one.properties.items()}
            properties |= batch[0].group_properties
            apps = [app_of(one) for one in batch]
            jvm = JvmClient(java, addressed_zones.zones, apps, local_zone="g0", properties=properties)
            started[key] = jvm.__enter__()
        return started[key]

    yield jvm_of
    for jvm in started.values():
        jvm.__exit__(None, None, None)


class Pair:
    """Both clients of a namespace in one key form."""

    def __init__(self, form, jvm, zones, namespace):
        self.form = form
        self.namespace = namespace
        self.java = jvm.cache(app_of(form), prefix=form.prefix(namespace))
        self._zones = zones

    def key(self, name):
        """Return a key that no other test uses, in the form."""
        own = name if self.form.has_prefix else f"{self.namespace}-{name}"
        return own + self.form.ending

    def python(self, **options):
        """Return a client. Its zones are written as a user would write them."""
        options = {"local_zone": "g0", "interop": self.form.interop, "write_consistency": "all", **options}
        return EVCache(self.namespace, self._zones.zones, read_timeout=30, write_timeout=30, nodes=PATIENT_NODES, **options)

    def versioned(self, **options):
        """Return a client without interop mode, whose nodes have the labels of the JVM client."""
        zones = {
            zone: [f"{address.partition(':')[0]}/{address}" for address in nodes]
            for zone, nodes in self._zones.zones.items()
        }
        options = {"local_zone": "g0", "write_consistency": "all", **options}
        return EVCache(self.namespace, zones, read_timeout=30, write_timeout=30, nodes=PATIENT_NODES, **options)

    def run(self, test):
        async def main():
            async with self.python() as cache:
                await test(cache)

        asyncio.run(main())

    def items(self, name):
        """Return the items of the servers whose key has this name and no chunk, prefix or hash: value and flags."""
        found = [item(address, f"{self.namespace}:{name}") for nodes in self._zones.zones.values() for address in nodes]
        return [one[:2] for one in found if one is not None]


@pytest.fixture
def pair(jvms, addressed_zones, namespace):
    def pair(name):
        (form,) = (form for form in FORMS if form.name == name)
        return Pair(form, jvms(form), addressed_zones, namespace)

    return pair


@pytest.fixture(params=FORMS, ids=lambda form: form.name)
def each_pair(request, jvms, addressed_zones, namespace):
    return Pair(request.param, jvms(request.param), addressed_zones, namespace)


VALUES = {f"{row}-{number}": (row, value) for row, values in ROWS.items() for number, value in enumerate(values)}
NAMES = {name: f"v{number}" for number, name in enumerate(VALUES)}


async def read_by_python(pair, names):
    """Return what Python reads: from each zone, alone and in bulk, by name. A DecodeError counts as what was read."""
    found = {name: [] for name in names}
    codec = InteropCodec(java_objects="raw")
    for zone in ("g0", "g1"):
        async with pair.python(local_zone=zone, fallback_on_miss=False, codec=codec) as cache:
            keys = {name: pair.key(f"j{NAMES[name]}") for name in names}
            many = await cache.get_many(list(keys.values()))
            for name, key in keys.items():
                found[name] += [await cache.get(key), many.get(key)]
    return found


async def write_by_python(pair, names):
    """Write the values of these names that Python has a form for, from each row half alone and half in bulk."""
    async with pair.python() as cache:
        for name in names:
            value = to_python(VALUES[name][1])
            assert await cache.set(pair.key(f"s{NAMES[name]}"), value)
        assert all((await cache.set_many({pair.key(f"m{NAMES[n]}"): to_python(VALUES[n][1]) for n in names})).values())


def cells_of(pair):
    """Write every value in both directions. Return the verdict of each row."""
    to_java = {row: row != "serialised object" for row in ROWS}
    written = pair.java.set_many({pair.key(f"j{NAMES[name]}"): value for name, (_, value) in VALUES.items()})
    assert all(report.groups == (True, True) for report in written)
    found = asyncio.run(read_by_python(pair, list(VALUES)))
    into_python = dict.fromkeys(ROWS, True)
    for name, (row, value) in VALUES.items():
        into_python[row] &= all(is_read(value, one) for one in found[name])
    names = [name for name, (row, _) in VALUES.items() if to_java[row]]
    asyncio.run(write_by_python(pair, names))
    many = pair.java.get_bulk([pair.key(f"m{NAMES[name]}") for name in names])
    for name in names:
        row, value = VALUES[name]
        alone = pair.java.get(pair.key(f"s{NAMES[name]}"))
        to_java[row] &= is_same(value, alone) and is_same(value, many[pair.key(f"m{NAMES[name]}")])
    return {row: verdict(to_python=into_python[row], to_java=to_java[row]) for row in ROWS}


def test_each_value_is_read_as_the_page_says(each_pair):
    """The table of the page is what was measured here."""
    cells = cells_of(each_pair)
    line = table({each_pair.form.name: cells})[-1]
    assert line in PAGE.read_text("utf-8").splitlines(), line
    assert {cell for row, cell in cells.items() if row != "serialised object"} == {BOTH}


def test_the_page_has_each_form(namespace):
    del namespace
    lines = PAGE.read_text("utf-8").splitlines()
    start = lines.index(table({})[0])
    names = [line.split("|")[1].strip() for line in lines[start + 2 : start + 2 + len(FORMS)]]
    assert names == [form.name for form in FORMS]


def test_a_serialised_object_is_an_error_unless_it_is_asked_for(pair):
    both = pair("prefix")
    both.java.set("list", JavaValue("Object", ["a"]))

    async def test(cache):
        with pytest.raises(DecodeError, match="Java-serialized"):
            await cache.get("list")
        async with both.python(interop=Interop(java_objects="raw")) as raw:
            value = await raw.get("list")
            assert isinstance(value, JavaObject)
            assert await raw.set("copy", value)

    both.run(test)
    assert both.java.get("copy") == JavaValue("Object", ["a"])


# Operations.


def test_what_one_side_deletes_is_gone_for_the_other(each_pair):
    both = each_pair
    long = JavaValue("String", "x" * 5_000)
    names = {"small": TEXT, "long": long}
    for name, value in names.items():
        for writer in "jp":
            both.java.set(both.key(f"{writer}-{name}"), value)

    async def test(cache):
        for name, value in names.items():
            assert await cache.delete(both.key(f"j-{name}"))
            await cache.set(both.key(f"p-{name}"), value.value)

    both.run(test)
    for name in names:
        assert both.java.get(both.key(f"j-{name}")).is_null
        assert both.java.get_bulk([both.key(f"j-{name}")])[both.key(f"j-{name}")].is_null
        both.java.delete(both.key(f"p-{name}"))

    async def gone(cache):
        for zone in ("g0", "g1"):
            async with both.python(local_zone=zone, fallback_on_miss=False) as reader:
                assert await reader.get_many([both.key(f"p-{name}") for name in names]) == {}
        assert await cache.get(both.key("p-long")) is None

    both.run(gone)


def test_a_value_of_one_side_replaces_that_of_the_other(each_pair):
    """Whole over chunks and chunks over whole, from both sides."""
    both, key = each_pair, each_pair.key("k")
    sizes = (5_000, 3, 9_000, 1)

    async def replace(cache):
        for size in sizes:
            both.java.set(key, JavaValue("String", "j" * size))
            assert await cache.get(key, consistency="all") == "j" * size
            assert await cache.set(key, "p" * size)
            assert both.java.get(key) == JavaValue("String", "p" * size)
            assert both.java.get_bulk([key])[key] == JavaValue("String", "p" * size)

    both.run(replace)


def test_touches_and_lifetimes_are_those_of_the_other_side(each_pair):
    both, key = each_pair, each_pair.key("k")

    async def touch(cache):
        both.java.set(key, JavaValue("String", "x" * 5_000), ttl=100)
        assert 95 <= (await cache.get_item(key)).ttl <= 100
        assert await cache.touch(key, 500)
        assert 495 <= (await cache.get_item(key)).ttl <= 500
        both.java.touch(key, 1_000)
        assert 995 <= (await cache.get_item(key)).ttl <= 1_000
        assert not await cache.touch(both.key("missing"), 500)

    both.run(touch)
    assert both.java.get(key) == JavaValue("String", "x" * 5_000)


def test_a_ttl_over_30_days_is_a_date_on_both_sides(pair):
    both = pair("prefix")
    days = 40 * 24 * 3600

    async def test(cache):
        assert await cache.set("k", "v", ttl=days)
        assert days - 60 <= (await cache.get_item("k")).ttl <= days + 1  # servers round a date to their seconds

    both.run(test)
    assert both.java.get("k") == JavaValue("String", "v")


@pytest.mark.parametrize("name", ["prefix", "hashed, siphash24", "hashed by one group"])
def test_conditional_writes_see_the_values_of_the_other_side(pair, name):
    both = pair(name)
    both.java.set(both.key("k"), TEXT)

    async def test(cache):
        assert not await cache.add(both.key("k"), "other")
        assert await cache.replace(both.key("k"), "second")
        assert await cache.add(both.key("new"), "first")
        assert not await cache.replace(both.key("none"), "x")

    both.run(test)
    assert both.java.get(both.key("k")) == JavaValue("String", "second")
    assert both.java.add(both.key("new"), TEXT).groups == (False,)
    assert both.java.get(both.key("new")) == JavaValue("String", "first")
    assert both.java.replace(both.key("new"), TEXT).is_stored

    async def read(cache):
        assert await cache.get(both.key("new"), consistency="all") == "text"

    both.run(read)


@pytest.mark.parametrize("name", ["prefix", "unicode", "hashed, siphash24", "long, hashed", "chunks"])
def test_counters_count_on_whoever_made_them(pair, name):
    """The JVM client returns the default from each call (release 5.9), so its results are read here."""
    both = pair(name)
    n, m = both.key("n"), both.key("m")

    async def test(cache):
        both.java.incr(n, 5, 10)
        assert await cache.incr(n, 5) == 15
        both.java.decr(n, 7, 0)
        assert await cache.decr(n, 1) == 7  # the servers hold "8 ", with a space
        assert await cache.incr(m, 1, initial=99) == 99
        both.java.incr(m, 2, 0)
        assert await cache.incr(m, 1) == 102

    both.run(test)


def test_an_appended_text_is_read_by_both_and_refused_where_the_jvm_client_loses_it(pair):
    both, hashed = pair("prefix"), pair("hashed, siphash24")
    both.java.set("k", TEXT)

    async def test(cache):
        assert await cache.append("k", " more")

    both.run(test)
    assert both.java.append("k", JavaValue("String", "!")) == (True, True)

    async def read(cache):
        assert await cache.get("k", consistency="all") == "text more!"
        both.java.append("k", JavaValue("String", "x" * 200))  # compressed, behind a text that is not
        with pytest.raises(DecodeError):
            await cache.get("k")

    both.run(read)
    hashed.java.set("k", TEXT)
    assert hashed.java.append("k", JavaValue("String", "lost")) == (True, True)

    async def refuse(cache):
        assert await cache.get("k", consistency="all") == "text"
        with pytest.raises(Unsupported):
            await cache.append("k", " more")

    hashed.run(refuse)


# A client without interop mode, beside a JVM client.


def test_what_a_jvm_client_sees_of_a_client_with_versions(pair):
    both = pair("prefix")

    async def test(cache):
        del cache
        async with both.versioned() as versioned:
            values = {"str": "text", "bytes": b"b", "bool": True, "float": 1.5, "int": 7, "dict": {"a": 1}, "deleted": 1}
            assert all((await versioned.set_many(values)).values())
            assert await versioned.delete("deleted")
            await versioned.get_or_load("absent", nothing)
            await versioned.get_or_load("stale", text, policy=LoadPolicy(stale_while_revalidate=60))

    both.run(test)
    read = {
        "str": TEXT,
        "bytes": JavaValue("byte[]", b"b"),
        "bool": JavaValue("Boolean", True),
        "float": JavaValue("Double", 1.5),
        **dict.fromkeys(("int", "dict", "deleted", "absent", "stale"), JavaValue("null")),
    }
    assert both.java.get_bulk(list(read)) == read
    assert {key: both.java.get(key) for key in read} == read
    for key in ("deleted", "absent"):
        assert both.java.add(key, TEXT).groups == (False,)
        assert both.java.replace(key, TEXT).is_stored


async def nothing():
    return None


async def text():
    return "text"


@pytest.mark.parametrize(("lease", "seen"), [(True, JavaValue("String", "")), (False, JavaValue("null"))])
def test_a_jvm_client_sees_the_stub_of_a_lease_as_an_empty_string(pair, lease, seen):
    """memcached makes it, without flags. Without leases there is none."""
    both = pair("prefix")

    async def test(cache):
        del cache
        reached, may_end = asyncio.Event(), asyncio.Event()

        async def load():
            reached.set()
            await may_end.wait()
            return "text"

        async with both.versioned(loading=LoadPolicy(lease=lease, xfetch_beta=0)) as versioned:
            loading = asyncio.create_task(versioned.get_or_load("k", load))
            await reached.wait()
            during = await asyncio.to_thread(both.java.get, "k")
            may_end.set()
            assert await loading == "text"
        assert during == seen

    both.run(test)
    assert both.java.get("k") == TEXT


# Placement and races.


def test_ten_thousand_keys_are_placed_alike_with_labels_as_users_write_them(jvms, addressed_zones, namespace):
    form = FORMS[0]
    keys = [f"{namespace}:key:{number}" for number in range(9_000)] + [f"{namespace}:é:{number}" for number in range(1_000)]
    located = jvms(form).locate(app_of(form), keys)

    async def topology():
        async with EVCache(namespace, addressed_zones.zones, interop=True, nodes=PATIENT_NODES) as cache:
            await cache.get("k")
            return cache.topology

    different = {}
    for zone in asyncio.run(topology()).zones:
        ring = Ring([node.label for node in zone.nodes])
        owners = [zone.nodes[ring.owner(ring_position(key.encode()))].address for key in keys]
        different[zone.name] = sum(ours != theirs for ours, theirs in zip(owners, located[zone.name], strict=True))
        assert set(owners) == {node.address for node in zone.nodes}
    assert different == {"g0": 0, "g1": 0}


async def race(both, interop, name):
    """Both sides add the same keys at the same time, from opposite ends. Return which sides won each key."""
    keys = [both.key(f"{name}-{number}") for number in range(RACES)]
    async with both.python(interop=interop) as cache:
        await cache.get("connect")
        theirs = asyncio.create_task(asyncio.to_thread(both.java.add_many, keys, JavaValue("String", "java")))
        ours = {key: bool(await cache.add(key, "python")) for key in reversed(keys)}
        reports = dict(zip(keys, await theirs, strict=True))
        values = await cache.get_many(keys, consistency="all")
    return {key: (ours[key], reports[key].is_stored, values[key]) for key in keys}


@pytest.mark.parametrize(
    "interop",
    [Interop(), Interop(release="5.26", deciding_groups=["g0", "g1"])],
    ids=["order of the release", "order as a setting"],
)
def test_no_racing_add_is_won_by_both(pair, interop):
    outcomes = asyncio.run(race(pair("prefix"), interop, "one-order"))
    assert [key for key, (ours, theirs, _) in outcomes.items() if ours and theirs] == []
    assert [key for key, (ours, theirs, _) in outcomes.items() if not ours and not theirs] == []
    winners = {value for _, _, value in outcomes.values()}
    assert winners == {"python", "java"}, "a race that one side wins alone shows nothing"
    assert all(value == ("python" if ours else "java") for ours, _, value in outcomes.values())


def test_an_add_in_another_order_wins_beside_the_one_that_the_jvm_client_has_begun(pair, addressed_zones):
    """The JVM client has added the key to its first group, and not yet to the second. That is what the setting is there for."""
    both = pair("prefix")
    for number, address in enumerate(addressed_zones.zones["g0"]):
        for name in ("same", "other"):
            request = f"ms {both.namespace}:{name} 4 F0\r\njava\r\n"
            assert ask(address, request.encode(), b"\r\n") == b"HD\r\n", number

    async def main():
        async with both.python() as cache:
            assert not await cache.add("same", "python")
        async with both.python(interop=Interop(release="5.26")) as cache:
            assert await cache.add("other", "python")

    asyncio.run(main())
