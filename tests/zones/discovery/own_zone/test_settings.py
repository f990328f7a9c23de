"""The zone in a variable or a file: the forms that Kubernetes writes, and all others."""

import os

import pytest

from evcache.zones.discovery.own_zone.names import NoZone, UnusableSetting
from evcache.zones.discovery.own_zone.settings import FILE_VARIABLE, MAX_FILE_BYTES, read_settings

# As the kubelet writes it: `key="value"` lines, sorted by key, without a line end after the last.
LABELS = 'app="web"\npod-template-hash="6d4b75cb6d"\ntopology.kubernetes.io/region="eu"\ntopology.kubernetes.io/zone="eu-1a"'


def results(environment=None, podinfo="/nonexistent"):
    return list(read_settings(environment or {}, podinfo))


def zone_of(path):
    """Return the zone in a file, or the reason that there is none as a text."""
    (_, _), (_, zone) = results({FILE_VARIABLE: str(path)})
    return str(zone) if isinstance(zone, NoZone) else (zone,)


@pytest.mark.parametrize("text", ["eu-1a", " eu-1a \n", "A", "a" * 63, "eu_1.a-b"])
def test_a_variable_with_a_zone_name_is_first(text):
    source, zone = results({"EVCACHE_ZONE": text})[0]
    assert (source, zone) == ("EVCACHE_ZONE", text.strip())


@pytest.mark.parametrize(
    ("text", "is_setting"),
    [(None, False), ("", False), ("  ", False), ("auto", False), ("eu 1a", True), ("a" * 64, True), ("-a", True)],
)
def test_a_variable_without_a_zone_name_has_none(text, is_setting):
    """Kubernetes sets an empty text for a label that the pod lacks, which is no mistake of the operator."""
    _, zone = results({} if text is None else {"EVCACHE_ZONE": text})[0]
    assert isinstance(zone, NoZone)
    assert isinstance(zone, UnusableSetting) == is_setting


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("eu-1a", ("eu-1a",)),
        ("eu-1a\n", ("eu-1a",)),
        (LABELS, ("eu-1a",)),
        (f"{LABELS}\n", ("eu-1a",)),
        ('topology.kubernetes.io/zone="eu-1a"', ("eu-1a",)),
        ('app="web"\nzone="eu-1b"', "no label topology.kubernetes.io/zone"),
        ('x.topology.kubernetes.io/zone="eu-1b"', "no label topology.kubernetes.io/zone"),
        ('topologyXkubernetesXio/zone="eu-1b"', "no label topology.kubernetes.io/zone"),
        ('topology.kubernetes.io/zone=""', "'' is not a zone name"),
        ('topology.kubernetes.io/zone="eu 1a"', "'eu 1a' is not a zone name"),
        ("", "'' is not a zone name"),
        ("eu-1a\neu-1b", "'eu-1a\\neu-1b' is not a zone name"),
    ],
)
def test_a_file_holds_the_zone_or_the_labels_of_the_pod(tmp_path, text, expected):
    path = tmp_path / "file"
    path.write_bytes(text.encode())
    assert zone_of(path) == (expected if isinstance(expected, tuple) else f"{path}: {expected}")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"\0\0", b"x" * (MAX_FILE_BYTES + 1), b"=" * 10_000_000])
def test_a_file_of_other_bytes_has_no_zone(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    assert len(zone_of(path)) < 300


def test_a_path_that_is_no_readable_file_has_no_zone(tmp_path):
    pipe, loop = tmp_path / "pipe", tmp_path / "loop"
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    assert zone_of(tmp_path / "none") == f"{tmp_path / 'none'}: no such file"
    assert zone_of(tmp_path) == f"{tmp_path}: not a regular file"
    assert zone_of(pipe) == f"{pipe}: not a regular file"
    assert zone_of(loop).startswith(f"{loop}: ")
    assert "name too long" in zone_of(tmp_path / ("x" * 300))


def test_a_file_that_may_not_be_read_has_no_zone(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("eu-1a", "utf-8")

    def denied(*_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.open", denied)
    assert zone_of(path) == f"{path}: permission denied"


def test_the_files_of_the_volume_are_read_in_order(tmp_path):
    (tmp_path / "labels").write_text(LABELS, "utf-8")
    assert [source for source, _ in results(podinfo=tmp_path)] == ["EVCACHE_ZONE", f"{tmp_path}/zone", f"{tmp_path}/labels"]
    assert results(podinfo=tmp_path)[2] == (f"{tmp_path}/labels", "eu-1a")
    (tmp_path / "zone").write_text("eu-1b", "utf-8")
    assert results(podinfo=str(tmp_path))[1] == (f"{tmp_path}/zone", "eu-1b")


def test_a_named_file_takes_the_place_of_the_volume(tmp_path):
    (tmp_path / "zone").write_text("eu-1b", "utf-8")
    sources = results({FILE_VARIABLE: str(tmp_path / "none")}, tmp_path)
    assert [source for source, _ in sources] == ["EVCACHE_ZONE", FILE_VARIABLE]
    assert isinstance(sources[1][1], UnusableSetting)
