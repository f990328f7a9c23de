"""Settings of interop mode: what they refuse, and the orders and limits of each release."""

import pytest

from evcache import EVCache, InvalidArgument
from evcache.interop import GroupInterop, Interop, KeyHash


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("app", ""),
        ("app", 5),
        ("release", "5"),
        ("release", 5.9),
        ("prefix", "other"),
        ("hash_keys", True),
        ("key_hash", "md5"),
        ("key_hash", None),
        ("max_key_length", 0),
        ("max_key_length", 251),
        ("max_key_length", True),
        ("max_key_length", 200),
        ("groups", ["g0"]),
        ("groups", {0: GroupInterop()}),
        ("groups", {"g0": {}}),
        ("chunk_bytes", 0),
        ("chunk_bytes", 127),
        ("chunk_bytes", True),
        ("chunk_bytes", "app"),
        ("integer_width", 16),
        ("integer_width", True),
        ("compress", 1),
        ("java_objects", "bytes"),
        ("deciding_groups", "first"),
        ("deciding_groups", [0]),
        ("key_hash", KeyHash(max_digest_bytes=4)),
        ("key_hash", KeyHash(max_hash_length=4)),
        ("key_hash", KeyHash(encoder="ascii85")),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(setting, value):
    with pytest.raises(InvalidArgument) as raised:
        Interop(**{setting: value})
    assert raised.value.argument == setting


@pytest.mark.parametrize(
    ("setting", "value"), [("hash_keys", 1), ("key_hash", "md5"), ("chunk_bytes", 12), ("chunk_bytes", "none")]
)
def test_a_wrong_setting_of_a_group_is_refused_by_its_name(setting, value):
    with pytest.raises(InvalidArgument) as raised:
        GroupInterop(**{setting: value})
    assert raised.value.argument == setting


def test_keys_that_the_release_hashes_twice_are_refused():
    groups = {"g0": GroupInterop(hash_keys=True)}
    with pytest.raises(InvalidArgument, match="twice"):
        Interop(hash_keys="long", groups=groups)
    assert Interop(release="5.26", hash_keys="long", groups=groups).translates


def test_a_cut_of_a_group_is_refused_where_the_release_ignores_it():
    groups = {"g0": GroupInterop(hash_keys=True, key_hash=KeyHash("md5", max_digest_bytes=4))}
    with pytest.raises(InvalidArgument, match=r"groups\['g0'\].key_hash"):
        Interop(groups=groups)
    assert Interop(release="5.26", groups=groups).translates


@pytest.mark.parametrize("interop", [1, "5.9", None, Interop])
def test_the_argument_of_the_client_is_checked(interop):
    with pytest.raises(InvalidArgument, match="interop"):
        EVCache("p", {"g0": ["10.0.0.1"]}, interop=interop)


@pytest.mark.parametrize(
    ("argument", "interop"),
    [("groups", Interop(groups={"g2": GroupInterop()})), ("deciding_groups", Interop(deciding_groups=["g0", "g2"]))],
)
def test_a_name_that_no_zone_has_is_refused(argument, interop):
    with pytest.raises(InvalidArgument, match="'g2': the zones are g0, g1") as raised:
        EVCache("p", {"g0": ["10.0.0.1"], "g1": ["10.0.0.2"]}, interop=interop)
    assert raised.value.argument == argument


@pytest.mark.parametrize(
    ("interop", "order"),
    [
        (Interop(), ["a", "b", "c"]),
        (Interop(release="5.26"), ["c", "b", "a"]),
        (Interop(deciding_groups=["b"]), ["b", "a", "c"]),
        (Interop(release="5.26", deciding_groups=("c", "x", "a")), ["c", "a", "b"]),
    ],
)
def test_zones_decide_in_the_order_of_the_release_or_of_the_setting(interop, order):
    assert interop.deciding_order(["c", "a", "b"]) == order


@pytest.mark.parametrize(
    ("interop", "expected"),
    [
        (Interop(), False),
        (Interop(hash_keys="long"), True),
        (Interop(hash_keys="all"), True),
        (Interop(chunk_bytes=1180), True),
        (Interop(groups={"g0": GroupInterop(hash_keys=False, chunk_bytes=None)}), False),
        (Interop(groups={"g0": GroupInterop(hash_keys=True)}), True),
        (Interop(groups={"g0": GroupInterop(chunk_bytes=1180)}), True),
    ],
)
def test_only_hashes_and_chunks_translate(interop, expected):
    assert interop.translates is expected
