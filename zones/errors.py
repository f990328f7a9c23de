"""Every error of both packages that is not about values, on one page.

Split by what the caller should do about it:

    CacheError                     the root: one `except` catches all that this library raises on purpose
    |-- InvalidArgument            your call is wrong; nothing was sent       (also a ValueError)
    |   |-- InvalidKey             empty, too long, or holds bytes that would break the command line
    |   |-- ValueTooLarge          over what the servers take
    |   `-- InvalidTopology        zones, nodes, labels, a node list or a TOML file
    |-- UsageError                 a client used after close(), from another loop, thread or process (also a RuntimeError)
    |-- Unsupported                the servers of this key can't do that
    `-- NodeError                  one node did not answer; another zone may
        |-- NodeUnavailable        no connection to it: refused, unreachable, down; or a proxy has none
        |   |-- ConnectionLost     there was one, and it ended before the reply; the command may have been carried out
        |   `-- QueueFull          too much is waiting for this node already; nothing was sent
        |-- NodeTimeout            no reply before the deadline; the command may have been carried out
        |   `-- NodeSilent         no byte for some milliseconds while reads wait; another zone may answer in time
        |-- ProtocolError          what it sent makes no sense; the connection is closed, nothing of it was returned
        `-- ServerError            it refused the command, in its own words

`evcache.errors` adds the ones that need zones, policies or values to happen.
"""

from __future__ import annotations

from typing import Any, Self


class CacheError(Exception):
    """The root of all errors that this library raises on purpose. All of them survive `copy` and `pickle`."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what restores the error from its attributes.

        Exception calls the class with `args`. This fails for a constructor with named arguments, and then breaks the process
        pool whose worker has raised the error.
        """
        return _restored, (type(self), self.args, dict(self.__dict__))


def _restored(kind: type[CacheError], arguments: tuple[Any, ...], attributes: dict[str, Any]) -> CacheError:
    error = kind.__new__(kind, *arguments)
    error.args = arguments  # not set by `__new__` of a class that is an OSError too
    error.__dict__.update(attributes)
    return error


class InvalidArgument(CacheError, ValueError):
    """An argument can't be used. Raised before anything is sent; `argument` names it."""

    def __init__(self, argument: str, problem: str) -> None:
        super().__init__(argument, problem)
        self.argument = argument
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.argument}: {self.problem}"


class InvalidKey(InvalidArgument):
    """A key that must not reach a server."""


class ValueTooLarge(InvalidArgument):
    """A value over what the servers take: sending it would delete what they hold under the key."""


class InvalidTopology(InvalidArgument):
    """Zones or nodes that can't be used together."""


class UsageError(CacheError, RuntimeError):
    """The client was used where it can't work: after close(), from another loop, thread or process."""


class Unsupported(CacheError):
    """`feature` is not to be had from `node`."""

    def __init__(self, feature: str, node: str) -> None:
        super().__init__(feature, node)
        self.feature = feature
        self.node = node

    def __str__(self) -> str:
        return f"{self.node} does not support {self.feature}"


class NodeError(CacheError):
    """One node did not answer. `node` is its label, empty until a connection fills it in."""

    def __init__(self, problem: str, node: str = "") -> None:
        super().__init__(problem, node)
        self.problem = problem
        self.node = node

    def __str__(self) -> str:
        return f"{self.node}: {self.problem}" if self.node else self.problem

    def copy(self) -> Self:
        """Return an error like this. One error raised in many tasks would collect the tracebacks of all of them."""
        return type(self)(self.problem, self.node)


class NodeUnavailable(NodeError):
    """There is no connection to the node, or the node is a proxy that can't serve the key."""


class ConnectionLost(NodeUnavailable):
    """The connection ended before the reply came. The command may have been carried out."""


class QueueFull(NodeUnavailable):
    """Too many requests, or too many bytes, wait for this node already. Nothing was sent."""


class NodeTimeout(NodeError):
    """No reply before the deadline. The command may have been carried out."""


class NodeSilent(NodeTimeout):
    """Several reads wait on the node and no byte arrives. The deadline has not passed: another zone may answer in time."""


class ProtocolError(NodeError):
    """The server sent what the protocol does not allow. The connection can't be trusted any more."""


class ServerError(NodeError):
    """The server refused a command: `ERROR`, `CLIENT_ERROR` or `SERVER_ERROR` with its text."""
