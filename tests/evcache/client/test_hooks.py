"""Hooks receive events, and their errors do not affect the client."""

import inspect

import pytest

from evcache import Hooks
from evcache.hooks import HOOKS, HookDispatcher
from tests.support.memory_zones import on_zones


class Broken(Hooks):
    """Hooks that raise on each event."""

    def __init__(self):
        self.received = []

    def receive(self, name):
        self.received.append(name)
        raise RuntimeError(f"broken on {name}")

    def zone_wrote(self, zone, outcome, *, late):
        self.receive("zone_wrote")

    def fell_back(self, zone, error):
        self.receive("fell_back")

    def repaired(self, zone, outcome):
        self.receive("repaired")

    def error_as_miss(self, error):
        self.receive("error_as_miss")


@pytest.mark.parametrize("event", ["zone_wrote", "fell_back", "error_as_miss"])
@on_zones()
async def test_hook_that_raises_is_logged_once_and_affects_no_call(zones, event, caplog):
    hooks = Broken()
    cache = zones.client(hooks=hooks)
    if event == "zone_wrote":
        assert await cache.set("k", 1, consistency="all")
        assert await cache.set("k", 2, consistency="all")
        assert await cache.get("k") == 2
    elif event == "fell_back":
        assert await cache.get("nothing") is None
        assert await cache.get("nothing") is None
    else:
        for zone in "abc":
            await zones.kill(zone)
        assert await cache.get("k", 5, errors="miss") == 5
        assert await cache.get("k", 5, errors="miss") == 5
    assert len(hooks.received) == 1
    logged = [record for record in caplog.records if "hook failed" in record.message]
    assert len(logged) == 1
    assert "broken on" in logged[0].exc_text


class Reads(Hooks):
    def __init__(self):
        self.received = []

    def read(self, key, zone, source, *, hit):
        self.received.append((source, hit))


@on_zones(zones=1)
async def test_stale_value_is_reported_as_a_miss(zones):
    hooks = Reads()
    cache = await zones.ready(hooks=hooks)
    await cache.set("k", 1)
    await cache.get("k")
    await cache.invalidate("k", stale_while_revalidate=10)
    await cache.get("k")
    await cache.get_item("k")
    await cache.get_many(["k"])
    await cache.get("nothing")
    assert hooks.received == [("local", True), ("local", False), ("local", False), ("local", False), ("none", False)]


@pytest.mark.parametrize("name", HOOKS)
def test_dispatcher_passes_each_event_on(name):
    received = []

    def receive(self, *arguments, **named):
        received.append((arguments, named))

    parameters = list(inspect.signature(getattr(Hooks, name)).parameters.values())[1:]
    arguments = [parameter.name for parameter in parameters if parameter.kind is not parameter.KEYWORD_ONLY]
    named = {parameter.name: True for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
    dispatcher = HookDispatcher()
    assert inspect.signature(getattr(HookDispatcher, name)) == inspect.signature(getattr(Hooks, name))
    getattr(dispatcher, name)(*arguments, **named)
    dispatcher.add(type("Listener", (Hooks,), {name: receive})())
    getattr(dispatcher, name)(*arguments, **named)
    assert received == [(tuple(arguments), named)]
