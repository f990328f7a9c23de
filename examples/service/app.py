"""The application: its routes, and a cache that is opened and closed with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from evcache import CacheError, EVCache, NearCache, Telemetry
from evcache.channels import InvalidationChannel
from evcache.testing import LocalZones
from examples.service.products import Database, Product, Products
from examples.service.readiness import Readiness
from examples.service.settings import Settings
from examples.service.telemetry import Observing, ServerSpans


def make_app(settings: Settings, observing: Observing, database: Database) -> Starlette:
    """Return the application. It opens the cache when it starts."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.callback(observing.shutdown)  # last, so that spans of the shutdown are exported
            zones: Any = settings.zones
            local_zone = None  # EVCACHE_ZONE names it
            app.state.local_zones = None
            if zones is None:
                local = app.state.local_zones = await stack.enter_async_context(LocalZones(backend=settings.backend))
                zones, local_zone = local.zones, next(iter(local.zones))
            # Not `async with`, which raises if the zones are not found. The service starts without them: see `Readiness`.
            app.state.cache = EVCache(
                "shop",
                zones,
                local_zone=local_zone,
                read_timeout=settings.read_timeout,
                write_timeout=settings.write_timeout,
                near_cache=NearCache(max_bytes=16 * 1024 * 1024),
                invalidation=await _channel(settings, stack),
                telemetry=Telemetry(tracer_provider=observing.traces, meter_provider=observing.metrics, keys="hashed"),
            )
            stack.push_async_callback(app.state.cache.close)
            app.state.products = Products(app.state.cache, database)
            app.state.readiness = Readiness(app.state.cache, settings.cache_patience)
            await app.state.cache.check()  # opens the client, if the zones are found
            yield

    async def prometheus(_: Request) -> Response:
        return Response(observing.prometheus(), headers={"content-type": CONTENT_TYPE_LATEST})

    return Starlette(
        routes=[
            Route("/products", find_many),
            Route("/products/{id}", find),
            Route("/products/{id}", put, methods=["PUT"]),
            Route("/products/{id}/price", reprice, methods=["PUT"]),
            Route("/products/{id}/likes", like, methods=["POST"]),
            Route("/zones/{zone}/{what}", change_zone, methods=["POST"]),
            Route("/health", health),
            Route("/ready", ready),
            Route("/metrics", prometheus),
        ],
        lifespan=lifespan,
        middleware=[Middleware(ServerSpans, provider=observing.traces, but=("/health", "/ready", "/metrics"))],
        # Errors of operations that cannot fall back to the database.
        exception_handlers={CacheError: try_later, ConnectionError: try_later},
    )


async def _channel(settings: Settings, stack: AsyncExitStack) -> InvalidationChannel | None:
    if settings.redis is None:
        return None
    from evcache.channels.redis import RedisChannel  # noqa: PLC0415  # an extra

    channel = RedisChannel(settings.redis)
    stack.push_async_callback(channel.close)
    return channel


# Routes.


async def find(request: Request) -> Response:
    product = await request.app.state.products.find(request.path_params["id"])
    if product is None:
        raise HTTPException(404, "no such product")
    return JSONResponse(product)


async def find_many(request: Request) -> Response:
    ids = [one for one in request.query_params.get("ids", "").split(",") if one]
    return JSONResponse(await request.app.state.products.find_many(ids))


async def put(request: Request) -> Response:
    body = await _body(request)
    product = Product(name=_field(body, "name", str), price=_field(body, "price", int))
    result = await request.app.state.products.put(request.path_params["id"], product)
    return JSONResponse({"cached": bool(result), "zones": result.zones})


async def reprice(request: Request) -> Response:
    product = await request.app.state.products.reprice(request.path_params["id"], _field(await _body(request), "price", int))
    if product is None:
        raise HTTPException(404, "no such product")
    return JSONResponse(product)


async def like(request: Request) -> Response:
    return JSONResponse({"likes": await request.app.state.products.like(request.path_params["id"])})


async def change_zone(request: Request) -> Response:
    """Kill, suspend, resume or restart a zone that the service has started."""
    zones: LocalZones | None = request.app.state.local_zones
    zone, what = request.path_params["zone"], request.path_params["what"]
    if zones is None or zone not in zones.zones or what not in ("kill", "pause", "resume", "restart"):
        raise HTTPException(404, "unknown zone or action: kill, pause, resume and restart work on local zones")
    await getattr(zones, what)(zone)
    return JSONResponse({name: "up" if zones.is_up(name) else "down" for name in zones.zones})


async def health(request: Request) -> Response:
    """Return 200 with the state of the cache. Without any zone the service is slower, and a restart would not help."""
    stats = request.app.state.cache.stats()
    return JSONResponse({"zones_out": stats.zones_out, "nodes_down": stats.nodes_down, "writes_kept": stats.hints})


async def ready(request: Request) -> Response:
    """Return 200 if the service takes requests, or 503, with the state of each zone and the problems."""
    takes_requests, found = await request.app.state.readiness.check()
    zones = {zone.name: zone.is_usable for zone in found.zones}
    return JSONResponse({"cache": found.ready, "zones": zones, "problems": found.problems}, 200 if takes_requests else 503)


async def try_later(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 503, {"retry-after": "1"})


async def _body(request: Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise HTTPException(422, "a JSON object is needed")
    return body


def _field(body: dict[str, Any], name: str, kind: type) -> Any:
    if type(body.get(name)) is not kind:
        raise HTTPException(422, f"{name}: {kind.__name__} is needed, not {body.get(name)!r}")
    return body[name]
