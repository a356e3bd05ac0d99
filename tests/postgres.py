"""A real PostgreSQL for the tests, from the system's packages, started by an unprivileged user on a free port."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 60
MISSING = (
    "NO POSTGRESQL TESTS: there is no PostgreSQL server on this machine. "
    "On Debian: apt-get install postgresql (`make` and CI do so as root)."
)


def binaries() -> Path | None:
    """Find the folder of `initdb` and `postgres`: Debian keeps one for each version, which are not in the path."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if found:
        return max(found, key=lambda path: [int(part) for part in re.findall(r"\d+", str(path))])
    initdb = shutil.which("initdb")
    return None if initdb is None else Path(initdb).resolve().parent


@contextmanager
def postgres(programs: Path) -> Iterator[dict[str, Any]]:
    """Run a server with an empty database, and yield what Django's `DATABASES` says of it."""
    with tempfile.TemporaryDirectory(prefix="lmdeck-pg-", dir="/tmp") as folder:  # a socket's path must be short
        who = _unprivileged(Path(folder))
        data = Path(folder) / "data"
        initdb = [
            programs / "initdb",
            "-D",
            data,
            "-U",
            "lmdeck",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ]
        made = subprocess.run(initdb, capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=folder, **who)
        assert made.returncode == 0, made.stderr
        port = free_port()
        options = {"port": port, "unix_socket_directories": folder, "listen_addresses": "127.0.0.1", "fsync": "off"}
        command = [programs / "postgres", "-D", data, *(f"--{name}={value}" for name, value in options.items())]
        log = Path(folder) / "log"
        with log.open("wb") as output:
            server = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder, **who)
        try:
            _wait_until_ready(port, server, log)
            yield {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": "postgres",
                "USER": "lmdeck",
                "HOST": "127.0.0.1",
                "PORT": str(port),
            }
        finally:
            server.send_signal(signal.SIGQUIT)  # at once: its data are not needed any more
            server.wait(PATIENCE)


def _unprivileged(folder: Path) -> dict[str, Any]:
    """Return what makes a process run as an ordinary user, who owns the folder: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    import pwd  # not on Windows

    user = pwd.getpwnam("nobody")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _wait_until_ready(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    import psycopg

    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            psycopg.connect(host="127.0.0.1", port=port, user="lmdeck", dbname="postgres", connect_timeout=5).close()
            return
        except psycopg.OperationalError:
            assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
            assert server.poll() is None, log.read_text(encoding="utf-8")
            time.sleep(0.05)
