"""The topology changes under the traffic of 32 callers, and no read fails or is wrong."""

import asyncio

from integration.live_changes import NODES, ZONES, Run

SECONDS = 0.3  # of one measurement
KEYS = 1_000  # a third of those of `make live-changes`, because each change waits until reads have copied them


def test_no_read_fails_or_is_wrong_while_nodes_and_zones_come_and_go(servers):
    report = asyncio.run(Run(SECONDS, KEYS).run(servers.best))
    traffic = report.traffic
    assert traffic.failed == []
    assert traffic.wrong == []
    assert traffic.reads > 1_000 * len(report.lines)
    assert len(report.lines) == 1 + len(ZONES) * NODES + 2 + 4
    # A key is lost only if all of its copies are replaced before a read has copied it.
    assert traffic.misses < traffic.reads / 500, report.lines
    assert len(report.moved) == 2
    for _, moved, predicted in report.moved:
        # 160 points for each node: shares differ by a tenth of themselves.
        assert abs(moved - predicted) < 0.1
