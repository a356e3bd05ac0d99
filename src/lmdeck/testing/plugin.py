"""The pytest plugin: the fixtures `fake_lmstudio` and `async_fake_lmstudio`.

While one is active, lmdeck's settings and those of OpenAI's clients point to the fake, and a real LM Studio or a host on the
network cannot be reached by mistake.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lmdeck.testing.fake import FakeLMStudio

__all__ = ["async_fake_lmstudio", "fake_lmstudio"]


def pytest_configure(config: pytest.Config) -> None:
    """Announce the marker."""
    config.addinivalue_line(
        "markers",
        "lmstudio(**settings): settings for the fake of this test, as for FakeLMStudio; allow_network=True lets other "
        "connections through.",
    )


@pytest.fixture
def fake_lmstudio(request: pytest.FixtureRequest) -> Iterator[FakeLMStudio]:
    """A fake LM Studio for this test, see `lmdeck.testing.FakeLMStudio`.

    The marker `lmstudio` sets its options.
    """
    marker = request.node.get_closest_marker("lmstudio")
    with _fake({} if marker is None else dict(marker.kwargs)) as fake:
        yield fake


@pytest.fixture
def async_fake_lmstudio(fake_lmstudio: FakeLMStudio) -> FakeLMStudio:
    """The same fake under a name for async tests, which use its `async_client()`."""
    return fake_lmstudio


@contextmanager
def _fake(settings: dict[str, object]) -> Iterator[FakeLMStudio]:
    from lmdeck.testing.fake import FakeLMStudio
    from lmdeck.testing.isolation import block_other_connections, environment

    allow_network = bool(settings.pop("allow_network", False))
    with FakeLMStudio(**settings) as fake, environment(fake), block_other_connections(fake, allow_all=allow_network):  # type: ignore[arg-type]
        yield fake
