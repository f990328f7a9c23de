"""Driver of the Java program: a JVM, the EVCache client in it, and one request at a time."""

from __future__ import annotations

import json
import os
import select
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Self

from integration.jvm.values import JavaValue

# The JVM lives for seconds, so the first compiler is enough, and one collector thread.
JVM_OPTIONS = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m", "-Dfile.encoding=UTF-8")
MAIN_CLASS = "evcache.interop.Main"

PROPERTIES: Mapping[str, str] = {
    "evcache.use.simple.node.list.provider": "true",
    "default.read.timeout": "1000",  # the default of 20 ms is too short for a busy machine
    "org.slf4j.simpleLogger.defaultLogLevel": "warn",
}

REQUEST_SECONDS = 30.0  # the first request of an app connects; a write waits for at most 10 s
EXIT_SECONDS = 10.0
STDERR_BYTES = 4000  # of the end, in an error


class JvmFailure(Exception):
    """The JVM ended or did not answer. The text has the end of its stderr."""


class JavaError(Exception):
    """The client for the JVM threw an exception."""

    def __init__(self, name: str, message: str, cause: str | None) -> None:
        super().__init__(f"{name}: {message}" + (f" (caused by {cause})" if cause else ""))
        self.name = name
        self.message = message


@dataclass(frozen=True)
class WriteReport:
    """Result of a write, as its latch counts it. The latch counts completed writes also if they failed."""

    done: bool
    expected: int
    completed: int
    succeeded: int
    failed: int
    groups: tuple[bool, ...]
    """Result of each write that the client sent. `add` sends none after the first refusal."""

    @property
    def is_stored(self) -> bool:
        """True if every group has acknowledged the write."""
        return bool(self.groups) and all(self.groups)


class JvmClient:
    """JVM with the EVCache client.

        with JvmClient(require_java(), zones.zones, ["EVCACHE_USERS"], local_zone="g0") as jvm:
            jvm.cache("EVCACHE_USERS", prefix="p").set("key", JavaValue("String", "text"))

    A server group is a zone. Calls block, and are serialized. Code in an event loop uses `asyncio.to_thread`.
    """

    def __init__(
        self,
        command: Sequence[str],
        zones: Mapping[str, Sequence[str]],
        apps: Iterable[str],
        *,
        local_zone: str,
        properties: Mapping[str, str] = {},
    ) -> None:
        """Describe the JVM without starting it.

        Args:
            command: Command of the JVM up to the class path, from `require_java`.
            zones: Addresses of the nodes by group. Each node needs an IP address of its own, because the ring ignores ports.
            apps: Names of the apps that use these groups.
            local_zone: Group that the client reads first.
            properties: System properties, such as {"EVCACHE_USERS.hash.key": "true"}.
        """
        nodes = node_list(zones)
        all_properties = {**PROPERTIES, **{f"{app}-NODES": nodes for app in apps}, **properties}
        self._command = [command[0], *JVM_OPTIONS, *(f"-D{name}={value}" for name, value in all_properties.items())]
        self._command += [*command[1:], MAIN_CLASS]
        self._environ = {**os.environ, "EC2_AVAILABILITY_ZONE": local_zone}
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._buffer = b""
        self._last_id = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - __exit__ closes it
        self._process = subprocess.Popen(
            self._command,
            env=self._environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
        )
        try:
            self.call("ping")
        except BaseException:
            self._stop(seconds=0.0)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop(EXIT_SECONDS)

    def cache(self, app: str, prefix: str | None = None) -> JvmCache:
        """Return the client's cache of an app. A prefix of None is no prefix, which differs from an empty one."""
        return JvmCache(self, app, prefix)

    def locate(self, app: str, keys: Sequence[str]) -> dict[str, list[str]]:
        """Return the address of each key's node by group. The keys are those on the wire, with prefix or hashed."""
        located: dict[str, list[str]] = self.call("locate", app=app, keys=list(keys))
        return located

    def call(self, operation: str, **fields: Any) -> Any:
        """Send one request and return its result.

        Raises JavaError if the client threw an exception, and JvmFailure if the JVM ended or does not answer.
        """
        with self._lock:
            assert self._process is not None, "use `with JvmClient(...)`"
            assert self._process.stdin is not None
            self._last_id += 1
            request = json.dumps({"id": self._last_id, "op": operation, **fields})
            try:
                self._process.stdin.write(request.encode() + b"\n")
            except BrokenPipeError:
                raise self._failure("the JVM has ended") from None
            deadline = time.monotonic() + REQUEST_SECONDS
            reply = self._read(operation, deadline)
            while reply["id"] != self._last_id:  # the reply to a request that timed out
                reply = self._read(operation, deadline)
        if "error" in reply:
            error = reply["error"]
            raise JavaError(error["class"], error["message"], error["cause"])
        return reply["result"]

    def _read(self, operation: str, deadline: float) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        while b"\n" not in self._buffer:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not select.select([self._process.stdout], [], [], remaining)[0]:
                raise self._failure(f"no reply to {operation} within {REQUEST_SECONDS} s")
            received = self._process.stdout.read(1 << 20)
            if not received:
                raise self._failure(f"the JVM ended with status {self._process.wait(EXIT_SECONDS)}")
            self._buffer += received
        line, _, self._buffer = self._buffer.partition(b"\n")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _failure(self, text: str) -> JvmFailure:
        assert self._errors is not None
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - STDERR_BYTES))
        end = self._errors.read().decode("utf-8", "replace").strip()
        return JvmFailure(f"{text}; the end of its stderr:\n{end}")

    def _stop(self, seconds: float) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()  # the program ends with its input
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        if self._errors is not None:
            self._errors.close()


