"""A process that writes while a zone is dead, says so, and waits to be killed. Arguments: namespace, node list, hint file."""

import asyncio
import sys

from evcache import EVCache, Hints
from integration.patience import PATIENT_SECONDS

KEYS = 20


async def main(namespace, nodes, path):
    cache = EVCache(namespace, nodes, local_zone="eu-1a", write_timeout=PATIENT_SECONDS, hints=Hints(path=path))
    for number in range(KEYS):
        assert await cache.set(f"key-{number}", number)
    await cache.set("gone", 1)
    await cache.delete("gone")
    # The writes have returned; their hints follow a moment later.
    while cache.stats().hints < KEYS + 1 or cache._runtime.handoff.journal._file._writing is not None:
        await asyncio.sleep(0.01)
    print("written", flush=True)
    await asyncio.sleep(60)


asyncio.run(main(*sys.argv[1:]))
