"""Keys of a namespace that JVM clients use as well: the same characters, lengths and prefix as in EVCache."""

from __future__ import annotations

from evcache.interop.forms.chunks import fits, longest_with_room
from evcache.interop.forms.group_rules import GroupRules, utf16_length
from evcache.interop.settings import Interop, PrefixRule
from evcache.values.keys import MAX_KEY_BYTES, Keys, checked_key
from evcache.zones.errors import InvalidKey

# `Character.isWhitespace`, above the control characters and the space. EVCache refuses these.
_JAVA_SPACES = frozenset("\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2008\u2009\u200a\u2028\u2029\u205f\u3000")

# The longest end of the key of a chunk: `MAX_RECORDS` has five digits.
CHUNK_SUFFIX_BYTES = 6

# Above this length, the string of a Java-serialised key has another form, which no client needs.
MAX_CANONICAL_BYTES = 65_535


class InteropKeys(Keys):
    """The canonical keys of one namespace. `GroupRules` makes the key that a zone gets from one of them."""

    __slots__ = ("_interop", "_rules")

    def __init__(self, namespace: str, interop: Interop) -> None:
        """Make the keys of a namespace.

        Args:
            namespace: See `Keys`.
            interop: Settings of the JVM clients.

        Raises:
            InvalidArgument: See `Keys`.
        """
        self._interop = interop
        # A group that is not named has the rules of the app.
        self._rules = [GroupRules(interop, name) for name in ("", *interop.groups)]
        super().__init__(namespace, prefix=_prefix(namespace, interop.prefix), longest=self._longest_plain())

    def _longest_plain(self) -> int:
        """Return the bytes up to which a key of plain ASCII needs no further check."""
        chunks = [rules.chunk_bytes for rules in self._rules if rules.chunk_bytes is not None]
        room = [min(MAX_KEY_BYTES - CHUNK_SUFFIX_BYTES, longest_with_room(size)) for size in chunks]
        return min([self._interop.longest_key, *room])

    def _qualify_unusual(self, key: str | bytes) -> bytes:
        raw = checked_key(key)
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            raise InvalidKey("key", f"{key!r} is no UTF-8, and keys of JVM clients are text") from None
        space = next((character for character in text if character in _JAVA_SPACES), None)
        if space is not None:
            raise InvalidKey("key", f"{key!r} has the character U+{ord(space):04X}, which JVM clients take for a space")
        canonical = self._prefix + raw
        length, longest = utf16_length(canonical), self._interop.longest_key
        if length > longest and self._interop.hash_keys == "never":
            raise InvalidKey("key", f"it has {length} UTF-16 units, over {longest}, and the app hashes no keys: {key!r}")
        if len(canonical) > MAX_CANONICAL_BYTES:
            raise InvalidKey("key", f"it has {len(canonical)} bytes, over {MAX_CANONICAL_BYTES}")
        for rules in self._rules:
            wire = rules.wire_key(canonical).key
            longest = MAX_KEY_BYTES - (0 if rules.chunk_bytes is None else CHUNK_SUFFIX_BYTES)
            if len(wire) > longest:
                raise InvalidKey("key", f"{key!r} has {len(wire)} bytes, over the {longest} that memcached leaves")
            if rules.chunk_bytes is not None and not fits(wire, rules.chunk_bytes):
                raise InvalidKey("key", f"{key!r} leaves no room for data in a chunk of {rules.chunk_bytes} bytes")
        return canonical

    def hash_reason(self, key: str | bytes) -> str | None:
        """Return the reason for which servers get the hash of a valid key. None if they get the key itself."""
        canonical = self.qualify(key)
        return "hashed as the JVM client does" if any(rules.wire_key(canonical).is_hashed for rules in self._rules) else None


def _prefix(namespace: str, rule: PrefixRule) -> bytes:
    match rule:
        case "namespace":
            return f"{namespace}:".encode()
        case "none":
            return b""
        case "empty":
            return b":"
