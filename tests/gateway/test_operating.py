"""What operators use: the doctor, the documented settings, and the files for nginx and containers."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import msgspec
import pytest
import urllib3

from gateways import MODEL, PATIENCE, config_of, gateway
from lmdeck.gateway import Config
from lmdeck.testing import FakeLMStudio
from ports import free_port

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy" / "gateway"


def listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def doctor(folder: Path, text: str) -> tuple[int, dict[str, tuple[str, str]]]:
    file = folder / "gateway.toml"
    file.write_text(text)
    command = [sys.executable, "-m", "lmdeck", "doctor", "--gateway", str(file), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=PATIENCE, check=False)
    report = json.loads(done.stdout)
    return done.returncode, {check["check"]: (check["outcome"], check["detail"]) for check in report["checks"]}


def test_the_doctor_checks_a_gateway(tmp_path: Path) -> None:
    with FakeLMStudio() as fake:
        more = f'[aliases]\ngood = "{MODEL}"\nbad = "nowhere"\n[server]\nport = 0\n[auth]\nrequired = true\n'
        code, checks = doctor(tmp_path, config_of({"up": fake.base_url, "down": "http://127.0.0.1:9"}, more))
        assert not fake.requests or all(request.method == "GET" for request in fake.requests)
    assert code == 1
    assert {name: outcome for name, (outcome, _) in checks.items()} == {
        "config": "ok",
        "host up": "ok",
        "host down": "failed",
        "models": "warning",
        "keys": "warning",
        "address": "ok",
    }
    assert "nowhere" in checks["models"][1]
    code, checks = doctor(tmp_path, "[[hosts]]\nurl = 'http://x'\nwieght = 2")
    assert (code, checks["config"][0]) == (1, "failed")
    assert "line 3" in checks["config"][1]


def test_every_setting_is_documented() -> None:
    pages = "".join(
        (ROOT / "docs" / f"{page}.md").read_text() for page in ("gateway", "gateway-keys", "caching", "batches")
    )
    default = msgspec.to_builtins(Config())
    sections = {
        name: value
        for name, value in default.items()
        if isinstance(value, dict) and name not in ("aliases", "profiles")
    }
    names = {setting for section in sections.values() for setting in section} | set(default["hosts"][0])
    missing = [
        name
        for name in sorted(names)
        if f"`{name}`" not in pages and f"{name} = " not in pages and f"] {name}`" not in pages
    ]
    assert not missing


def test_the_configuration_of_the_page_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPU1_TOKEN", "secret")
    monkeypatch.setenv("ADMIN_TOKEN", "secret")
    page = (ROOT / "docs" / "gateway.md").read_text()
    block = page.partition("```toml\n")[2].partition("```")[0]
    config = Config.parse("\n".join(line[4:] for line in block.splitlines()))
    assert [host.name for host in config.hosts] == ["gpu1", "gpu2"]
    assert config.models_of("fast") == ["qwen3-4b", "gemma-3-4b"]
    assert "secret" not in str(config)
    assert Config.load(DEPLOY / "gateway.toml").server.workers == 2
    assert tomllib.loads((DEPLOY / "gateway.toml").read_text())["auth"] == {"required": True}


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="SKIPPED: systemd is not installed (make system-packages)"
)
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    """Unknown settings are warnings to systemd, which ignores them."""
    unit = (DEPLOY / "lmdeck-gateway.service").read_text()
    file = tmp_path / "lmdeck-gateway.service"
    for text, is_right in ((unit, True), (unit.replace("ProtectHome", "ProtectHouse"), False)):
        file.write_text(text.replace("/opt/lmdeck/bin/lmdeck", sys.executable))
        done = subprocess.run(
            ["systemd-analyze", "verify", str(file)], capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        of_unit = [line for line in done.stderr.splitlines() if file.name in line]
        assert (done.returncode == 0 and not of_unit) is is_right, done.stderr


@pytest.mark.skipif(shutil.which("nginx") is None, reason="SKIPPED: nginx is not installed (make system-packages)")
def test_a_stream_passes_nginx_as_it_comes(tmp_path: Path) -> None:
    """nginx runs with the file of `deploy/` without TLS; its requests do not count as local."""
    port = free_port()
    with FakeLMStudio(strict=False, tokens_per_second=20) as fake, gateway(tmp_path, config_of([fake])) as running:
        site = (DEPLOY / "nginx.conf").read_text().replace("listen 443 ssl", f"listen 127.0.0.1:{port}")
        site = "\n".join(line for line in site.splitlines() if "ssl_certificate" not in line)
        site = site.replace("127.0.0.1:4000", running.url.removeprefix("http://")).replace("$host", "localhost")
        paths = "".join(
            f"{kind}_temp_path {tmp_path}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        conf = tmp_path / "nginx.conf"
        conf.write_text(
            f"daemon off; pid {tmp_path}/pid; error_log {tmp_path}/err; events {{}} http {{ access_log off; {paths} {site} }}"
        )
        nginx = subprocess.Popen(["nginx", "-p", str(tmp_path), "-c", str(conf)], stderr=subprocess.DEVNULL)
        try:
            limit = time.monotonic() + PATIENCE
            while not listens(port):
                assert time.monotonic() < limit, (tmp_path / "err").read_text()
                time.sleep(0.05)
            body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "word " * 20}]}
            url = f"http://127.0.0.1:{port}"
            answer = urllib3.request(
                "POST", f"{url}/v1/chat/completions", json=body, preload_content=False, timeout=PATIENCE
            )
            parts = list(answer.stream(1 << 16))
            assert len(parts) > 5
            assert b"".join(parts).rstrip().endswith(b"data: [DONE]")
            assert urllib3.request("GET", f"{url}/gateway/status").status == 403
            assert urllib3.request("GET", f"{url}/ready").status == 200
        finally:
            nginx.terminate()
            nginx.wait()
