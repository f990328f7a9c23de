"""The page on errors lists each error class with its text."""

import re
from pathlib import Path

import pytest

import evcache
from evcache import errors
from evcache.write_behind import BufferFull
from evcache.zones.errors import CacheError, NodeSilent

PAGE = (Path(__file__).parents[1] / "docs" / "errors.md").read_text("utf-8")
ROWS = dict(re.findall(r"^\| `(\w+)` \| .* \| (?:`(.*)`)? ?\|$", PAGE, re.MULTILINE))

REFUSED = errors.NodeUnavailable("connection refused", "a1:11211")
STALE = errors.StaleReplica(5, 7)

EXAMPLES = [
    errors.InvalidArgument("ttl", "a number of seconds above 0 is required, not -1"),
    errors.InvalidKey("key", "'a b' has a space"),
    errors.ValueTooLarge("value", "2000000 bytes are more than the 1048576 of a1:11211"),
    errors.InvalidTopology("zones", "two nodes have the label a1:11211"),
    errors.EncodeError("object has no form in bytes"),
    errors.UsageError("the client is closed"),
    errors.Unsupported("leases", "a1:11211"),
    errors.CacheUnavailable("get", {"a": REFUSED}),
    errors.ConsistencyError("get", 1, 2, {"a": REFUSED}),
    errors.LoadTimeout(b"users:42", 5.0),
    errors.LoadAborted("the client is closed"),
    BufferFull(10_000),
    errors.DecodeError("invalid MessagePack", b"users:42", "a", 7),
    errors.DiscoveryError("lookup of zones", "zone eu-1a: the answer names no nodes"),
    REFUSED,
    errors.ConnectionLost("connection lost", "a1:11211"),
    errors.QueueFull("1000 requests are in flight", "a1:11211"),
    errors.NodeTimeout("no reply in time", "a1:11211"),
    NodeSilent("no byte for 20 ms", "a1:11211"),
    errors.ProtocolError("invalid value length", "a1:11211"),
    errors.ServerError("SERVER_ERROR out of memory storing object", "a1:11211"),
    STALE,
    errors.FailoverDenied(),
]


# Other modules define subclasses for their own use.
PUBLIC = {"evcache.errors", "evcache.zones.errors", "evcache.write_behind.api"}


def classes(root):
    """Return the public error classes below a root."""
    return {root}.union(*(classes(kind) for kind in root.__subclasses__() if kind.__module__ in PUBLIC))


def test_page_lists_each_error_class():
    assert ROWS.keys() == {kind.__name__ for kind in classes(CacheError)}
    exported = {name for name in evcache.__all__ if isinstance(getattr(evcache, name), type)}
    assert {name for name in exported if issubclass(getattr(evcache, name), BaseException)} <= ROWS.keys()
    assert set(errors.__all__) <= ROWS.keys()


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_page_has_the_text_of_an_error(error):
    assert ROWS[type(error).__name__] == str(error)


def test_each_row_with_a_text_is_an_example():
    assert {name for name, text in ROWS.items() if text} == {type(error).__name__ for error in EXAMPLES}
