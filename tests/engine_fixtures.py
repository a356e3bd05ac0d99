"""The embedded engine for every test that wants a real model: one for the whole run, its weights fetched once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lmdeck.engine import EngineError, EngineServer, pull


@pytest.fixture(scope="session")
def weights() -> Path:
    """The default model's weights; without them the tests that need a model are skipped, loudly."""
    try:
        return pull()
    except EngineError as error:
        pytest.skip(f"NO ENGINE TESTS, the weights cannot be had: {error}")


@pytest.fixture(scope="session")
def engine(weights: Path) -> Iterator[EngineServer]:
    """The engine, serving."""
    with EngineServer.start(weights) as server:
        yield server
