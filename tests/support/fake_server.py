"""Fake memcached with a clock that tests move."""

import asyncio

from evcache.zones.testing import FakeMemcached


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    async def advance(self, seconds: float) -> None:
        self.now += seconds


def make_server(version: str = "1.6.38", server: str = "plain", clock: Clock | None = None) -> FakeMemcached:
    return FakeMemcached(
        version=version,
        cas_enabled=server != "no-cas",
        auth=("alice", "s3cret") if server == "auth" else None,
        dead_backend=(lambda key: key.startswith(b"dead/")) if server == "proxy" else None,
        clock=clock or Clock(),
    )


# --- in memory ----------------------------------------------------------------------------------------------------


class Recorder(asyncio.Protocol):
    """Writes down what happens to it."""

    def __init__(self) -> None:
        self.events = []
        self.data = b""

    def connection_made(self, transport):
        self.events.append("made")

    def data_received(self, data):
        self.data += data

    def eof_received(self):
        self.events.append("eof")

    def pause_writing(self):
        self.events.append("pause")

    def resume_writing(self):
        self.events.append("resume")

    def connection_lost(self, exc):
        self.events.append(type(exc).__name__ if exc else "lost")


async def settle():
    """Let all callbacks run that are due, and those that they make due."""
    for _ in range(20):
        await asyncio.sleep(0)
