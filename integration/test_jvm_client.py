"""The driver of the EVCache client for the JVM, and what the other tests with that client rely on."""

import os
import shutil
import time
from pathlib import Path

import pytest

from evcache.zones.routing.ketama import Ring, ring_position
from integration.jvm import JavaError, JavaValue, JvmClient, JvmFailure
from integration.jvm.build import PROJECT, is_built, require_java
from integration.raw import item

APP = "EVCACHE_DRIVER"
HASHED = "EVCACHE_HASHED"


@pytest.fixture(scope="module")
def jvm(java, addressed_zones):
    properties = {f"{HASHED}.hash.key": "true"}
    with JvmClient(java, addressed_zones.zones, [APP, HASHED], local_zone="g0", properties=properties) as jvm:
        yield jvm


@pytest.fixture
def cache(jvm, namespace):
    return jvm.cache(APP, prefix=namespace)


VALUES = [
    *(JavaValue("Boolean", value) for value in (True, False)),
    *(JavaValue("Byte", value) for value in (0, 1, -1, 127, -128)),
    *(JavaValue("Short", value) for value in (0, -1, 32767)),
    *(JavaValue("Integer", value) for value in (0, 1, 256, -1, 2**31 - 1, -(2**31))),
    *(JavaValue("Long", value) for value in (0, 1, 2**53 + 1, -1, 2**63 - 1, -(2**63))),
    *(JavaValue("Float", value) for value in (0.0, -0.0, 1.5, float("inf"), float("nan"))),
    *(JavaValue("Double", value) for value in (0.0, -0.0, 0.1, 5e-324, float("-inf"), float("nan"))),
    *(
        JavaValue("String", value)
        for value in ("", "text", "naïve \U0001f600 \u2028 \x00", "x" * 121, "{" + "x" * 200 + "}")
    ),
    *(JavaValue("Date", value) for value in (0, 1_700_000_000_123, -1)),
    *(JavaValue("byte[]", value) for value in (b"", bytes(range(256)), b"a" * 3000)),
    *(JavaValue("Object", value) for value in ([], ["a", "é"])),
]


@pytest.mark.parametrize("app", [APP, HASHED])
def test_java_reads_each_typed_value_that_it_wrote(jvm, namespace, app):
    cache = jvm.cache(app, prefix=namespace)
    values = {f"{number}-{value.type}": value for number, value in enumerate(VALUES)}
    assert all(report.groups == (True, True) for report in cache.set_many(values))

    def bits(results):
        return {key: value.to_json() for key, value in results.items()}  # a NaN does not equal itself

    assert bits(cache.get_bulk(list(values))) == bits(values)
    assert bits({key: cache.get(key) for key in values}) == bits(values)


def test_placement_equals_the_ring_of_this_package_for_ten_thousand_keys_and_two_groups(jvm, addressed_zones):
    keys = [f"key:{number}" for number in range(9_000)] + [f"préfixe:{number}" for number in range(1_000)]
    located = jvm.locate(APP, keys)
    assert set(located) == {"g0", "g1"}
    for group, addresses in addressed_zones.zones.items():
        hosts = [address.rpartition(":")[0] for address in addresses]
        ring = Ring([f"{host}/{host}:11211" for host in hosts])
        expected = [addresses[ring.owner(ring_position(key.encode()))] for key in keys]
        assert sum(place != wanted for place, wanted in zip(located[group], expected, strict=True)) == 0
        assert set(expected) == set(addresses)  # each node owns a part of the keys


def test_set_stores_the_item_on_the_node_that_locate_names(jvm, cache, namespace):
    assert cache.set("key", JavaValue("Integer", 7)).is_stored
    for (address,) in jvm.locate(APP, [f"{namespace}:key"]).values():
        stored = item(address, f"{namespace}:key")
        assert stored is not None
        assert stored[:2] == (b"\x07", 512)


