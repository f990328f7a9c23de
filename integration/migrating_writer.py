"""A process that writes and reads until it ends, and reports each write. Arguments: namespace, number, topology file.

The process writes a line `try KEY VALUE` before a write, and `ack KEY VALUE` after it was acknowledged. A VALUE of `-` is a
delete. `count VALUE` follows a step of the counter, and `wrong` a read that lost a write. `status MODES HINTS` comes from time
to time.
"""

import asyncio
import os
import random
import signal
import sys

from evcache import EVCache
from evcache.errors import CacheError
from evcache.zones import FileDiscovery
from integration.patience import PATIENT

KEYS = 40
CALLERS = 4
POLL_SECONDS = 0.02
STATUS_SECONDS = 0.05
PAUSE_SECONDS = 0.002


def report(*words):
    os.write(1, " ".join(map(str, words)).encode() + b"\n")  # in the pipe at once, also if this process is killed next


class Writer:
    """Callers with keys of their own."""

    def __init__(self, cache, number):
        self.cache = cache
        self.number = number
        self.last = 0

    async def write(self, caller):
        """Write, delete and read the keys of one caller, one after another."""
        acknowledged = {}
        attempted = {}
        draw = random.Random(f"{self.number}/{caller}")
        while True:
            key = f"{self.number}-{draw.randrange(caller, KEYS, CALLERS)}"
            attempts = attempted.setdefault(key, [])
            try:
                if draw.random() < 0.3:
                    allowed = [*attempts[acknowledged.get(key, 0) :], *([] if key in acknowledged else [None])]
                    found = await self.cache.get(key)
                    if found not in allowed:
                        report("wrong", key, found, allowed)
                else:
                    await self._change(key, attempts, acknowledged, is_delete=draw.random() < 0.2)
            except CacheError:
                pass  # the write may have happened
            await asyncio.sleep(PAUSE_SECONDS)

    async def _change(self, key, attempts, acknowledged, *, is_delete):
        self.last += 1
        value = None if is_delete else self.last
        index = len(attempts)
        attempts.append(value)
        report("try", key, "-" if is_delete else value)
        result = await (self.cache.delete(key) if is_delete else self.cache.set(key, value))
        if result:
            acknowledged[key] = index
            report("ack", key, "-" if is_delete else value)

    async def count(self):
        """Count, as long as every step is certain."""
        while True:
            report("count", await self.cache.incr(f"{self.number}-counter", initial=1))
            await asyncio.sleep(PAUSE_SECONDS)

    async def report_status(self):
        """Report the modes that are in use, and the hints that are left."""
        while True:
            view = self.cache._runtime.cluster.view
            report("status", ",".join(f"{zone.name}:{zone.mode}" for zone in view.topology.zones), self.cache.stats().hints)
            await asyncio.sleep(STATUS_SECONDS)


async def main(namespace, number, path):
    cache = EVCache(
        namespace,
        FileDiscovery(path, poll=POLL_SECONDS),
        read_consistency="quorum",
        write_consistency="quorum",
        **PATIENT,
    )
    async with cache:
        writer = Writer(cache, number)
        work = [asyncio.create_task(writer.write(caller)) for caller in range(CALLERS)]
        work += [asyncio.create_task(writer.count()), asyncio.create_task(writer.report_status())]
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: [task.cancel() for task in work])
        await asyncio.gather(*work, return_exceptions=True)


asyncio.run(main(*sys.argv[1:]))
