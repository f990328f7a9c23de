"""Hooks hear what happens, and can't break it."""

import pytest

from evcache import Hooks
from tests.support.memory_zones import on_zones


class Broken(Hooks):
    """Raises whatever it hears."""

    def __init__(self):
        self.heard = []

    def hear(self, name):
        self.heard.append(name)
        raise RuntimeError(f"broken on {name}")

    def zone_wrote(self, zone, outcome, *, late):
        self.hear("zone_wrote")

    def fell_back(self, zone, error):
        self.hear("fell_back")

    def repaired(self, zone, outcome):
        self.hear("repaired")

    def error_as_miss(self, error):
        self.hear("error_as_miss")


@pytest.mark.parametrize("event", ["zone_wrote", "fell_back", "error_as_miss"])
@on_zones()
async def test_a_hook_that_raises_is_logged_once_and_disturbs_no_call(zones, event, caplog):
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
    assert len(hooks.heard) == 1
    said = [record for record in caplog.records if "a hook raised" in record.message]
    assert len(said) == 1
    assert "broken on" in said[0].exc_text


class Reads(Hooks):
    def __init__(self):
        self.heard = []

    def read(self, key, zone, source, *, hit):
        self.heard.append((source, hit))


@on_zones(zones=1)
async def test_what_is_out_of_date_is_told_as_the_miss_that_it_is(zones):
    hooks = Reads()
    cache = await zones.ready(hooks=hooks)
    await cache.set("k", 1)
    await cache.get("k")
    await cache.invalidate("k", stale_while_revalidate=10)
    await cache.get("k")
    await cache.get_item("k")
    await cache.get_many(["k"])
    await cache.get("nothing")
    assert hooks.heard == [("local", True), ("local", False), ("local", False), ("local", False), ("none", False)]
