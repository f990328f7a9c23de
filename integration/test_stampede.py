"""Four processes miss one key at the same moment, on real memcached: which process loads, and the results of all other callers."""

import time

import pytest

from integration.stampede_process import Crew, Scene

CALLERS = 250  # in each process
FEW = 50  # where it takes company, and not a crowd
ALL = (0, 1, 2, 3)
ONE_ZONE = ("eu-1a",) * 4
TWO_ZONES = ("eu-1a", "eu-1a", "eu-1b", "eu-1b")

PATIENT = {"lease_wait": 20, "lease_seconds": 20}  # no test is that slow, so no process loads because its wait ended
ALONE = {"lease": False}
SHORT_LEASE_SECONDS = 3  # servers count whole seconds: it lives 2 at least
HASTY = {"lease_wait": 0.3, "lease_seconds": SHORT_LEASE_SECONDS}
HELD_SECONDS = 0.2  # that a loader which must stay the only one is given company


@pytest.fixture(scope="module")
def crew():
    crew = Crew(4)
    yield crew
    crew.close()


@pytest.fixture(scope="module")
def nodes(each_kind):
    with each_kind.local_zones({"eu-1a": 1, "eu-1b": 1}).running() as zones:
        yield zones.zones


@pytest.fixture
def scene(crew, nodes, namespace, tmp_path):
    """A function that sets the scene: the zones that the processes are in, and options of their clients."""
    return lambda homes=ONE_ZONE, **options: Scene(crew, nodes, namespace, tmp_path, homes, **options)


def nothing(scene):
    """The key has never been there."""


def deleted(scene):
    """A delete has left its mark."""
    scene.call(0, "set", "old")
    scene.call(1, "delete", consistency="all")


@pytest.mark.parametrize(
    ("homes", "before", "policy", "options", "loaders"),
    [
        pytest.param(ONE_ZONE, nothing, PATIENT, {}, 1, id="leases-one-zone"),
        pytest.param(TWO_ZONES, nothing, PATIENT, {}, 2, id="leases-two-zones"),
        pytest.param(ONE_ZONE, deleted, PATIENT, {}, 1, id="leases-deleted"),
        pytest.param(ONE_ZONE, nothing, ALONE, {}, 4, id="no-leases"),
        pytest.param(ONE_ZONE, nothing, PATIENT, {"transport": "classic"}, 4, id="classic-has-no-leases"),
    ],
)
def test_a_thousand_callers_miss_one_key(scene, homes, before, policy, options, loaders):
    """With leases one process in each zone loads once; without leases each process does. All callers get a loaded value."""
    scene = scene(homes, **options)
    before(scene)
    gate = scene.gate()
    scene.begin(*ALL, callers=CALLERS, load_seconds=0.3, policy=policy, gate=gate)
    scene.until("began", loaders)
    scene.open(gate)
    got = scene.end(*ALL)
    assert scene.count("began") == scene.count("loaded") == loaders
    assert got.values.total() == 4 * CALLERS
    assert len(got.values) <= loaders
    assert not got.errors
    # The value is stored, so no process loads now.
    again = scene.ask(*ALL, callers=10, policy=policy)
    assert scene.count("began") == loaders
    assert again.values.keys() <= got.values.keys()


@pytest.mark.parametrize(("homes", "loaders"), [(ONE_ZONE, 1), (TWO_ZONES, 2)], ids=["one-zone", "two-zones"])
def test_after_invalidate_nobody_waits_and_one_loads(scene, homes, loaders):
    """All are given the old value, while the loader does not even end."""
    scene = scene(homes)
    (old,) = scene.ask(0, callers=1, policy=PATIENT).values
    assert scene.call(3, "invalidate", stale_while_revalidate=60, consistency="all")
    gate = scene.gate()
    got = scene.ask(*ALL, callers=CALLERS, policy=PATIENT, gate=gate)
    assert got.values == {old: 4 * CALLERS}
    scene.until("began", 1 + loaders)
    time.sleep(HELD_SECONDS)
    scene.open(gate)
    scene.until("loaded", 1 + loaders)
    assert scene.count("began") == 1 + loaders
    assert old not in fresh(scene, old).values


def fresh(scene, old):
    """What all processes get when the new value has reached their zones."""
    deadline = time.monotonic() + 5
    while old in (got := scene.ask(*ALL, callers=1, policy=PATIENT)).values and time.monotonic() < deadline:
        time.sleep(0.05)
    return got


