"""Tables of calls side by side in the guides: each call that a cell shows is made, and gives what the next cell says.

A cell that is one code span is made, from the first row of the page to the last, as if typed into one session. The cell
behind it is a code span with the result, `true` or `false` for the truth of a `WriteResult`, or "raises" and the error.
Other cells are prose.
"""

import ast
import asyncio
import inspect
import re
from pathlib import Path
from types import MappingProxyType

GUIDES = Path(__file__).parents[2] / "docs" / "guides"

_SPAN = re.compile(r"`([^`]+)`")


def calls(page, title):
    """Return the calls and stated results of the column with this title, and of the column behind it."""
    found = []
    for table in re.findall(r"(?:^\|.*\n)+", (GUIDES / page).read_text("utf-8"), re.MULTILINE):
        head, _, *rows = [[cell.strip() for cell in line.strip().strip("|").split(" | ")] for line in table.splitlines()]
        if title in head and head[head.index(title) + 1 :][:1] == ["Result"]:
            column = head.index(title)
            found += [
                (span[1], row[column + 1].strip())
                for row in rows
                if (span := _SPAN.fullmatch(row[column].strip())) is not None
            ]
    return found


async def results(made, names=MappingProxyType({})):
    """Return the calls with their results as a page states them. A call that blocks is made in the event loop."""
    known = {"asyncio": asyncio, **names}
    found = []
    for source, stated in made:
        try:
            result = await _made(source, known)
        except Exception as error:
            found.append((source, f"raises `{type(error).__name__}`"))
        else:
            found.append((source, str(bool(result)).lower() if stated in ("true", "false") else f"`{result!r}`"))
    return found


async def _made(source, names):
    """Return the value of an expression, or None for a statement."""
    mode = "eval" if _is_expression(source) else "exec"
    code = compile(source, source, mode, ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, names)
    return await result if inspect.iscoroutine(result) else result


def _is_expression(source):
    try:
        compile(source, source, "eval", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except SyntaxError:
        return False
    return True
