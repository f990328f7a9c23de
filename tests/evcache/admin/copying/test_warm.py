"""Warm-up from zone to zone, on fake servers."""

import asyncio
import errno
import os
import tempfile

import pytest

from evcache import EVCache
from evcache.admin.copying import key_files
from evcache.admin.copying.copier import Copier, CopyTally
from evcache.admin.copying.decision import Skip
from evcache.admin.copying.key_files import KeysOfFile
from evcache.admin.copying.warm import ATTEMPTS, SETTLE_SECONDS, SampleCheck, WarmLimits, WarmUp
from evcache.zones.errors import InvalidArgument, NodeError, NodeUnavailable, Unsupported
from tests.support.zones_of_fakes import SETTINGS, fake_zones

MOST_SECONDS = 120  # by which a copy lives shorter: the time of the copy, on a busy machine
NO_LIMITS = WarmLimits(keys_per_second=1e9)


async def write(zones, name, values, **options):
    async with EVCache("ns", {name: zones.nodes[name]}, nodes=SETTINGS) as cache:
        await cache.set_many(values, timeout=10, **{"ttl": 1000, **options})


async def warm(zones, keys=None, **options):
    run = WarmUp(zones.pool("a"), zones.pool("b"), keys or zones.listed(), options.pop("limits", NO_LIMITS), **options)
    await run.run()
    return run


def values(number):
    return {f"k{place}": f"value {place}" for place in range(number)}


def test_items_are_copied_as_they_are_and_a_second_run_copies_nothing():
    async def main():
        async with fake_zones(a=[{}, {}], b=[{}, {}, {}]) as zones:
            await write(zones, "a", {**values(1_000), "number": 7, "bytes": b"\x00" * 10_000})
            run = await warm(zones)
            assert run.tally.copied == run.tally.keys == 1_002
            before, after = zones.items("a"), zones.items("b")
            assert before.keys() == after.keys()
            for key, item in after.items():
                original = before[key]
                assert (item.value, item.flags, item.cas, item.stale) == (
                    original.value,
                    original.flags,
                    original.cas,
                    False,
                )
                assert original.expires_at - MOST_SECONDS < item.expires_at < original.expires_at
            assert await run.check() == SampleCheck(1_000, 1_000)
            again = await warm(zones)
            assert (again.tally.copied, again.tally.skipped[Skip.PRESENT]) == (0, 1_002)
            assert again.tally.value_bytes == 0
            async with EVCache("ns", {"b": zones.nodes["b"]}, nodes=SETTINGS) as cache:
                assert await cache.get_many(values(1_000)) == values(1_000)

    asyncio.run(main())


def test_newer_values_and_deletes_of_the_target_are_kept():
    async def main():
        async with fake_zones(a=[{}], b=[{}]) as zones:
            await write(zones, "a", values(10))
            async with EVCache("ns", {"b": zones.nodes["b"]}, nodes=SETTINGS) as cache:
                await cache.set("k1", "newer", ttl=1000)
                await cache.delete("k2")
            run = await warm(zones)
            assert (run.tally.copied, run.tally.skipped[Skip.PRESENT]) == (8, 2)
            async with EVCache("ns", {"b": zones.nodes["b"]}, nodes=SETTINGS) as cache:
                assert await cache.get_many(["k0", "k1", "k2"]) == {"k0": "value 0", "k1": "newer"}
            assert await run.check() == SampleCheck(10, 10)

    asyncio.run(main())


def test_a_write_that_arrives_between_the_look_and_the_copy_wins(monkeypatch):
    async def main():
        async with fake_zones(a=[{}], b=[{}]) as zones:
            await write(zones, "a", values(3))
            store = Copier._store

            async def late(self, copies, *pools):
                await write(zones, "b", {"k1": "newer"})
                return await store(self, copies, *pools)

            monkeypatch.setattr(Copier, "_store", late)
            run = await warm(zones)
            assert (run.tally.copied, run.tally.superseded) == (2, 1)
            assert zones.items("b")[b"ns:k1"].value == b"newer"

    asyncio.run(main())


