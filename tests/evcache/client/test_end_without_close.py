"""Programs that end without `close`: neither asyncio nor the client reports anything, whatever is under way."""

import asyncio
import subprocess
import sys
import textwrap

import pytest

from evcache.testing import LocalZones
from tests.support.memory_zones import PATIENT, on_zones
from tests.support.virtual_time import settle

SETTINGS = {
    "defaults": "zones=sys.argv[1]",
    "a zone that is down": "zones=sys.argv[1].split(';')[0] + ';b=127.0.0.1:1'",
    "everything": """
        zones=sys.argv[2] + '.toml', near_cache=NearCache(), invalidation=LocalChannel(), hints=Hints(path=sys.argv[2]),
        hedging=Hedging(), telemetry=Telemetry()
    """,
}

PROGRAM = """
import asyncio, gc, logging, sys
from evcache import CacheError, EVCache, Hedging, Hints, NearCache, Telemetry
from evcache.channels import LocalChannel

logging.basicConfig(level=logging.WARNING)
logging.getLogger("evcache.zones").setLevel(logging.ERROR)  # of a node that is down
cache = EVCache("t", local_zone="a", {settings})

async def never():
    await asyncio.Event().wait()

async def work():
    await cache.set("k", 1)
    try:
        await cache.get_or_load("never", never, timeout=0.01)
    except CacheError:
        pass
    await cache.set("late", 1, consistency="one")

{end}
"""

# By name: how the program ends, and whether asyncio's own checks can be on. The sockets of a loop that is closed without
# being shut down are reported there, and nothing can close them any more.
ENDS = {
    "asyncio.run": ("asyncio.run(work())", True),
    "two loops in turn": ("asyncio.run(work()); asyncio.run(work())", True),
    "exit inside": (
        """
        async def main():
            await work()
            sys.exit(0)
        asyncio.run(main())
        """,
        True,
    ),
    "the main task ends first": (
        """
        async def main():
            tasks = [asyncio.ensure_future(work()) for _ in range(20)]
            for _ in range(25):
                await asyncio.sleep(0)
        asyncio.run(main())
        """,
        True,
    ),
    "no reference is left": (
        """
        async def main():
            global cache
            await work()
            cache = None
            gc.collect()
            await asyncio.sleep(0)
            gc.collect()
        asyncio.run(main())
        gc.collect()
        """,
        True,
    ),
    "the loop is closed under it": (
        """
        for _ in range(2):
            loop = asyncio.new_event_loop()
            loop.run_until_complete(work())
            loop.close()
        gc.collect()
        """,
        False,
    ),
    "the loop is never closed": ("asyncio.new_event_loop().run_until_complete(work())", False),
}


@pytest.fixture(scope="module")
def zones():
    with LocalZones({"a": 1, "b": 1}, backend="embedded").running() as zones:
        yield {name: list(nodes) for name, nodes in zones.zones.items()}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("settings", SETTINGS)
def test_a_program_that_ends_without_close_is_silent(zones, tmp_path, settings, end):
    """With a write on its way and a load that never ends. Exit code 0, nothing on standard error, no line of the log."""
    path = tmp_path / "hints"
    path.with_suffix(".toml").write_text("".join(f"[zones.{zone}]\nnodes = {nodes}\n" for zone, nodes in zones.items()))
    listed = ";".join(f"{zone}={','.join(nodes)}" for zone, nodes in zones.items())
    last, checks = ENDS[end]
    code = PROGRAM.format(settings=SETTINGS[settings].strip(), end=textwrap.dedent(last))
    flags = ["-X", "dev", "-W", "error"] if checks else []
    done = subprocess.run(
        [sys.executable, *flags, "-c", code, listed, str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    # asyncio's own report of a slow callback, which is about this machine.
    reported = [line for line in done.stderr.splitlines() if not line.startswith("WARNING:asyncio:Executing")]
    assert (done.returncode, done.stdout, "\n".join(reported)) == (0, "", "")


@pytest.mark.parametrize("turns", range(4))
@on_zones()
async def test_a_write_ends_if_its_background_task_is_cancelled_before_it_begins(zones, turns):
    """The task never runs, so nothing in it can report. The caller must not wait until the deadline."""
    cache = zones.client(circuit=PATIENT)
    await cache.__aenter__()  # connects to no node yet, so each zone takes a task
    setting = asyncio.ensure_future(cache.set("k", 1, consistency="all", timeout=1000, errors="miss"))
    for _ in range(turns):
        await asyncio.sleep(0)
    for task in asyncio.all_tasks() - {asyncio.current_task(), setting}:
        if task in cache._runtime.background._tasks:
            task.cancel()
    loop = asyncio.get_running_loop()
    began = loop.time()
    result = await setting
    assert loop.time() - began < 1
    assert set(result.zones) == set("abc")
    await settle()
