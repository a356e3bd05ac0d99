"""Helpers for the tests of a project: temporary settings, and a fake LM Studio.

    class ChatPageTests(LMDeckTestMixin, TestCase):
        def test_it_answers(self):
            self.fake.reply("Hello")
            ...
            self.fake.assert_sent(lambda request: "sky" in request.last_user)

Install them with `pip install "lmdeck[testing]"`.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.test import override_settings
from django.test.utils import TestContextDecorator

from lmdeck.testing import FakeLMStudioMixin


class override_lmdeck(TestContextDecorator):  # noqa: N801  # named like Django's override_settings
    """Override keys of `LMDECK` in a block, a test or a test class.

    For example `override_lmdeck(TIMEOUT=5)`.
    """

    def __init__(self, **keys: Any) -> None:  # each key has its own type
        super().__init__()
        self._keys = keys
        self._entered: list[override_settings] = []

    def enable(self) -> None:
        """Set the keys."""
        override = override_settings(LMDECK={**getattr(settings, "LMDECK", {}), **self._keys})
        override.enable()
        self._entered.append(override)

    def disable(self) -> None:
        """Restore the previous keys."""
        self._entered.pop().disable()


class LMDeckTestMixin(FakeLMStudioMixin):
    """A mixin with a separate `FakeLMStudio` for each test, to which `lm` and `alm` connect.

    The fake is `self.fake`.

    A request without a scripted answer fails the test, and connections to a real LM Studio are blocked.
    """

    def setUp(self) -> None:
        """Start the fake, and connect the clients to it."""
        super().setUp()
        override = override_lmdeck(BASE_URL=self.fake.base_url, HOST=None, PORT=None, MODEL=None, API_TOKEN=None)
        override.enable()
        self.addCleanup(override.disable)
