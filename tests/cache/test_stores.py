"""The places where answers are kept: one conduct, over processes and machines where the kind allows it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from msgspec.structs import replace

from asking import alm, lm, until
from lmdeck.cache import Cache, Entry, MemoryStore, RedisStore, SQLiteStore, Store, open_store
from lmdeck.testing import FakeLMStudio
from loopback import PATIENCE
from ports import free_port

REDIS = shutil.which("redis-server")


def entry(body: bytes = b"body", created: float = 1.0) -> Entry:
    return Entry(created=created, status=200, content_type="text/event-stream", variant="Q4", body=body)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis of our own on a socket in a temporary folder."""
    if REDIS is None:
        pytest.skip("redis-server is not installed: `make system-packages`")
    folder = tmp_path_factory.mktemp("redis")
    path = folder / "s"
    address = str(path) if len(str(path)) < 100 else f"/tmp/lmdeck-redis-{os.getpid()}.sock"  # sockets have short names
    command = [REDIS, "--port", "0", "--unixsocket", address, "--save", "", "--appendonly", "no", "--dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            until(lambda: _answers(address))
            yield f"unix://{address}?db=0"
        finally:
            process.terminate()


def _answers(address: str) -> bool:
    with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(OSError):
        sock.connect(address)
        return True
    return False


@pytest.fixture(params=["memory", "sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    url = {"memory": "memory:", "sqlite": f"sqlite:///{tmp_path}/answers.db"}.get(request.param)
    made = open_store(url or request.getfixturevalue("redis_url"))
    made.clear()
    yield made
    made.close()


def test_a_stored_entry_is_found(store: Store) -> None:
    """The same bytes, whatever is in them; the newer one of two; nothing after `clear`."""
    body = bytes(range(256)) * 100
    assert store.get(b"a") is None
    store.put(b"a", entry(body))
    store.put(b"\0\xff", entry(b""))
    assert store.get(b"a") == entry(body)
    assert store.get(b"\0\xff") == entry(b"")
    store.put(b"a", entry(b"new"))
    assert store.get(b"a") == entry(b"new")
    store.close()
    assert store.get(b"a") == entry(b"new")
    store.clear()
    assert store.get(b"a") is None


def test_threads_use_a_store_at_once(store: Store) -> None:
    def work(number: int) -> None:
        for turn in range(20):
            store.put(b"%d" % (turn % 5), entry(b"%d" % number * 100))
            found = store.get(b"%d" % (turn % 5))
            assert found is not None
            assert len(set(found.body.split(b"x"))) == 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_the_least_recently_used_is_dropped(kind: str, tmp_path: Path) -> None:
    """The store keeps within its limit; an entry larger than the limit is not stored, and the file is private."""
    store: Store = MemoryStore(10_000) if kind == "memory" else SQLiteStore(tmp_path / "answers.db", 10_000)
    for number in range(8):
        store.put(b"%d" % number, entry(b"x" * 1000))
    assert store.get(b"0") is not None
    for number in range(8, 14):
        store.put(b"%d" % number, entry(b"x" * 1000))
    assert store.get(b"0") is not None
    assert store.get(b"1") is None
    assert store.get(b"13") is not None
    kept = sum(store.get(b"%d" % number) is not None for number in range(14))
    assert 7 <= kept <= 10
    store.close()
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in tmp_path.iterdir())


def test_a_larger_answer_than_the_limit_is_not_kept(fake: FakeLMStudio) -> None:
    fake.at("/v1/chat/completions").reply("x" * 5000)
    with lm(fake.base_url, cache=Cache.open("memory:", max_bytes=2000)) as client:
        chat = client.chat().user("Hi").with_options(temperature=0)
        assert [chat.send().cache for _ in range(2)] == ["miss", "miss"]


def test_an_answer_that_just_fits_does_not_evict_the_others(tmp_path: Path) -> None:
    """With its metadata, the answer is larger than the file may be."""
    store = SQLiteStore(tmp_path / "answers.db", 1000)
    store.put(b"small", entry(b"x" * 100))
    store.put(b"large", entry(b"x" * 995))
    assert (store.get(b"small"), store.get(b"large")) == (entry(b"x" * 100), None)
    store.close()


@pytest.mark.parametrize("body", [b"", b"{}", b"data: {", b"\xff\xfe"])
def test_a_stored_answer_that_cannot_be_read_is_replaced(
    fake: FakeLMStudio, caplog: pytest.LogCaptureFixture, body: bytes
) -> None:
    fake.when(lambda _: True).reply("Hello.")
    store = _Damaging(body)
    with lm(fake.base_url, cache=Cache(store)) as client:
        chat = client.chat().user("Hi").with_options(temperature=0)
        assert chat.send().cache == "miss"
        assert (chat.send().content, chat.stream().until_done().content) == ("Hello.", "Hello.")
        assert "cannot be read" in caplog.text
        store.damage = None
        assert [chat.send().cache for _ in range(2)] == ["miss", "hit"]


class _Damaging(MemoryStore):
    """A store that loses the bodies of answers."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.damage: bytes | None = body

    def put(self, key: bytes, entry: Entry) -> None:
        super().put(key, entry if self.damage is None else replace(entry, body=self.damage))


def test_processes_share_a_file(tmp_path: Path) -> None:
    """Eight of them write and read at once, and the count of its bytes is right."""
    script = """
import sys
from lmdeck.cache import Entry, SQLiteStore
store = SQLiteStore(sys.argv[1], 50_000)
for turn in range(30):
    key = f"{turn % 7}-{sys.argv[2]}".encode()
    store.put(key, Entry(created=1.0, status=200, content_type="", variant="", body=b"x" * 1000))
    assert store.get(key) is not None
"""
    path = tmp_path / "answers.db"
    running = [subprocess.Popen([sys.executable, "-c", script, str(path), str(n)]) for n in range(4)]
    assert [process.wait(PATIENCE * 2) for process in running] == [0] * 4
    with contextlib.closing(sqlite3.connect(path)) as connection:
        counted = connection.execute("SELECT sum(size) FROM answers").fetchone()
        assert counted == connection.execute("SELECT bytes FROM total").fetchone()
        assert counted[0] <= 50_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_process_opens_the_file_itself(tmp_path: Path) -> None:
    """SQLite's connections must not cross a fork."""
    script = """
import os, sys
from lmdeck.cache import Entry, SQLiteStore
store = SQLiteStore(sys.argv[1])
kept = Entry(created=1.0, status=200, content_type="", variant="", body=b"x")
store.put(b"parent", kept)
child = os.fork()
if child == 0:
    store.put(b"child", kept)
    os._exit(0 if store.get(b"parent") == kept else 1)
assert os.waitpid(child, 0)[1] == 0
assert store.get(b"child") == kept
"""
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(tmp_path / "answers.db")], check=True, timeout=PATIENCE
    )


