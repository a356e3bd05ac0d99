"""Fixtures of the folders whose tests run in the four ways of `asking`; a folder's conftest imports those that it uses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from asking import WAYS, Way, nothing_left_behind
from lmdeck.testing import FakeLMStudio


@pytest.fixture(autouse=True)
def leaves_nothing() -> Iterator[None]:
    """Fail a test that leaves sockets or threads behind."""
    with nothing_left_behind():
        yield


@pytest.fixture(params=WAYS, ids=str)
def way(request: pytest.FixtureRequest) -> Way:
    """How the test asks: sync or async, whole or streamed."""
    return request.param


@pytest.fixture
def fake(fake_lmstudio: FakeLMStudio) -> FakeLMStudio:
    """A fake that has the model "m", which the clients of `asking` ask for."""
    fake_lmstudio.add_model("m")
    return fake_lmstudio
