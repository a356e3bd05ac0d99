"""`manage.py lmdeck`, with the project's settings."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.apps import AppConfig, apps
from django.core.management import CommandError, call_command
from django.test import override_settings
from far_end import far_end

from lmdeck.cli import run
from lmdeck.contrib.django.tools import discover, registry


def ask(*arguments: str, **settings: Any) -> str:
    out = io.StringIO()
    with far_end() as fake, override_settings(LMDECK={"BASE_URL": fake.base_url, "RETRY_ATTEMPTS": 1, **settings}):
        call_command("lmdeck", *arguments, stdout=out)
    return out.getvalue()


def test_ask_uses_the_projects_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert ask("ask", "Hi", MODEL="m").strip() == "Hello."


def test_models_for_programs() -> None:
    models = json.loads(ask("models", "--json"))
    assert [model["key"] for model in models] == ["m", "other"]


def test_doctor_fails_where_nothing_answers() -> None:
    out = io.StringIO()
    with pytest.raises(SystemExit) as caught:
        call_command("lmdeck", "doctor", "--json", stdout=out)
    assert caught.value.code == 1
    report = json.loads(out.getvalue())
    assert not report["ok"]
    assert "127.0.0.1:9" in report["checks"][0]["detail"]


def test_an_option_overrules_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    project: Any = {"base_url": "http://127.0.0.1:9", "retry_attempts": 1}
    with far_end() as fake:
        _, _, port = fake.base_url.rpartition(":")
        assert run(["--host", "127.0.0.1", "--port", port, "models", "--json"], project) == 0
        assert run(["models", "--json"], project) == 1
    assert json.loads(capsys.readouterr().out)[0]["key"] == "m"


def test_wrong_settings_and_wrong_input_are_reported() -> None:
    with override_settings(LMDECK={"TIMOUT": 3}), pytest.raises(CommandError, match="Did you mean 'TIMEOUT'"):
        call_command("lmdeck", "models")
    with pytest.raises(SystemExit) as caught:
        call_command("lmdeck", "modells")
    assert caught.value.code == 2
    with pytest.raises(CommandError, match="Usage"):
        call_command("lmdeck", "init", "--force")
    with pytest.raises(CommandError, match="weather"):
        call_command("lmdeck", "init", "nothing")


def test_init_writes_a_tool_that_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    shop = ModuleType("shop")
    shop.__path__ = [str(tmp_path / "shop")]
    shop.__file__ = str(tmp_path / "shop" / "__init__.py")
    monkeypatch.setitem(sys.modules, "shop", shop)
    config = AppConfig("shop", shop)
    monkeypatch.setitem(apps.app_configs, "shop", config)
    said, again = io.StringIO(), io.StringIO()
    call_command("lmdeck", "init", "shop", stdout=said)
    call_command("lmdeck", "init", "shop", stdout=again)
    assert "Wrote" in said.getvalue()
    assert "manage.py lmdeck doctor" in said.getvalue()
    assert "lmdeck.contrib.django.urls" not in said.getvalue()  # the project has the page
    assert "already exists" in again.getvalue()
    discover()
    assert "T" in registry.get("current_time")()
