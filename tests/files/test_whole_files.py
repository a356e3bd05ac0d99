"""Files that are written whole or not at all: by threads, by processes that are killed, and on a full disk."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from small_disk import BYTES, small_disk

from lmdeck import FileWriteError, History, LMStudioError
from lmdeck._recordings.cassette import RecordedExchange, RecordedPiece, append, load, save
from loopback import PATIENCE


def history(words: str, messages: int = 200) -> History:
    return History.from_json(json.dumps([{"role": "user", "content": words}] * messages))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def exchange(path: str = "/v1/models", body: str = "{}") -> RecordedExchange:
    return RecordedExchange(method="GET", path=path, status=200, pieces=[RecordedPiece(at=0.0, text=body)])


def test_threads_may_save_one_history_while_others_read_it(tmp_path: Path) -> None:
    """No thread gets an error or a damaged history, and nothing is left beside the file."""
    file = tmp_path / "talk.json"
    history("start").save(file)
    errors: list[BaseException] = []

    def write(number: int) -> None:
        try:
            for turn in range(25):
                history(f"thread {number}, turn {turn}").save(file)
                assert len(History.load(file)) == 200
        except BaseException as error:  # the test's own thread looks at it
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert names(tmp_path) == ["talk.json"]


SAVING = """
import sys
from lmdeck import History
history = History()
for number in range(400):
    history = history.user(f"message {number} of " + sys.argv[2])
while True:
    history.save(sys.argv[1])
    print("saved", flush=True)
"""


def test_a_writer_that_is_killed_leaves_a_whole_file(tmp_path: Path) -> None:
    file = tmp_path / "talk.json"
    for name in ("one", "two", "three"):
        with subprocess.Popen([sys.executable, "-c", SAVING, str(file), name], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            for _ in range(3):
                assert writer.stdout.readline()
            writer.send_signal(signal.SIGKILL)
        assert len(History.load(file)) == 400
    history("after").save(file)
    assert len(History.load(file)) == 200


def test_a_full_disk_keeps_what_was_there_and_is_one_clear_error(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        file = disk / "talk.json"
        history("old", 10).save(file)
        before = file.read_bytes()
        with pytest.raises(FileWriteError, match=r"talk\.json cannot be written: ") as caught:
            history("x" * 1000, 200).save(file)
        assert isinstance(caught.value, OSError)
        assert isinstance(caught.value, LMStudioError)
        assert caught.value.errno
        assert caught.value.path == str(file)
        assert "room" in caught.value.hint
        assert file.read_bytes() == before
        assert names(disk) == ["talk.json"]


def test_a_folder_that_is_not_there_is_reported(tmp_path: Path) -> None:
    with pytest.raises(FileWriteError, match="No such file or directory"):
        history("a").save(tmp_path / "nowhere" / "talk.json")


def test_mode_and_link_of_a_file_stay_and_a_new_one_is_private(tmp_path: Path) -> None:
    file, link = tmp_path / "talk.json", tmp_path / "link.json"
    history("a").save(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o640)
    link.symlink_to(file)
    history("b").save(link)
    assert link.is_symlink()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert History.load(file).messages[0].content == "b"


def test_what_is_not_a_file_is_written_to() -> None:
    code = "from lmdeck import History; History().user('Hi').save('/dev/stdout')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert History.from_json(done.stdout).messages[0].content == "Hi"
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("name", ["n" * 250, "\N{SLIGHTLY SMILING FACE}" * 62])
def test_a_name_as_long_as_names_can_be(tmp_path: Path, name: str) -> None:
    file = tmp_path / f"{name}.json"
    history("a").save(file)
    assert names(tmp_path) == [file.name]


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    with pytest.raises(FileWriteError, match=r"\\x00b.json cannot be written"):
        history("a").save(tmp_path / "a\0b.json")
    assert names(tmp_path) == []


def test_half_a_letter_does_not_keep_a_history_from_being_saved(tmp_path: Path) -> None:
    History().user("cut \ud83d here").save(tmp_path / "talk.json")
    assert History.load(tmp_path / "talk.json").messages[0].content == "cut \ufffd here"


def add_many(path: str, number: int) -> None:
    for turn in range(50):
        append(exchange(f"/{number}/{turn}", "x" * 3000), path)


def test_processes_and_threads_may_add_to_one_recording(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=add_many, args=(str(path), number)) for number in range(2)]
    threads = [threading.Thread(target=add_many, args=(str(path), number)) for number in range(2, 4)]
    for worker in (*processes, *threads):
        worker.start()
    for worker in (*processes, *threads):
        worker.join()
    assert sorted(each.path for each in load(path)) == sorted(f"/{a}/{b}" for a in range(4) for b in range(50))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_torn_last_line_is_skipped_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The writer may stop anywhere, and what is recorded afterwards begins a line of its own."""
    path = tmp_path / "c.jsonl"
    save([exchange("/whole"), exchange("/second", '"ä\x00\\' * 5)], path)
    whole, second = path.read_bytes().splitlines()
    for kept in range(1, len(second)):
        caplog.clear()
        path.write_bytes(whole + b"\n" + second[:kept])
        assert [each.path for each in load(path)] == ["/whole"]
        assert "Line 2" in caplog.text
        assert "skipped" in caplog.text
        if kept % 10 == 1:  # it waits for the disk
            append(exchange("/later"), path)
            told: list[str] = []
            assert [each.path for each in load(path, told.append)] == ["/whole", "/later"]
            assert [each.partition(" of ")[0] for each in told] == ["Line 2"]


