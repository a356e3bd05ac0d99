"""For the tests of a project: other settings for a while, and a fake LM Studio for every test.

class ChatPage(LMDeckTestMixin, TestCase):
    def test_it_answers(self):
        self.lmstudio.reply("Hello")
        ...
        self.lmstudio.assert_sent(lambda request: "sky" in request.last_user)
"""

from __future__ import annotations

from contextlib import ExitStack
from importlib import import_module
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.test import override_settings
from django.test.utils import TestContextDecorator

if TYPE_CHECKING:
    from unittest import TestCase as _TestCase
else:
    _TestCase = object

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


class LMDeckTestMixin(_TestCase):
    """Give each test a `FakeLMStudio` of its own as `self.lmstudio`, which `lm` and `alm` talk to.

    A request for which nothing was scripted makes the test fail. Needs `pip install "lmdeck[testing]"`.
    """

    lmstudio: Any

    def setUp(self) -> None:
        """Start the fake."""
        super().setUp()
        fake = import_module("lmdeck.testing").FakeLMStudio
        stack = ExitStack()
        self.addCleanup(stack.close)
        self.lmstudio = stack.enter_context(fake(seed=0))
        address = {"BASE_URL": self.lmstudio.base_url, "HOST": None, "PORT": None, "MODEL": None, "RETRY_ATTEMPTS": 1}
        stack.enter_context(override_lmdeck(**address))
