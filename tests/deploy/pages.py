"""Pages of docs/operations: their Python blocks, run from top to bottom."""

import ast
import asyncio
import contextlib
import io
import re

from evcache import EVCache
from evcache.testing import LocalZones
from tests.support.recipes import ROOT

OPERATIONS = ROOT / "docs" / "operations"
ZONES = {"eu-1a": 1, "eu-1b": 1, "eu-1c": 1}


def blocks_of(page, language="python"):
    """Return the code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def said_by(blocks):
    """Return the lines that comments behind prints name."""
    return re.findall(r"^ *print\(.*\) +# (.*)$", "".join(blocks), re.MULTILINE)


def run_page(page, replace=()):
    """Run the blocks of a page on embedded zones. Return the names that they define, and the lines that they print.

    `replace` has pairs of texts: addresses and paths of the page, and those of the test.
    """
    printed = io.StringIO()
    names = {}

    async def run():
        async with (
            LocalZones(ZONES, backend="embedded") as zones,
            EVCache("page", zones.zones, local_zone="eu-1a") as cache,
        ):
            names.update(ZONES=zones.zones, cache=cache)
            for block in blocks_of(page):
                for old, new in replace:
                    block = block.replace(old, new)
                result = eval(compile(block, page.name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
                if asyncio.iscoroutine(result):
                    await result

    with contextlib.redirect_stdout(printed):
        asyncio.run(run())
    return names, printed.getvalue().splitlines()
