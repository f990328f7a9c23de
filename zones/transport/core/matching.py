"""The loop that matches the replies of one chunk of bytes with the requests in flight. No I/O, no clock."""

from __future__ import annotations

from collections import deque

from evcache.zones.errors import NodeUnavailable, ProtocolError
from evcache.zones.protocol.decoder import Decoder
from evcache.zones.transport.in_flight import ExpectReply


def match(decoder: Decoder, waiting: deque[ExpectReply], data: bytes, node: str, timeouts: int) -> bool:
    """Give each waiter its reply.

    Args:
        decoder: Decoder of the connection.
        waiting: Requests in flight, the oldest first. A request leaves with its last reply.
        data: Bytes that arrived.
        node: Label of the node, for errors of requests that it did not serve.
        timeouts: Number of requests that have timed out since the last reply in time.

    Returns:
        True if requests have timed out, and a reply was for a caller that still waits.

    Raises:
        ProtocolError: The connection is out of sync. The replies before that have reached their waiters.
    """
    is_in_time = False
    for reply in decoder.feed(data):
        if not waiting:
            raise ProtocolError(f"reply without a request: {reply.line[:64]!r}")
        expected = waiting[0]
        if timeouts and not is_in_time and not expected.waiter.done():
            is_in_time = True
        try:
            if expected.take(reply):
                waiting.popleft()
        except NodeUnavailable as error:  # a proxy answers, and its backend does not
            error.node = node
            waiting.popleft().fail(error)
    return is_in_time
