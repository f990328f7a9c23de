"""A client whose hint file cannot be used, or is slow: calls go on without it, and the log says so once.

Files are read and written on a thread, so tests with a real one run on an ordinary loop, and wait for nothing but it.
"""

import asyncio
import logging
import threading

import pytest

from evcache import CacheUnavailable, Hints, InvalidArgument
from evcache.replication.handoff.hints import Hint, Kind
from evcache.replication.handoff.journal import HintFile
from evcache.values.flags import FLAG_TOMBSTONE
from tests.support.memory_zones import TOMBSTONE, WALL_START, Listener, MemoryZones, full, on_zones, pass_time
from tests.support.unusable_files import CAUSES, no_database, other_kind
from tests.support.virtual_time import settle

UNUSABLE = "hint file unusable: "


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr("evcache.replication.handoff.journal.BUSY_SECONDS", 0.0)  # it would be waited for in real time


def said(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


def patient(zones, **options):
    """A client on a real clock, on a machine that may be busy."""
    return zones.client(read_timeout=10, write_timeout=10, connect_timeout=10, **options)


async def load():
    return "loaded"


CALLS = {
    "get": lambda cache: cache.get("k", timeout=5),
    "get_many": lambda cache: cache.get_many(["k", "l"], timeout=5),
    "set": lambda cache: cache.set("k", 1, timeout=5),
    "delete": lambda cache: cache.delete("k", timeout=5),
    "add": lambda cache: cache.add("k", 1, timeout=5),
    "get_or_load": lambda cache: cache.get_or_load("k", load),
    "async with": lambda cache: cache.__aenter__(),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_calls_go_on_when_the_hint_file_is_unusable(tmp_path, caplog, cause):
    """Hints are kept in memory; one line of the log says why, and so does `stats()`."""

    async def main(path, says):
        for call in CALLS.values():
            zones = MemoryZones()
            listener = Listener()
            cache = patient(zones, hints=Hints(path=str(path)), hooks=listener)
            caplog.clear()
            await call(cache)
            assert cache.stats().hint_file_error.startswith(f"{path}: {says}")
            await zones.kill("c")
            await cache.set("kept", "value", consistency="all", timeout=5)
            assert cache.stats().hints == 1
            (line,) = said(caplog)
            assert line.startswith(f"{UNUSABLE}{path}: {says}")
            await cache.close()
            assert listener.ended == [("c", "closed")]

    with cause(tmp_path) as (path, says):
        asyncio.run(main(path, says))


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("cause", CAUSES)
def test_a_strict_client_says_why_the_hint_file_is_unusable(tmp_path, caplog, cause, call):
    """Each call names the setting and the cause, until the file can be used."""

    async def main():
        zones = MemoryZones()
        with cause(tmp_path) as (path, says):
            cache = patient(zones, hints=Hints(path=str(path), strict=True))
            for _ in range(2):
                with pytest.raises(InvalidArgument) as caught:
                    await CALLS[call](cache)
                assert caught.value.argument == "hints.path"
                assert caught.value.problem.startswith(f"{path}: {says}")
        await CALLS[call](cache)
        assert cache.stats().hint_file_error is None
        await cache.close()
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
    assert said(caplog) == []


def test_a_file_of_another_program_stays_unchanged(tmp_path):
    """The file stays as it was, although the client keeps hints in memory."""
    with other_kind(tmp_path) as (path, _):
        before = path.read_bytes()

        async def main():
            zones = MemoryZones()
            cache = patient(zones, hints=Hints(path=str(path)))
            await zones.kill("c")
            await cache.set("k", 1, timeout=5)
            await cache.close()

        asyncio.run(main())
        assert path.read_bytes() == before


def test_hints_that_no_file_keeps_are_lost_with_the_client(tmp_path, caplog):
    """They are reported as those of a client without a file."""

    async def main(path):
        zones = MemoryZones()
        listener = Listener()
        cache = patient(zones, hints=Hints(path=str(path)), hooks=listener)
        await zones.kill("c")
        await cache.set("k", 1, timeout=5)
        await cache.close()
        assert listener.ended == [("c", "closed")]

    with caplog.at_level(logging.INFO), no_database(tmp_path) as (path, _):
        asyncio.run(main(path))
    messages = [record.getMessage() for record in caplog.records]
    assert "closed with 1 undelivered hints for zone c: dropped" in messages
    assert not [message for message in messages if "kept in /" in message]


@pytest.mark.parametrize("recovers", [True, False])
def test_a_file_that_fails_in_use_fails_no_call(tmp_path, caplog, recovers):
    """As on a disk that is full: hints stay in memory, and are in the file when there is room again."""
    path = str(tmp_path / "hints")

    async def main():
        zones = MemoryZones()
        listener = Listener()
        cache = patient(zones, hints=Hints(path=path), hooks=listener)
        await zones.kill("c")
        await cache.set("k0", 0, timeout=5)
        file = cache._runtime.handoff.journal._file
        assert await file.flush()
        assert cache.stats().hint_file_error is None
        file._thread.submit(file._database.execute, "PRAGMA query_only = ON").result()
        for number in range(1, 4):
            assert await cache.set(f"k{number}", number, timeout=5)
            assert not await file.flush()
        assert cache.stats().hint_file_error.startswith(path)
        assert cache.stats().hints == 4
        (line,) = said(caplog)
        assert line.startswith(UNUSABLE + path)
        if recovers:
            file._thread.submit(file._database.execute, "PRAGMA query_only = OFF").result()
            await cache.set("k4", 4, timeout=5)
            assert await file.flush()
            assert cache.stats().hint_file_error is None
        await cache.close()
        assert len(listener.ended) == (0 if recovers else 4)
        following = HintFile(path)
        assert len(await following.open()) == (5 if recovers else 1)
        await following.close()

    asyncio.run(main())


def test_the_second_client_keeps_its_hints_in_memory(tmp_path, caplog):
    """One file for each process: two would deliver, and lose, each other's."""
    path = str(tmp_path / "hints")

    async def main():
        zones = MemoryZones()
        first, second = patient(zones, hints=Hints(path=path)), patient(zones, hints=Hints(path=path))
        await first.set("k", 1, timeout=5)
        assert await second.get("k", timeout=5) == 1
        assert first.stats().hint_file_error is None
        assert "another process uses it" in second.stats().hint_file_error
        await zones.kill("c")
        await first.set("first", 1, timeout=5)
        await second.set("second", 1, timeout=5)
        await first.close()
        await second.close()
        following = HintFile(path)
        assert [hint.key for hint in await following.open()] == [full("first")]
        await following.close()

    asyncio.run(main())
    (line,) = said(caplog)
    assert line.startswith(f"{UNUSABLE}{path}: another process uses it")


def test_a_client_that_is_closed_while_a_slow_file_opens_leaves_nothing(tmp_path):
    """No task, no thread and no lock, with a call that went on without the file."""
    path = str(tmp_path / "hints")
    go_on = threading.Event()

    async def main():
        zones = MemoryZones()
        cache = patient(zones, hints=Hints(path=path))
        with pytest.MonkeyPatch.context() as patch:
            opened = HintFile._open
            patch.setattr(HintFile, "_open", lambda file: (go_on.wait(10), opened(file))[1])
            getting = asyncio.create_task(cache.get("k", timeout=5))
            await settle()
            cache._runtime.handoff.journal.wait_no_longer()
            assert await getting is None
            closing = asyncio.create_task(cache.close())
            await settle()
            assert not closing.done()
            go_on.set()
            await closing
        assert len(asyncio.all_tasks()) == 1
        following = HintFile(path)
        assert await following.open() == []
        await following.close()

    asyncio.run(main())


# A file that is slow, in virtual time.


class SlowFile:
    """Stands for a `HintFile` on a slow disk."""

    def __init__(self, path):
        self.path = path
        self.error = None
        self.put_in = {}
        self.opened = asyncio.Event()
        self.found = []
        self.closed = False
        SlowFile.last = self

    async def open(self):
        await self.opened.wait()
        return self.found

    def put(self, hint):
        self.put_in[hint.zone, hint.key] = hint

    def remove(self, hint):
        self.put_in.pop((hint.zone, hint.key), None)

    async def close(self):
        self.closed = True
        return True


@pytest.fixture
def _slow(monkeypatch):
    monkeypatch.setattr("evcache.replication.handoff.journal.HintFile", SlowFile)


def delete_of(key, version):
    """A delete of an earlier release, which gave it an end. That is over."""
    return Hint("c", full(key), Kind.DELETE, version, b"", FLAG_TOMBSTONE, 60, WALL_START - 90, WALL_START - 30)


@pytest.mark.parametrize("timeout", [0.1, 2.0])
@pytest.mark.usefixtures("_slow")
@on_zones()
async def test_a_call_waits_for_a_slow_file_for_half_of_its_time(zones, timeout):
    """Then it goes on without, and so do the calls that follow, at once."""
    cache = zones.client(hints=Hints(path="slow"))
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await cache.get("k", timeout=timeout) is None
    assert loop.time() - began == pytest.approx(timeout / 2)
    assert await cache.set("k", 1, timeout=0.1)
    assert loop.time() - began == pytest.approx(timeout / 2)
    await cache.close()
    assert SlowFile.last.closed


@pytest.mark.usefixtures("_slow")
@on_zones()
async def test_of_several_calls_none_waits_longer_than_half_of_its_time(zones):
    """A call with more time does not delay calls with less."""
    cache = zones.client(hints=Hints(path="slow"))
    calls = [asyncio.create_task(cache.get("k", timeout=timeout)) for timeout in (10, 0.2, 1)]
    await pass_time(0.1001)
    assert [call.done() for call in calls] == [True] * 3
    assert await asyncio.gather(*calls) == [None] * 3


@pytest.mark.usefixtures("_slow")
@on_zones()
async def test_a_strict_client_waits_for_a_slow_file(zones):
    """The call waits for its whole time, and the error names the file."""
    cache = zones.client(hints=Hints(path="slow", strict=True))
    with pytest.raises(CacheUnavailable, match="opening the hint file"):
        await cache.get("k", timeout=1)
    getting = asyncio.create_task(cache.get("k", timeout=1))
    await pass_time(0.9)
    assert not getting.done()
    SlowFile.last.opened.set()
    assert await getting is None


@pytest.mark.usefixtures("_slow")
@on_zones()
async def test_a_slow_file_is_used_when_it_is_open(zones):
    """What it holds is delivered, and what was missed in between is in it, unless it was newer than that."""
    cache = zones.client(hints=Hints(path="slow"))
    await zones.kill("c")
    result = await cache.set("both", "new", timeout=1)
    await cache.set("missed", "value", timeout=1)
    file = SlowFile.last
    assert file.put_in == {}
    old = delete_of("both", result.version - 1000)
    found = delete_of("found", result.version - 1000)
    file.found = [old, found]
    file.opened.set()
    await settle()
    assert cache.stats().hints == 3
    assert file.put_in.keys() == {("c", full(key)) for key in ("both", "missed", "found")}
    assert file.put_in["c", full("both")].kind is Kind.SET
    zones.restart("c")
    await pass_time(20)
    assert cache.stats().hints == 0
    assert file.put_in == {}
    assert await cache.get("both") == "new"
    assert zones.values("both")["c"] == "new"
    assert zones.held("found", "c").value == TOMBSTONE


@pytest.mark.parametrize(("options", "argument"), [({"path": "x", "strict": 1}, "strict"), ({"strict": True}, "strict")])
def test_strict_is_checked(options, argument):
    """It is about a file, and a bool."""
    with pytest.raises(InvalidArgument) as caught:
        Hints(**options)
    assert caught.value.argument == argument
