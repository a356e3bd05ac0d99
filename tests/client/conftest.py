from __future__ import annotations

import pytest

from lmdeck.testing import FakeLMStudio
from way_fixtures import fake, leaves_nothing, way

__all__ = ["fake", "hello", "leaves_nothing", "way"]


@pytest.fixture
def hello(fake: FakeLMStudio) -> FakeLMStudio:
    """A fake that says hello, whatever it is asked."""
    fake.when(lambda _: True).reply("Hello.")
    return fake