def test_a_deleted_key_stays_deleted():
    async def main():
        async with fake_zones(a=[{}], b=[{}]) as zones:
            await write(zones, "a", {"k": "old"})
            await warm(zones)
            async with EVCache("ns", {"a": zones.nodes["a"]}, nodes=SETTINGS) as cache:
                await cache.delete("k")
            await warm(zones)
            async with EVCache("ns", {"b": zones.nodes["b"]}, nodes=SETTINGS) as cache:
                assert await cache.get("k") is None

    asyncio.run(main())


@pytest.mark.parametrize("version", ["1.6.18", "1.4.39"])
def test_without_versions_a_copy_is_stored_where_nothing_is(version):
    old = {"version": version, "classic_only": version < "1.6"}

    async def main():
        async with fake_zones(a=[{"version": "1.6.18"}], b=[old]) as zones:
            await write(zones, "a", values(10))
            await write(zones, "b", {"k1": "other"})
            run = await warm(zones)
            assert (run.tally.copied, run.tally.skipped[Skip.PRESENT]) == (9, 1)
            assert zones.items("b")[b"ns:k1"].value == b"other"
            assert zones.items("b")[b"ns:k2"].expires_at is not None
            assert (await run.check()).in_place == 10

    asyncio.run(main())


def test_a_source_that_reports_no_lifetime_is_not_copied():
    async def main():
        async with fake_zones(a=[{"version": "1.4.39", "classic_only": True}], b=[{}]) as zones:
            await write(zones, "a", values(10))
            run = await warm(zones)
            assert (run.tally.copied, run.tally.skipped[Skip.UNKNOWN_LIFETIME]) == (0, 10)

    asyncio.run(main())


def test_only_keys_of_the_namespace_are_copied():
    async def main():
        async with fake_zones(a=[{}], b=[{}]) as zones:
            await write(zones, "a", values(5))
            async with EVCache("ns2", {"a": zones.nodes["a"]}, nodes=SETTINGS) as cache:
                await cache.set("other", "x", ttl=1000)
            run = await warm(zones, zones.listed("ns"))
            assert run.tally.keys == run.tally.copied == 5
            assert all(key.startswith(b"ns:") for key in zones.items("b"))

    asyncio.run(main())


def test_leases_are_not_copied():
    async def main():
        async with fake_zones(a=[{}], b=[{}]) as zones:
            await write(zones, "a", values(2))
            wire = zones.servers["a"][0].session()
            wire.receive(b"mg ns:lease N30 v\r\n")  # the stub of a lease
            wire.receive(b"mg bnM6azF/MTIz b N30 v\r\n")  # one beside the key ns:k1, whose name has a control character
            assert any(b"\x7f" in key for key in zones.items("a"))
            run = await warm(zones)
            assert (run.tally.copied, run.tally.skipped[Skip.GONE], run.tally.keys) == (2, 1, 3)
            assert zones.items("b").keys() == {b"ns:k0", b"ns:k1"}

    asyncio.run(main())


def test_a_value_over_the_limit_of_the_target_is_counted():
    async def main():
        async with fake_zones(a=[{}], b=[{"item_size_max": 2048}]) as zones:
            await write(zones, "a", {"small": "x", "large": b"x" * 4000})
            run = await warm(zones)
            assert (run.tally.copied, run.tally.skipped[Skip.TOO_LARGE]) == (1, 1)

    asyncio.run(main())


@pytest.mark.parametrize("zone", ["a", "b"])
def test_keys_of_a_dead_node_are_tried_again_and_then_counted_as_failed(zone):
    pauses = []

    async def main():
        async with fake_zones(a=[{}, {}], b=[{}, {}]) as zones:
            await write(zones, "a", values(200))
            keys = list(zones.items("a"))
            dead = zones.servers[zone][0]
            pool = zones.pool(zone)
            lost = sum(pool.node(zones.view.ring_position(key)).endpoint.address == dead.address for key in keys)
            await dead.stop()

            async def sleep(seconds):
                pauses.append(seconds)

            run = await warm(zones, FixedKeys(keys), sleep=sleep)
            assert (run.tally.copied, run.tally.failed) == (200 - lost, lost)
            assert 0 < lost < 200

    asyncio.run(main())
    assert sum(pause == 1.0 for pause in pauses) == ATTEMPTS - 1


