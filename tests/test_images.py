"""Pictures of the docs: small, and without a reference to another host."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from docs._tooling.panel_pictures import Picture, Series, draw, spans, tick_step
from docs._tooling.render_dashboard import chosen, name_of

IMAGES = sorted((Path(__file__).parents[1] / "docs" / "images").glob("*.svg"))
MOST_BYTES = 60_000


def test_each_command_of_the_script_has_a_picture():
    assert {"check", "demo", "explain", "top", "dashboard"} == {path.stem for path in IMAGES}


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
def test_a_picture_is_small_and_loads_nothing(path):
    text = path.read_text("utf-8")
    assert len(text.encode()) < MOST_BYTES
    assert ET.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314  # a file of this repository
    assert re.search(r"@font-face|@import|url\(\s*[\"']?https?:|href=[\"']https?:", text) is None


def test_the_panels_to_draw_are_panels_of_the_dashboard():
    assert [panel.kind for panel in chosen()].count("state-timeline") == 1
    assert len(chosen()) == 9


@pytest.mark.parametrize(
    ("least", "step"), [(0, 1), (0.03, 0.05), (1, 1), (1.1, 2), (3, 5), (6, 10), (200, 200), (201, 500)]
)
def test_ticks_are_round_numbers(least, step):
    assert tick_step(least) == pytest.approx(step)


@pytest.mark.parametrize(
    ("points", "found"),
    [
        ([], []),
        ([(0, 1), (2, 1), (4, 1)], [(0, 4, 1)]),
        ([(0, 1), (2, 0), (4, 0), (6, 1)], [(0, 2, 1), (2, 6, 0), (6, 6, 1)]),
    ],
)
def test_periods_of_one_state(points, found):
    assert spans(points) == found


def test_a_picture_has_the_names_values_and_marks_of_its_panels():
    lines = Picture("Hits & misses", "percentunit", [Series("a<b", [(0, 0.5), (10, 1.0)])])
    states = Picture("Nodes", "none", [Series("n1", [(0, 1), (5, 0), (10, 0)])], (("down", "red"), ("up", "green")))
    root = ET.fromstring(draw([lines, states], 10, [(4, "killed")]))  # noqa: S314  # made here
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"Hits & misses", "a<b", "100%", "50%", "Nodes", "n1", "down", "up"} <= set(texts)
    assert texts.count("killed") == 2
    paths = [element.get("d") for element in root.iter("{http://www.w3.org/2000/svg}path")]
    assert "M72 105L390 34" in paths, "from the middle of the left edge to the top of the right one"


def test_a_legend_has_the_values_of_its_labels():
    assert name_of("{{zone}} {{address}}:{{port}}", {"zone": "a", "address": "127.0.0.1", "port": "7"}) == "a 7"
    assert name_of("hedge {{other}}", {}) == "hedge "
