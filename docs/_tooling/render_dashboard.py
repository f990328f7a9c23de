"""Renders panels of the Grafana dashboard to docs/images/dashboard.svg, from a real outage.

A client reads and writes in three zones of real servers. The local zone is killed and returns. Prometheus collects the
metrics of the client, and evaluates the queries of the dashboard. This script only draws the results.
`python -m docs._tooling.render_dashboard` takes two minutes. It needs the program `prometheus`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry, start_http_server

from docs._tooling.panel_pictures import Picture, Series, draw
from docs._tooling.render_images import IMAGES, MOST_BYTES, ZONES, with_labels
from evcache import EVCache, NodeSettings, Telemetry
from evcache.testing import LocalZones
from evcache.testing.backends.base import ReservedPort
from examples.grafana.layout import Panel
from examples.grafana.panels import ROWS

TITLES = (
    "Keys read, by origin", "Hit ratio", "Reads that left a zone, by reason", "Duration of reads", "Writes, by result",
    "Pending hints", "Repairs", "Nodes", "Bytes across zones",
)  # fmt: skip
PHASE_SECONDS = 30
"""Seconds before the outage, and of the outage."""
RECOVERY_SECONDS = 60
"""Seconds after the outage. The pause before a probe of a node can have 45 s."""
STEP_SECONDS = 2
RATE_WINDOW = "6s"
CALLERS = 8
KEYS = 500

_LEGEND = re.compile(r"\{\{(\w+)\}\}")


def main() -> None:
    """Run the outage, and draw the panels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="memcached", choices=["memcached", "docker"], help="kind of servers")
    parser.add_argument("--image", help="image for docker")
    arguments = parser.parse_args()
    registry = CollectorRegistry()
    provider = MeterProvider([PrometheusMetricReader(registry=registry)])
    server, _ = start_http_server(0, "127.0.0.1", registry)
    with (
        LocalZones(ZONES, backend=arguments.backend, image=arguments.image).running() as zones,
        prometheus(server.server_port) as address,
    ):
        began = time.time()
        killed, restarted = asyncio.run(outage(zones, provider))
        seconds = time.time() - began
        pictures = [picture_of(address, panel, began, seconds) for panel in chosen()]
    provider.shutdown()
    marks = [(killed - began, "eu-1a killed"), (restarted - began, "eu-1a restarted, empty")]
    text = draw(pictures, seconds, marks)
    if len(text.encode()) > MOST_BYTES:
        raise SystemExit(f"dashboard: the picture has {len(text.encode())} bytes, over {MOST_BYTES}")
    (IMAGES / "dashboard.svg").write_text(text, "utf-8")
    print(f"{IMAGES / 'dashboard.svg'}: {len(text.encode())} bytes")


def chosen() -> list[Panel]:
    """Return the panels to draw, in the order of `TITLES`."""
    panels = {panel.title: panel for row in ROWS for panel in row.panels}
    return [panels[title] for title in TITLES]


async def outage(zones: Any, provider: MeterProvider) -> tuple[float, float]:
    """Read and write for three phases. The local zone is dead in the second one. Return the times of its end and return."""
    cache = EVCache(
        "shop",
        with_labels(zones.zones),
        local_zone="eu-1a",
        nodes=NodeSettings(connect_timeout=2),
        read_timeout=1,
        write_timeout=2,
        telemetry=Telemetry(meter_provider=provider),
    )
    async with cache:
        for key in range(KEYS):
            await cache.set(f"item:{key}", "x" * 400)
        callers = [asyncio.ensure_future(call(cache, number)) for number in range(CALLERS)]
        await asyncio.sleep(PHASE_SECONDS)
        await asyncio.to_thread(zones.kill, "eu-1a")
        killed = time.time()
        await asyncio.sleep(PHASE_SECONDS)
        await asyncio.to_thread(zones.restart, "eu-1a")
        restarted = time.time()
        await asyncio.sleep(RECOVERY_SECONDS)
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)
    return killed, restarted


async def call(cache: EVCache, number: int) -> None:
    """Read and write without an end: nine reads for each write, some of keys that no zone has."""
    turn = number
    while True:
        turn += 1
        key = f"item:{turn * 7 % KEYS}"
        if turn % 10 == 0:
            await cache.set(key, "x" * 400, errors="miss")
        else:
            await cache.get(key if turn % 17 else f"missing:{turn}", errors="miss")
        await asyncio.sleep(0.01)


@contextmanager
def prometheus(port: int) -> Iterator[str]:
    """Run Prometheus on the metrics of this process, and yield its address."""
    reserved = ReservedPort()
    own = reserved.number
    reserved.close()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "prometheus.yml")
        config.write_text(
            "global: {scrape_interval: 1s}\n"
            f"scrape_configs: [{{job_name: shop, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}]\n",
            "utf-8",
        )
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{own}",
                "--log.level=warn",
            ]
        )
        try:
            address = f"http://127.0.0.1:{own}"
            wait_until_ready(address, process)
            yield address
        finally:
            process.terminate()
            process.wait()


def wait_until_ready(address: str, process: subprocess.Popen[bytes]) -> None:
    """Wait for Prometheus. Exit if it has ended or does not answer."""
    for _ in range(100):
        try:
            with urlopen(f"{address}/-/ready", timeout=1):
                return
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.1)
    raise SystemExit("prometheus does not answer")


def picture_of(address: str, panel: Panel, began: float, seconds: float) -> Picture:
    """Evaluate the queries of a panel, as Grafana would for all namespaces."""
    series: list[Series] = []
    for query in panel.queries:
        promql = query.promql.replace("$db_namespace", ".+").replace("$__rate_interval", RATE_WINDOW)
        arguments = {"query": promql, "start": began, "end": began + seconds, "step": STEP_SECONDS}
        with urlopen(f"{address}/api/v1/query_range?{urlencode(arguments)}", timeout=10) as reply:
            found = json.load(reply)["data"]["result"]
        for each in found:
            points = [(at - began, float(value)) for at, value in each["values"] if value != "NaN"]
            if any(value for _, value in points):
                series.append(Series(name_of(query.legend, each["metric"]), points))
    if panel.states:
        series.sort()
    else:  # the legend has room for the highest ones
        series.sort(key=lambda each: -max(value for _, value in each.points))
    return Picture(panel.title, panel.unit, series, panel.states)


def name_of(legend: str, labels: dict[str, str]) -> str:
    """Return the legend with the values of its labels. A node has its port in place of its address."""
    return _LEGEND.sub(lambda found: labels.get(found[1], ""), legend).replace("127.0.0.1:", "")


if __name__ == "__main__":
    main()
