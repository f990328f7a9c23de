"""Tables of the reference are the code's own: environment variables, and arguments of the client."""

import ast
import inspect
import re
import time
from pathlib import Path

from evcache import EVCache

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"


def variables_read():
    """Return the environment variables that the package and its build name in their code."""
    sources = [*(ROOT / "evcache").rglob("*.py"), *(ROOT / "zones").rglob("*.py"), ROOT / "hatch_build.py"]
    return {
        node.value
        for source in sources
        for node in ast.walk(ast.parse(source.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"EVCACHE_[A-Z_]+", node.value)
    }


def test_the_page_on_the_environment_has_each_variable_that_the_package_reads():
    rows = re.findall(r"^\| `(EVCACHE_\w+)` \|", (REFERENCE / "environment.md").read_text("utf-8"), re.MULTILINE)
    assert len(rows) == len(set(rows)) > 5
    assert set(rows) == variables_read()


def as_written(default):
    """Return a default as the page writes it. A setting with fields is written as its constructor."""
    if default is inspect.Parameter.empty:
        return "required"
    if default is time.time:
        return "`time.time`"
    if default is None or isinstance(default, bool):
        return f"`{default}`"
    if isinstance(default, str):
        return f'`"{default}"`'
    if isinstance(default, int | float):
        return f"{default:,}"
    assert default == type(default)()
    return f"`{type(default).__name__}()`"


def test_the_page_on_settings_has_each_argument_of_the_client_with_its_default():
    text = (REFERENCE / "settings.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", text, re.MULTILINE)
    _, *parameters = inspect.signature(EVCache.__init__).parameters.values()
    assert rows == [(parameter.name, as_written(parameter.default)) for parameter in parameters]
