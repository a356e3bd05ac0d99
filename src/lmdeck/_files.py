"""Atomic file writes with private permissions.

A file is written to a temporary file in the same folder, flushed to disk and renamed, so that a reader sees either the old
or the new content, even if another thread or process writes the same file, the process is killed or the disk is full. A
killed process may leave a hidden file `.NAME.*.tmp`. Lines are appended under a lock; a partly written line is removed.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from lmdeck.errors import FileWriteError

PRIVATE = 0o600
NAME_CHARS = 40  # of the file's name in the temporary name, which has at most 255 bytes; a character has up to 4


def replace_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file atomically.

    A new file is readable by its owner only; an existing file keeps its mode. Links are followed. A path that is not a
    regular file, such as `/dev/stdout`, is written to directly.

    Raises:
        FileWriteError: The file could not be written; it is unchanged.
    """
    with _translated_errors(path):
        if Path(path).exists() and not Path(path).is_file():
            Path(path).write_bytes(data)
            return
        target = Path(os.path.realpath(path))
        descriptor, temporary = tempfile.mkstemp(
            prefix=f".{target.name[:NAME_CHARS]}.", suffix=".tmp", dir=target.parent
        )
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                _force_to_disk(file)
            with suppress(FileNotFoundError):
                Path(temporary).chmod(stat.S_IMODE(target.stat().st_mode))
            Path(temporary).replace(target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        _force_folder_to_disk(target.parent)


def append_line(path: str | os.PathLike[str], line: bytes) -> None:
    """Append a line to a file that may have other writers.

    Start a new line if the last one is incomplete.

    Raises:
        FileWriteError: The line could not be written; the file is unchanged.
    """
    with _translated_errors(path), open(path, "ab+", buffering=0, opener=_open_private) as file, _locked(file):
        size = file.seek(0, os.SEEK_END)
        try:
            _write_all(file, (b"" if _ends_a_line(file, size) else b"\n") + line + b"\n")
            _force_to_disk(file)
        except OSError:
            file.truncate(size)
            raise


def create_private_file(path: str | os.PathLike[str]) -> None:
    """Create an empty file that only its owner can read, unless the file exists.

    Raises:
        FileWriteError: The file could not be created.
    """
    with _translated_errors(path), suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, PRIVATE))


def open_locked(path: str | os.PathLike[str]) -> IO[bytes]:
    """Open a file that is locked until it is closed; it is created if it is missing.

    Raises:
        BlockingIOError: Another process has locked it, or another open file of this process has.
        OSError: It cannot be opened.
    """
    file = open(path, "ab", buffering=0, opener=_open_private)  # noqa: SIM115 - the caller closes it
    try:
        _lock_at_once(file)
    except BaseException:
        file.close()
        raise
    return file


@contextmanager
def _translated_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Translate an `OSError`, or a refused name, into a `FileWriteError` that names the file."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).rstrip(".")
        name = os.fsdecode(path)
        raise FileWriteError(f"{name} cannot be written: {reason}.", path=name, errno=error.errno) from error
    except ValueError as error:  # a NUL in the name
        name = os.fsdecode(path)
        raise FileWriteError(f"{name} cannot be written: {error}.", path=name, errno=errno.EINVAL) from error


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, PRIVATE)


def _write_all(file: IO[bytes], data: bytes) -> None:
    """Write all bytes.

    One write to an unbuffered file may be partial, for example on a nearly full disk.
    """
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _ends_a_line(file: IO[bytes], size: int) -> bool:
    if not size:
        return True
    file.seek(size - 1)
    return file.read(1) == b"\n"


def _force_to_disk(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _force_folder_to_disk(folder: Path) -> None:
    """Make a rename survive a power failure, on systems that can open a folder."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


if sys.platform == "win32":

    @contextmanager
    def _locked(file: IO[bytes]) -> Iterator[None]:
        """Block other writers by a lock on a byte beyond the end of any file.

        A locked byte cannot be read, so it must not be one of the file's.
        """
        import msvcrt

        file.seek(1 << 62)
        msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
        try:
            yield
        finally:
            file.seek(1 << 62)
            msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

    def _lock_at_once(file: IO[bytes]) -> None:
        import msvcrt

        file.seek(1 << 62)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError(*error.args) from error

else:

    @contextmanager
    def _locked(file: IO[bytes]) -> Iterator[None]:
        """Block other writers, in this process and others, until the block or the process ends."""
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file releases the lock

    def _lock_at_once(file: IO[bytes]) -> None:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
