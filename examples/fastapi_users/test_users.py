"""The service's own tests: `pytest examples/fastapi_users`. Each test opens the application and its client."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from evcache.testing import LocalZones
from examples.fastapi_users.app import Database, app, database

ADA = UUID("5a7c3a70-9cbc-4d7b-9d56-6e5f2b2f6a3e")
NEW = {"name": "Ada", "email": "ada@example.org", "address": {"street": "Dorset St", "since": "1840-01-01"}}


@pytest.fixture(scope="module")
def nodes() -> Iterator[str]:
    """Start embedded zones for all tests of the module."""
    with LocalZones(["eu-1a", "eu-1b"], backend="embedded").running() as zones:
        yield ";".join(f"{zone}={','.join(addresses)}" for zone, addresses in zones.zones.items())


@pytest.fixture
def client(nodes: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setenv("EVCACHE_NODES", nodes)
    database.__dict__.update(Database().__dict__)
    with TestClient(app) as client:
        yield client


def test_a_user_is_saved_and_shown(client: TestClient) -> None:
    saved = client.put(f"/users/{ADA}", json=NEW)
    assert saved.status_code == 200
    for path in (f"/users/{ADA}", f"/users/{ADA}/cached"):
        shown = client.get(path)
        assert (shown.status_code, shown.json()) == (200, saved.json())
    assert client.get("/users", params={"ids": [str(ADA), str(UUID(int=1))]}).json() == [saved.json()]
    assert database.reads == 1  # for the user that does not exist


def test_next_test_opens_the_application_again(client: TestClient) -> None:
    """The zones still hold the user of the previous test. The client was closed, and is open again."""
    shown = client.get(f"/users/{ADA}")
    assert shown.json() | NEW == shown.json()
    assert database.reads == 0


def test_a_user_that_does_not_exist(client: TestClient) -> None:
    for _ in range(2):
        assert client.get(f"/users/{UUID(int=2)}").status_code == 404
    assert database.reads == 1
