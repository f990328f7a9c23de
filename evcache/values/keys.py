r"""Keys: `namespace:key`, checked before anything is sent.

A memcached key has at most 250 bytes. Servers in use execute the bytes behind a longer key as commands, and cut a line at a
NUL: `md foo\0x` deletes `foo`. The client therefore sends printable ASCII without spaces only. It hashes keys that are too
long or not ASCII, and refuses spaces and control characters, which are mistakes.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Sequence

from evcache.zones.errors import InvalidArgument, InvalidKey
from evcache.zones.transport.core import selected

MAX_KEY_BYTES = 250  # memcached's limit

# Beginning of a hashed key. A plain key with this beginning is hashed too, so that it cannot equal the hash of another key.
_HASH_MARK = b"#sha256-"
_HASH_BYTES = len(_HASH_MARK) + 43  # 32 bytes in base64 without padding
MAX_NAMESPACE_BYTES = MAX_KEY_BYTES - 1 - _HASH_BYTES

UNSAFE = re.compile(rb"[\x00-\x20\x7f]")
"""Space and control characters, which no key contains."""
_PLAIN = re.compile(rb"[\x21-\x7e]+")


class Keys:
    """The keys of one namespace."""

    __slots__ = ("_prefix", "_room", "namespace", "qualify", "qualify_all")

    def __init__(self, namespace: str, *, prefix: bytes | None = None, longest: int = MAX_KEY_BYTES) -> None:
        """Make the keys of a namespace.

        Args:
            namespace: Printable ASCII without spaces. A colon is refused, because ("a", "b:c") and ("a:b", "c") would be
                equal keys.
            prefix: Text in front of each key. If None, `namespace:`.
            longest: Bytes of the longest plain key, with its prefix.

        Raises:
            InvalidArgument: The namespace is empty, too long, or has another character.
        """
        if not isinstance(namespace, str) or not namespace:
            raise InvalidArgument("namespace", f"a str that is not empty is required, not {namespace!r}")
        if not namespace.isascii() or not _PLAIN.fullmatch(namespace.encode()) or ":" in namespace:
            raise InvalidArgument("namespace", f"printable ASCII without spaces and colons is required, not {namespace!r}")
        if len(namespace) > MAX_NAMESPACE_BYTES:
            raise InvalidArgument("namespace", f"at most {MAX_NAMESPACE_BYTES} characters are allowed, not {len(namespace)}")
        self.namespace = namespace
        self._prefix = f"{namespace}:".encode() if prefix is None else prefix
        self._room = longest - len(self._prefix)
        self.qualify: Callable[[str | bytes], bytes]
        """Return the key with its namespace, in the form that servers get.

        It raises `InvalidKey` if the key is empty, has a space or control character, or is not a str or bytes.
        """
        self.qualify_all: Callable[[Sequence[str | bytes]], list[bytes]]
        """Return several keys as `qualify` does."""
        self.qualify, self.qualify_all = selected.SELECTED.qualifier(self._prefix, self._room, "#", self._qualify_unusual)

    def _qualify_unusual(self, key: str | bytes) -> bytes:
        raw = checked_key(key)
        if self._reason_to_hash(raw) is None:
            return self._prefix + raw
        digest = base64.urlsafe_b64encode(hashlib.sha256(raw).digest()).rstrip(b"=")
        return self._prefix + _HASH_MARK + digest

    def hash_reason(self, key: str | bytes) -> str | None:
        """Return the reason for which servers get the hash of a valid key. None if they get the key itself."""
        return self._reason_to_hash(key.encode() if isinstance(key, str) else key)

    def _reason_to_hash(self, raw: bytes) -> str | None:
        if _PLAIN.fullmatch(raw) is None:
            return "not plain ASCII"
        if len(raw) > self._room:
            return f"{len(raw)} bytes, over {self._room}"
        return "like the hash of another key" if raw.startswith(_HASH_MARK) else None


def checked_key(key: str | bytes) -> bytes:
    """Return the bytes of a key that a caller gave, without its prefix.

    Args:
        key: The key.

    Raises:
        InvalidKey: It is empty, has a space or control character, or is not a str or bytes.
    """
    if isinstance(key, str):
        try:
            raw = key.encode()
        except UnicodeEncodeError:
            raise InvalidKey("key", f"{key!r} has a lone surrogate, which has no UTF-8 form") from None
    elif isinstance(key, bytes):
        raw = key
    else:
        raise InvalidKey("key", f"a str or bytes is required, not {type(key).__name__}")
    if not raw:
        raise InvalidKey("key", "it is empty")
    unsafe = UNSAFE.search(raw)
    if unsafe is not None:
        raise InvalidKey("key", f"{key!r} has a space or control character (byte {unsafe[0][0]:#04x})")
    return raw
