"""Sources of the nodes of a zone, and sources that are polled, with scripted answers."""

import asyncio

from evcache.zones.discovery.lookup import FoundNodes, LookupZone
from evcache.zones.discovery.polling import PolledDiscovery
from evcache.zones.topology.model import Endpoint, Mode
from tests.support.virtual_time import now

# Answers that never come.
HANG = "hang"


async def play(answer):
    """Return an answer, raise it, or hang."""
    if answer is HANG:
        await asyncio.Event().wait()
    if isinstance(answer, BaseException):
        raise answer
    return answer


class ScriptedNodes:
    """A source of nodes. Its last answer repeats."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []
        """Time of each lookup."""

    async def nodes(self):
        self.asked.append(now())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await play(answer)


def found(nodes, lifetime=None):
    """Return the result of a lookup: `found("h1,h2", 30)`."""
    return FoundNodes(tuple(Endpoint.parse(node) for node in nodes.split(",") if node), lifetime)


def zone(name, *sources, mode=Mode.READ_WRITE):
    """Return a zone. A text is a node that never changes."""
    return LookupZone(name, tuple(Endpoint.parse(source) if isinstance(source, str) else source for source in sources), mode)


class ScriptedSource(PolledDiscovery):
    """A polled source. Its last answer repeats. Without a `draw`, its pauses have no jitter."""

    def __init__(self, *answers, interval=30.0, timeout=10.0, draw=lambda: 0.5):
        super().__init__("script", interval=interval, timeout=timeout, draw=draw)
        self.answers = list(answers)
        self.asked = []

    async def look(self):
        self.asked.append(now())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await play(answer)
