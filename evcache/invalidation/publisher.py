"""Sender of invalidation messages: it batches changes, and repeats each message until the channel accepts it.

A repeated message has the same number, so receivers ignore a duplicate and detect a missing message. One message is in
flight at a time: a message that overtook another would look like a gap.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from evcache._helpers.retry import retry_forever
from evcache.channels.base import InvalidationChannel
from evcache.invalidation.messages import InvalidationMessage, encode
from evcache.invalidation.outbox import Outbox

# Seconds for which changes are gathered into one message. A write to several zones takes longer than this delay.
BATCH_SECONDS = 0.005

HEARTBEAT_SECONDS = 1.0

# Seconds without a change after which heartbeats stop. No peer then holds an entry that this process could have invalidated:
# the longest life in a near cache is 60 s.
QUIET_AFTER_SECONDS = 75.0

# Pauses between attempts to send, and between attempts of the bus to subscribe.
RETRY_FIRST_SECONDS = 0.1
RETRY_LONGEST_SECONDS = 3.0

_log = logging.getLogger("evcache.invalidation")


class Publisher:
    """Sender of the changes in an outbox, and of heartbeats."""

    def __init__(
        self,
        channel: InvalidationChannel,
        topic: str,
        outbox: Outbox,
        on_sent: Callable[[InvalidationMessage, float], None],
        *,
        batch: float,
        heartbeat: float,
        quiet_after: float,
    ) -> None:
        """Create it for one channel.

        Args:
            channel: The channel.
            topic: Topic of the channel.
            outbox: Changes to send.
            on_sent: Called with each message that the channel has accepted, and the loop's time when the attempt began.
            batch: Seconds for which changes are gathered.
            heartbeat: Seconds between heartbeats.
            quiet_after: Seconds without a change after which heartbeats stop.
        """
        self.published = 0
        """Changes that the channel has accepted."""
        self.failures = 0
        """Attempts to send a message that failed."""
        self.overflows = 0
        """Changes for which the outbox was full."""
        self._channel = channel
        self._topic = topic
        self._outbox = outbox
        self._on_sent = on_sent
        self._batch = batch
        self._heartbeat = heartbeat
        self._quiet_after = quiet_after
        self._closing = False
        self._wake = asyncio.Event()  # changes wait, or `finish` was called
        self._hurry = asyncio.Event()  # `finish` was called
        self._failure_logged = False
        self._overflow_logged = False
        self._sending = 0  # changes in the message in flight
        self._sent_at = self._changed_at = 0.0

    @property
    def pending(self) -> int:
        """Number of changes that the channel has not accepted."""
        return len(self._outbox) + self._sending

    def publish(self, key: bytes, version: int | None) -> None:
        """Send a change soon. Raises `InvalidArgument` for a key or version that cannot be sent."""
        if not self._outbox.add(key, version):
            self.overflows += 1
            if not self._overflow_logged:
                self._overflow_logged = True
                _log.warning("invalidation outbox full: pending invalidations are dropped; other clients clear near caches")
        self._wake.set()

    def reopen(self) -> None:
        """Allow another `run`, on any loop."""
        self._outbox.reopen()
        self._closing = self._overflow_logged = False
        self._wake, self._hurry = asyncio.Event(), asyncio.Event()  # an event belongs to the loop that has waited for it
        self._sending = 0
        self._sent_at = self._changed_at = 0.0

    def finish(self) -> None:
        """Send the waiting changes and a BYE now, after which `run` returns."""
        self._closing = True
        self._wake.set()
        self._hurry.set()

    async def run(self) -> None:
        """Send changes and heartbeats until `finish`. Cancellation drops the changes that were not accepted."""
        opening = self._wake
        while not self._closing and opening is self._wake:
            if await self._wait_for_changes():
                if not self._closing:
                    await asyncio.sleep(self._batch)
                await self._send_pending(opening)
            else:
                await self._send_heartbeat()
        await self._send_pending(opening)
        if opening is not self._wake:
            return  # the channel has caught the cancellation, and the task of another opening sends now
        with contextlib.suppress(Exception):  # peers detect missing heartbeats
            await self._send_bye()

    async def _wait_for_changes(self) -> bool:
        """Wait for changes. Return False if a heartbeat is due before there are any."""
        sends_heartbeats = self._outbox.number > 0
        wait = max(0.0, self._sent_at + self._heartbeat - asyncio.get_running_loop().time()) if sends_heartbeats else None
        try:
            async with asyncio.timeout(wait):
                return await self._wake.wait()
        except TimeoutError:
            return False

    async def _send_pending(self, opening: asyncio.Event) -> None:
        opening.clear()
        while opening is self._wake and (batch := self._outbox.take_batch()) is not None:
            self._sending = len(batch.changes)
            await self._send_until_accepted(batch)
            if opening is not self._wake:
                return
            self.published += self._sending
            self._sending = 0
            self._changed_at = self._sent_at
        self._overflow_logged = False

    async def _send_until_accepted(self, batch: InvalidationMessage) -> None:
        async def attempt() -> bool:
            try:
                await self._send(batch)
            except Exception:  # any error of the channel is retried
                return False
            return True

        await retry_forever(attempt, RETRY_FIRST_SECONDS, RETRY_LONGEST_SECONDS, wake=self._hurry)

    async def _send_heartbeat(self) -> None:
        is_quiet = asyncio.get_running_loop().time() - self._changed_at >= self._quiet_after
        with contextlib.suppress(Exception):  # counted; the next heartbeat says the same
            await (self._send_bye() if is_quiet else self._send(self._outbox.heartbeat()))

    async def _send_bye(self) -> None:
        if self._outbox.number:
            await self._send(self._outbox.bye())
            self._outbox.end_session()

    async def _send(self, message: InvalidationMessage) -> None:
        """Send a message once. Raises what the channel raises."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            await self._channel.publish(self._topic, encode(message))
        except Exception as error:
            self.failures += 1
            if not self._failure_logged:
                self._failure_logged = True
                _log.warning("invalidation publish failed: %s", error)
            raise
        finally:
            self._sent_at = loop.time()
        if self._failure_logged:
            self._failure_logged = False
            _log.info("invalidation publish recovered")
        self._on_sent(message, began)
