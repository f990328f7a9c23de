"""The pytest plugin of evcache, loaded by pytest itself wherever evcache is installed.

It adds one fixture and one marker:

    def test_survives_a_zone(evcache_zones):
        async def main():
            async with EVCache("sessions", zones=evcache_zones.zones, local_zone="local-a") as cache:
                await cache.set("user:42", "Ada")
                evcache_zones.kill("local-a")
                assert await cache.get("user:42") == "Ada"

        asyncio.run(main())

The fixture is an ordinary one, and its servers live in a thread of their own: it works in plain tests that call
asyncio.run(), and in async tests of pytest-asyncio and anyio alike.
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
    """Make the marker known, for those who run with --strict-markers."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(zones, *, nodes_per_zone, backend, binary, image, extra_args): "
        "what the fixture evcache_zones starts; the arguments are those of evcache.testing.LocalZones",
    )


@pytest.fixture
def evcache_zones(request: pytest.FixtureRequest) -> Iterator[RunningZones]:
    """Zones of memcached servers, started for this test and empty: local-a, local-b and local-c, one node each.

    A test, class or module says otherwise by a marker with the arguments of LocalZones:

        @pytest.mark.evcache_zones({"eu-1a": 2, "eu-1b": 2}, backend="docker")

    Per test and not per session, so that no test meets the data or the dead zones of another; starting takes a few
    hundredths of a second, with containers a second. Servers that can't be started are an error of the test, never a
    skip.
    """
    marker = request.node.get_closest_marker(MARKER)
    zones = LocalZones() if marker is None else LocalZones(*marker.args, **marker.kwargs)
    with zones.running() as running:
        yield running
