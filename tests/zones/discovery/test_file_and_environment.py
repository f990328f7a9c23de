"""Topologies come from code, the environment or a file; changes of a file are noticed, and bad ones skipped."""

import asyncio
import os

import pytest

from evcache.zones.discovery.base import StaticDiscovery
from evcache.zones.discovery.environment import NODES_VARIABLE, EnvironmentDiscovery
from evcache.zones.discovery.file import FILE_POLL_SECONDS, FileDiscovery
from evcache.zones.errors import InvalidTopology
from evcache.zones.topology.model import Topology
from tests.support import virtual_time
from tests.support.watching import Watching

TOPOLOGY = Topology.from_node_list("a=h:1")


def toml(port):
    return f'[zones.a]\nnodes = ["h:{port}"]\n'


def topology(port):
    return Topology.from_node_list(f"a=h:{port}")


def replace(path, text):
    """As editors and deployments do it: write beside, then rename."""
    new = path.with_suffix(".new")
    new.write_text(text, "utf-8")
    new.rename(path)


async def collect(discovery):
    return [topology async for topology in discovery.watch()]


def test_a_static_topology_never_changes():
    discovery = StaticDiscovery(TOPOLOGY)
    assert virtual_time.run(discovery.load()) == TOPOLOGY
    assert virtual_time.run(collect(discovery)) == []


def test_the_environment_is_read_once(monkeypatch):
    monkeypatch.setenv(NODES_VARIABLE, " a=h:1 ")
    discovery = EnvironmentDiscovery()
    assert virtual_time.run(discovery.load()) == TOPOLOGY
    assert virtual_time.run(collect(discovery)) == []


def test_the_name_of_the_variable_is_public():
    assert NODES_VARIABLE == "EVCACHE_NODES"


def test_the_environment_and_the_variable_can_be_given(monkeypatch):
    monkeypatch.setenv("CACHES", "b=h:2")
    assert virtual_time.run(EnvironmentDiscovery({"CACHES": "a=h:1"}, "CACHES").load()) == TOPOLOGY


@pytest.mark.parametrize("environment", [{}, {NODES_VARIABLE: ""}, {NODES_VARIABLE: "  "}])
def test_a_variable_that_is_not_set_is_named(environment):
    with pytest.raises(InvalidTopology, match=r"^zones: .*EVCACHE_NODES"):
        virtual_time.run(EnvironmentDiscovery(environment).load())


def test_a_malformed_variable_is_an_invalid_topology():
    with pytest.raises(InvalidTopology, match="'h:x'"):
        virtual_time.run(EnvironmentDiscovery({NODES_VARIABLE: "a=h:x"}).load())


def test_a_file_is_read(tmp_path):
    path = tmp_path / "zones.toml"
    path.write_text(toml(1), "utf-8")
    assert virtual_time.run(FileDiscovery(path).load()) == topology(1)
    assert virtual_time.run(FileDiscovery(str(path)).load()) == topology(1)


def test_a_file_that_is_missing_malformed_or_no_text_is_named(tmp_path):
    path = tmp_path / "zones.toml"
    with pytest.raises(InvalidTopology, match=r"^zones: .*zones\.toml.*No such file"):
        virtual_time.run(FileDiscovery(path).load())
    path.write_text('[zones.a]\nnodes = ["h:1"]\nweight = 1\n', "utf-8")
    with pytest.raises(InvalidTopology, match=r"^zones: .*zones\.toml, line 3: "):
        virtual_time.run(FileDiscovery(path).load())
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidTopology, match=r"^zones: .*zones\.toml"):
        virtual_time.run(FileDiscovery(path).load())
    with pytest.raises(InvalidTopology, match=r"^zones: "):
        virtual_time.run(FileDiscovery(tmp_path).load())


def watch(path, scenario, **options):
    async def main():
        discovery = FileDiscovery(path, **options)
        await discovery.load()
        async with Watching(discovery) as watching:
            await scenario(watching)

    virtual_time.run(main())


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "zones.toml"
    path.write_text(toml(1), "utf-8")
    return path


@pytest.mark.parametrize("poll", [FILE_POLL_SECONDS, 0.5])
def test_a_file_that_is_replaced_by_rename_is_noticed_at_the_next_look(path, poll):
    async def scenario(watching):
        await asyncio.sleep(poll * 2.5)
        assert watching.seen == []
        replace(path, toml(2))
        await asyncio.sleep(poll * 5)
        replace(path, toml(3))
        await asyncio.sleep(poll * 5)
        assert watching.seen == [(pytest.approx(3 * poll), topology(2)), (pytest.approx(8 * poll), topology(3))]

    watch(path, scenario, poll=poll)


def test_a_file_that_is_written_in_place_is_noticed(path):
    async def scenario(watching):
        path.write_text(toml(22), "utf-8")
        await asyncio.sleep(10)
        assert watching.topologies == [topology(22)]

    watch(path, scenario)


