"""docs/django.md is true: its blocks run, and its tables are whole."""

from __future__ import annotations

import re
import sys
import unittest
from pathlib import Path
from types import ModuleType

from django.dispatch import Signal
from django.test import TestCase
from far_end import project

from lmdeck.contrib.django import lm, signals
from lmdeck.contrib.django.conf import OWN

PAGE = (Path(__file__).parents[3] / "docs" / "django.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


class Blocks(TestCase):
    def test_each_runs(self) -> None:
        assert len(BLOCKS) >= 8
        for number, text in enumerate(BLOCKS):
            with self.subTest(number), project() as fake:
                name = f"django_page_{number}"
                module = sys.modules[name] = ModuleType(name)
                exec(compile(text, f"docs/django.md block {number}", "exec"), module.__dict__)
                is_asked = "enqueue" in text or (".send()" in text and "def " not in text)
                assert bool(fake.requests) == is_asked
                lm.close()


def test_the_page_of_tests_passes() -> None:
    (text,) = [text for text in BLOCKS if "LMDeckTestMixin" in text]
    module = sys.modules["django_page_tests"] = ModuleType("django_page_tests")
    exec(compile(text, "docs/django.md", "exec"), module.__dict__)
    suite = unittest.defaultTestLoader.loadTestsFromModule(module)
    assert unittest.TextTestRunner(verbosity=0).run(suite).wasSuccessful()


def test_every_key_and_signal_is_documented() -> None:
    assert {key for key in OWN if f"`{key}`" not in PAGE} == set()
    names = {name for name in dir(signals) if isinstance(getattr(signals, name), Signal)}
    assert len(names) == len(signals.SIGNALS)
    assert {name for name in names if f"`{name}`" not in PAGE} == set()