def test_writes_report_the_result_of_each_group(cache):
    text = JavaValue("String", "a")
    assert cache.add("key", text).groups == (True, True)
    assert cache.add("key", text).groups == (False,)
    assert cache.append("key", JavaValue("String", "b")) == (True, True)
    assert cache.get("key") == JavaValue("String", "ab")
    assert cache.replace("key", JavaValue("String", "c")).is_stored
    assert cache.touch("key", 60).groups == (True, True)
    assert cache.get_and_touch("key", 60) == JavaValue("String", "c")
    assert cache.delete("key").is_stored
    assert cache.get("key").is_null
    assert cache.replace("key", text).groups == (False, False)
    assert cache.touch("key", 60).groups == (False, False)
    assert cache.append_or_add("key", text).is_stored
    assert [report.groups for report in cache.add_many(["new", "key"], text)] == [(True, True), (False,)]
    assert cache.get_bulk(["new", "absent"]) == {"new": text, "absent": JavaValue("null")}


def test_counters_are_decimal_digits_on_the_servers(cache, jvm, namespace):
    assert cache.incr("count", by=2, default=40) == 40
    cache.incr("count", by=2, default=40)
    assert cache.get("count") == JavaValue("String", "42")
    cache.decr("count", by=1, default=0)
    (address,) = jvm.locate(APP, [f"{namespace}:count"])["g0"]
    stored = item(address, f"{namespace}:count")
    assert stored is not None
    assert stored[:2] == (b"41", 0)


def test_prefix_none_and_empty_are_different_keys(jvm, namespace):
    without, empty = jvm.cache(APP), jvm.cache(APP, prefix="")
    assert without.set(namespace, JavaValue("String", "without")).is_stored
    assert empty.get(namespace).is_null
    assert without.set(f":{namespace}", JavaValue("String", "colon")).is_stored
    assert empty.get(namespace) == JavaValue("String", "colon")


def test_exception_of_the_client_is_raised_and_the_jvm_goes_on(cache):
    with pytest.raises(JavaError, match="invalid character at position 1") as raised:
        cache.get("a b")
    assert raised.value.name == "java.lang.IllegalArgumentException"
    with pytest.raises(JavaError, match="unknown type Decimal"):
        cache.set("key", JavaValue("Decimal", "1"))
    assert cache.get("key").is_null


def test_end_of_the_jvm_is_reported_with_its_errors(java, addressed_zones):
    with JvmClient(java, addressed_zones.zones, [APP], local_zone="g0") as jvm:
        with pytest.raises(JvmFailure, match="(?s)ended with status 1.*JSONException"):
            jvm.call("ping", id="no number")  # overrides the number of the request
        with pytest.raises(JvmFailure, match="the JVM has ended"):
            jvm.call("ping")


def test_jvm_that_does_not_start_is_reported_with_its_errors(java, addressed_zones):
    nothing = [java[0], "-cp", "/no/such/folder"]
    with pytest.raises(JvmFailure, match="(?s)ended.*ClassNotFoundException"), JvmClient(nothing, {}, [], local_zone="g0"):
        pass


@pytest.mark.parametrize(("tools", "reason"), [([], "no JDK on PATH"), (["java", "javac"], "no mvn on PATH")])
def test_missing_tool_skips_the_tests_and_fails_them_in_ci(java, monkeypatch, tmp_path, tools, reason):
    for tool in tools:
        (tmp_path / tool).symlink_to(shutil.which(tool, path=str(Path(java[0]).parent)))
    monkeypatch.setattr("integration.jvm.build.STAMP", tmp_path / "built")
    with pytest.raises(pytest.skip.Exception, match=reason):
        require_java({"PATH": str(tmp_path)})
    with pytest.raises(pytest.fail.Exception, match=reason):
        require_java({"PATH": str(tmp_path), "CI": "true"})


def test_program_whose_source_changed_is_not_built(java, monkeypatch, tmp_path):
    assert is_built()
    for path in PROJECT.rglob("*.java"):
        copy = tmp_path / path.relative_to(PROJECT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    shutil.copy(PROJECT / "pom.xml", tmp_path)
    (tmp_path / "built").touch()
    monkeypatch.setattr("integration.jvm.build.PROJECT", tmp_path)
    monkeypatch.setattr("integration.jvm.build.STAMP", tmp_path / "built")
    assert is_built()
    now = time.time()
    os.utime(copy, (now + 60, now + 60))
    assert not is_built()
