"""Files that are read: each once, and none of a tool's."""

from pathlib import Path

import pytest

from tests.language.sources import ROOT, area, files


def test_linked_folder_is_visited_once(tmp_path):
    for name in (
        "zones/node.py",
        "zones/protocol/decoder.py",
        "evcache/client.py",
        "zones/py.typed",
        "README.md",
        ".ci/run",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in ("zones/__pycache__/node.py", "tests/.cache/page.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "evcache" / "zones").symlink_to("../zones")
    (tmp_path / "evcache" / "node.py").symlink_to("../zones/node.py")
    assert [path.as_posix() for path in files(tmp_path)] == [
        ".ci/run", "README.md", "evcache/client.py", "zones/node.py", "zones/protocol/decoder.py",
    ]  # fmt: skip


def test_every_area_of_the_project_has_files():
    found = files()
    assert {area(path) for path in found} == {"product", "tests", "docs"}
    assert {"evcache", "zones", "tests", "docs", "examples"} <= {path.parts[0] for path in found}
    assert len(found) == len({(ROOT / path).resolve() for path in found})


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("zones/node.py", "product"),
        ("integration/servers.py", "tests"),
        ("examples/write_behind.py", "docs"),
        ("docs/style.md", "docs"),
        ("Makefile", "docs"),
    ],
)
def test_area_of_a_path(path, expected):
    assert area(Path(path)) == expected
