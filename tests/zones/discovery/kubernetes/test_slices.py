"""A set of slices follows the events of a watch, and refuses what is no event."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evcache.zones.discovery.kubernetes.slices import ApiProblem, BadEvent, Expired, SliceSet, read_page, read_status
from tests.support.endpoint_slices import bookmark, decoded, endpoint, endpoint_slice, error_event, event, page_of, status

A = endpoint_slice("a", endpoint("memcached-0", "10.0.0.1"))
A2 = endpoint_slice("a", endpoint("memcached-0", "10.0.0.9"))
B = endpoint_slice("b", endpoint("memcached-1", "10.0.0.2"))


def listed(*slices):
    return SliceSet("5", decoded(*slices))


def addresses(slices):
    return sorted(address for piece in slices.slices for one in piece.endpoints for address in one.addresses)


@pytest.mark.parametrize(
    ("line", "changed", "expected", "version"),
    [
        pytest.param(event("ADDED", B, 6), True, ["10.0.0.1", "10.0.0.2"], "6", id="added"),
        pytest.param(event("MODIFIED", A2, 6), True, ["10.0.0.9"], "6", id="modified"),
        pytest.param(event("ADDED", A2, 6), True, ["10.0.0.9"], "6", id="added, and known already"),
        pytest.param(event("MODIFIED", B, 6), True, ["10.0.0.1", "10.0.0.2"], "6", id="modified, and unknown"),
        pytest.param(event("DELETED", A, 6), True, [], "6", id="deleted"),
        pytest.param(event("DELETED", B, 6), False, ["10.0.0.1"], "6", id="deleted, and unknown"),
        pytest.param(bookmark(9), False, ["10.0.0.1"], "9", id="bookmark"),
        pytest.param(event("PAUSED", B, 9), False, ["10.0.0.1"], "5", id="event of a later API"),
    ],
)
def test_an_event_changes_the_set(line, changed, expected, version):
    slices = listed(A)
    assert slices.apply(line) is changed
    assert addresses(slices) == expected
    assert slices.version == version


@pytest.mark.parametrize(
    ("line", "kind", "text"),
    [
        (error_event(410, "Expired", "too old resource version: 1 (9)"), Expired, "410 too old resource version"),
        (error_event(410, "Gone", ""), Expired, "410 Gone"),
        (error_event(0, "Expired", "old"), Expired, "old"),
        (error_event(500, "InternalError", "etcd is away"), BadEvent, "500 etcd is away"),
        (b"{", BadEvent, "malformed watch event"),
        (b'"text"', BadEvent, "malformed watch event"),
        (b'{"type": "ADDED"}', BadEvent, "malformed watch event"),
        (b'{"type": "ADDED", "object": {"metadata": {"name": 1}}}', BadEvent, "malformed watch event"),
        (b'{"type": "ADDED", "object": ' + b"[" * 100_000, BadEvent, "malformed watch event"),
        (b"\xff\xfe", BadEvent, "malformed watch event"),
    ],
)
def test_an_error_and_a_malformed_event_need_a_new_list(line, kind, text):
    slices = listed(A)
    with pytest.raises(kind, match=text) as caught:
        slices.apply(line)
    assert caught.value.needs_list
    assert addresses(slices) == ["10.0.0.1"]


def test_a_copy_changes_independently():
    slices = listed(A)
    slices.copy().apply(event("DELETED", A, 6))
    assert addresses(slices) == ["10.0.0.1"]


def test_a_page_has_slices_a_version_and_the_next_page():
    page = read_page(page_of(A, B, version="7", next_page="more"))
    assert (len(page.slices), page.version, page.next_page) == (2, "7", "more")


def test_a_list_of_no_slices_may_be_null():
    assert read_page(b'{"metadata": {"resourceVersion": "7"}, "items": null}') == ((), "7", "")


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"items": []}', b'{"metadata": {}, "items": [{"endpoints": []}]}']
)
def test_a_body_that_is_no_list_is_refused(body):
    with pytest.raises(ApiProblem, match="malformed list"):
        read_page(body)


def test_the_message_of_an_error_is_read_and_cut():
    assert read_status(json.dumps(status(403, "Forbidden", "no access")).encode()) == "no access"
    assert len(read_status(json.dumps(status(403, "Forbidden", "x" * 10_000)).encode())) == 200
    assert read_status(b"<html>") == ""


names = st.sampled_from(["a", "b", "c"])
changes = st.lists(st.tuples(names, st.none() | st.integers(1, 9)), max_size=20)


@given(changes, st.integers(0, 20), st.integers(0, 3))
def test_a_list_and_the_events_after_it_lead_to_the_last_state(history, listed_after, repeated):
    """Also if the server repeats the last events of the list."""
    state, lines = {}, []
    known = SliceSet("0", ())
    for name, host in history:
        if host is not None:
            made = endpoint_slice(name, endpoint(f"memcached-{name}", f"10.0.0.{host}"))
            lines.append(event("MODIFIED" if name in state else "ADDED", made, len(lines) + 1))
            state[name] = made
        elif name in state:
            lines.append(event("DELETED", state.pop(name), len(lines) + 1))
        if len(lines) <= listed_after:
            known = SliceSet(str(len(lines)), decoded(*state.values()))
    for line in lines[max(0, int(known.version) - repeated) :]:
        known.apply(line)
    assert addresses(known) == addresses(SliceSet("0", decoded(*state.values())))
    assert known.version == str(len(lines))
