"""What a call meets is noted to its own span, or to none: never to the span of the call that it is made in."""

import asyncio
import contextvars

from opentelemetry import context, trace

from tests.evcache.telemetry.test_spans import ONE, call, client, left
from tests.support.memory_zones import on_zones
from tests.support.telemetry import Bench


@on_zones(zones=2)
async def test_a_call_in_a_loader_under_a_span_that_is_not_sampled(zones):
    """A loader may work under a span that is not its caller's, as what is shared by many requests does."""
    bench = Bench()
    cache = await client(zones, bench)
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
async def test_a_call_that_is_dropped_half_way_may_be_closed_anywhere(zones):
    """As the garbage collector does: in a context that is not the one in which the call began."""
    bench = Bench()
    cache = await client(zones, bench)
    dropped = cache.get("k")
    answer = contextvars.copy_context().run(dropped.send, None)
    dropped.close()
    await asyncio.wait([answer])
    assert bench.one().attributes["error.type"] == "GeneratorExit"