class JvmCache:
    """Cache of one app and prefix. Each operation calls the client's method of that name."""

    def __init__(self, jvm: JvmClient, app: str, prefix: str | None) -> None:
        self._jvm = jvm
        self._names = {"app": app, "prefix": prefix}

    def get(self, key: str) -> JavaValue:
        return JavaValue.from_json(self._call("get", key=key))

    def get_bulk(self, keys: Sequence[str]) -> dict[str, JavaValue]:
        values = self._call("getBulk", keys=list(keys))
        return {key: JavaValue.from_json(value) for key, value in values.items()}

    def get_and_touch(self, key: str, ttl: int) -> JavaValue:
        """Return the value. The client does not wait for its touches."""
        return JavaValue.from_json(self._call("getAndTouch", key=key, ttl=ttl))

    def set(self, key: str, value: JavaValue, ttl: int = 900) -> WriteReport:
        return self._write("set", key=key, value=value.to_json(), ttl=ttl)

    def set_many(self, values: Mapping[str, JavaValue], ttl: int = 900) -> list[WriteReport]:
        """Set all values, and then wait for the writes."""
        encoded = {key: value.to_json() for key, value in values.items()}
        return [_report(json) for json in self._call("setMany", values=encoded, ttl=ttl)]

    def add(self, key: str, value: JavaValue, ttl: int = 900) -> WriteReport:
        return self._write("add", key=key, value=value.to_json(), ttl=ttl)

    def add_boolean(self, key: str, value: JavaValue, ttl: int = 900) -> bool:
        """Return the result of the deprecated form of `add`."""
        return bool(self._call("addBoolean", key=key, value=value.to_json(), ttl=ttl))

    def add_many(self, keys: Sequence[str], value: JavaValue, ttl: int = 900) -> list[WriteReport]:
        """Add the keys one after another without a pause, for races."""
        return [_report(json) for json in self._call("addMany", keys=list(keys), value=value.to_json(), ttl=ttl)]

    def replace(self, key: str, value: JavaValue, ttl: int = 900) -> WriteReport:
        return self._write("replace", key=key, value=value.to_json(), ttl=ttl)

    def append(self, key: str, value: JavaValue, ttl: int = 900) -> tuple[bool, ...]:
        """Return the result of each group."""
        return tuple(self._call("append", key=key, value=value.to_json(), ttl=ttl))

    def append_or_add(self, key: str, value: JavaValue, ttl: int = 900) -> WriteReport:
        return self._write("appendOrAdd", key=key, value=value.to_json(), ttl=ttl)

    def delete(self, key: str) -> WriteReport:
        return self._write("delete", key=key)

    def touch(self, key: str, ttl: int) -> WriteReport:
        return self._write("touch", key=key, ttl=ttl)

    def incr(self, key: str, by: int, default: int, ttl: int = 900) -> int:
        return int(self._call("incr", key=key, by=by, default=default, ttl=ttl))

    def decr(self, key: str, by: int, default: int, ttl: int = 900) -> int:
        return int(self._call("decr", key=key, by=by, default=default, ttl=ttl))

    def _write(self, operation: str, **fields: Any) -> WriteReport:
        return _report(self._call(operation, **fields))

    def _call(self, operation: str, **fields: Any) -> Any:
        return self._jvm.call(operation, **self._names, **fields)


def node_list(zones: Mapping[str, Sequence[str]]) -> str:
    """Return the client's form of the nodes. `ip/ip:port` makes their ring labels independent of DNS."""
    groups = []
    for zone, addresses in zones.items():
        nodes = [f"{address.rpartition(':')[0]}/{address}" for address in addresses]
        groups.append(f"{zone}={','.join(nodes)}")
    return ";".join(groups)


def _report(json: dict[str, Any]) -> WriteReport:
    return WriteReport(**{**json, "groups": tuple(json["groups"])})