@pytest.mark.parametrize("torn", [b"\0" * 4096, b'{"method":"P","pa{"method":"POST","path":"/glued"}\n', b"{\n"])
def test_what_a_power_failure_or_another_writer_left_is_skipped(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "c.jsonl"
    append(exchange("/whole"), path)
    with path.open("ab") as file:
        file.write(torn)
    append(exchange("/later"), path)
    told: list[str] = []
    assert [each.path for each in load(path, told.append)] == ["/whole", "/later"]
    assert len(told) == 1


def test_a_last_line_without_its_end_that_is_whole_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "c.jsonl"
    save([exchange("/a"), exchange("/b")], path)
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    append(exchange("/c"), path)
    assert [each.path for each in load(path)] == ["/a", "/b", "/c"]
    assert caplog.text == ""


def test_a_recording_on_a_full_disk_stays_whole(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        path = disk / "c.jsonl"
        append(exchange("/a"), path)
        before = path.read_bytes()
        with pytest.raises(FileWriteError, match="cannot be written"):
            append(exchange("/b", "x" * 2 * BYTES), path)
        assert path.read_bytes() == before
        append(exchange("/c"), path)
        assert [each.path for each in load(path)] == ["/a", "/c"]


def test_a_recorder_goes_on_without_its_disk(tmp_path: Path) -> None:
    """The application has every answer; what could not be recorded is told once each, counted, and makes the exit code 1."""
    from lmdeck.testing import FakeLMStudio

    with small_disk(tmp_path / "disk") as disk, FakeLMStudio(cuts=False) as fake:
        fake.reply("small").reply("x" * 2 * BYTES).reply("small again")
        arguments = ["record", "--upstream", fake.base_url, "--to", str(disk / "c.jsonl"), "--port", "0"]
        with subprocess.Popen(
            [sys.executable, "-m", "lmdeck", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "COLUMNS": "300", "PYTHONUNBUFFERED": "1"},
        ) as recorder:
            assert recorder.stdout is not None
            assert recorder.stderr is not None
            url = recorder.stdout.readline().split()[3]
            with fake.client(base_url=url) as lm:
                lengths = [len(lm.chat("qwen2.5-7b-instruct").user("a").send().content) for _ in range(3)]
            deadline = time.monotonic() + PATIENCE
            while len(load(disk / "c.jsonl")) < 2:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            recorder.send_signal(signal.SIGINT)
            shown, errors = recorder.stdout.read(), recorder.stderr.read()
        assert lengths == [5, 2 * BYTES, 11]
        assert recorder.returncode == 1
        assert errors.count("cannot be written") == 1
        assert "Traceback" not in errors
        assert "1 could not be written" in shown
