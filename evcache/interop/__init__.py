"""Namespaces that Netflix's EVCache client for the JVM uses as well: settings, key hashes, and its types of values."""

from evcache.interop.codec import InteropCodec
from evcache.interop.forms.key_hash import KeyHash
from evcache.interop.java_types import JavaByte, JavaFloat, JavaInteger, JavaLong, JavaObject, JavaShort
from evcache.interop.settings import GroupInterop, Interop

__all__ = [
    "GroupInterop",
    "Interop",
    "InteropCodec",
    "JavaByte",
    "JavaFloat",
    "JavaInteger",
    "JavaLong",
    "JavaObject",
    "JavaShort",
    "KeyHash",
]
