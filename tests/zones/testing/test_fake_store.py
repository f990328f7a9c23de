"""Store of the fake memcached, and its sessions without I/O."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evcache.zones.testing import FakeMemcached
from tests.support.fake_server import Clock, make_server

# --- the store, looked at by tests --------------------------------------------------------------------------------


def test_store_shows_items():
    fake = make_server()
    fake.session().receive(b"ms a 3 T30 F7 c\r\nabc\r\nms b 1\r\nx\r\nmd a I\r\n")
    item = fake.store.get(b"a")
    assert (item.value, item.flags, item.stale, item.win_sent) == (b"abc", 7, True, False)
    assert fake.store.ttl_left(item) == 30
    assert list(fake.store) == [b"a", b"b"]
    assert len(fake.store) == 2
    assert b"b" in fake.store
    fake.store.clear()
    assert len(fake.store) == 0
    assert fake.store.get(b"a") is None


def test_ttl_is_exact():
    clock = Clock()
    fake = make_server(clock=clock)
    session = fake.session()
    session.receive(b"ms a 1 T2\r\nx\r\n")
    clock.now += 1.999
    assert session.receive(b"mg a t\r\n") == b"HD t1\r\n"
    clock.now += 0.002
    assert session.receive(b"mg a t\r\n") == b"EN\r\n"
    assert len(fake.store) == 0


def test_only_the_second_fetch_resets_the_time_of_the_last_access():
    clock = Clock()
    session = make_server(clock=clock).session()
    session.receive(b"ms a 1\r\nx\r\n")
    clock.now += 5
    assert session.receive(b"mg a l\r\n" * 3) == b"HD l5\r\nHD l5\r\nHD l0\r\n"
    clock.now += 5
    assert session.receive(b"mg a l\r\n" * 2) == b"HD l5\r\nHD l5\r\n"
    assert session.receive(b"ms a 1 ME\r\nx\r\nmg a l\r\n") == b"NS\r\nHD l0\r\n"  # a refused add counts too


def test_evict():
    fake = make_server()
    fake.session().receive(b"ms a 1\r\nx\r\n")
    assert fake.store.evict(b"a")
    assert not fake.store.evict(b"a")
    assert b"STAT evictions 1\r\n" in fake.session().receive(b"stats\r\n")


def test_least_recently_used_item_makes_room():
    fake = FakeMemcached(max_bytes=350, clock=Clock())
    session = fake.session()
    session.receive(b"".join(b"ms %d 50 q\r\n%b\r\n" % (number, b"v" * 50) for number in range(3)))
    assert list(fake.store) == [b"0", b"1", b"2"]
    session.receive(b"mg 0\r\n")
    session.receive(b"ms 3 50\r\n" + b"v" * 50 + b"\r\n")
    assert list(fake.store) == [b"2", b"0", b"3"]
    assert fake.store.bytes_used <= 350


def test_item_larger_than_memory_is_refused_and_the_old_one_deleted():
    fake = FakeMemcached(max_bytes=200, clock=Clock())
    session = fake.session()
    session.receive(b"ms a 1\r\nx\r\n")
    reply = session.receive(b"ms a 500\r\n" + b"v" * 500 + b"\r\nmg a\r\n")
    assert reply == b"SERVER_ERROR out of memory storing object\r\nEN\r\n"


def test_item_that_is_kept_in_chunks_and_larger_than_memory_is_refused_and_the_old_one_kept():
    """As a server with `-M`. The one-copy store then leaves its stub, which expires."""
    fake = FakeMemcached(max_bytes=600_000, clock=Clock())
    session = fake.session()
    session.receive(b"ms a 1\r\nx\r\n")
    reply = session.receive(b"ms a 700000\r\n" + b"v" * 700_000 + b"\r\nmg a v\r\n")
    assert reply == b"SERVER_ERROR Out of memory during read\r\nVA 1\r\nx\r\n"


def test_item_size_limit_is_configurable():
    session = FakeMemcached(item_size_max=1024).session()
    assert session.receive(b"ms a 1000\r\n" + b"v" * 1000 + b"\r\n") == b"SERVER_ERROR object too large for cache\r\n"
    assert b"STAT item_size_max 1024\r\n" in session.receive(b"stats settings\r\n")


def test_classic_only_server_does_not_know_meta_commands():
    session = FakeMemcached(version="1.4.39", classic_only=True).session()
    assert session.receive(b"mn\r\nmg a v\r\n") == b"ERROR\r\nERROR\r\n"
    assert session.receive(b"ms a 4\r\nquit\r\n") == b"ERROR\r\n"
    assert session.closed  # the payload was run as a command
    session = FakeMemcached(classic_only=True).session()
    assert session.receive(b"set a 0 0 1\r\nx\r\nget a\r\n") == b"STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n"


def test_commands_are_counted():
    fake = make_server()
    fake.session().receive(b"mg a\r\nmg b\r\nms a 1\r\nx\r\nget a\r\nnonsense\r\n")
    assert fake.commands == {"mg": 2, "ms": 1, "get": 1, "nonsense": 1}


def test_absolute_ttl_follows_the_wall_clock():
    session = FakeMemcached(clock=Clock(), wall_clock=lambda: 1_700_000_000.0).session()
    assert session.receive(b"ms a 1 T1700000100\r\nx\r\nmg a t\r\n") == b"HD\r\nHD t100\r\n"
    assert session.receive(b"ms a 1 T1699999999\r\nx\r\nmg a t\r\n") == b"HD\r\nEN\r\n"


def test_version_must_be_a_version():
    with pytest.raises(ValueError, match="not a memcached version"):
        FakeMemcached(version="new")


def test_endless_numbers_are_no_numbers():
    session = make_server().session()
    digits = b"9" * 10_000
    assert session.receive(b"ma a D" + digits + b"\r\n") == b"CLIENT_ERROR invalid or duplicate flag\r\n"
    session.receive(b"ms a 10000\r\n" + digits + b"\r\n")
    assert session.receive(b"incr a 1\r\n").startswith(b"CLIENT_ERROR cannot increment")
    assert session.receive(b"incr a 1" + b"0" * 10_000 + b"\r\n").startswith(b"CLIENT_ERROR invalid numeric delta")
    session.receive(b"ms a 1\r\n1\r\n")
    assert session.receive(b"incr a " + b"0" * 10_000 + b"1\r\n") == b"2\r\n"


@given(chunks=st.lists(st.binary(max_size=40) | st.sampled_from([b"\r\n", b"ms a ", b"mg a ", b"ma a ", b"set a 0 0 "])))
@settings(max_examples=300, derandomize=True, database=None, deadline=None)
def test_session_survives_junk_and_does_not_care_how_it_is_cut(chunks):
    """No bytes make it raise; one line too long is the only thing whose answer depends on the cut."""
    whole, pieces = make_server().session(), make_server().session()
    data = b"".join(chunks)
    replies = b"".join(pieces.receive(data[start : start + 1]) for start in range(len(data)))
    assert whole.receive(data) == replies
    assert whole.closed == pieces.closed


def test_closed_session_ignores_everything():
    session = make_server().session()
    assert session.receive(b"quit\r\nmn\r\n") == b""
    assert session.closed
    assert session.receive(b"mn\r\n") == b""


def test_replies_before_the_login_melt_into_one():
    fake = make_server(server="auth")
    session = fake.session()
    assert session.receive(b"version\r\nmn\r\n") == b"CLIENT_ERROR unauthenticated\r\n"
    assert session.receive(b"mn\r\nset a 0 0 12\r\nalice s3cret\r\nmn\r\n") == b"STORED\r\nMN\r\n"


def test_junk_before_the_login_is_hung_up_on():
    session = make_server(server="auth").session()
    assert session.receive(b"x" * 2049) == b""
    assert session.closed
