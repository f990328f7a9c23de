"""Traces and metrics with OpenTelemetry: the only package that knows of it, and of its API alone. Nothing is exported unless
the service has installed an SDK.

A client whose service has none runs the very code that it would run without this package. When there is one, at the first
call or a moment after it has been installed, the operations of that client are wrapped: each call is a span of kind
client, the current one while it runs, so that what a loader does hangs under it. What the parts of the client tell
through hooks becomes its attributes and events. Work that outlives its call is a span of its own, with a link to the call
that caused it.
"""

from evcache.telemetry.activation import LOOK_SECONDS, Activation
from evcache.telemetry.operations import OPERATIONS
from evcache.telemetry.settings import ObservedClient, Telemetry

__all__ = ["LOOK_SECONDS", "OPERATIONS", "Activation", "ObservedClient", "Telemetry"]
