"""The table of features that some servers lack."""

import pytest

from evcache.compatibility import FEATURES, supported
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
