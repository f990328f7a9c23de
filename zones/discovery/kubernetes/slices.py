"""EndpointSlices as the API server writes them, and the set of slices that a watch keeps. Plain functions, without I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

# Characters of the server's own message that an error repeats.
LONGEST_MESSAGE = 200

GONE = 410


class ApiProblem(Exception):
    """Answer of the API server that is missing or unusable. The text names the cause."""

    needs_list = False
    """True if the slices are unknown from now on, so that the client has to list them again."""


class Expired(ApiProblem):
    """Refusal of a resource version that the API server no longer keeps."""

    needs_list = True


class BadEvent(ApiProblem):
    """Event of a watch that is an error or unusable."""

    needs_list = True


class ConnectionCut(ApiProblem):
    """End of the connection in the middle of a watch."""


class Reference(msgspec.Struct, frozen=True, rename="camel"):
    """Object behind an endpoint."""

    kind: str = ""
    name: str = ""


class Conditions(msgspec.Struct, frozen=True):
    """State of an endpoint. None means that the state is unknown."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class SliceEndpoint(msgspec.Struct, frozen=True, rename="camel"):
    """One pod, or one address that was added by hand."""

    addresses: tuple[str, ...] = ()
    conditions: Conditions = Conditions()
    hostname: str | None = None
    target_ref: Reference | None = None
    zone: str | None = None


class SlicePort(msgspec.Struct, frozen=True):
    """Port of all endpoints of a slice."""

    name: str | None = None
    port: int | None = None
    """Number of the port. None means that all ports are open."""
    protocol: str | None = None
    """Name of the protocol. None means TCP."""


class Metadata(msgspec.Struct, frozen=True, rename="camel"):
    """Name and version of an object."""

    name: str = ""
    resource_version: str = ""


class EndpointSlice(msgspec.Struct, frozen=True, rename="camel"):
    """Part of the endpoints of a Service: one address family, one set of ports, at most 1000 endpoints."""

    metadata: Metadata
    address_type: str = ""
    endpoints: tuple[SliceEndpoint, ...] | None = None
    ports: tuple[SlicePort, ...] | None = None


class Page(NamedTuple):
    """Page of a list."""

    slices: tuple[EndpointSlice, ...]
    version: str
    """Resource version from which a watch sees each later change."""
    next_page: str
    """Token of the next page. Empty after the last one."""


class _ListMetadata(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    next_page: str = msgspec.field(default="", name="continue")


class _List(msgspec.Struct, frozen=True):
    metadata: _ListMetadata
    items: tuple[EndpointSlice, ...] | None = None


class _Event(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


class _Bookmark(msgspec.Struct, frozen=True):
    metadata: Metadata


class _Status(msgspec.Struct, frozen=True):
    message: str = ""
    reason: str = ""
    code: int = 0


_decode_list = msgspec.json.Decoder(_List).decode
_decode_slice = msgspec.json.Decoder(EndpointSlice).decode
_decode_event = msgspec.json.Decoder(_Event).decode
_decode_bookmark = msgspec.json.Decoder(_Bookmark).decode
_decode_status = msgspec.json.Decoder(_Status).decode


def read_page(body: bytes) -> Page:
    """Return a page of a list.

    Raises:
        ApiProblem: The body is no list of EndpointSlices.
    """
    try:
        page = _decode_list(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ApiProblem(f"malformed list: {error}") from error
    return Page(page.items or (), page.metadata.resource_version, page.metadata.next_page)


def read_status(body: bytes) -> str:
    """Return the message of an error. Empty if the body has none."""
    try:
        return _decode_status(body).message[:LONGEST_MESSAGE]
    except (msgspec.DecodeError, RecursionError):
        return ""  # a proxy answers in HTML


class SliceSet:
    """Slices of one Service, from a list and the events after it."""

    def __init__(self, version: str, slices: Iterable[EndpointSlice]) -> None:
        """Make the set of a list.

        Args:
            version: Resource version of the list.
            slices: Slices of the list.
        """
        self.version = version
        """Resource version from which a watch continues."""
        self._by_name = {piece.metadata.name: piece for piece in slices}

    @property
    def slices(self) -> tuple[EndpointSlice, ...]:
        """The slices."""
        return tuple(self._by_name.values())

    def copy(self) -> SliceSet:
        """Return a set that changes independently."""
        return SliceSet(self.version, self._by_name.values())

    def apply(self, line: bytes) -> bool:
        """Apply an event of a watch.

        Args:
            line: JSON of the event.

        Returns:
            True if a slice changed. A bookmark only moves the version.

        Raises:
            Expired: The server no longer keeps the version of the watch.
            BadEvent: The event is malformed, or reports another error.
        """
        try:
            event = _decode_event(line)
            if event.type == "ERROR":
                raise _error_of(_decode_status(event.object))
            if event.type == "BOOKMARK":
                self._move(_decode_bookmark(event.object).metadata)
                return False
            if event.type not in {"ADDED", "MODIFIED", "DELETED"}:
                return False  # a later version of the API
            piece = _decode_slice(event.object)
        except (msgspec.DecodeError, RecursionError) as error:
            raise BadEvent(f"malformed watch event: {error}") from error
        self._move(piece.metadata)
        name = piece.metadata.name
        if event.type == "DELETED":
            return self._by_name.pop(name, None) is not None
        self._by_name[name] = piece
        return True

    def _move(self, metadata: Metadata) -> None:
        self.version = metadata.resource_version or self.version


def _error_of(status: _Status) -> ApiProblem:
    text = f"{status.code or ''} {status.message[:LONGEST_MESSAGE] or status.reason}".strip()
    if status.code == GONE or status.reason in {"Expired", "Gone"}:
        return Expired(f"watch expired: {text}")
    return BadEvent(f"watch failed: {text}")
