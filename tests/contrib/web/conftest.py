from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from web_sites import KINDS, far_end, site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lmdeck.testing import FakeLMStudio


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeLMStudio]:
    with far_end() as fake:
        yield fake


@pytest.fixture(scope="module", params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, fake: FakeLMStudio) -> Iterator[str]:
    with site(request.param, tmp_path_factory.mktemp("site") / "history.sqlite3", fake) as url:
        yield url
