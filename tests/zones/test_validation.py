"""Settings that can't be used are refused where they are made, with the name of the one that is wrong."""

import math

import pytest

from evcache.zones.errors import InvalidArgument
from evcache.zones.nodes.settings import NodeSettings
from evcache.zones.transport.limits import ConnectionLimits

NO_SECONDS = [0, -1, math.nan, math.inf, 10**400, True, "1", None]
NO_COUNT = [0, -1, 1.5, True, "1", None]


@pytest.mark.parametrize(
    ("settings", "argument", "bad"),
    [
        (NodeSettings, "connections", NO_COUNT),
        (NodeSettings, "connect_timeout", NO_SECONDS),
        (NodeSettings, "transport", ["", "META", None, 1]),
        (
            NodeSettings,
            "auth",
            [("ada",), ("ada", ""), ("", "x"), ("a b", "x"), ("a", "b\r\nx"), "ada:x", ("a", 1), ["a", "b"]],
        ),
        (ConnectionLimits, "max_pending", NO_COUNT),
        (ConnectionLimits, "max_queued_bytes", NO_COUNT),
        (ConnectionLimits, "silence", NO_SECONDS),
    ],
)
def test_a_setting_that_cant_be_used_is_named(settings, argument, bad):
    for value in bad:
        with pytest.raises(InvalidArgument) as caught:
            settings(**{argument: value})
        assert caught.value.argument == argument, value


def test_what_can_be_used_is_taken():
    NodeSettings(connections=3, connect_timeout=0.1, auth=("ada", "s3cr:et"), transport="meta")
    ConnectionLimits(max_pending=1, max_queued_bytes=1, silence=0.1)


def test_a_password_is_not_shown():
    assert "s3cret" not in repr(NodeSettings(auth=("ada", "s3cret")))
