"""The table of features that some servers lack."""

import pytest

from evcache.compatibility import FEATURES, missing, supported
from evcache.zones.nodes.capabilities import Capabilities


def test_each_feature_has_a_release_and_an_effect():
    assert len({feature.name for feature in FEATURES}) == len(FEATURES)
    for feature in FEATURES:
        assert feature.since.startswith("1.6."), feature
        assert feature.without, feature


def test_a_classic_server_has_the_cas_alone():
    server = Capabilities(server="1.6.40", explicit_cas=False, cas=True, transport="classic")
    assert {name for name, has in supported(server).items() if has} == {"CAS (not run with -C)"}


@pytest.mark.parametrize(
    ("server", "has"),
    [("1.6.39", False), ("1.6.40", True), ("1.6.40_beta", True), ("1.10.0", True), ("2.0.0", True), ("unknown", False)],
)
def test_conditional_reads_follow_the_version_string(server, has):
    assert supported(Capabilities(server=server, explicit_cas=True, cas=True))["conditional reads"] is has


def test_versions_need_a_cas_that_the_client_chooses():
    server = Capabilities(server="1.6.18", explicit_cas=False, cas=True)
    assert {name for name, has in supported(server).items() if not has} == {
        "versions",
        "tombstones",
        "latest version wins at QUORUM and ALL",
        "read repair, hints, session guarantees",
        "cas with a version",
        "conditional reads",
    }


@pytest.mark.parametrize(
    ("server", "versions", "conditional_reads"),
    [
        (
            Capabilities("1.6.26", explicit_cas=False, cas=True),
            "memcached 1.6.26 is older than 1.6.27",
            "memcached 1.6.26 is older than 1.6.40",
        ),
        (Capabilities("1.6.40", explicit_cas=True, cas=True), None, None),
        (Capabilities("1.6.40", explicit_cas=True, cas=False), "memcached 1.6.40 runs without CAS (-C)", None),
        # A proxy may send any version string, or none.
        (Capabilities("1.6.40", explicit_cas=False, cas=True), "memcached 1.6.40 refuses a CAS that a client chose", None),
        (
            Capabilities("unknown", explicit_cas=False, cas=True),
            "the server refuses a CAS that a client chose",
            "the server reports no release of memcached",
        ),
        (
            Capabilities("1.6.40", explicit_cas=False, cas=True, transport="classic"),
            "memcached 1.6.40 is used over the classic protocol",
            "memcached 1.6.40 is used over the classic protocol",
        ),
    ],
    ids=lambda value: f"{value.server}-{value.transport}" if isinstance(value, Capabilities) else "",
)
def test_missing_feature_has_the_reason_of_the_handshake(server, versions, conditional_reads):
    found = missing([server])
    assert (found.get("versions"), found.get("conditional reads")) == (versions, conditional_reads)
    assert set(found) == {name for name, has in supported(server).items() if not has}


def test_reasons_of_several_servers_are_joined_once():
    old = Capabilities("1.6.18", explicit_cas=False, cas=True)
    without_cas = Capabilities("1.6.40", explicit_cas=True, cas=False)
    found = missing([old, old, without_cas])
    assert found["versions"] == "memcached 1.6.18 is older than 1.6.27; memcached 1.6.40 runs without CAS (-C)"
    assert found["leases"] == "memcached 1.6.40 runs without CAS (-C)"
    assert missing([]) == {}
