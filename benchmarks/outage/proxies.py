"""FaultProxies in a process of their own, so that what they do is not work of the client's event loop.

    python -m benchmarks.outage.proxies 127.0.0.1:11211 ...

Prints the addresses of the proxies as a JSON list. A line of input is the number of seconds by
which later replies are delayed, or `forget`, which makes the proxies forget their connections. Ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from evcache.testing import FaultProxy

END_SECONDS = 5.0
FORGET = "forget"


class Proxies:
    """The proxies, seen from the process of the client."""

    def __init__(self, process: Process, addresses: list[str]) -> None:
        self._process = process
        self.addresses = addresses

    async def delay(self, seconds: float) -> None:
        """Delay replies; returns when it is so."""
        await self._tell(str(seconds))

    async def forget(self) -> None:
        """Forget the connections that are open; returns when it is so."""
        await self._tell(FORGET)

    async def _tell(self, command: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\n".encode())
        await self._process.stdout.readline()


@asynccontextmanager
async def proxies_before(targets: list[str]) -> AsyncIterator[Proxies]:
    """One before each server, for the length of the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.outage.proxies", *targets),
        stdin=PIPE,
        stdout=PIPE,
        start_new_session=True,  # Ctrl-C is for this process, which then closes the input of that one
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        addresses = await process.stdout.readline()
        if not addresses:
            raise SystemExit("the proxies did not start")
        yield Proxies(process, json.loads(addresses))
    finally:
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), END_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()


async def serve(targets: list[str]) -> None:
    """Run in front of these servers until the input ends."""
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    async with AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(FaultProxy(target)) for target in targets]
        print(json.dumps([proxy.address for proxy in proxies]), flush=True)
        while command := await commands.readline():
            for proxy in proxies:
                if command.decode().strip() == FORGET:
                    proxy.forget_connections()
                else:
                    proxy.delay = float(command)
            print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1:]))
