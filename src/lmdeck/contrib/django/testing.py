"""For the tests of a project, with `pip install "lmdeck[testing]"`: other settings for a while, and a fake LM Studio.

class ChatPage(LMDeckTestMixin, TestCase):
    def test_it_answers(self):
        self.fake.reply("Hello")
        ...
        self.fake.assert_sent(lambda request: "sky" in request.last_user)
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.test import override_settings
from django.test.utils import TestContextDecorator

from lmdeck.testing import FakeLMStudioMixin

__all__ = ["LMDeckTestMixin", "override_lmdeck"]


class override_lmdeck(TestContextDecorator):  # noqa: N801  # as Django's override_settings is written
    """Change keys of `LMDECK` for a block, a test or a class of tests; the others stay: `override_lmdeck(TIMEOUT=5)`."""

    def __init__(self, **keys: Any) -> None:  # noqa: ANN401  # each key has its own type
        super().__init__()
        self._keys = keys
        self._entered: list[override_settings] = []

    def enable(self) -> None:
        """Set the keys."""
        override = override_settings(LMDECK={**getattr(settings, "LMDECK", {}), **self._keys})
        override.enable()
        self._entered.append(override)

    def disable(self) -> None:
        """Set them back."""
        self._entered.pop().disable()


class LMDeckTestMixin(FakeLMStudioMixin):
    """Give each test a `FakeLMStudio` of its own as `self.fake`, which `lm` and `alm` talk to.

    A request for which nothing was scripted makes the test fail, and a real LM Studio cannot be reached.
    """

    def setUp(self) -> None:
        """Start the fake, and lead the clients to it."""
        super().setUp()
        override = override_lmdeck(BASE_URL=self.fake.base_url, HOST=None, PORT=None, MODEL=None, API_TOKEN=None)
        override.enable()
        self.addCleanup(override.disable)
