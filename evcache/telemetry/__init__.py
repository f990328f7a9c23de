"""Traces and metrics with OpenTelemetry.

Only this package imports OpenTelemetry, and only its API. Without an SDK of the service nothing is exported.

A client holds an `Instrument`, or None without an SDK. Each operation passes its coroutine to the instrument, which awaits
it within a span of kind client. The span is the current one during the call, so spans of a loader are its children. Hooks of
the client add attributes and events to the span. Work that outlives its call gets a separate span with a link to the call.
"""

from evcache.telemetry.activation import LOOK_SECONDS, Activation
from evcache.telemetry.operations import OPERATIONS, Instrument
from evcache.telemetry.settings import ObservedClient, Telemetry

__all__ = ["LOOK_SECONDS", "OPERATIONS", "Activation", "Instrument", "ObservedClient", "Telemetry"]
