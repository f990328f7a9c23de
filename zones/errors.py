"""Errors of the package, except those about zones as a whole, policies and values.

The tree is ordered by the action that the caller should take:

    CacheError                     root of all errors that this library raises on purpose
    |-- InvalidArgument            an argument is wrong; nothing was sent      (also a ValueError)
    |   |-- InvalidKey             empty, too long, or holds bytes that would break the command line
    |   |-- ValueTooLarge          above the limit of the servers
    |   `-- InvalidTopology        zones, nodes, labels, a node list or a TOML file
    |-- UsageError                 a client used after close(), from another loop, thread or process (also a RuntimeError)
    |-- Unsupported                the servers of this key lack a feature
    |-- DiscoveryError             a source of the topology did not answer; the client raises CacheUnavailable for it
    `-- NodeError                  one node did not answer; another zone may
        |-- NodeUnavailable        no connection: refused, unreachable, down; or a proxy has none
        |   |-- ConnectionLost     it ended before the reply; the command may have been executed
        |   `-- QueueFull          too many requests wait for this node; nothing was sent
        |-- NodeTimeout            no reply before the deadline; the command may have been executed
        |   `-- NodeSilent         no byte for some milliseconds; another zone may answer in time
        |-- ProtocolError          invalid reply; the client closed the connection
        `-- ServerError            the server refused the command with a text

`evcache.errors` adds the errors about zones, policies and values.
"""

from __future__ import annotations

from typing import Any, Self


class CacheError(Exception):
    """Root of all errors that this library raises on purpose. All of them can be copied and pickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Return the function and arguments that restore the error.

        The default calls the class with `args`. It fails for a constructor with named arguments, and breaks a process pool
        whose worker raised the error.
        """
        return _restored, (type(self), self.args, dict(self.__dict__))


def _restored(kind: type[CacheError], arguments: tuple[Any, ...], attributes: dict[str, Any]) -> CacheError:
    error = kind.__new__(kind, *arguments)
    error.args = arguments  # `__new__` of a class that is also an OSError does not set it
    error.__dict__.update(attributes)
    return error


class InvalidArgument(CacheError, ValueError):
    """Invalid argument or setting, named by `argument`. Raised before anything is sent."""

    def __init__(self, argument: str, problem: str) -> None:
        super().__init__(argument, problem)
        self.argument = argument
        """Name of the argument or setting."""
        self.problem = problem
        """Reason for which it cannot be used."""

    def __str__(self) -> str:
        return f"{self.argument}: {self.problem}"


class InvalidKey(InvalidArgument):
    """Key that is empty, too long, or contains bytes that would break the command line."""


class ValueTooLarge(InvalidArgument):
    """Value above the size limit of the servers. They would delete the present value if it were sent."""


class InvalidTopology(InvalidArgument):
    """Invalid zones, nodes, labels, node list or TOML file."""


class UsageError(CacheError, RuntimeError):
    """Use of a client after close(), or from another loop, thread or process."""


class Unsupported(CacheError):
    """Use of a `feature` that the server `node` lacks."""

    def __init__(self, feature: str, node: str) -> None:
        super().__init__(feature, node)
        self.feature = feature
        """Feature that the call needs."""
        self.node = node
        """Label of the node that lacks it."""

    def __str__(self) -> str:
        return f"{self.node} does not support {self.feature}"


class DiscoveryError(CacheError):
    """Failure of a `source` of the topology: it did not answer, or its answer names no zones."""

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(source, problem)
        self.source = source
        """Name of the source."""
        self.problem = problem
        """Reason for which there is no topology."""

    def __str__(self) -> str:
        return f"{self.source}: {self.problem}"


class NodeError(CacheError):
    """Failure of one node. `node` is its label, which is empty until a connection sets it."""

    def __init__(self, problem: str, node: str = "") -> None:
        super().__init__(problem, node)
        self.problem = problem
        """Cause of the failure."""
        self.node = node
        """Label of the node. Empty until a connection sets it."""

    def __str__(self) -> str:
        return f"{self.node}: {self.problem}" if self.node else self.problem

    def copy(self) -> Self:
        """Return a copy. One error object that many tasks raise would collect the tracebacks of all of them."""
        return type(self)(self.problem, self.node)


class NodeUnavailable(NodeError):
    """Missing connection to the node, or a proxy that has none to the server of the key."""


class ConnectionLost(NodeUnavailable):
    """End of the connection before the reply arrived. The command may have been executed."""


class QueueFull(NodeUnavailable):
    """Limit of waiting requests or bytes of the node. Nothing was sent."""


class NodeTimeout(NodeError):
    """Deadline without a reply. The command may have been executed."""


class NodeSilent(NodeTimeout):
    """Silence of the node while several reads wait. The deadline has not passed, and another zone may answer in time."""


class ProtocolError(NodeError):
    """Reply that violates the protocol. The connection is unusable."""


class ServerError(NodeError):
    """Refusal of a command by the server: `ERROR`, `CLIENT_ERROR` or `SERVER_ERROR` with its text."""
