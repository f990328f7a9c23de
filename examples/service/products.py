"""Products in a database with a cache."""

from __future__ import annotations

import asyncio
import logging
from typing import TypedDict

from opentelemetry.trace import SpanKind, TracerProvider

from evcache import CacheError, EVCache, LoadPolicy, WriteResult

TTL_SECONDS = 60
LIKES_TTL_SECONDS = 24 * 3600

_log = logging.getLogger(__name__)


class Product(TypedDict):
    name: str
    price: int
    """In cents."""


class Database:
    """Table of products with the latency of a database."""

    def __init__(self, provider: TracerProvider, *, seconds: float = 0.02) -> None:
        self._tracer = provider.get_tracer("examples.service.database")
        self._seconds = seconds
        self._rows: dict[str, Product] = {
            "1": {"name": "Teapot", "price": 2900},
            "2": {"name": "Cup", "price": 700},
            "3": {"name": "Kettle", "price": 4500},
        }
        self.is_down = False

    async def read(self, product_id: str) -> Product | None:
        await self._work("SELECT")
        return self._rows.get(product_id)

    async def read_many(self, ids: list[str]) -> dict[str, Product]:
        await self._work("SELECT")
        return {product_id: self._rows[product_id] for product_id in ids if product_id in self._rows}

    async def write(self, product_id: str, product: Product) -> None:
        await self._work("UPSERT")
        self._rows[product_id] = product

    async def set_price(self, product_id: str, price: int) -> Product | None:
        await self._work("UPDATE")
        if (product := self._rows.get(product_id)) is None:
            return None
        self._rows[product_id] = {**product, "price": price}
        return self._rows[product_id]

    async def _work(self, operation: str) -> None:
        # A real driver makes such a span, as a child of the cache call that needs the database.
        attributes = {"db.system.name": "postgresql", "db.operation.name": operation}
        with self._tracer.start_as_current_span(f"{operation} products", kind=SpanKind.CLIENT, attributes=attributes):
            await asyncio.sleep(self._seconds)
            if self.is_down:
                raise ConnectionError("the database is down")


def _key(product_id: str) -> str:
    return f"product:{product_id}"


class Products:
    """Operations on products. They work without the zones, except those on likes, which are in the cache only."""

    def __init__(self, cache: EVCache, database: Database) -> None:
        self._cache = cache
        self._database = database
        # While the database is down, a stale product is served for ten minutes.
        self._policy = LoadPolicy(stale_if_error=600)
        self._find = cache.cached(key=_key, ttl=TTL_SECONDS, policy=self._policy, stale_while_revalidate=10)(database.read)

    async def find(self, product_id: str) -> Product | None:
        """Return a product from the near cache, a zone or the database. Raises errors of the database, and `LoadTimeout`."""
        return await self._find(product_id)

    async def find_many(self, ids: list[str]) -> dict[str, Product]:
        """Return the products that exist. Missing ones are read from the database in one query."""
        ids_by_key = {_key(one): one for one in ids}

        async def load(missing: list[str]) -> dict[str, Product]:
            rows = await self._database.read_many([ids_by_key[key] for key in missing])
            return {_key(one): row for one, row in rows.items()}

        found = await self._cache.get_or_load_many(ids_by_key, load, ttl=TTL_SECONDS, policy=self._policy)
        return {ids_by_key[key]: product for key, product in found.items()}

    async def put(self, product_id: str, product: Product) -> WriteResult:
        """Write a product to the database, then to all zones. If the result is false, the missing zones receive it later."""
        return await self._cache.write_through(
            _key(product_id), product, lambda row: self._database.write(product_id, row), ttl=TTL_SECONDS
        )

    async def reprice(self, product_id: str, price: int) -> Product | None:
        """Change a price in the database, then invalidate the cached product."""
        product = await self._database.set_price(product_id, price)
        try:
            await self._find.invalidate(product_id)
        except CacheError as error:
            # The database has the price. Hints deliver the invalidation, and until then this process rejects older values.
            _log.warning("invalidation of product %s failed: %s", product_id, error)
        return product

    async def like(self, product_id: str) -> int:
        """Count a like and return the number of likes. Raises `CacheError`."""
        likes = await self._cache.incr(f"likes:{product_id}", initial=1, ttl=LIKES_TTL_SECONDS)
        return 0 if likes is None else likes  # None occurs only without `initial`
