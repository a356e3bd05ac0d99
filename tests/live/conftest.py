from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from lmdeck import LMStudio

PATIENCE = {"first_token_timeout": 300.0, "timeout": 120.0}


def live_settings() -> dict[str, Any]:
    """Return the address of the LM Studio to talk to; model and token come from `LMDECK_MODEL` and `LM_API_TOKEN`."""
    url = os.environ.get("LMDECK_LIVE_URL")
    if not url:
        pytest.skip("NO LIVE TESTS: set LMDECK_LIVE_URL, for example to http://localhost:1234")
    return {"base_url": url}


@pytest.fixture(params=[pytest.param("live", marks=pytest.mark.live), pytest.param("engine", marks=pytest.mark.engine)])
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Where to ask: a real LM Studio, or the embedded engine."""
    if request.param == "live":
        return {**live_settings(), **PATIENCE}
    return {"base_url": request.getfixturevalue("engine").base_url, **PATIENCE}


@pytest.fixture
def lm(settings: dict[str, Any]) -> Iterator[LMStudio]:
    with LMStudio(**settings) as client:
        yield client
