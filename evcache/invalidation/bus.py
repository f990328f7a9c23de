"""Invalidation bus: it publishes the writes of this client, and receives those of other processes.

Two tasks run. One subscribes, again with growing pauses after a lost subscription. It passes changes and gaps to a listener.
The other publishes (`evcache.invalidation.publisher`).

No caller of the cache waits for the bus, or gets an error of it. Other processes detect unpublished changes as a gap.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from evcache._helpers.retry import retry_forever
from evcache.channels.base import ChannelError, InvalidationChannel, Subscription
from evcache.invalidation.gap_detector import GapDetector
from evcache.invalidation.messages import Change, DecodeFailed, InvalidationMessage, Kind, decode
from evcache.invalidation.outbox import MAX_PENDING, Outbox
from evcache.invalidation.publisher import (
    BATCH_SECONDS,
    HEARTBEAT_SECONDS,
    QUIET_AFTER_SECONDS,
    RETRY_FIRST_SECONDS,
    RETRY_LONGEST_SECONDS,
    Publisher,
)
from evcache.zones._tasks import abandon, cancel_once, ended, unattended
from evcache.zones.errors import InvalidArgument, UsageError
from evcache.zones.validation import at_least_one, positive_seconds, zero_or_more

# Consecutive heartbeats that may be missed.
MISSED_HEARTBEATS = 3

# Seconds after which a subscription counts as good: the next pause is a short one again.
STEADY_SECONDS = 10.0

# Changes that are passed on before the event loop runs other tasks: a millisecond or less.
SLICE_CHANGES = 500

# If the watchdog fires later than this, the process or the host was stalled. Missing heartbeats then prove nothing, and the
# timeouts restart.
LATE_SECONDS = 0.5

_log = logging.getLogger("evcache.invalidation")


class Listener(Protocol):
    """Receiver of invalidations. Called on the event loop, so it must not block. An exception is a bug, which is logged."""

    def invalidate(self, key: bytes, version: int | None) -> None:
        """Handle a write of another client. `version` as in `evcache.invalidation.messages.Change`."""

    def invalidate_all(self, reason: str) -> None:
        """Handle a gap: any key may have changed."""

    def set_channel_up(self, up: bool) -> None:  # noqa: FBT001  # the only argument
        """Set if invalidations arrive from now on."""


@dataclass(frozen=True, slots=True)
class BusStats:
    """Figures of one bus. Counted since its start, except the last three."""

    published: int
    """Changes that the channel has accepted."""
    received: int
    """Changes of other clients that were received."""
    gaps: int
    """Gaps in the messages that were received."""
    losses: int
    """Subscriptions that were lost or failed."""
    failures: int
    """Attempts to publish a message that failed."""
    overflows: int
    """Times at which too many changes waited. They were dropped, and other clients clear their near caches."""
    pending: int
    """Changes that wait to be published."""
    publishers: int
    """Other clients that have published lately."""
    is_up: bool
    """True while the subscription is active, so that invalidations of other clients arrive."""


class InvalidationBus:
    """Publisher and subscriber of one client, on one topic of a channel."""

    def __init__(
        self,
        channel: InvalidationChannel,
        topic: str,
        listener: Listener,
        *,
        batch: float = BATCH_SECONDS,
        heartbeat: float = HEARTBEAT_SECONDS,
        quiet_after: float = QUIET_AFTER_SECONDS,
        max_pending: int = MAX_PENDING,
    ) -> None:
        """Create it without I/O. `start` begins the work.

        Args:
            channel: Channel of the caller, who closes it after the bus.
            topic: Topic. All clients of a topic share their keys.
            listener: Receiver of invalidations.
            batch: Seconds for which changes are gathered into one message.
            heartbeat: Seconds between heartbeats. All clients of a topic must use the same value.
            quiet_after: Seconds without a change after which heartbeats stop.
            max_pending: Largest number of changes that wait.

        Raises:
            InvalidArgument: A value is out of range.
        """
        if not isinstance(topic, str) or not topic:
            raise InvalidArgument("topic", f"a non-empty str is required, not {topic!r}")
        zero_or_more(batch, "batch")
        positive_seconds(heartbeat, "heartbeat")
        positive_seconds(quiet_after, "quiet_after")
        at_least_one(max_pending, "max_pending")
        self._channel = channel
        self._topic = topic
        self._listener = listener
        self._heartbeat = heartbeat
        self._timeout = MISSED_HEARTBEATS * heartbeat
        self._outbox = Outbox(max_pending)
        self._publisher = Publisher(
            channel, topic, self._outbox, self._expect_echo, batch=batch, heartbeat=heartbeat, quiet_after=quiet_after
        )
        self._peers = GapDetector(self._timeout)
        self._tasks: list[asyncio.Task[None]] = []
        self._loop: asyncio.AbstractEventLoop
        self._closing = False
        self._closed = False
        self._is_up = False
        self._down_logged = False
        self._received = self._gaps = self._losses = 0
        self._bug_logged = False
        self._subscribed_at = 0.0
        self._echoed_at = -math.inf  # time at which an own message was received last
        self._echo_due: float | None = None  # time since which the next one is due

    @property
    def is_up(self) -> bool:
        """True while the subscription is active."""
        return self._is_up

    @property
    def stats(self) -> BusStats:
        """The present figures."""
        return BusStats(
            published=self._publisher.published,
            received=self._received,
            gaps=self._gaps,
            losses=self._losses,
            failures=self._publisher.failures,
            overflows=self._publisher.overflows,
            pending=self._publisher.pending,
            publishers=len(self._peers),
            is_up=self._is_up,
        )

    def start(self) -> None:
        """Begin to publish and to receive, on the running event loop. No effect if it has begun.

        Raises:
            UsageError: The bus is closed.
        """
        if self._closing:
            raise UsageError("this bus is closed")
        if self._tasks:
            return
        self._loop = asyncio.get_running_loop()
        for work, name in ((self._receive(), "receive"), (self._publisher.run(), "publish")):
            task = unattended(self._loop.create_task(work, name=f"evcache-bus-{name}"))
            task.add_done_callback(_log_bug)
            self._tasks.append(task)

    def publish(self, key: bytes, version: int | None) -> None:
        """Publish that this client has written a key. Returns at once. No effect after `close`.

        Call it when the write was acknowledged, or may have been applied.

        Args:
            key: Full key.
            version: As in `evcache.invalidation.messages.Change`.

        Raises:
            InvalidArgument: The key or version cannot be sent.
        """
        if not self._closing:
            self._publisher.publish(key, version)

    async def close(self, drain: float, *, level: int = logging.WARNING) -> None:
        """Publish the waiting changes and a BYE within `drain` seconds, then end. May be called again.

        Other clients detect missing heartbeats if the BYE was not published. Cancellation ends all tasks at once.

        Args:
            drain: Seconds.
            level: Level of the log line about changes that were not published.
        """
        zero_or_more(drain, "drain")
        self._closing = True
        self._publisher.finish()
        try:
            if self._tasks:
                await asyncio.wait(self._tasks[1:], timeout=drain)
        finally:
            cancel_once(self._tasks)
        await ended(self._tasks, lambda _: f"the invalidation channel {type(self._channel).__qualname__}")
        was_closed, self._closed = self._closed, True
        if (pending := self._publisher.pending) and not was_closed:
            _log.log(level, "invalidation publish failed: closed with %d unpublished invalidations", pending)

    def reopen(self) -> None:
        """Allow another `start`, on any loop: after `close`, or if the loop is closed."""
        abandon(self._tasks)
        self._tasks = []
        self._closing = self._closed = self._is_up = self._down_logged = False
        self._publisher.reopen()
        self._echoed_at, self._echo_due = -math.inf, None

    # The subscription.

    async def _receive(self) -> None:
        opening = self._tasks
        while self._is_current(opening):
            await retry_forever(partial(self._follow, opening), RETRY_FIRST_SECONDS, RETRY_LONGEST_SECONDS)
            await asyncio.sleep(random.uniform(0, RETRY_FIRST_SECONDS))  # noqa: S311 (other clients reconnect now, too)

    def _is_current(self, opening: list[asyncio.Task[None]]) -> bool:
        """Return False for a task that `close` has cancelled. A channel may catch the cancellation and continue."""
        return opening is self._tasks and not self._closing

    async def _follow(self, opening: list[asyncio.Task[None]]) -> bool:
        """Serve one subscription from its beginning to its end. Return True if it was steady, or is not needed any more."""
        try:
            subscription = await self._channel.subscribe(self._topic)
        except Exception as error:  # any error of the channel is retried
            if not self._is_current(opening):
                return True
            self._losses += 1
            self._log_down(error)
            return False
        if not self._is_current(opening):
            with contextlib.suppress(Exception):
                await subscription.aclose()
            return True
        reason: Exception | None = None  # stays None if it is cancelled
        try:
            self._go_up()
            async with asyncio.TaskGroup() as group:
                unattended(group.create_task(self._watch(), name="evcache-bus-watch"))
                unattended(group.create_task(self._read(subscription), name="evcache-bus-read"))
        except ExceptionGroup as errors:
            reason = errors.exceptions[0]
        finally:
            if opening is self._tasks:
                self._go_down(reason)
            with contextlib.suppress(Exception):  # it has ended in any case
                await subscription.aclose()
        return self._loop.time() - self._subscribed_at >= STEADY_SECONDS

    def _go_up(self) -> None:
        self._subscribed_at = self._loop.time()
        self._peers.reset(self._subscribed_at)
        self._echo_due = None
        self._is_up = True
        if self._down_logged:
            self._down_logged = False
            _log.info("invalidation channel up")
        self._notify(self._listener.invalidate_all, "subscribed")
        self._notify(self._listener.set_channel_up, True)

    def _go_down(self, reason: Exception | None) -> None:
        self._is_up = False
        if reason is not None and not self._closing:
            self._losses += 1
            self._log_down(reason)
        self._notify(self._listener.set_channel_up, False)
        self._notify(self._listener.invalidate_all, "closed" if reason is None else str(reason))

    def _log_down(self, reason: Exception) -> None:
        if not self._down_logged:
            self._down_logged = True
            is_expected = isinstance(reason, ChannelError)
            _log.warning("invalidation channel down: %s", reason, exc_info=None if is_expected else reason)

    async def _read(self, subscription: Subscription) -> None:
        done = 0
        async for data in subscription:
            for key, version in self._changes_of(data):
                self._notify(self._listener.invalidate, key, version)
                self._received += 1
                done += 1
            done += 1
            if done >= SLICE_CHANGES:  # waiting messages are returned without a turn of the loop
                done = 0
                await asyncio.sleep(0)
        raise ChannelError("subscription ended")

    def _changes_of(self, data: bytes) -> tuple[Change, ...]:
        """Record a message, and return its changes if they are new and of another client."""
        try:
            message = decode(data)
        except DecodeFailed as error:
            self._report_gap(f"invalid message: {error}")
            return ()
        if self._outbox.is_own(message.publisher):
            self._echoed_at = self._loop.time()
            self._echo_due = None
            return ()
        observation = self._peers.observe(message, self._loop.time())
        if observation.gap is not None:
            self._report_gap(observation.gap)
        return message.changes if observation.is_new else ()

    def _expect_echo(self, message: InvalidationMessage, began: float) -> None:
        """Expect a published message on the subscription, if the channel has ever returned an own message."""
        was_subscribed = self._is_up and began > self._subscribed_at and self._echoed_at > -math.inf
        is_back = self._echoed_at >= began  # it was received before the channel confirmed it
        if was_subscribed and not is_back and self._echo_due is None and message.kind is not Kind.BYE:
            self._echo_due = began

    async def _watch(self) -> None:
        """Check that messages arrive. Raises `ChannelError` if own messages do not."""
        while True:
            due = self._loop.time() + self._heartbeat
            await asyncio.sleep(self._heartbeat)
            now = self._loop.time()
            if now - due > LATE_SECONDS:
                self._peers.restart_timeouts(now)
                self._echo_due = None if self._echo_due is None else now
            if silent := self._peers.end_silent(now):
                self._report_gap(f"heartbeats of {silent} publishers are missing")
            # The channel accepted a message and did not return it. The subscription is elsewhere, as at a replaced server.
            if self._echo_due is not None and now - self._echo_due > self._timeout:
                raise ChannelError("own messages do not arrive")

    def _report_gap(self, reason: str) -> None:
        self._gaps += 1
        self._notify(self._listener.invalidate_all, reason)

    def _notify(self, call: Callable[..., None], *arguments: object) -> None:
        try:
            call(*arguments)
        except Exception:
            if not self._bug_logged:
                self._bug_logged = True
                _log.exception("invalidation listener failed: unexpected exception; later ones are not logged")


def _log_bug(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("invalidation task %s failed: unexpected exception", task.get_name(), exc_info=error)
