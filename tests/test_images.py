"""Pictures of the docs: small, and without a reference to another host."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

IMAGES = sorted((Path(__file__).parents[1] / "docs" / "images").glob("*.svg"))
MOST_BYTES = 60_000


def test_each_command_of_the_script_has_a_picture():
    assert {"check", "demo", "explain", "top"} <= {path.stem for path in IMAGES}


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
def test_a_picture_is_small_and_loads_nothing(path):
    text = path.read_text("utf-8")
    assert len(text.encode()) < MOST_BYTES
    assert ET.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314  # a file of this repository
    assert re.search(r"@font-face|@import|url\(\s*[\"']?https?:|href=[\"']https?:", text) is None
