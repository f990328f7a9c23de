"""Errors of the classic client as errors of the node."""

from __future__ import annotations

import asyncio
import logging

from aiomcache.exceptions import ClientException

from evcache.zones.errors import ConnectionLost, NodeError, NodeTimeout, NodeUnavailable, ProtocolError
from evcache.zones.protocol.replies import unexpected
from evcache.zones.transport.classic.client import Refused
from evcache.zones.transport.classic.pool import CannotConnect
from evcache.zones.transport.classic.replies import refusal

_log = logging.getLogger("evcache.zones.transport")


def node_error(error: Exception, name: str) -> NodeError:
    """Return the error that callers get for one that a request ended with. `name` is the node's label.

    An error that no server can cause is a bug of this client. It is logged with its traceback.
    """
    if isinstance(error, NodeError):  # by a translation
        error.node = name
        return error
    if isinstance(error, CannotConnect):
        return NodeUnavailable(str(error), name)
    if isinstance(error, TimeoutError):
        return NodeTimeout("no reply in time", name)
    if isinstance(error, asyncio.IncompleteReadError):
        return ConnectionLost("closed by the server", name)
    if isinstance(error, OSError):
        return ConnectionLost(f"lost: {error}", name)
    if isinstance(error, Refused):
        # SERVER_ERROR is an answer. After other errors it is unknown what the server will read next.
        reply = refusal(error.line)
        if reply is not None and reply.status == b"SERVER_ERROR":
            answered = unexpected(reply)
            answered.node = name
            return answered
        return ProtocolError(
            f"connection out of sync after error: {error.line[:200].decode('ascii', 'backslashreplace')}", name
        )
    if not isinstance(error, ClientException | asyncio.LimitOverrunError):
        _log.error("request to %s failed: unexpected exception", name, exc_info=error)
    return ProtocolError(f"closed: protocol error: {error}", name)
