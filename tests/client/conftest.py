from __future__ import annotations

from collections.abc import Iterator

import pytest

from asking import WAYS, Way, nothing_left_behind


@pytest.fixture(autouse=True)
def _leaves_nothing() -> Iterator[None]:
    with nothing_left_behind():
        yield


@pytest.fixture(params=WAYS, ids=str)
def way(request: pytest.FixtureRequest) -> Way:
    return request.param