def test_when_most_of_its_life_is_over_nobody_waits_and_one_loads(scene):
    """The value is refreshed before any caller misses it."""
    scene = scene()
    policy = PATIENT | {"refresh_after": 0.05, "jitter": 0}
    (old,) = scene.ask(0, callers=1, policy=policy, ttl=20).values
    time.sleep(2.2)  # a twentieth, and what servers round
    gate = scene.gate()
    got = scene.ask(*ALL, callers=CALLERS, policy=policy, ttl=20, gate=gate)
    assert got.values == {old: 4 * CALLERS}
    scene.until("began", 2)
    time.sleep(HELD_SECONDS)
    scene.open(gate)
    scene.until("loaded", 2)
    assert scene.count("began") == 2
    assert old not in fresh(scene, old).values


@pytest.mark.parametrize("before", [nothing, deleted])
def test_the_process_that_loads_is_killed(scene, crew, before):
    """The others wait for it as for a living one, and then load for themselves and keep nothing. When its lease is over,
    one of those who still wait loads for all.
    """
    scene = scene()
    before(scene)
    scene.begin(0, callers=FEW, policy=PATIENT | {"lease_seconds": SHORT_LEASE_SECONDS}, gate=scene.gate())
    scene.until("began")
    crew.replace(0)
    hasty = scene.ask(1, 2, 3, callers=FEW, policy=HASTY)
    assert scene.count("began") == 4
    assert hasty.makers == {crew.processes[process].pid for process in (1, 2, 3)}
    assert hasty.values.total() == 3 * FEW
    assert hasty.most >= HASTY["lease_wait"]
    assert scene.call(1, "get") is None
    patient = scene.ask(*ALL, callers=FEW, load_seconds=0.1, policy=PATIENT)
    assert scene.count("began") == 5
    assert list(patient.values.values()) == [4 * FEW]


def test_the_first_caller_is_cancelled(scene):
    """It alone: the load goes on for the others, in its process and elsewhere."""
    scene = scene()
    gate, cancel = scene.gate(), scene.gate()
    scene.begin(0, callers=FEW, policy=PATIENT, gate=gate, cancel="first", cancel_gate=cancel)
    scene.until("began")
    scene.begin(1, 2, 3, callers=FEW, policy=PATIENT, gate=gate)
    scene.open(cancel)
    time.sleep(HELD_SECONDS)
    scene.open(gate)
    got = scene.end(*ALL)
    assert [event for event, _ in scene.log()] == ["began", "loaded"]
    assert got.errors == {"CancelledError": 1}
    assert list(got.values.values()) == [4 * FEW - 1]


def test_every_caller_of_the_process_that_loads_is_cancelled(scene):
    """So is the loader. The lease goes to another process at once, and not when it is over."""
    scene = scene()
    gate, cancel = scene.gate(), scene.gate()
    scene.begin(0, callers=FEW, policy=PATIENT, gate=gate, cancel="all", cancel_gate=cancel)
    scene.until("began")
    scene.begin(1, 2, 3, callers=FEW, policy=PATIENT)
    time.sleep(HELD_SECONDS)
    assert scene.count("began") == 1
    scene.open(cancel)
    left, got = scene.end(0), scene.end(1, 2, 3)
    assert [event for event, _ in scene.log()] == ["began", "cancelled", "began", "loaded"]
    assert left.errors == {"CancelledError": FEW}
    assert list(got.values.values()) == [3 * FEW]
    assert got.most < PATIENT["lease_wait"] / 2
    assert scene.ask(0, callers=10, policy=PATIENT).values.keys() == got.values.keys()


def test_the_loader_raises(scene):
    """Callers in its process get the error. Another process gets the lease at once, and all other callers get its value."""
    scene = scene()
    gate = scene.gate()
    scene.begin(0, callers=FEW, policy=PATIENT, gate=gate, fails=True)
    scene.until("began")
    scene.begin(1, 2, 3, callers=FEW, policy=PATIENT)
    time.sleep(HELD_SECONDS)
    scene.open(gate)
    failed, got = scene.end(0), scene.end(1, 2, 3)
    assert [event for event, _ in scene.log()] == ["began", "failed", "began", "loaded"]
    assert failed.errors == {"SourceDown": FEW}
    assert not failed.values
    assert list(got.values.values()) == [3 * FEW]
    assert got.most < PATIENT["lease_wait"] / 2
    assert scene.ask(0, callers=10, policy=PATIENT).values.keys() == got.values.keys()


def test_every_loader_raises(scene):
    """Each process tries once, one after another, and every caller gets the error."""
    scene = scene()
    gate = scene.gate()
    scene.begin(*ALL, callers=FEW, policy=PATIENT, gate=gate, fails=True)
    scene.until("began")
    time.sleep(HELD_SECONDS)
    scene.open(gate)
    got = scene.end(*ALL)
    assert got.errors == {"SourceDown": 4 * FEW}
    assert scene.count("began") == 4
