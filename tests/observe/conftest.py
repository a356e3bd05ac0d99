from __future__ import annotations

from collections.abc import Iterator

import pytest

from asking import nothing_left_behind
from lmdeck.testing import FakeLMStudio


@pytest.fixture(autouse=True)
def _leaves_nothing() -> Iterator[None]:
    with nothing_left_behind():
        yield


@pytest.fixture
def fake(fake_lmstudio: FakeLMStudio) -> FakeLMStudio:
    fake_lmstudio.add_model("m")
    return fake_lmstudio
