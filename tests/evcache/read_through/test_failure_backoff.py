"""Keys whose loader is not called during the backoff time."""

from evcache.read_through.loads.failure_backoff import FailureBackoff


def test_a_key_is_left_alone_until_its_time_is_over():
    """The backoff ends on time and does not affect other keys."""
    throttle = FailureBackoff()
    throttle.failed(b"k", 10.0)
    assert throttle.blocks(b"k", 9.9)
    assert not throttle.blocks(b"other", 9.9)
    assert not throttle.blocks(b"k", 10.0)
    assert len(throttle) == 0


def test_what_has_loaded_is_not_left_alone():
    throttle = FailureBackoff()
    throttle.failed(b"k", 10.0)
    throttle.end(b"k")
    throttle.end(b"unknown")
    assert not throttle.blocks(b"k", 0.0)
    assert len(throttle) == 0


def test_no_key_is_left_alone_when_each_may_have_been_written():
    throttle = FailureBackoff()
    throttle.failed(b"k", 10.0)
    throttle.failed(b"other", 10.0)
    throttle.end_all()
    assert not throttle.blocks(b"k", 0.0)
    assert len(throttle) == 0


def test_failing_again_holds_for_longer():
    throttle = FailureBackoff()
    throttle.failed(b"k", 10.0)
    throttle.failed(b"k", 20.0)
    assert throttle.blocks(b"k", 19.0)


def test_over_the_limit_the_one_that_failed_longest_ago_is_forgotten():
    """However many keys fail, memory is bounded."""
    throttle = FailureBackoff(limit=3)
    for number in range(3):
        throttle.failed(b"%d" % number, 10.0)
    throttle.failed(b"0", 11.0)  # now the youngest
    throttle.failed(b"3", 10.0)
    assert len(throttle) == 3
    assert [throttle.blocks(b"%d" % number, 5.0) for number in range(4)] == [True, False, True, True]
