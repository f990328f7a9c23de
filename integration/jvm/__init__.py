"""The EVCache client for the JVM, driven over the pipes of the program in `integration/java`."""

from integration.jvm.client import JavaError, JvmCache, JvmClient, JvmFailure, WriteReport
from integration.jvm.values import JavaValue

__all__ = ["JavaError", "JavaValue", "JvmCache", "JvmClient", "JvmFailure", "WriteReport"]
