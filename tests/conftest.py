"""What every test folder may use, and one hypothesis profile: the same examples in every run."""

from __future__ import annotations

import gc
import signal
import socket
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "lmdeck",
    derandomize=True,
    max_examples=80,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("lmdeck")

pytest_plugins = ["engine_fixtures", "llama_cpp", "tls_fixtures"]


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Let Ctrl-C end the programs that tests start, and let the count of reruns wait for nothing.

    Tests that run as a shell's background job ignore Ctrl-C. A worker asks pytest-rerunfailures' count of reruns, which is in
    the first process, in two short writes: with Nagle's algorithm each test would take 40 ms.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput") and config.pluginmanager.hasplugin("rerunfailures"):
        config.failures_db.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)


def pytest_collection_finish() -> None:
    """Hide what was collected from the garbage collector: `gc.collect()` in a test would visit 700,000 objects each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_default_client() -> Iterator[None]:
    """Close the default client that a test has used: the next test has another server."""
    yield
    facade = sys.modules.get("lmdeck._facade")
    if facade is not None:
        facade.reset()
