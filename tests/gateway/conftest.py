"""The host of gateways that serve a whole module, and real databases, with an empty one for each test."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import postgres
import redis_server
from lmdeck.testing import FakeLMStudio


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeLMStudio]:
    """A host for the gateway of a module."""
    with FakeLMStudio(seed=0) as server:
        yield server


@pytest.fixture
def clean(fake: FakeLMStudio) -> Iterator[None]:
    """Forget the requests and the script of a test after it."""
    yield
    fake.reset()


@pytest.fixture(scope="session")
def postgres_address() -> Iterator[str]:
    """The address of a PostgreSQL server, without a database."""
    programs = postgres.binaries()
    if programs is None:
        pytest.skip(postgres.MISSING)
    with postgres.postgres(programs) as server:
        yield f"postgresql://{server['USER']}@{server['HOST']}:{server['PORT']}"


@pytest.fixture(scope="session")
def redis_address() -> Iterator[str]:
    """The address of a Redis server."""
    program = redis_server.program()
    if program is None:
        pytest.skip(redis_server.MISSING)
    with redis_server.redis_server(program) as url:
        yield url


@pytest.fixture
def one_day() -> None:
    """Wait where the day (UTC) is about to end, so that a budget of the day does not begin anew during a test."""
    left = 86400 - time.time() % 86400
    if left < 60:
        time.sleep(left)


@pytest.fixture
def postgres_url(postgres_address: str) -> str:
    """The address of a new database."""
    import psycopg

    name = f"lmdeck_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(f"{postgres_address}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return f"{postgres_address}/{name}"


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty store, of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'gateway.db'}"
    return request.getfixturevalue("postgres_url")
