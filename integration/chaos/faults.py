"""Faults, carried out: each begins, lasts its time, and ends with everything as it was."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack

from evcache.zones.testing.fault_proxy.proxy import FaultProxy
from evcache.zones.topology.model import Mode
from integration.chaos.fault_plan import DELAY_SECONDS, Fault, PlannedFault
from integration.chaos.history import WRITE_TIMEOUT_SECONDS
from integration.chaos.system import System
from integration.chaos.troubles import Trouble

# Between two ends of connections, where a fault is a series of them.
REPEAT_SECONDS = 0.3
# Of replies or requests, before a connection ends: from within the first line to the middle of a large value.
CUT_BYTES_MAX = 6_000
# From a zone's leaving until it is emptied: calls that began before have ended, and nothing of them comes later.
LEAVE_SECONDS = WRITE_TIMEOUT_SECONDS + 0.5


async def carry_out(system: System, plan: Iterable[PlannedFault], say: Callable[[str], None]) -> Counter[Fault]:
    """Let each fault happen at its time, or when others have made room for it. How often each one did.

    Each zone has at most one fault at a time, and at least one zone has none. That also holds if faults take longer to
    begin or to end than planned.

    Returns when the system is over and all have ended: nothing is broken any more. When cancelled, they end too.
    """
    happened: Counter[Fault] = Counter()
    began = system.now()
    room = asyncio.Semaphore(len(system.zones) - 1)

    async def one(planned: PlannedFault) -> None:
        await system.sleep(began + planned.start - system.now())
        async with room, AsyncExitStack() as stack:
            for zone in system.zones if planned.zone is None else [planned.zone]:
                await stack.enter_async_context(system.locks[zone])
            if system.over.is_set():
                return
            happened[planned.fault] += 1
            say(f"{system.now():7.1f} s  fault {planned.number} begins: {planned}")
            began_at = system.now()
            try:
                await _ACTIONS[planned.fault](system, planned)
            finally:
                client = None if planned.client is None else system.clients[planned.client].name
                system.troubles.extend(
                    Trouble(planned.fault, zone, planned.node, client, began_at, system.now())
                    for zone in (system.zones if planned.zone is None else [planned.zone])
                )
                system.fault_ended.set()
            say(f"{system.now():7.1f} s  fault {planned.number} has ended")

    async with asyncio.TaskGroup() as group:
        for planned in plan:
            group.create_task(one(planned))
    await system.over.wait()
    return happened


# Servers.


async def _die(system: System, planned: PlannedFault) -> None:
    try:
        await asyncio.to_thread(system.running.kill, planned.zone, node=planned.node)
        await system.sleep(planned.seconds)
    finally:
        await system.restart_empty(planned.zone, planned.node)


async def _hang(system: System, planned: PlannedFault) -> None:
    try:
        await asyncio.to_thread(system.running.pause, planned.zone, node=planned.node)
        await system.sleep(planned.seconds)
    finally:
        await asyncio.to_thread(system.running.resume, planned.zone, node=planned.node)


# The network.


async def _cut_off(system: System, planned: PlannedFault) -> None:
    await _misbehave(system, planned, stall=True)


async def _hold_replies(system: System, planned: PlannedFault) -> None:
    await _misbehave(system, planned, stall_replies=True)


async def _slow_down(system: System, planned: PlannedFault) -> None:
    least, most = DELAY_SECONDS
    # Half of it each way: requests that come late arrive in another order than in other zones.
    each_way = (least + planned.amount * (most - least)) / 2
    await _misbehave(system, planned, delay_requests=each_way, delay=each_way)


async def _misbehave(system: System, planned: PlannedFault, **attributes: object) -> None:
    """Have attributes of the proxies be what they are not, for as long as the fault lasts."""
    changed = [
        (proxy, name, getattr(proxy, name)) for proxy in system.proxies(planned.zone, planned.client) for name in attributes
    ]
    try:
        for proxy, name, _ in changed:
            setattr(proxy, name, attributes[name])
        await system.sleep(planned.seconds)
    finally:
        for proxy, name, before in changed:
            setattr(proxy, name, before)


async def _refuse(system: System, planned: PlannedFault) -> None:
    proxies = system.proxies(planned.zone, planned.client)
    try:
        for proxy in proxies:
            proxy.refuse = True
            await proxy.drop_connections(reset=True)
        await system.sleep(planned.seconds)
    finally:
        for proxy in proxies:
            proxy.refuse = False


async def _reset(system: System, planned: PlannedFault) -> None:
    async def end(proxy: FaultProxy) -> None:
        await proxy.drop_connections(reset=True)

    await _repeat(system, planned, end)


async def _cut_replies(system: System, planned: PlannedFault) -> None:
    async def end(proxy: FaultProxy) -> None:
        cut = proxy.reset_after if planned.number % 2 else proxy.cut_after
        cut(int(planned.amount * CUT_BYTES_MAX))

    await _repeat(system, planned, end)


async def _cut_requests(system: System, planned: PlannedFault) -> None:
    async def end(proxy: FaultProxy) -> None:
        proxy.cut_requests_after(int(planned.amount * CUT_BYTES_MAX))

    await _repeat(system, planned, end)


async def _repeat(system: System, planned: PlannedFault, end: Callable[[FaultProxy], Awaitable[None]]) -> None:
    until = system.now() + planned.seconds
    while system.now() < until and not system.over.is_set():
        for proxy in system.proxies(planned.zone, planned.client):
            await end(proxy)
        await system.sleep(REPEAT_SECONDS)
    # A cut that waits for its bytes falls on the first calls after the fault, at the latest.


# The topology.


async def _write_only(system: System, planned: PlannedFault) -> None:
    try:
        await system.rearrange(planned.zone, Mode.WRITE_ONLY)
        await system.sleep(planned.seconds)
    finally:
        await system.rearrange(planned.zone)


async def _zone_leaves(system: System, planned: PlannedFault) -> None:
    await system.rearrange(planned.zone, None)
    await system.sleep(planned.seconds)
    await _come_back_empty(system, planned.zone)


async def _node_leaves(system: System, planned: PlannedFault) -> None:
    await system.rearrange(planned.zone, nodes=len(system.running.zones[planned.zone]) - 1)
    await system.sleep(planned.seconds)
    # The other nodes stored items while the node was away. The zone is emptied, so that these do not return when it leaves again.
    await system.rearrange(planned.zone, None)
    await _come_back_empty(system, planned.zone)


async def _come_back_empty(system: System, zone: str) -> None:
    await asyncio.sleep(LEAVE_SECONDS)
    await system.restart_empty(zone)
    await system.rearrange(zone)


_ACTIONS: dict[Fault, Callable[[System, PlannedFault], Awaitable[None]]] = {
    Fault.NODE_DIES: _die,
    Fault.ZONE_DIES: _die,
    Fault.NODE_HANGS: _hang,
    Fault.ZONE_HANGS: _hang,
    Fault.ZONE_CUT_OFF: _cut_off,
    Fault.LINK_CUT_OFF: _cut_off,
    Fault.CLIENT_CUT_OFF: _cut_off,
    Fault.NO_REPLIES: _hold_replies,
    Fault.REFUSED: _refuse,
    Fault.RESETS: _reset,
    Fault.SLOW_ZONE: _slow_down,
    Fault.SLOW_LINK: _slow_down,
    Fault.CUT_REPLIES: _cut_replies,
    Fault.CUT_REQUESTS: _cut_requests,
    Fault.WRITE_ONLY: _write_only,
    Fault.ZONE_LEAVES: _zone_leaves,
    Fault.NODE_LEAVES: _node_leaves,
}
