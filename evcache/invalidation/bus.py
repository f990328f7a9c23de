"""Announcing to other processes what this one has written, and hearing what they have.

Two tasks. One listens: it subscribes, again with growing pauses when a subscription is lost, and tells its listener what
was written, and when something may have been missed. The other speaks (`evcache.invalidation.publisher`).

Nobody who uses a cache ever waits for this, or sees it fail: what can't be announced is noticed by the others as a gap.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tenacity import AsyncRetrying, retry_if_result, wait_exponential, wait_random

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

# Heartbeats that may be missed in a row.
MISSED_HEARTBEATS = 3

# A subscription that lasted so long was a good one: the next pause is a short one again.
STEADY_SECONDS = 10.0

# Changes that are passed on before the event loop gets a turn: a millisecond or less.
SLICE_CHANGES = 500

# A look at the clock that comes later than this was held up: by this process, which has not read what came, or by a
# machine that stood still, and the others with it. It proves nothing, and waiting begins anew.
LATE_SECONDS = 0.5

_log = logging.getLogger("evcache.invalidation")


class Listener(Protocol):
    """Who holds what others may change. Called on the event loop; must not block. To raise is a bug, which is logged."""

    def changed(self, key: bytes, version: int | None) -> None:
        """Another client wrote this key. `version` as in `evcache.invalidation.messages.Change`."""

    def lost_track(self, reason: str) -> None:
        """Announcements may have been missed: forget everything."""

    def channel_up(self, up: bool) -> None:  # noqa: FBT001 (one fact, told as it changes)
        """From now on announcements are heard, or are not."""


@dataclass(frozen=True, slots=True)
class BusStats:
    """What one bus has done. Counted since its start, but for the last two."""

    published: int
    """Changes that the channel has taken."""
    received: int
    """Changes of others that were heard."""
    gaps: int
    """Times when announcements may have been missed while listening."""
    losses: int
    """Subscriptions that were lost, or could not be had."""
    failures: int
    """Messages that the channel did not take, each attempt counted."""
    overflows: int
    """Times when too many changes waited, and others were made to forget everything in their place."""
    pending: int
    """Changes that wait to be sent."""
    publishers: int
    """Others that have announced something lately."""


class InvalidationBus:
    """The announcements of one client, on one topic of a channel."""

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
        """Does nothing before `start`. Times are seconds; `heartbeat` must be the same for all that share the topic.

        Whoever shares a topic hears of the same keys. The channel belongs to the caller, who closes it after the bus.
        """
        if not isinstance(topic, str) or not topic:
            raise InvalidArgument("topic", f"a text is needed, not {topic!r}")
        zero_or_more(batch, "batch")
        positive_seconds(heartbeat, "heartbeat")
        positive_seconds(quiet_after, "quiet_after")
        at_least_one(max_pending, "max_pending")
        self._channel = channel
        self._topic = topic
        self._listener = listener
        self._heartbeat = heartbeat
        self._silence = MISSED_HEARTBEATS * heartbeat
        self._outbox = Outbox(max_pending)
        self._speaker = Publisher(
            channel, topic, self._outbox, self._expect_echo, batch=batch, heartbeat=heartbeat, quiet_after=quiet_after
        )
        self._publishers = GapDetector(self._silence)
        self._tasks: list[asyncio.Task[None]] = []
        self._loop: asyncio.AbstractEventLoop
        self._closing = False
        self._closed = False
        self._up = False
        self._deaf = False  # this was logged
        self._received = self._gaps = self._losses = 0
        self._bug_logged = False
        self._subscribed_at = 0.0
        self._echoed_at = -math.inf  # when an own message has last come back
        self._echo_due: float | None = None  # since when the next one is waited for

    @property
    def up(self) -> bool:
        """Whether announcements are heard."""
        return self._up

    @property
    def stats(self) -> BusStats:
        """The figures as they are now."""
        return BusStats(
            published=self._speaker.published,
            received=self._received,
            gaps=self._gaps,
            losses=self._losses,
            failures=self._speaker.failures,
            overflows=self._speaker.overflows,
            pending=self._speaker.pending,
            publishers=len(self._publishers),
        )

    def start(self) -> None:
        """Begin to listen and to speak, on the running event loop. No effect when it has begun.

        Raises `UsageError` after `close`.
        """
        if self._closing:
            raise UsageError("this bus is closed")
        if self._tasks:
            return
        self._loop = asyncio.get_running_loop()
        for work, name in ((self._listen(), "listen"), (self._speaker.run(), "speak")):
            task = unattended(self._loop.create_task(work, name=f"evcache-bus-{name}"))
            task.add_done_callback(_ended)
            self._tasks.append(task)

    def announce(self, key: bytes, version: int | None) -> None:
        """Tell others that this key was written. Returns at once; no effect after `close`.

        To be called when the write was acknowledged, or may have been carried out. Raises `InvalidArgument` for a key or
        version that can't be sent.
        """
        if not self._closing:
            self._speaker.announce(key, version)

    async def close(self, drain: float, *, level: int = logging.WARNING) -> None:
        """Send what waits, and that nothing more comes, within `drain` seconds; then end. May be called again.

        What was not sent is lost, and is noticed by others as a silence. Being cancelled ends everything at once.
        `level`: of the log line about what was not sent.
        """
        zero_or_more(drain, "drain")
        self._closing = True
        self._speaker.finish()
        try:
            if self._tasks:
                await asyncio.wait(self._tasks[1:], timeout=drain)
        finally:
            cancel_once(self._tasks)
        await ended(self._tasks, lambda _: f"the invalidation channel {type(self._channel).__qualname__}")
        closed, self._closed = self._closed, True
        if (pending := self._speaker.pending) and not closed:
            _log.log(level, "closed with %d changes that were not announced", pending)

    def reopen(self) -> None:
        """Allow another `start`, on any loop: after `close`, or when the loop is closed."""
        abandon(self._tasks)
        self._tasks = []
        self._closing = self._closed = self._up = self._deaf = False
        self._speaker.reopen()
        self._echoed_at, self._echo_due = -math.inf, None

    # Listening.

    async def _listen(self) -> None:
        retrying = AsyncRetrying(
            wait=wait_exponential(RETRY_FIRST_SECONDS, RETRY_LONGEST_SECONDS) + wait_random(0, RETRY_FIRST_SECONDS),
            retry=retry_if_result(lambda steady: not steady),
        )
        opening = self._tasks
        while self._is_current(opening):
            await retrying(self._follow, opening)
            await asyncio.sleep(random.uniform(0, RETRY_FIRST_SECONDS))  # noqa: S311 (others have lost theirs too)

    def _is_current(self, opening: list[asyncio.Task[None]]) -> bool:
        """Return False for tasks that `close` has cancelled. A channel may catch the cancellation and go on."""
        return opening is self._tasks and not self._closing

    async def _follow(self, opening: list[asyncio.Task[None]]) -> bool:
        """Follow one subscription from its beginning to its end. Return whether it lasted, or is not wanted any more."""
        try:
            subscription = await self._channel.subscribe(self._topic)
        except Exception as error:  # whatever a channel raises, it is tried again
            if not self._is_current(opening):
                return True
            self._losses += 1
            self._log_deaf(error)
            return False
        if not self._is_current(opening):
            with contextlib.suppress(Exception):
                await subscription.aclose()
            return True
        reason: Exception | None = None  # still, if it is cancelled
        try:
            self._came_up()
            async with asyncio.TaskGroup() as group:
                unattended(group.create_task(self._watch(), name="evcache-bus-watch"))
                unattended(group.create_task(self._hear(subscription), name="evcache-bus-hear"))
        except ExceptionGroup as errors:
            reason = errors.exceptions[0]
        finally:
            if opening is self._tasks:
                self._went_down(reason)
            with contextlib.suppress(Exception):  # it has ended, one way or the other
                await subscription.aclose()
        return self._loop.time() - self._subscribed_at >= STEADY_SECONDS

    def _came_up(self) -> None:
        self._subscribed_at = self._loop.time()
        self._publishers.begin(self._subscribed_at)
        self._echo_due = None
        self._up = True
        if self._deaf:
            self._deaf = False
            _log.info("announcements of other clients are heard again")
        self._tell(self._listener.lost_track, "subscribed")
        self._tell(self._listener.channel_up, True)

    def _went_down(self, reason: Exception | None) -> None:
        self._up = False
        if reason is not None and not self._closing:
            self._losses += 1
            self._log_deaf(reason)
        self._tell(self._listener.channel_up, False)
        self._tell(self._listener.lost_track, "closed" if reason is None else str(reason))

    def _log_deaf(self, reason: Exception) -> None:
        if not self._deaf:
            self._deaf = True
            expected = isinstance(reason, ChannelError)
            _log.warning("announcements of other clients are not heard: %s", reason, exc_info=None if expected else reason)

    async def _hear(self, subscription: Subscription) -> None:
        done = 0
        async for data in subscription:
            for key, version in self._news_in(data):
                self._tell(self._listener.changed, key, version)
                self._received += 1
                done += 1
            done += 1
            if done >= SLICE_CHANGES:  # what waits is handed out without a turn of the loop
                done = 0
                await asyncio.sleep(0)
        raise ChannelError("the subscription has ended")

    def _news_in(self, data: bytes) -> tuple[Change, ...]:
        try:
            announcement = decode(data)
        except DecodeFailed as error:
            self._gap(f"a message that can't be read: {error}")
            return ()
        if self._outbox.is_own(announcement.publisher):
            self._echoed_at = self._loop.time()
            self._echo_due = None
            return ()
        heard = self._publishers.heard(announcement, self._loop.time())
        if heard.gap is not None:
            self._gap(heard.gap)
        return announcement.changes if heard.news else ()

    def _expect_echo(self, announcement: InvalidationMessage, began: float) -> None:
        """What was taken while this client listens should come back, on a channel where anything ever did."""
        listened = self._up and began > self._subscribed_at and self._echoed_at > -math.inf
        came_back = self._echoed_at >= began  # before the channel said that it was taken
        if listened and not came_back and self._echo_due is None and announcement.kind is not Kind.BYE:
            self._echo_due = began

    async def _watch(self) -> None:
        """Notice what does not come."""
        while True:
            due = self._loop.time() + self._heartbeat
            await asyncio.sleep(self._heartbeat)
            now = self._loop.time()
            if now - due > LATE_SECONDS:
                self._publishers.forgive(now)
                self._echo_due = None if self._echo_due is None else now
            if silent := self._publishers.silent(now):
                self._gap(f"{silent} publishers have fallen silent")
            # Taken by the channel, and not heard: this subscription is somewhere else, as at a server that was replaced.
            if self._echo_due is not None and now - self._echo_due > self._silence:
                raise ChannelError("own announcements are not heard")

    def _gap(self, reason: str) -> None:
        self._gaps += 1
        self._tell(self._listener.lost_track, reason)

    def _tell(self, call: Callable[..., None], *arguments: object) -> None:
        try:
            call(*arguments)
        except Exception:
            if not self._bug_logged:
                self._bug_logged = True
                _log.exception("a listener of announcements has a bug; the next ones are not logged")


def _ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("%s ended with a bug", task.get_name(), exc_info=error)
