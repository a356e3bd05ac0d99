"""A fake LM Studio for `unittest` and frameworks based on it."""

from __future__ import annotations

import unittest
from contextlib import ExitStack
from typing import Any, ClassVar

from lmdeck.testing.fake import FakeLMStudio
from lmdeck.testing.isolation import block_other_connections, environment


class FakeLMStudioMixin(unittest.TestCase):
    """A mixin that provides `self.fake` to each test; it must precede the test case class.

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
        stack.enter_context(block_other_connections(self.fake))