def test_a_node_that_returns_gets_its_keys_in_a_later_attempt():
    async def main():
        async with fake_zones(a=[{}], b=[{}]) as zones:
            await write(zones, "a", values(50))
            server = zones.servers["b"][0]
            port = server.port
            await server.stop()
            is_started = False
            recovered = asyncio.Event()
            zones.cluster.on_node_recovered(recovered.set)

            async def sleep(seconds):
                nonlocal is_started
                if seconds == 1.0 and not is_started:
                    is_started = True
                    await server.start(port=port)
                    zones.pool("b").nodes[0].hurry()
                    await recovered.wait()

            run = await warm(zones, sleep=sleep)
            assert (run.tally.copied, run.tally.failed) == (50, 0)

    asyncio.run(main())


class FixedKeys:
    """Source of keys that a test chooses."""

    depends_on_zone = False

    def __init__(self, keys):
        self.keys = keys

    async def batches(self, _pool, size):
        for begin in range(0, len(self.keys), size):
            yield self.keys[begin : begin + size]


@pytest.mark.parametrize(
    ("options", "error"), [({"may_list_keys": False}, Unsupported), ({"auth": ("ada", "x")}, NodeUnavailable)]
)
def test_a_server_that_lists_no_keys_ends_the_run(options, error):
    async def main():
        async with fake_zones(a=[options], b=[{}]) as zones:
            with pytest.raises(error):
                await warm(zones)

    asyncio.run(main())


def test_a_node_that_lists_no_keys_is_named_and_the_other_nodes_are_copied():
    async def main():
        async with fake_zones(a=[{}, {}], b=[{}]) as zones:
            await write(zones, "a", values(200))
            dead, alive = zones.servers["a"]
            number = len(list(alive.store))
            await dead.stop()
            keys = zones.listed()
            run = await warm(zones, keys)
            assert (run.tally.copied, run.tally.keys) == (number, number)
            assert list(keys.failures) == [dead.address]

    asyncio.run(main())


def test_a_cancelled_run_leaves_whole_items_and_the_next_one_completes_it():
    async def main():
        async with fake_zones(a=[{}], b=[{}]) as zones:
            await write(zones, "a", values(2_000))
            reached = asyncio.Event()

            async def sleep(seconds):
                if run.tally.copied >= 400:
                    reached.set()
                    await asyncio.Event().wait()

            run = WarmUp(zones.pool("a"), zones.pool("b"), zones.listed(), NO_LIMITS, sleep=sleep)
            task = asyncio.create_task(run.run())
            await reached.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert asyncio.all_tasks() == {asyncio.current_task()} | {
                task for task in asyncio.all_tasks() if task.get_name().startswith("evcache-")
            }
            copied = len(zones.items("b"))
            assert 400 <= copied < 2_000
            again = await warm(zones)
            assert again.tally.copied + copied >= 2_000
            assert {key: item.value for key, item in zones.items("b").items()} == {
                key: item.value for key, item in zones.items("a").items()
            }

    asyncio.run(main())


def test_keys_of_a_file_are_copied(tmp_path):
    path = tmp_path / "keys"
    path.write_text("k1\n\nk2\r\nmissing\n", "utf-8")

    async def main():
        async with fake_zones(a=[{"may_list_keys": False}], b=[{}]) as zones:
            await write(zones, "a", values(5))
            run = await warm(zones, KeysOfFile(path, "ns"))
            assert (run.tally.copied, run.tally.skipped[Skip.GONE]) == (2, 1)

    asyncio.run(main())


