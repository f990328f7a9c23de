"""The choice of keys that are compared in all zones: how many, and which."""

import math
import random
from collections import Counter

import pytest

from evcache.replication.repair.sampling import RepairSampler


def seeded(share, seed=1):
    return RepairSampler(share, random.Random(seed).random)


def choose_by_gaps(sampler, keys):
    """Count down the gaps, as reads of one key do."""
    chosen = []
    left = sampler.draw_gap()
    for key in keys:
        left -= 1
        if left <= 0:
            left = sampler.draw_gap()
            chosen.append(key)
    return chosen


def keys_of(count):
    return [b"%d" % number for number in range(count)]


@pytest.mark.parametrize("share", [0.001, 0.01, 0.3, 0.9])
@pytest.mark.parametrize("batch", [1, 7, 100, 5_000])
def test_the_share_of_keys_is_chosen_in_batches_of_any_size(share, batch):
    """Within four standard deviations of the share."""
    sampler, rounds = seeded(share), 100_000 // batch
    chosen = sum(len(sampler.choose(keys_of(batch))) for _ in range(rounds))
    count = batch * rounds
    assert chosen == pytest.approx(count * share, abs=4 * math.sqrt(count * share * (1 - share)))


@pytest.mark.parametrize("batch", [1, 3, 64, 1_000])
def test_a_batch_is_chosen_from_as_the_same_keys_one_by_one(batch):
    """The chance of a key does not depend on the keys that are read with it."""
    keys = keys_of(batch)
    alone, together = seeded(0.1), seeded(0.1)
    for _ in range(50):
        assert [one for key in keys for one in alone.choose([key])] == together.choose(dict.fromkeys(keys))


@pytest.mark.parametrize("share", [0.001, 0.01, 0.3, 0.9])
def test_the_share_of_keys_is_chosen_by_gaps(share):
    """Within four standard deviations of the share."""
    count = 100_000
    chosen = len(choose_by_gaps(seeded(share), keys_of(count)))
    assert chosen == pytest.approx(count * share, abs=4 * math.sqrt(count * share * (1 - share)))


def test_every_key_of_a_repeated_batch_is_chosen_about_as_often():
    """At every place in the batch: no rhythm hides a key."""
    sampler, keys = seeded(0.05), keys_of(100)
    times = Counter(key for _ in range(2_000) for key in sampler.choose(keys))
    assert len(times) == 100
    assert all(60 <= count <= 140 for count in times.values())  # 100 each, and a standard deviation of 10


@pytest.mark.parametrize(("share", "chosen"), [(0, 0), (1, 1000), (1.0, 1000), (1e-300, 0), (5e-324, 0)])
def test_none_and_all_are_exact(share, chosen):
    sampler = seeded(share)
    assert len(sampler.choose(keys_of(500)) + choose_by_gaps(sampler, keys_of(500))) == chosen


def test_an_empty_batch_changes_nothing():
    sampler, same = seeded(0.5), seeded(0.5)
    assert sampler.choose([]) == []
    assert sampler.choose(keys_of(100)) == same.choose(keys_of(100))
