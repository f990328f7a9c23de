"""Settings of tests that are not about time."""

from evcache import NodeSettings

PATIENT_NODES = NodeSettings(connect_timeout=10.0)
"""A busy machine delays a handshake for longer than the default of half a second. The node would count as down."""
