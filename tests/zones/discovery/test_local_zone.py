"""The zone of this process: where it is in the topology, and the search for it."""

import asyncio
import logging

import pytest

from evcache.zones.discovery.local_zone import LocalZone
from evcache.zones.discovery.own_zone.finder import OwnZone
from evcache.zones.discovery.own_zone.search import LocalZoneSearch
from evcache.zones.errors import InvalidArgument, InvalidTopology
from tests.support.cluster_bench import Bench, zones
from tests.support.virtual_time import in_virtual_time, now, settle

# Its place in a topology.


@in_virtual_time
async def test_local_zone_that_the_topology_lacks_is_logged_once_with_both_lists_and_reads_keep_their_order(caplog):
    async with Bench("a=h1;b=h2", local="c") as bench:
        view = bench.cluster.view
        assert (view.local, view.preferred_zone) == (None, view.readers[0].name)
        assert sorted(bench.readers) == ["a", "b"]
        bench.cluster.apply(zones("b=h3;a=h1"))
        assert [pool.name for pool in view.readers] == bench.readers
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert record.getMessage() == "the local zone c is not in the topology: reads are spread over a, b"


@in_virtual_time
async def test_strict_local_zone_that_the_topology_lacks_is_an_error():
    async with Bench(local="c", strict=True) as bench:
        with pytest.raises(InvalidTopology, match="^local_zone: 'c' is not one of the zones: a, b$") as caught:
            bench.cluster.apply(zones("a=h1;b=h2"))
        assert caught.value.argument == "local_zone"
        assert bench.cluster.view is None
        assert dict(bench.cluster.nodes) == {}


@pytest.mark.parametrize("strict", [False, True])
@in_virtual_time
async def test_local_zone_that_leaves_later_is_logged_and_reads_go_elsewhere(strict, caplog):
    async with Bench("a=h1;b=h2", local="a", strict=strict) as bench:
        view = bench.cluster.apply(zones("b=h2;c=h3"))
        assert view.local is None
        assert sorted(bench.readers) == ["b", "c"]
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        view = bench.cluster.apply(zones("b=h2;a=h1"))
        assert view.local == view.readers[0].name == "a"
        bench.cluster.apply(zones("b=h2;c=h3"))
        assert len(caplog.records) == 2


@in_virtual_time
async def test_local_zone_that_is_write_only_is_not_read(caplog):
    async with Bench("a!=h1;b=h2", local="a") as bench:
        assert bench.cluster.view.local is None
        assert bench.readers == ["b"]
        bench.cluster.apply(zones("a=h1;b=h2"))
        assert bench.readers == ["a", "b"]
        assert caplog.records == []


@in_virtual_time
async def test_zone_that_is_found_later_is_read_first_from_then_on():
    async with Bench("a=h1;b=h2;c=h3") as bench:
        before = bench.cluster.view
        for name in "abc":
            bench.cluster.set_local_zone((name,))
            view = bench.cluster.view
            assert (view.local, view.preferred_zone, bench.readers[0]) == (name, name, name)
            assert sorted(bench.readers) == ["a", "b", "c"]
            assert [pool.nodes for pool in view.writers] == [pool.nodes for pool in before.writers]
        bench.cluster.apply(zones("a=h1;b=h2"))
        assert bench.cluster.view.local is None
        bench.cluster.apply(zones("a=h1;b=h2;c=h3"))
        assert bench.cluster.view.local == "c"


@in_virtual_time
async def test_zone_has_the_first_of_its_names_that_the_topology_has():
    """Names of zones differ between accounts of a cloud. The ids of zones do not, and a topology may use them."""
    async with Bench("euw1-az1=h1;euw1-az2=h2") as bench:
        bench.cluster.set_local_zone(("eu-west-1b", "euw1-az2"))
        assert bench.cluster.view.local == "euw1-az2"


@in_virtual_time
async def test_zone_that_is_found_while_it_is_ejected_is_read_last():
    async with Bench("a=h1;b=h2") as bench:
        await bench.die("h1")
        assert bench.cluster.view.ejected == {"a"}
        bench.cluster.set_local_zone(("a",))
        assert (bench.cluster.view.local, bench.readers) == ("a", ["b", "a"])
        await bench.live("h1")
        assert bench.readers == ["a", "b"]


@in_virtual_time
async def test_found_zone_that_the_topology_lacks_is_logged_with_all_of_its_names(caplog):
    async with Bench("a=h1;b=h2") as bench:
        bench.cluster.set_local_zone(("eu-west-1b", "euw1-az2"))
        (record,) = caplog.records
        assert "eu-west-1b or euw1-az2 is not in the topology: reads are spread over a, b" in record.getMessage()


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"name": ""}, "name"),
        ({"name": None}, "name"),
        ({"strict": 1}, "strict"),
        ({"timeout": 0}, "timeout"),
    ],
)
def test_settings_that_cannot_be_used(options, argument):
    with pytest.raises(InvalidArgument) as caught:
        LocalZone(**options)
    assert caught.value.argument == argument


# The search.


class Finder:
    """Answers after a while, as a metadata server does."""

    def __init__(self, names=("a",), seconds=0.2):
        self.names, self.seconds = names, seconds
        self.calls = []

    async def __call__(self, timeout):
        self.calls.append(timeout)
        await asyncio.sleep(min(self.seconds, timeout))
        return None if self.names is None or self.seconds > timeout else OwnZone(self.names, "test")


def search(finder, **options):
    found = []
    return LocalZoneSearch(LocalZone(**options), found.append, finder), found


@in_virtual_time
async def test_search_reports_the_names_of_the_zone():
    subject, found = search(Finder(("a", "az1")))
    subject.begin()
    await subject.wait()
    assert found == [("a", "az1")]


@pytest.mark.parametrize("finder", [Finder(None), Finder(seconds=3.0)], ids=["none", "hangs"])
@in_virtual_time
async def test_zone_that_is_not_found_is_an_error_only_if_strict(finder):
    began = now()
    subject, found = search(finder, timeout=2.0)
    subject.begin()
    await subject.wait()
    assert found == []
    assert now() - began <= 2.0
    subject, found = search(finder, strict=True)
    subject.begin()
    with pytest.raises(InvalidTopology, match="^local_zone: the zone of this process was not found in 1 s$"):
        await subject.wait()


@in_virtual_time
async def test_second_opening_uses_the_zone_of_the_first():
    finder = Finder()
    subject, found = search(finder)
    for _ in range(2):
        subject.begin()
        await subject.wait()
        await subject.close()
        subject.reopen()
    assert found == [("a",), ("a",)]
    assert len(finder.calls) == 1


@in_virtual_time
async def test_close_ends_the_search_and_a_later_opening_begins_another():
    finder = Finder()
    subject, found = search(finder)
    subject.begin()
    await settle()
    await subject.close()
    subject.reopen()
    assert found == []
    subject.begin()
    await subject.wait()
    assert found == [("a",)]


@in_virtual_time
async def test_cancelled_caller_does_not_end_the_search():
    subject, found = search(Finder())
    subject.begin()
    waiting = asyncio.create_task(subject.wait())
    await settle()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    await asyncio.sleep(1)
    assert found == [("a",)]
