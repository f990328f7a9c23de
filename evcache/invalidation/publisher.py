"""The half of a bus that speaks: gathers changes for a moment, and sends each message until it was taken.

With the same number each time, so that a copy is ignored and a missing one noticed. One message is on its way at a time:
a later one that overtook it would look like a gap.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential, wait_random

from evcache.channels.base import InvalidationChannel
from evcache.invalidation.messages import InvalidationMessage, encode
from evcache.invalidation.outbox import Outbox

# Changes are gathered for so long. It adds to the time in which others may show the old value, of which a write has some
# milliseconds anyway, and makes one message of a burst.
BATCH_SECONDS = 0.005

# Between signs of life.
HEARTBEAT_SECONDS = 1.0

# After so long without a change a process falls silent: the others hold nothing any more that it could have announced and
# they could have missed. The longest life in a near cache, 60 s, and a margin.
QUIET_AFTER_SECONDS = 75.0

# Between attempts to send a message; the bus takes the same between attempts to subscribe.
RETRY_FIRST_SECONDS = 0.1
RETRY_LONGEST_SECONDS = 3.0

_log = logging.getLogger("evcache.invalidation")


class Publisher:
    """Sends what is in an outbox, and signs of life."""

    def __init__(
        self,
        channel: InvalidationChannel,
        topic: str,
        outbox: Outbox,
        on_taken: Callable[[InvalidationMessage, float], None],
        *,
        batch: float,
        heartbeat: float,
        quiet_after: float,
    ) -> None:
        """`on_taken` is called with each message that the channel has taken, and when that began on the loop's clock."""
        self.published = 0
        """Changes that the channel has taken."""
        self.failures = 0
        """Messages that it did not take, each attempt counted."""
        self.overflows = 0
        """Times when there was no room for a change."""
        self._channel = channel
        self._topic = topic
        self._outbox = outbox
        self._on_taken = on_taken
        self._batch = batch
        self._heartbeat = heartbeat
        self._quiet_after = quiet_after
        self._closing = False
        self._wake = asyncio.Event()  # changes wait, or the end
        self._hurry = asyncio.Event()  # the end
        self._mute = False  # this was logged
        self._full = False  # this was logged
        self._sending = 0  # changes in the message that is on its way
        self._spoke_at = self._announced_at = 0.0

    @property
    def pending(self) -> int:
        """Changes that have not been taken."""
        return len(self._outbox) + self._sending

    def announce(self, key: bytes, version: int | None) -> None:
        """Have a change sent. Raises `InvalidArgument` for a key or version that can't be."""
        if not self._outbox.add(key, version):
            self.overflows += 1
            if not self._full:
                self._full = True
                _log.warning("too many changes wait to be announced: others will forget all they hold")
        self._wake.set()

    def reopen(self) -> None:
        """Allow another `run`, on any loop."""
        self._outbox.reopen()
        self._closing = self._full = False
        self._wake, self._hurry = asyncio.Event(), asyncio.Event()  # an event belongs to the loop that has waited for it
        self._sending = 0
        self._spoke_at = self._announced_at = 0.0

    def finish(self) -> None:
        """Send what waits, now, and say BYE: `run` ends then."""
        self._closing = True
        self._wake.set()
        self._hurry.set()

    async def run(self) -> None:
        """Speak until `finish`. Being cancelled leaves unsaid what was not taken."""
        opening = self._wake
        while not self._closing and opening is self._wake:
            if await self._is_woken():
                if not self._closing:
                    await asyncio.sleep(self._batch)
                await self._send_waiting(opening)
            else:
                await self._show_life()
        await self._send_waiting(opening)
        if opening is not self._wake:
            return  # the channel has caught the cancellation, and another opening speaks now
        with contextlib.suppress(Exception):  # the others will notice the silence
            await self._say_bye()

    async def _is_woken(self) -> bool:
        """Wait for changes. False when it is time for a sign of life before there are some."""
        speaks = self._outbox.number > 0
        wait = max(0.0, self._spoke_at + self._heartbeat - asyncio.get_running_loop().time()) if speaks else None
        try:
            async with asyncio.timeout(wait):
                return await self._wake.wait()
        except TimeoutError:
            return False

    async def _send_waiting(self, opening: asyncio.Event) -> None:
        retrying = AsyncRetrying(
            wait=wait_exponential(RETRY_FIRST_SECONDS, RETRY_LONGEST_SECONDS) + wait_random(0, RETRY_FIRST_SECONDS),
            retry=retry_if_exception_type(Exception),  # whatever a channel raises, it is tried again
            sleep=self._pause,
            before=self._before_attempt,
        )
        opening.clear()
        while opening is self._wake and (batch := self._outbox.batch()) is not None:
            self._sending = len(batch.changes)
            await retrying(self._publish, batch)
            if opening is not self._wake:
                return
            self.published += self._sending
            self._sending = 0
            self._announced_at = self._spoke_at
        self._full = False

    def _before_attempt(self, retry: RetryCallState) -> None:
        del retry
        self._hurry.clear()

    async def _pause(self, wait: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._hurry.wait()

    async def _show_life(self) -> None:
        quiet = asyncio.get_running_loop().time() - self._announced_at >= self._quiet_after
        with contextlib.suppress(Exception):  # counted; the next one says the same
            await (self._say_bye() if quiet else self._publish(self._outbox.heartbeat()))

    async def _say_bye(self) -> None:
        if self._outbox.number:
            await self._publish(self._outbox.bye())
            self._outbox.end_spell()

    async def _publish(self, announcement: InvalidationMessage) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            await self._channel.publish(self._topic, encode(announcement))
        except Exception as error:
            self.failures += 1
            if not self._mute:
                self._mute = True
                _log.warning("changes can't be announced to other clients: %s", error)
            raise
        finally:
            self._spoke_at = loop.time()
        if self._mute:
            self._mute = False
            _log.info("changes are announced to other clients again")
        self._on_taken(announcement, began)
