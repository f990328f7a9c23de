"""Text form of the source, for settings and environment variables: `kubernetes+SERVICE.NAMESPACE:port`."""

from __future__ import annotations

from evcache.zones.discovery.kubernetes.discovery import KubernetesDiscovery
from evcache.zones.discovery.kubernetes.server import NAME
from evcache.zones.errors import InvalidTopology
from evcache.zones.topology.parsing import MAX_PORT

PREFIX = "kubernetes+"

_FORM = "kubernetes+SERVICE, kubernetes+SERVICE.NAMESPACE, each with an optional :PORT (a number or a name)"


def kubernetes_discovery(text: str) -> KubernetesDiscovery | None:
    """Return the source that a text names.

    Args:
        text: `kubernetes+SERVICE` or `kubernetes+SERVICE.NAMESPACE`, each with an optional `:PORT`. Without a namespace, the
            one of this pod applies.

    Returns:
        The source, or None if the text does not begin with `kubernetes+`.

    Raises:
        InvalidTopology: The text begins with `kubernetes+`, and has another form.
        InvalidArgument: The package aiohttp is not installed.
    """
    stripped = text.strip()
    if not stripped.startswith(PREFIX):
        return None
    address, colon, port = stripped.removeprefix(PREFIX).partition(":")
    service, dot, namespace = address.partition(".")
    if not NAME.fullmatch(service) or (dot and not NAME.fullmatch(namespace)) or (colon and not _is_port(port)):
        raise InvalidTopology("zones", f"{stripped!r} is not {_FORM}")
    chosen = int(port) if port.isdigit() else port or None
    return KubernetesDiscovery(service, namespace=namespace or None, port=chosen)


def _is_port(port: str) -> bool:
    if port.isascii() and port.isdigit():
        return len(port) <= len(str(MAX_PORT)) and 0 < int(port) <= MAX_PORT
    return NAME.fullmatch(port) is not None
