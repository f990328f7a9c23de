"""Who was heard of: news, copies, and everything that shows that something was missed."""

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


def listening(*announcements, now=LATER):
    """One that has heard these, the last of them now."""
    peers = GapDetector(SILENCE)
    peers.reset(0.0)
    for announcement in announcements:
        peers.observe(announcement, now)
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
    """Numbers that follow are news, those that were heard are copies, and those that do not follow are a gap."""
    heard = listening(*before).observe(message, LATER)
    assert (heard.is_new, heard.gap is not None) == expected


@pytest.mark.parametrize("message", [changes(7), heartbeat(7), bye(7)])
@pytest.mark.parametrize(("now", "is_gap"), [(0.0, False), (SILENCE, False), (SILENCE + 0.1, True)])
def test_a_stranger_who_has_spoken_before_is_known_within_a_few_heartbeats(message, now, is_gap):
    """Just after the subscription began he has spoken before it, of which nothing was kept; later, he was missed."""
    peers = GapDetector(SILENCE)
    peers.reset(0.0)
    assert (peers.observe(message, now).gap is not None) == is_gap
    follows = peers.observe(changes(8), now)
    assert follows == (True, None)


def test_silence_is_told_once():
    """After the last moment, of those who did not say BYE; whoever speaks again in between has not been silent."""
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


def test_after_a_time_that_does_not_count_silence_begins_anew():
    peers = listening(changes(1))
    peers.restart_timeouts(LATER + 10)
    assert peers.end_silent(LATER + 10 + SILENCE) == 0
    assert peers.end_silent(LATER + 10 + SILENCE + 0.1) == 1


def test_who_was_silent_is_remembered():
    """He may have sent nothing meanwhile: then nothing was missed."""
    peers = listening(changes(1))
    assert peers.end_silent(LATER + 10) == 1
    assert peers.observe(changes(2), LATER + 20) == (True, None)
    assert len(peers) == 1
    assert peers.end_silent(LATER + 30) == 1
    assert peers.observe(changes(4), LATER + 40).gap is not None


def test_a_late_copy_does_not_bring_back_who_has_said_bye():
    """No heartbeats come from him that could be missed."""
    peers = listening(changes(1), bye(1), heartbeat(1), changes(1))
    assert len(peers) == 0
    assert peers.end_silent(LATER + 1000) == 0


def test_a_new_subscription_knows_nobody():
    peers = listening(changes(1))
    peers.reset(LATER + 1)
    assert len(peers) == 0
    assert peers.observe(changes(9), LATER + 2) == (True, None)


@given(st.lists(st.tuples(st.integers(1, 12), st.sampled_from(["changes", "bye", "silence"])), max_size=60))
def test_bounded_and_never_without_a_gap(steps):
    """However few are remembered: who has sent what was not heard is never taken as if nothing was missed."""
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