def test_a_file_that_is_no_database_is_only_logged(
    fake: FakeLMStudio, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "answers.db"
    path.write_text("This is my novel. " * 100, encoding="utf-8")
    fake.at("/v1/chat/completions").reply("Hello.")
    with lm(fake.base_url, cache=f"sqlite:///{path}") as client:
        chat = client.chat().user("Hi").with_options(temperature=0)
        assert [chat.send().content for _ in range(2)] == ["Hello.", "Hello."]
    assert "cannot be read" in caplog.text
    assert path.read_text(encoding="utf-8").startswith("This is my novel.")


FULL = """
import resource, signal, sys
from lmdeck import LMStudio
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with LMStudio(base_url=sys.argv[1], cache="sqlite:///" + sys.argv[2]) as lm:
    chat = lm.chat("m").user("Hi").with_options(temperature=0)
    chat.send()
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    for number in range(20):
        assert lm.chat("m").user(f"Hi {number}").with_options(temperature=0).send().content.startswith("Hello")
    assert chat.send().cache == "hit"
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit of the size of files")
def test_a_full_disk_does_not_stop_answers(fake: FakeLMStudio, tmp_path: Path) -> None:
    """Answers go on, and what was stored before can still be read."""
    fake.at("/v1/chat/completions").reply("Hello. " * 3000)
    command = [sys.executable, "-c", FULL, fake.base_url, str(tmp_path / "answers.db")]
    done = subprocess.run(command, check=True, timeout=PATIENCE, capture_output=True, text=True)
    assert "The cache cannot be written" in done.stderr


def test_a_locked_file_does_not_stop_answers(fake: FakeLMStudio, tmp_path: Path) -> None:
    """Another program writes to it: answers are read from it, and new ones are not stored."""
    path = tmp_path / "answers.db"
    fake.at("/v1/chat/completions").reply("Hello.")
    with lm(fake.base_url, cache=f"sqlite:///{path}") as client:
        chat = client.chat().user("Hi").with_options(temperature=0)
        other = client.chat().user("Ho").with_options(temperature=0)
        chat.send()
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as holder:
            holder.execute("BEGIN EXCLUSIVE")
            assert [chat.send().cache for _ in range(300)] == ["hit"] * 300
            assert [other.send().cache for _ in range(2)] == ["miss", "miss"]
        assert [other.send().cache for _ in range(2)] == ["miss", "hit"]


@pytest.mark.parametrize("streamed", [False, True])
def test_redis_answers_sync_and_async_clients(fake: FakeLMStudio, redis_url: str, streamed: bool) -> None:
    """A stream's bytes are written in a thread, and nobody asks again meanwhile."""
    fake.reply("Hello.")
    open_store(redis_url).clear()

    async def ask() -> list[str | None]:
        async with alm(fake.base_url, cache=redis_url) as client:
            chat = client.chat().user("Hi").with_options(temperature=0)
            return [(await (chat.stream().until_done() if streamed else chat.send())).cache for _ in range(3)]

    first, *others = asyncio.run(ask())
    assert first == "miss"
    assert "miss" not in others
    with lm(fake.base_url, cache=redis_url) as client:
        chat = client.chat().user("Hi").with_options(temperature=0)
        assert (chat.stream().until_done() if streamed else chat.send()).cache == "hit"


def test_without_redis_the_model_answers(fake: FakeLMStudio, caplog: pytest.LogCaptureFixture) -> None:
    """A cache that is away is logged, and costs no answer."""
    port = free_port()
    fake.at("/v1/chat/completions").reply("Hello.")
    with lm(fake.base_url, cache=f"redis://127.0.0.1:{port}/0") as client:
        assert client.chat().user("Hi").with_options(temperature=0).send().content == "Hello."
    assert "cannot be read" in caplog.text


def test_a_time_to_live_reaches_redis(redis_url: str) -> None:
    """Redis removes the entry by itself when its time is over."""
    store = open_store(redis_url, ttl=100)
    assert isinstance(store, RedisStore)
    store.put(b"ttl", entry())
    assert 0 < store._client.ttl(b"lmdeck:answer:ttl") <= 100
    store.close()
