"""Code of the pages in docs/: a page runs from top to bottom, as if typed into one session."""

import ast
import asyncio
import codeop
import contextlib
import io
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from evcache import EVCache, LocalChannel, NearCache
from evcache.testing import LocalZones

ZONES = {"eu-1a": 1, "eu-1b": 1, "eu-1c": 1}

BLOCK = re.compile(r'^```python(?: title="(?P<file>[\w.]+)")?\n(?P<code>.*?)^```', re.DOTALL | re.MULTILINE)


def python_blocks(page):
    """Return the code that is typed in: blocks without a title."""
    return [block["code"] for block in BLOCK.finditer(page.read_text("utf-8")) if not block["file"]]


def files_of(page):
    """Return the code of each file that a page shows, by name: blocks with a title."""
    return {block["file"]: block["code"] for block in BLOCK.finditer(page.read_text("utf-8")) if block["file"]}


def said_by(blocks):
    """What the comments behind prints say that they print; those with an ellipsis are of prints that are not reached."""
    said = re.findall(r"^ *print\(.*\) +# (.*)$", "".join(blocks), re.MULTILINE)
    return [line for line in said if "..." not in line]


def syntax_errors_of(block):
    """Return the errors that the interpreter of `python -m asyncio` finds if the block is pasted line by line.

    There an empty line ends a function, and a statement behind a loop needs an empty line before it.
    """
    compiler = codeop.CommandCompiler()
    compiler.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    pending, errors = [], []
    for line in [*block.splitlines(), ""]:
        pending.append(line)
        try:
            is_complete = compiler("\n".join(pending)) is not None
        except SyntaxError as error:
            errors.append(f"{line}: {error.msg}")
            is_complete = True
        if is_complete:
            pending = []
    return errors


class Database:
    """The one that the pages speak of."""

    def __init__(self):
        self.rows = {42: {"name": "Ada"}, 43: {"name": "Grace"}}
        self.counts = Counter()

    async def read(self, user_id):
        return self.rows.get(user_id)

    async def read_many(self, keys):
        users = {key: int(key.removeprefix("user:")) for key in keys}
        return {key: self.rows[user_id] for key, user_id in users.items() if user_id in self.rows}

    async def write(self, user_id, row):
        self.rows[user_id] = row

    async def write_many(self, batch):
        for key, value in batch.items():
            if key in batch.deltas:
                self.counts[key] += value
            else:
                self.rows[int(key.removeprefix("user:"))] = value


def printed_by(blocks, name, given=None):
    """Run blocks on embedded servers and without a Redis, and return the lines that they print.

    The blocks find `ZONES`, `cache` and `database`, and the names in `given`.
    """
    printed = io.StringIO()

    async def run():
        async with (
            LocalZones(ZONES, backend="embedded") as zones,
            EVCache("page", zones.zones, local_zone="eu-1a", near_cache=NearCache(), invalidation=LocalChannel()) as cache,
        ):
            names = {"ZONES": zones.zones, "cache": cache, "database": Database(), **(given or {})}
            for block in blocks:
                block = block.replace("redis://10.0.9.1:6379", "redis://127.0.0.1:1")
                # Within a module, as `@cache.cached` asks for the one of a function.
                code = compile(block, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
                if "asyncio.run(" in block or ".running()" in block:
                    await asyncio.to_thread(exec, code, names)  # where no event loop runs
                    continue
                result = eval(code, names)
                if asyncio.iscoroutine(result):
                    await result

    with contextlib.redirect_stdout(printed):
        asyncio.run(run())
    return printed.getvalue().splitlines()


def run_files(files, folder):
    """Write the files of a page to a folder, and run them: tests with pytest, and each program with its zones in variables.

    Return what each printed, by the name of the program, or "tests".
    """
    for name, code in files.items():
        (folder / name).write_text(code, "utf-8")
    printed = {}
    for name, code in files.items():
        if not name.startswith("test_") and "asyncio.run(" in code:
            with LocalZones(["local-a", "local-b", "local-c"], backend="embedded").running() as zones:
                nodes = ";".join(f"{zone}={','.join(addresses)}" for zone, addresses in zones.zones.items())
                printed[name] = _output([name], folder, EVCACHE_NODES=nodes, EVCACHE_ZONE="local-a")
    if any(name.startswith("test_") for name in files):
        printed["tests"] = _output(["-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"], folder)
    return printed


def _output(arguments, folder, **variables):
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        # The package of this checkout, also where another one is installed.
        env={**os.environ, "PYTHONPATH": str(root), **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()
