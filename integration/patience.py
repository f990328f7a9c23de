"""Settings of tests that are not about time. A busy machine delays each step of a test, so no limit here is a measure."""

from typing import Any

from evcache import ConnectionLimits, NodeSettings

PATIENT_SECONDS = 30.0
"""Seconds for a call that succeeds, and for a wait whose end is certain. Only a defect reaches this limit."""

PATIENT_NODES = NodeSettings(connect_timeout=10.0)
"""A busy machine delays a handshake for longer than the default of half a second. The node would count as down."""

LOYAL_NODES = NodeSettings(connect_timeout=10.0, limits=ConnectionLimits(patience=PATIENT_SECONDS))
"""The same for tests that depend on the zone that answers. A server that waits for a processor does not count as silent."""

PATIENT_CALLS: dict[str, Any] = {"read_timeout": PATIENT_SECONDS, "write_timeout": PATIENT_SECONDS}
"""Arguments of a client whose node settings are a part of the test."""

PATIENT: dict[str, Any] = {**PATIENT_CALLS, "nodes": PATIENT_NODES}
"""Arguments of a client."""
