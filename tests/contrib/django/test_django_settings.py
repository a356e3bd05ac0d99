"""The setting `LMDECK`: what it changes, and what `manage.py check` says of a wrong one."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
from django.conf import settings
from django.core.checks import run_checks
from django.test import SimpleTestCase, override_settings

from lmdeck import ConfigurationError
from lmdeck.config import Secret
from lmdeck.contrib.django import alm, lm
from lmdeck.contrib.django.conf import configuration


def complaints() -> list[Any]:
    return run_checks(tags=["lmdeck"])


class Settings(SimpleTestCase):
    def test_the_clients_have_the_settings_keywords(self) -> None:
        with override_settings(LMDECK={"HOST": "gpu-box", "PORT": 4321, "TIMEOUT": 7, "API_TOKEN": "sesame"}):
            assert lm.base_url == alm.base_url == "http://gpu-box:4321"
            assert lm.settings.timeout == 7.0
            assert "sesame" not in repr(lm) + repr(configuration())
            assert lm.settings.api_token == Secret("sesame")

    def test_a_changed_setting_is_read_again(self) -> None:
        with override_settings(LMDECK={"PORT": 4321}):
            assert lm.settings.port == 4321
            assert alm.settings.port == 4321
        assert lm.base_url == alm.base_url == "http://127.0.0.1:9"

    def test_a_chat_that_was_started_keeps_its_client(self) -> None:
        with override_settings(LMDECK={"MODEL": "one"}):
            chat = lm.chat().user("Hi")
        assert chat.messages == [{"role": "user", "content": "Hi"}]

    def test_the_facade_is_the_same_client_until_then(self) -> None:
        assert lm.settings is lm.settings
        assert "chat" in dir(lm)
        assert not hasattr(lm, "chatt")


class Checks(SimpleTestCase):
    def test_right_settings_are_passed(self) -> None:
        assert complaints() == []
        with override_settings(
            LMDECK={"SYSTEM": "Be brief.", "TOOLS": ["get_weather"], "MAX_ROUNDS": 3, "HEARTBEAT": 5, "MODEL": None}
        ):
            assert complaints() == []

    def test_a_slip_is_answered_with_the_right_name(self) -> None:
        for slip, meant in (
            ("TIMOUT", "TIMEOUT"),
            ("timeout", "TIMEOUT"),
            ("BASEURL", "BASE_URL"),
            ("RATELIMIT", "RATE_LIMIT"),
        ):
            with override_settings(LMDECK={slip: 5}):
                (complaint,) = complaints()
                assert complaint.id == "lmdeck.E002"
                assert repr(slip) in complaint.msg
                assert complaint.hint.startswith(f"Did you mean {meant!r}?")

    def test_a_key_like_no_other_is_answered_with_the_list(self) -> None:
        with override_settings(LMDECK={"ZZZ": 5}):
            assert "BASE_URL" in complaints()[0].hint

    def test_wrong_values_are_named(self) -> None:
        wrong = {
            "PORT": 70000, "TIMEOUT": "soon", "BASE_URL": "ftp://x", "MAX_ROUNDS": 0, "TOOLS": "get_weather",
            "LOGIN_REQUIRED": "no", "RATE_LIMIT": "often", "HEARTBEAT": -1, "SYSTEM": 3, "CACHE": "",
        }  # fmt: skip
        with override_settings(LMDECK=wrong):
            found = complaints()
        assert [complaint.id for complaint in found] == ["lmdeck.E003"] * len(wrong)
        for key, complaint in zip(wrong, found, strict=True):
            assert f'settings.LMDECK["{key}"]' in complaint.msg
            assert complaint.hint

    def test_a_wrong_token_is_not_shown(self) -> None:
        with override_settings(LMDECK={"API_TOKEN": "se\nsame"}):
            (complaint,) = complaints()
            assert "same" not in complaint.msg + complaint.hint

    def test_what_is_no_dict_is_refused(self) -> None:
        with override_settings(LMDECK=["BASE_URL"]):
            assert [complaint.id for complaint in complaints()] == ["lmdeck.E001"]

    def test_a_cache_or_tool_that_is_not_there_is_named(self) -> None:
        with override_settings(LMDECK={"CACHE": "nowhere"}):
            assert complaints()[0].id == "lmdeck.E005"
        with override_settings(LMDECK={"TOOLS": ["get_time"]}):
            (complaint,) = complaints()
            assert complaint.id == "lmdeck.E006"
            assert "get_weather" in complaint.hint

    def test_a_limit_that_each_process_counts_for_itself_is_warned_of(self) -> None:
        with override_settings(LMDECK={"RATE_LIMIT": "5/m"}):
            assert [complaint.id for complaint in complaints()] == ["lmdeck.W001"]

    def test_sqlite_in_requests_that_are_transactions_is_warned_of(self) -> None:
        sqlite = {"ENGINE": "django.db.backends.sqlite3", "ATOMIC_REQUESTS": True}
        with mock.patch.dict(settings.DATABASES, {"default": sqlite}):
            assert [complaint.id for complaint in complaints()] == ["lmdeck.W002"]
        with mock.patch.dict(settings.DATABASES, {"default": {**sqlite, "OPTIONS": {"transaction_mode": "IMMEDIATE"}}}):
            assert complaints() == []

    def test_using_a_wrong_setting_says_the_same(self) -> None:
        with override_settings(LMDECK={"TIMOUT": 5}), pytest.raises(ConfigurationError, match="'TIMOUT'") as caught:
            lm.chat()
        assert caught.value.hint.startswith("Did you mean 'TIMEOUT'?")


def test_a_bad_environment_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMDECK_TIMEOUT", "soon")
    (complaint,) = complaints()
    assert complaint.id == "lmdeck.E004"
    assert "LMDECK_TIMEOUT" in complaint.msg