def test_keys_of_a_file_that_a_client_hashes_are_copied(tmp_path):
    path = tmp_path / "keys"
    names = ["x" * 300, "ключ"]
    path.write_text("\n".join(names), "utf-8")

    async def main():
        async with fake_zones(a=[{}], b=[{}]) as zones:
            await write(zones, "a", dict.fromkeys(names, "v"))
            run = await warm(zones, KeysOfFile(path, "ns"))
            assert (run.tally.copied, run.tally.keys) == (2, 2)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("namespace", "line"),
    [("ns", "two words"), ("ns", "tab\tkey"), ("ns", "nul\x00"), (None, "two words"), (None, "x" * 251)],
)
def test_a_line_that_is_no_key_is_an_error_that_names_it(namespace, line, tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"k1\n{line}\n", "utf-8")

    async def main():
        async for _ in KeysOfFile(path, namespace).batches(None, 100):
            raise AssertionError("no batch is whole")

    with pytest.raises(InvalidArgument, match="line 2"):
        asyncio.run(main())


def test_the_rate_is_kept():
    slept = []

    async def main():
        async with fake_zones(a=[{}], b=[{}]) as zones:
            await write(zones, "a", values(1_000))

            async def sleep(seconds):
                slept.append(seconds)

            await warm(zones, limits=WarmLimits(keys_per_second=100), sleep=sleep)

    asyncio.run(main())
    # The injected pause returns at once, so each batch of 200 waits for all batches before it.
    assert max(slept) > 1_000 / 100 - 5


def test_the_tally_counts_each_key_once():
    tally = CopyTally(copied=3, superseded=2, refused=1, failed=4)
    tally.skipped[Skip.PRESENT] += 5
    assert tally.keys == 15


def test_items_that_expire_within_seconds_do_not_make_the_sample_differ():
    async def main():
        async with fake_zones(a=[{}], b=[{}]) as zones:
            await write(zones, "a", values(5), ttl=5)
            await write(zones, "a", {"long": 1})
            run = await warm(zones)
            assert (run.tally.copied, run.tally.skipped[Skip.EXPIRING]) == (1, 5)
            assert await run.check() == SampleCheck(6, 6)

    asyncio.run(main())


def test_a_key_that_is_written_all_the_time_does_not_make_the_sample_differ():
    async def main():
        async with fake_zones(a=[{}], b=[{}]) as zones:
            await write(zones, "a", {"k": 1})

            async def sleep(seconds):
                if seconds == SETTLE_SECONDS:  # the target gets the write of the first look, and the source a newer one
                    await warm(zones)
                    await write(zones, "a", {"k": 3})

            run = await warm(zones, sleep=sleep)
            await write(zones, "a", {"k": 2})
            assert await run.check() == SampleCheck(1, 1)

    asyncio.run(main())


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_list_with_a_line_that_is_no_key_is_a_failure_of_its_node(monkeypatch, nodes):
    async def main():
        async with fake_zones(a=[{}] * nodes, b=[{}]) as zones:
            await write(zones, "a", values(200))
            bad = zones.pool("a").nodes[0].label
            list_to_file = key_files.list_to_file

            async def garbled(node, settings, file):
                if node.label == bad:
                    file.write(b"nonsense\r\nEND\r\n")
                else:
                    await list_to_file(node, settings, file)

            monkeypatch.setattr(key_files, "list_to_file", garbled)
            keys = zones.listed()
            if nodes == 1:
                with pytest.raises(NodeError, match=f"{bad}: invalid list of keys: nonsense"):
                    await warm(zones, keys)
            else:
                run = await warm(zones, keys)
                assert 0 < run.tally.copied < 200
                assert keys.failures == {bad: "invalid list of keys: nonsense"}

    asyncio.run(main())


def test_a_list_that_the_disk_cannot_hold_is_an_error_that_names_its_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    async def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(key_files, "list_to_file", full)

    async def main():
        async with fake_zones(a=[{}], b=[{}]) as zones:
            with pytest.raises(InvalidArgument, match=f"^TMPDIR: .* in {tmp_path}: No space left on device$"):
                await warm(zones)

    asyncio.run(main())
    assert list(tmp_path.iterdir()) == []
