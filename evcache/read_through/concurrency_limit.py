"""How many loaders run at once, and who is next.

First come, first served, with one exception: a loader may itself ask for keys that have to be loaded. If that load had to
wait for a slot, and all slots were held by loaders that wait like this one, nothing would ever move. So a load that a
running loader waits for begins at once, over the limit: the one that waits for it does nothing meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

Ticket = asyncio.Future[None]


class LoadLimiter:
    """So many at once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._queue: OrderedDict[Ticket, None] = OrderedDict()
        self.taken = 0
        self.running = 0
        """Loaders that run. Each of them adds itself."""

    @property
    def full(self) -> bool:
        """Whether whoever comes has to wait."""
        return self.taken >= self._limit or bool(self._queue)

    def ticket(self, *, at_once: bool) -> Ticket:
        """A place in the queue; a ticket that is done is a slot. `at_once`: whatever the limit says."""
        ticket: Ticket = asyncio.get_running_loop().create_future()
        if at_once or not self.full:
            self._give(ticket)
        else:
            self._queue[ticket] = None
        return ticket

    async def wait(self, ticket: Ticket) -> None:
        """Wait for one's turn. Who is cancelled gives up the ticket, or the slot if it was just given."""
        if ticket.done():
            return
        try:
            await ticket
        except asyncio.CancelledError:
            self._queue.pop(ticket, None)
            if ticket.done() and not ticket.cancelled():
                self.free()
            raise

    def jump(self, ticket: Ticket) -> None:
        """Give this one a slot now, if it waits for one."""
        if ticket in self._queue:
            del self._queue[ticket]
            self._give(ticket)

    def free(self) -> None:
        """Give a slot back: the next in the queue gets it."""
        self.taken -= 1
        while self._queue and self.taken < self._limit:
            ticket, _ = self._queue.popitem(last=False)
            if not ticket.done():
                self._give(ticket)

    def _give(self, ticket: Ticket) -> None:
        self.taken += 1
        ticket.set_result(None)
