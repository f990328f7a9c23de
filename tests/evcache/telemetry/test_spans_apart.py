"""Events of a call reach its own span or none, never the span of an outer call."""

import asyncio
import contextvars

from opentelemetry import context, trace

from tests.support.memory_zones import on_zones
from tests.support.observed_clients import ONE, left, observed_client
from tests.support.telemetry import Bench, call


@on_zones(zones=2)
async def test_call_in_a_loader_under_an_unsampled_span(zones):
    """A loader may run under a span that is not that of its caller, because many requests share it."""
    bench = Bench()
    cache = await observed_client(zones, bench)
    await cache.set("other", 1)
    bench.take()
    apart = trace.NonRecordingSpan(trace.SpanContext(1, 1, is_remote=True))

    async def load():
        token = context.attach(trace.set_span_in_context(apart))
        value = await cache.get("other")
        assert trace.get_current_span() is apart
        context.detach(token)
        return value

    assert await cache.get_or_load("k", load) == 1
    missed = {**ONE, "evcache.hit": False, "evcache.source": "none", "evcache.fallback.reason": "miss"}
    assert bench.one() == call("get_or_load", missed, events=[left("a", "miss")])


@on_zones(zones=2)
async def test_dropped_call_can_be_closed_in_another_context(zones):
    """The garbage collector closes a coroutine in a context other than that of its start."""
    bench = Bench()
    cache = await observed_client(zones, bench)
    dropped = cache.get("k")
    answer = contextvars.copy_context().run(dropped.send, None)
    dropped.close()
    await asyncio.wait([answer])
    assert bench.one().attributes["error.type"] == "GeneratorExit"
