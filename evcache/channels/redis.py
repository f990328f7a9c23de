"""Channel through Redis Pub/Sub. Needs `pip install evcache[redis]`.

The class `PubSub` of redis-py is not used. After a lost connection, its next read reconnects and subscribes again
(`parse_response` in redis 8.1, after any failed write), and hides that messages were lost. Here each subscription has one
connection and one reading task, and ends with them.

A connection looks alive for minutes after its server has stopped, or while the network drops packets. So the subscription
sends a PING each second, which Redis answers between messages.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping
from typing import Any

from evcache._helpers.loop_end import LoopEnd
from evcache.channels.base import ChannelError
from evcache.channels.inbox import MAX_WAITING_MESSAGES, Inbox
from evcache.zones._live import Live
from evcache.zones._tasks import cancel_once, unattended
from evcache.zones.errors import InvalidArgument, UsageError
from evcache.zones.validation import at_least_one, positive_seconds

try:
    from redis.asyncio import ConnectionPool, Redis
    from redis.asyncio.connection import AbstractConnection, parse_url
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
except ImportError as error:
    raise ImportError("RedisChannel needs the redis package: pip install evcache[redis]") from error

# Seconds between PINGs, and seconds without a reply after which a subscription ends. Three consecutive losses are no
# accident.
PING_SECONDS = 1.0
SILENCE_SECONDS = 3.0

# Seconds to connect and subscribe, and to publish a message. In a data center either takes a millisecond.
TIMEOUT_SECONDS = 2.0

# If the timer fires later than this, the process or the host was stalled and has read nothing. The timeout restarts.
LATE_SECONDS = 0.5


class RedisChannel(Live):
    """Channel through one Redis server, or a compatible one.

    It belongs to the event loop of its first call, until `close` or until that loop is closed. Then another loop may use it.
    """

    def __init__(
        self,
        url: str,
        *,
        ping: float = PING_SECONDS,
        silence: float = SILENCE_SECONDS,
        timeout: float = TIMEOUT_SECONDS,
        max_waiting: int = MAX_WAITING_MESSAGES,
        **options: Any,
    ) -> None:
        """Create a channel without a connection.

        Args:
            url: Address for redis-py: redis://, rediss:// or unix://.
            ping: Seconds between PINGs on each subscription.
            silence: Seconds without a reply after which a subscription ends. Must exceed `ping`.
            timeout: Seconds to subscribe, or to publish a message.
            max_waiting: Largest number of messages that wait for a consumer.
            options: Options of redis-py's connections, such as `ssl_ca_certs` and `credential_provider`.

        Raises:
            InvalidArgument: A value is out of range, or redis-py refuses the URL or an option.
        """
        positive_seconds(ping, "ping")
        positive_seconds(silence, "silence")
        positive_seconds(timeout, "timeout")
        at_least_one(max_waiting, "max_waiting")
        if silence <= ping:
            raise InvalidArgument("silence", f"more than `ping` ({ping} s) is required, not {silence!r}")
        # RESP2 returns replies to PING like messages. No retries: a message that redis-py repeats could arrive after the
        # next one. No timeouts of redis-py beside these.
        ours: dict[str, Any] = {
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),
            "retry_on_timeout": False,
            "decode_responses": False,
            "health_check_interval": 0,
            "socket_timeout": None,
            "socket_connect_timeout": timeout,
        }
        try:
            settings: dict[str, Any] = {**options, **parse_url(url), **ours}  # from_url() gives the URL the last word
            self._new_pool = functools.partial(ConnectionPool, **settings)
            pool = self._new_pool()
            pool.connection_class(**pool.connection_kwargs)  # opens no connection, and refuses unknown options
        except (ValueError, AttributeError, TypeError) as error:
            raise InvalidArgument("url", f"redis-py refuses the URL or an option: {error}") from error
        self._ping = ping
        self._silence = silence
        self._timeout = timeout
        self._max_waiting = max_waiting
        self._connection_class: type[AbstractConnection] = pool.connection_class
        self._options: Mapping[str, Any] = pool.connection_kwargs
        self._sender: Redis = Redis(connection_pool=pool)
        self._listeners: set[_Listener] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_end = LoopEnd(self._end)
        self._closed = False

    async def publish(self, topic: str, message: bytes) -> None:
        """Publish a message.

        Args:
            topic: Topic of the message.
            message: Bytes of the message.

        Raises:
            ChannelError: The server may not have accepted the message.
        """
        self._check_usable()
        try:
            async with asyncio.timeout(self._timeout):
                await self._sender.publish(topic, message)
        except TimeoutError as error:
            raise ChannelError(f"publish failed: no reply within {self._timeout} s") from error
        except Exception as error:  # whatever redis-py raises: RedisError, OSError, and others while a connection ends
            raise ChannelError(f"publish failed: {error}") from error

    async def subscribe(self, topic: str) -> Inbox:
        """Subscribe on a connection of its own, and return the subscription.

        Args:
            topic: Topic of the messages.

        Raises:
            ChannelError: The server did not confirm in time.
        """
        self._check_usable()
        connection: Any = self._connection_class(**self._options)
        try:
            async with asyncio.timeout(self._timeout):
                await _subscribe(connection, topic)
            self._check_usable()  # it may have been closed during the request
            inbox = Inbox(self._max_waiting, self._leave)
        except BaseException as error:
            await connection.disconnect(nowait=True)
            if isinstance(error, TimeoutError):
                raise ChannelError(f"subscribe failed: no reply within {self._timeout} s") from error
            if isinstance(error, Exception) and not isinstance(error, ChannelError):
                raise ChannelError(f"subscribe failed: {error}") from error
            raise
        self._listeners.add(_Listener(connection, inbox, self._ping, self._silence, self._listeners.discard))
        return inbox

    async def close(self) -> None:
        """End every subscription, and close every connection. A further call finishes a call that was cancelled.

        The channel is then unusable on this event loop. Another loop may use it.
        """
        self._loop_end.stop()
        if self._loop is None or not self._loop.is_closed():
            self._closed = True
            await self._end()

    async def _end(self) -> None:
        listeners = list(self._listeners)
        for listener in listeners:
            listener.inbox.end()
            listener.cancel()
        try:
            for listener in listeners:
                await listener.stop()
        finally:
            # `aclose()` is newer than redis 5.0.0, which has a method that is deprecated now.
            await self._sender.connection_pool.disconnect()

    async def _leave(self, inbox: Inbox) -> None:
        for listener in [one for one in self._listeners if one.inbox is inbox]:
            await listener.stop()

    def _check_usable(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop and self._loop is not None:
            if not self._closed and not self._loop.is_closed():
                raise UsageError("RedisChannel belongs to another event loop: close it there first")
            self._listeners = set()
            self._sender = Redis(connection_pool=self._new_pool())  # connections belong to a loop
            self._loop, self._closed = None, False
        if self._closed:
            raise ChannelError("the channel is closed")
        if self._loop is None:
            self._loop = loop
            self._loop_end.watch()


async def _subscribe(connection: Any, topic: str) -> None:
    await connection.connect()
    await connection.send_command("SUBSCRIBE", topic, check_health=False)
    answer = await connection.read_response(disable_decoding=True)
    if not isinstance(answer, list) or answer[0] != b"subscribe":
        raise ChannelError(f"subscribe failed: unexpected reply {answer!r}")


class _Listener:
    """Reader of one connection into an inbox, until one of them ends."""

    def __init__(self, connection: Any, inbox: Inbox, ping: float, silence: float, ended: Any) -> None:
        self.inbox = inbox
        self._connection = connection
        self._ping = ping
        self._silence = silence
        self._loop = asyncio.get_running_loop()
        self._replied_at = self._loop.time()
        self._task = unattended(self._loop.create_task(self._run(), name="evcache-redis-channel"))
        self._task.add_done_callback(lambda _: ended(self))

    def cancel(self) -> None:
        cancel_once([self._task])

    async def stop(self) -> None:
        try:
            self.cancel()
            await asyncio.wait([self._task])
        finally:  # needed here, too: a task that is cancelled before its first step runs no `finally`
            await self._connection.disconnect(nowait=True)

    async def _run(self) -> None:
        error = ChannelError("subscription stopped")
        try:
            async with asyncio.TaskGroup() as group:
                unattended(group.create_task(self._read(), name="evcache-redis-channel-read"))
                unattended(group.create_task(self._ping_regularly(), name="evcache-redis-channel-ping"))
        except ExceptionGroup as errors:
            first = errors.exceptions[0]
            error = first if isinstance(first, ChannelError) else ChannelError(f"connection lost: {first}")
        finally:
            self.inbox.end(error)
            await self._connection.disconnect(nowait=True)

    async def _read(self) -> None:
        while True:
            answer = await self._connection.read_response(disable_decoding=True)
            self._replied_at = self._loop.time()
            # [message, topic, payload]; [pong, text]
            if answer[0] == b"message" and not self.inbox.push(answer[2]):
                raise ChannelError("inbox ended")
            if answer[0] not in (b"message", b"pong"):
                raise ChannelError(f"unexpected reply {answer!r}")

    async def _ping_regularly(self) -> None:
        while True:
            due = self._loop.time() + self._ping
            await asyncio.sleep(self._ping)
            now = self._loop.time()
            if now - due > LATE_SECONDS:
                self._replied_at = now
            if now - self._replied_at > self._silence:
                raise ChannelError(f"no reply for {self._silence} s")
            if not self._connection.is_connected:  # sending would reconnect without a notice
                raise ChannelError("connection closed")
            await self._connection.send_command("PING", check_health=False)
