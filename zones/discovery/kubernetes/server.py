"""Address of the API server, and the files of the service account of a pod."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from evcache.zones.discovery.kubernetes.slices import ApiProblem
from evcache.zones.errors import InvalidArgument

# The kubelet mounts these files into each pod. It replaces the token before it expires, after an hour by default.
SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
TOKEN_PATH = f"{SERVICE_ACCOUNT}/token"
CA_PATH = f"{SERVICE_ACCOUNT}/ca.crt"
NAMESPACE_PATH = f"{SERVICE_ACCOUNT}/namespace"

# Names of Services and namespaces.
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

_TOKEN = re.compile(r"[!-~]+")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class ApiServer:
    """Access to an API server."""

    url: str | None
    """Address without a final slash. If None, the environment of a pod has it."""
    token_path: Path | None
    """File of the token. If None, requests have no token."""
    ca_path: Path | None
    """File of the certificates that sign the server's own. If None, those of the system apply."""

    def address(self, environment: Mapping[str, str] = os.environ) -> str:
        """Return the address of the server.

        Raises:
            ApiProblem: The process does not run in a pod, and no address was given.
        """
        if self.url is not None:
            return self.url
        host = environment.get("KUBERNETES_SERVICE_HOST")
        if not host:
            raise ApiProblem("KUBERNETES_SERVICE_HOST is not set: outside a cluster, api_server is required")
        port = environment.get("KUBERNETES_SERVICE_PORT", "443")
        return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"

    def token(self) -> str | None:
        """Return the present token. The file is read each time, because the kubelet replaces it.

        Raises:
            ApiProblem: The file cannot be read, or holds no token.
        """
        if self.token_path is None:
            return None
        token = read(self.token_path, "token")
        if not _TOKEN.fullmatch(token):
            raise ApiProblem(f"token: {self.token_path} holds no token")  # its content must not get into a log
        return token


def read(path: Path, content: str) -> str:
    """Return the text of a file of the service account, without white space around it.

    Raises:
        ApiProblem: The file cannot be read.
    """
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ApiProblem(f"{content}: {path}: {getattr(error, 'strerror', None) or error}") from error


def checked_address(url: str | None) -> str | None:
    """Check the address of an API server, and return it without a final slash.

    Raises:
        InvalidArgument: The text is no such address, or would send the token in clear text over a network.
    """
    if url is None:
        return None
    form = "the address of an API server is required, such as https://10.96.0.1:443"
    if not isinstance(url, str):
        raise InvalidArgument("api_server", f"{form}, not {url!r}")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidArgument("api_server", f"{form}: {error}") from error
    if not host or parts.scheme not in {"http", "https"} or parts.query or parts.fragment or "@" in parts.netloc:
        raise InvalidArgument("api_server", f"{form}, not {url!r}")
    if parts.scheme == "http" and host not in _LOOPBACK:
        raise InvalidArgument("api_server", "http:// is for `kubectl proxy` on this host, because the token is secret")
    return url.rstrip("/")
