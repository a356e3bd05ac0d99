"""A Ray cluster of two nodes on this machine; without Ray, its tests are skipped, or fail where LMDECK_RAY demands them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["RAY_AUTH_MODE"] = "disabled"  # the cluster listens on loopback, and no token of this user is to be read

try:
    import ray
except ModuleNotFoundError:
    ray = None
    if os.environ.get("LMDECK_RAY"):
        raise
    collect_ignore_glob = ["test_*.py"]
    sys.stderr.write(
        'SKIPPED tests/on_ray: Ray is not installed; `nox -s ray` runs them, or pip install "lmdeck[ray]"\n'
    )

RAY = [sys.executable, "-m", "ray.scripts.scripts"]
OPTIONS = ("--num-cpus=2", "--object-store-memory=100000000", "--disable-usage-stats", "--node-ip-address=127.0.0.1")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Cluster:
    """A head and a second node, each with processes of its own."""

    def __init__(self, folder: Path) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self._environment = {**os.environ, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"}  # elsewhere than on Linux
        port = self.address.partition(":")[2]
        head = ("--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}")
        self._nodes = [self._start(*head)]

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [*RAY, "start", "--block", *OPTIONS, *arguments]
        return subprocess.Popen(
            command, env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )

    def add_node(self) -> None:
        """Start a second node."""
        self._nodes.append(self._start(f"--address={self.address}"))

    def kill_node(self) -> None:
        """Kill the second node with all of its processes."""
        self._kill(self._nodes.pop())

    def close(self) -> None:
        while self._nodes:
            self._kill(self._nodes.pop())

    @staticmethod
    def _kill(node: subprocess.Popen[bytes]) -> None:
        os.killpg(node.pid, 9)
        node.wait()


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    running = Cluster(tmp_path_factory.mktemp("ray"))
    try:
        yield running
    finally:
        if ray is not None:
            ray.shutdown()
        running.close()
