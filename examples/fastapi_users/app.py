"""Users by id. Run it with `EVCACHE_NODES='eu-1a=host:port;eu-1b=host:port' uvicorn examples.fastapi_users.app:app`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from typing import Annotated
from uuid import UUID

from fastapi import FastAPI, HTTPException, Query
from pydantic import BaseModel, Field

from evcache import EVCache
from evcache.zones import EnvironmentDiscovery


class Address(BaseModel):
    street: str
    since: date


class NewUser(BaseModel):
    name: str = Field(min_length=1)
    email: str
    address: Address | None = None


class User(NewUser):
    id: UUID
    joined: datetime


class Database:
    """A table of users in memory."""

    def __init__(self) -> None:
        self.users: dict[UUID, User] = {}
        self.reads = 0

    async def find(self, user_id: UUID) -> User | None:
        self.reads += 1
        return self.users.get(user_id)

    async def find_many(self, ids: list[UUID]) -> list[User]:
        self.reads += 1
        return [self.users[user_id] for user_id in ids if user_id in self.users]

    async def save(self, user: User) -> None:
        self.users[user.id] = user


database = Database()

# The constructor does no I/O and needs no event loop, so the client can be a global.
cache = EVCache("users", EnvironmentDiscovery())


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with cache:
        yield


app = FastAPI(lifespan=lifespan)


@cache.cached(key="user:{user_id}", ttl=300)
async def load_user(user_id: UUID) -> User | None:
    """Load a user. The cache returns a `User`, like the function itself, because of the annotation."""
    return await database.find(user_id)


@app.get("/users/{user_id}")
async def show_user(user_id: UUID) -> User:
    user = await load_user(user_id)
    if user is None:
        raise HTTPException(404, "no such user")
    return user


@app.get("/users")
async def show_users(ids: Annotated[list[UUID], Query()]) -> list[User]:
    by_key = {str(load_user.key(user_id)): user_id for user_id in ids}

    async def load(missing: list[str]) -> dict[str, User]:
        users = await database.find_many([by_key[key] for key in missing])
        return {str(load_user.key(user.id)): user for user in users}

    return list((await cache.get_or_load_many(by_key, load, ttl=300)).values())


@app.put("/users/{user_id}")
async def save_user(user_id: UUID, new: NewUser) -> User:
    user = User(id=user_id, joined=datetime.now(UTC), **new.model_dump())
    await cache.write_through(load_user.key(user_id), user, database.save, ttl=300)
    return user


@app.get("/users/{user_id}/cached")
async def show_cached(user_id: UUID) -> User:
    """Return the user if the cache has it; the database is not asked."""
    user = await cache.get(load_user.key(user_id), as_=User)
    if user is None:
        raise HTTPException(404, "not cached")
    return user
