"""A fake LM Studio for `unittest`, and for everything that is built on it."""

from __future__ import annotations

import unittest
from contextlib import ExitStack
from typing import Any, ClassVar

from lmdeck.testing.fake import FakeLMStudio
from lmdeck.testing.isolation import environment, refuse_others


class FakeLMStudioMixin(unittest.TestCase):
    """Gives each test `self.fake`; put it before the test case class.

    `fake_settings` are those of `FakeLMStudio`. While a test runs, lmdeck's and OpenAI's settings point to the fake, and a
    real LM Studio cannot be reached.
    """

    fake_settings: ClassVar[dict[str, Any]] = {}
    fake: FakeLMStudio

    def setUp(self) -> None:
        """Start the fake."""
        super().setUp()
        stack = ExitStack()
        self.addCleanup(stack.close)
        self.fake = stack.enter_context(FakeLMStudio(**self.fake_settings))
        stack.enter_context(environment(self.fake))
        stack.enter_context(refuse_others(self.fake))
