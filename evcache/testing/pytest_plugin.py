"""Plugin that pytest loads wherever evcache is installed. It adds one fixture and one marker.

    def test_survives_a_zone(evcache_zones):
        async def main():
            async with EVCache("sessions", zones=evcache_zones.zones, local_zone="local-a") as cache:
                await cache.set("user:42", "Ada")
                evcache_zones.kill("local-a")
                assert await cache.get("user:42") == "Ada"

        asyncio.run(main())

The servers run in another thread. The fixture therefore works in plain tests that call asyncio.run(), and in async tests
of pytest-asyncio and anyio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from evcache.testing.local_zones import LocalZones

if TYPE_CHECKING:
    from collections.abc import Iterator

    from evcache.testing.blocking import RunningZones

MARKER = "evcache_zones"


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker for --strict-markers."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(zones, *, nodes_per_zone, backend, binary, image, extra_args): "
        "arguments of evcache.testing.LocalZones for the zones of the fixture evcache_zones",
    )


@pytest.fixture
def evcache_zones(request: pytest.FixtureRequest) -> Iterator[RunningZones]:
    """Start empty zones for one test: local-a, local-b and local-c, with one node each.

    A marker with the arguments of LocalZones changes this for a test, class or module:

        @pytest.mark.evcache_zones({"eu-1a": 2, "eu-1b": 2}, backend="docker")

    The scope is one test, so that no test sees the data or the dead zones of another. Starting takes 0.04 s, with containers
    a second. Servers that cannot be started are an error of the test, never a skip.
    """
    marker = request.node.get_closest_marker(MARKER)
    zones = LocalZones() if marker is None else LocalZones(*marker.args, **marker.kwargs)
    with zones.running() as running:
        yield running
