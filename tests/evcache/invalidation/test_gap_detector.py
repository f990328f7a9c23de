"""Detection of gaps: new messages, duplicates, and each sign of a lost message."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evcache.invalidation.gap_detector import GapDetector
from evcache.invalidation.messages import InvalidationMessage, Kind

SILENCE = 3.0
LATER = 100.0  # long after the subscription began, at 0


def changes(number, publisher=1):
    return InvalidationMessage(Kind.CHANGES, publisher, number, ((b"k", 1),))


def heartbeat(number, publisher=1):
    return InvalidationMessage(Kind.HEARTBEAT, publisher, number)


def bye(number, publisher=1):
    return InvalidationMessage(Kind.BYE, publisher, number)


def listening(*messages, now=LATER):
    """Return a detector that has observed these messages, the last of them now."""
    peers = GapDetector(SILENCE)
    peers.reset(0.0)
    for message in messages:
        peers.observe(message, now)
    return peers


NEWS, NOTHING, GAP, GAP_AND_NEWS = (True, False), (False, False), (False, True), (True, True)


@pytest.mark.parametrize(
    ("before", "message", "expected"),
    [
        ([], changes(1), NEWS),
        ([], changes(2), GAP_AND_NEWS),
        ([], heartbeat(1), GAP),
        ([], bye(1), GAP),
        ([changes(1)], changes(2), NEWS),
        ([changes(1)], changes(1), NOTHING),
        ([changes(1)], changes(3), GAP_AND_NEWS),
        ([changes(1), changes(3)], changes(2), NOTHING),
        ([changes(1), changes(3)], changes(4), NEWS),
        ([changes(1)], heartbeat(1), NOTHING),
        ([changes(1)], heartbeat(2), GAP),
        ([changes(1), heartbeat(2)], heartbeat(2), NOTHING),
        ([changes(1), heartbeat(2)], changes(3), NEWS),
        ([changes(1), changes(2)], heartbeat(1), NOTHING),
        ([changes(1)], bye(1), NOTHING),
        ([changes(1)], bye(2), GAP),
        ([changes(1), bye(1)], bye(1), NOTHING),
        ([changes(1), bye(1)], changes(1), NOTHING),
        ([changes(1), bye(1)], heartbeat(1), NOTHING),
        ([changes(1), bye(1)], changes(2), NEWS),
        ([changes(1), bye(1)], changes(3), GAP_AND_NEWS),
        ([changes(1, publisher=2)], changes(1), NEWS),
        ([changes(1), changes(1, publisher=2)], changes(2), NEWS),
    ],
)
def test_what_follows_from_a_message(before, message, expected):
    """Numbers that follow are new, known ones are duplicates, and others are a gap."""
    heard = listening(*before).observe(message, LATER)
    assert (heard.is_new, heard.gap is not None) == expected


@pytest.mark.parametrize("message", [changes(7), heartbeat(7), bye(7)])
@pytest.mark.parametrize(("now", "is_gap"), [(0.0, False), (SILENCE, False), (SILENCE + 0.1, True)])
def test_an_unknown_publisher_with_a_number_is_a_gap_after_the_timeout(message, now, is_gap):
    """Just after the subscription began, the earlier numbers came before it. Later, they were lost."""
    peers = GapDetector(SILENCE)
    peers.reset(0.0)
    assert (peers.observe(message, now).gap is not None) == is_gap
    follows = peers.observe(changes(8), now)
    assert follows == (True, None)


def test_missing_heartbeats_are_reported_once():
    """It covers publishers without a BYE, after the last allowed moment. A message in between restarts the timeout."""
    peers = listening(changes(1), changes(1, publisher=2), changes(1, publisher=3), bye(1, publisher=3))
    assert len(peers) == 2
    peers.observe(heartbeat(1, publisher=2), LATER + 2)
    assert peers.end_silent(LATER + SILENCE) == 0
    assert peers.end_silent(LATER + SILENCE + 0.1) == 1
    assert len(peers) == 1
    assert peers.end_silent(LATER + SILENCE + 0.2) == 0
    assert peers.end_silent(LATER + 2 + SILENCE + 0.1) == 1
    assert peers.end_silent(LATER + 1000) == 0
    assert len(peers) == 0


def test_restarted_timeouts_begin_again():
    peers = listening(changes(1))
    peers.restart_timeouts(LATER + 10)
    assert peers.end_silent(LATER + 10 + SILENCE) == 0
    assert peers.end_silent(LATER + 10 + SILENCE + 0.1) == 1


def test_a_silent_publisher_is_remembered():
    """The publisher may have sent no change in that time. Then none was lost."""
    peers = listening(changes(1))
    assert peers.end_silent(LATER + 10) == 1
    assert peers.observe(changes(2), LATER + 20) == (True, None)
    assert len(peers) == 1
    assert peers.end_silent(LATER + 30) == 1
    assert peers.observe(changes(4), LATER + 40).gap is not None


def test_a_late_duplicate_does_not_revive_a_publisher_after_its_bye():
    """No heartbeats of the publisher are due after its BYE."""
    peers = listening(changes(1), bye(1), heartbeat(1), changes(1))
    assert len(peers) == 0
    assert peers.end_silent(LATER + 1000) == 0


def test_a_new_subscription_knows_no_publishers():
    peers = listening(changes(1))
    peers.reset(LATER + 1)
    assert len(peers) == 0
    assert peers.observe(changes(9), LATER + 2) == (True, None)


@given(st.lists(st.tuples(st.integers(1, 12), st.sampled_from(["changes", "bye", "silence"])), max_size=60))
def test_lost_messages_of_forgotten_publishers_are_gaps(steps):
    """For any limit on the publishers: a lost message of a forgotten one is a gap."""
    peers = GapDetector(SILENCE, limit=3)
    peers.reset(0.0)
    numbers = {}
    now = LATER
    for publisher, step in steps:
        now += 1
        if step == "silence":
            peers.end_silent(now + 10)
        elif step == "bye":
            peers.observe(bye(numbers.get(publisher, 0), publisher), now)
        else:
            numbers[publisher] = numbers.get(publisher, 0) + 1
            peers.observe(changes(numbers[publisher], publisher), now)
        assert len(peers) <= 3
        assert len(peers._ended) <= 3
    for publisher, number in numbers.items():
        assert peers.observe(changes(number + 2, publisher), now).gap is not None
