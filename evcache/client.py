"""`EVCache`: the operations, put together."""

from __future__ import annotations

from evcache.deciding import Deciding
from evcache.loading import Loading


class EVCache(Loading, Deciding):
    """A cache with a full copy in every zone.

    Use it as `async with EVCache(...) as cache`, or call `close()`. The first call opens it, on the event loop of that call.
    While it is open, use from another loop, thread or a forked process raises `UsageError`. So does use after `close()`,
    until `async with` opens it again, on any loop.

    All operations take `timeout` (seconds for the whole call, zones and retries included) and `consistency`. They raise
    `InvalidArgument` before anything is sent when an argument can't be used. A cancelled read leaves nothing behind; a
    cancelled write goes on in every zone, for half a write is what makes zones differ.
    """
