"""Helpers for tests of `EVCache.check`."""

import asyncio


def usable(result):
    """Return True or False for each zone of a check, by name."""
    return {zone.name: zone.is_usable for zone in result.zones}


def errors(result):
    """Return the errors of a check by the label of the node."""
    return {node.node: node.error for zone in result.zones for node in zone.nodes if not node.ok}


def questions_under_way():
    """Return the number of tasks that wait for a node on behalf of a check."""
    return sum(task.get_coro().__qualname__ == "ask" for task in asyncio.all_tasks())
