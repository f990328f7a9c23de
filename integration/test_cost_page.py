"""The formulas of the page on costs are those of real servers."""

import asyncio
import re
import shutil
from pathlib import Path

import pytest

from evcache import EVCache
from evcache.testing import LocalZones
from integration import raw
from integration.patience import PATIENT

BINARY = shutil.which("memcached")
pytestmark = [pytest.mark.memcached, pytest.mark.skipif(BINARY is None, reason="no memcached binary on PATH")]

PAGE = Path(__file__).parents[1] / "docs" / "concepts" / "cost.md"


def formulas():
    """Return the functions of the page's first block."""
    names = {}
    exec(re.search(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)[1], names)
    return names["chunk"], names["item_bytes"]


def lines(address, command):
    reply = raw.ask(address, command, b"END\r\n").decode()
    return dict(line.removeprefix("STAT ").split(" ", 1) for line in reply.splitlines() if line.startswith("STAT "))


@pytest.mark.parametrize("value", [1, 30, 60, 100, 300, 700, 1_000, 1_100, 5_000, 20_000, 100_000, 300_000])
def test_an_item_takes_the_bytes_and_the_chunk_of_the_page(value, capsys):
    chunk, item_bytes = formulas()
    assert capsys.readouterr().out  # the block prints an example
    with LocalZones({"eu-1a": 1}, backend="memcached", binary=BINARY).running() as zones:
        (address,) = zones.zones["eu-1a"]

        async def store():
            async with EVCache("shop", zones.zones, **PATIENT) as cache:
                assert await cache.set("user:00000042", bytes(value))

        asyncio.run(store())
        items, slabs = lines(address, b"stats items\r\n"), lines(address, b"stats slabs\r\n")
    requested = {key.split(":")[1]: int(number) for key, number in items.items() if key.endswith(":mem_requested")}
    ((slab, size),) = [(slab, number) for slab, number in requested.items() if number]
    assert size == item_bytes("shop:user:00000042", value)
    assert int(slabs[f"{slab}:chunk_size"]) == chunk(size)
