"""Where LM Studio serves, by its own file, where nobody said so."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from lmdeck import LMStudio, Settings
from lmdeck.cli.doctor.server_checks import run_checks
from lmdeck.testing import FakeLMStudio
from loopback import Loopback, json_answer


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def serve_on(folder: Path, text: str) -> None:
    """Write LM Studio's file of its server."""
    (folder / ".internal").mkdir(parents=True)
    (folder / ".internal" / "http-server-config.json").write_text(text)


def port_of(fake: FakeLMStudio) -> int:
    return int(fake.base_url.rpartition(":")[2])


def test_the_port_is_found(home: Path) -> None:
    with FakeLMStudio() as fake:
        serve_on(home / ".lmstudio", json.dumps({"port": port_of(fake), "cors": False}))
        fake.reply("Hello")
        with LMStudio(discover=True) as client:
            assert client.chat().user("Hi").send().content == "Hello"
            assert "http-server-config.json" in client.settings.origins["port"]


def test_lm_studio_s_folder_may_be_elsewhere(home: Path) -> None:
    serve_on(home / "elsewhere", '{"port": 4321}')
    (home / ".lmstudio-home-pointer").write_text(f"{home / 'elsewhere'}\n")
    assert Settings.resolve({"discover": True}).port == 4321


@pytest.mark.parametrize("given", [{"port": 5}, {"host": "gpu"}, {"base_url": "http://gpu:9"}, {"discover": False}])
def test_an_address_that_was_set_is_not_overruled(home: Path, given: dict[str, object]) -> None:
    serve_on(home / ".lmstudio", '{"port": 4321}')
    assert Settings.resolve({"discover": True, **given}).port != 4321


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"port": 0}', '{"port": true}', '{"port": "1"}', '{"port": 70000}', "\0"]
)
def test_a_file_that_says_nothing_is_passed_over(home: Path, text: str) -> None:
    serve_on(home / ".lmstudio", text)
    assert Settings.resolve({"discover": True}).port == 1234


def test_the_doctor_says_where_the_server_is(home: Path) -> None:
    with FakeLMStudio() as fake, socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: nothing answers there
        serve_on(home / ".lmstudio", json.dumps({"port": port_of(fake)}))
        with LMStudio(host="127.0.0.1", port=unused.getsockname()[1], retry_attempts=1) as client:
            server = next(result for result in run_checks(client) if result.check == "server")
        assert server.outcome == "failed"
        assert f"LM Studio answers on port {port_of(fake)}" in server.fix
    assert "discover=True" in server.fix


def test_the_doctor_says_that_lm_studio_runs_without_its_server(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its API for SDKs answers, and nothing else: `lms server start` is what is missing."""
    status = json_answer({"package": "lmstudio", "version": "0.4.20"})
    with Loopback(routes={"/lms-status": status}) as api, socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        info = home / "info.json"
        info.write_text(json.dumps({"port": int(api.url.rpartition(":")[2])}))
        monkeypatch.setenv("LMS_API_SERVER_INFO_PATH", str(info))
        serve_on(home / ".lmstudio", json.dumps({"port": port}))
        with LMStudio(host="127.0.0.1", port=port, retry_attempts=1) as client:
            server = next(result for result in run_checks(client) if result.check == "server")
    assert server.outcome == "failed"
    assert "LM Studio 0.4.20 runs on this machine" in server.fix
    assert "lms server start" in server.fix


def test_the_folder_of_older_versions_is_found(home: Path) -> None:
    """The older folder is searched, too, since LM Studio moved it to `.lmstudio` in 0.3."""
    serve_on(home / ".cache" / "lm-studio", '{"port": 4321}')
    assert Settings.resolve({"discover": True}).port == 4321