def test_a_replacement_of_the_same_size_and_time_is_noticed_by_its_inode(path):
    """Two renames can happen within one tick of the file system's clock."""

    async def scenario(watching):
        status = path.stat()
        kept = path.with_suffix(".kept")
        path.rename(kept)  # so that its inode is not used again
        replace(path, toml(2))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert path.stat().st_size == status.st_size
        await asyncio.sleep(10)
        assert watching.topologies == [topology(2)]

    watch(path, scenario)


def test_a_symlink_that_is_switched_is_noticed(tmp_path):
    """As config maps of Kubernetes are updated."""
    for port in (1, 2):
        (tmp_path / f"{port}.toml").write_text(toml(port), "utf-8")
    path = tmp_path / "zones.toml"
    path.symlink_to(tmp_path / "1.toml")

    async def scenario(watching):
        (tmp_path / "next").symlink_to(tmp_path / "2.toml")
        (tmp_path / "next").rename(path)
        await asyncio.sleep(10)
        assert watching.topologies == [topology(2)]

    watch(path, scenario)


def test_other_bytes_with_the_same_meaning_are_no_change(path):
    async def scenario(watching):
        replace(path, "# a comment\n" + toml(1))
        await asyncio.sleep(10)
        replace(path, toml(1))
        await asyncio.sleep(10)
        assert watching.seen == []

    watch(path, scenario)


@pytest.mark.parametrize("broken", [b"[zones.a]\nnodes = [\n", b"", b'[zones.a]\nnodes = ["h:x"]\n', b"\xff\xfe"])
def test_a_malformed_version_is_logged_once_and_the_next_good_one_is_taken(path, caplog, broken):
    async def scenario(watching):
        path.write_bytes(broken)
        await asyncio.sleep(20)
        assert watching.seen == []
        (record,) = caplog.records
        assert (record.name, record.levelname) == ("evcache.zones.discovery", "WARNING")
        assert str(path) in record.getMessage()
        replace(path, toml(2))
        await asyncio.sleep(10)
        assert watching.topologies == [topology(2)]
        assert len(caplog.records) == 1

    watch(path, scenario)


def test_a_version_is_read_once(path, monkeypatch):
    reads = []
    read_text = type(path).read_text
    monkeypatch.setattr(type(path), "read_text", lambda *arguments: reads.append(1) or read_text(*arguments))

    async def scenario(watching):
        await asyncio.sleep(10)
        assert len(reads) == 1
        replace(path, toml(2))
        await asyncio.sleep(10)
        assert len(reads) == 2

    watch(path, scenario)


def test_a_malformed_version_is_logged_once_for_all_watches(path, caplog):
    async def scenario(watching):
        async with Watching(watching.discovery) as other:
            path.write_text("x = [", "utf-8")
            await asyncio.sleep(10)
            assert len(caplog.records) == 1
            replace(path, toml(2))
            await asyncio.sleep(10)
            assert watching.topologies == other.topologies == [topology(2)]

    watch(path, scenario)


def test_a_load_of_a_malformed_version_does_not_end_the_failure_of_a_watch(path):
    async def scenario(watching):
        path.write_text("x = [", "utf-8")
        await asyncio.sleep(10)
        with pytest.raises(InvalidTopology):
            await watching.discovery.load()
        await asyncio.sleep(10)
        assert watching.discovery.status.error is not None

    watch(path, scenario)


def test_a_file_that_becomes_readable_is_taken_without_another_change(path, monkeypatch):
    async def scenario(watching):
        with monkeypatch.context() as patch:
            patch.setattr(type(path), "read_text", refuse)
            path.write_text(toml(22), "utf-8")
            await asyncio.sleep(10)
            assert watching.seen == []
        await asyncio.sleep(10)
        assert watching.topologies == [topology(22)]

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    watch(path, scenario)


def test_each_malformed_version_is_logged(path, caplog):
    async def scenario(watching):
        for text in ("x = [", "y = 1"):
            replace(path, text)
            await asyncio.sleep(10)
        assert len(caplog.records) == 2

    watch(path, scenario)


def test_the_old_version_after_a_malformed_one_is_no_change(path):
    async def scenario(watching):
        for text in ("x = [", toml(1)):
            replace(path, text)
            await asyncio.sleep(10)
        assert watching.seen == []

    watch(path, scenario)


def test_a_file_that_is_gone_for_a_while_changes_nothing(path, caplog):
    async def scenario(watching):
        path.unlink()
        await asyncio.sleep(20)
        assert watching.seen == []
        replace(path, toml(2))
        await asyncio.sleep(10)
        assert watching.topologies == [topology(2)]

    watch(path, scenario)
    assert len(caplog.records) <= 1


def test_a_file_that_can_not_be_read_any_more_changes_nothing(path, caplog):
    async def scenario(watching):
        path.unlink()
        path.mkdir()
        await asyncio.sleep(20)
        assert watching.seen == []
        assert len(caplog.records) == 1
        path.rmdir()
        replace(path, toml(2))
        await asyncio.sleep(10)
        assert watching.topologies == [topology(2)]

    watch(path, scenario)
