"""The benchmark of guarded stores has each form run that it names, on both cores."""

import pytest

from benchmarks.guarded_store import LOOK, ONE, THREE, form
from tests.support.cores import CORES, running
from tests.support.memory_zones import MemoryZones, pass_time
from tests.support.virtual_time import run


@pytest.mark.parametrize("core", CORES, ids=lambda core: core.name)
@pytest.mark.parametrize("size", [20, 1000])
@pytest.mark.parametrize(("name", "copies", "starts"), [(THREE, 3, b"ms "), (ONE, 1, b"mg "), (LOOK, 1, b"mg ")])
def test_a_form_sends_the_value_as_often_as_it_names(core, size, name, copies, starts):
    value = b"x" * size

    async def scenario():
        zones = MemoryZones(3)
        try:
            cache = await zones.ready(telemetry=None)
            await cache.set("k", b"before", consistency="all")
            await pass_time()
            zones.forget()
            with form(name):
                await cache.set("k", value, consistency="all")
            for zone in "abc":
                wire = zones.wire(zone)
                assert wire.count(value) == copies
                assert wire.startswith(starts)
                assert (b"ME " in wire) == (name == THREE)
                assert (b" MA " in wire) == (name == ONE)
        finally:
            await zones.close_clients()

    with running(core):
        run(scenario())
