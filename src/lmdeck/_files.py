"""Files that are written whole or not at all, and read by their owner alone.

A file is written beside its place, forced to disk and renamed, so that a reader sees the old content or the new one, whatever
happens between: another thread or process that writes the same file, a kill, a full disk. A process that is killed meanwhile
may leave a hidden file `.NAME.*.tmp` behind. Lines are appended one writer after the other; what did not fit is taken back.
"""

from __future__ import annotations

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


def replace_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file whole or not at all.

    A new file is readable by its owner alone; one that was there keeps its mode. Links are followed, and what is not a regular
    file, such as `/dev/stdout`, is written to directly.

    Raises:
        FileWriteError: It could not be written; what was there is unchanged.
    """
    with _naming(path):
        if Path(path).exists() and not Path(path).is_file():
            Path(path).write_bytes(data)
            return
        target = Path(os.path.realpath(path))
        descriptor, beside = tempfile.mkstemp(prefix=f".{target.name[:100]}.", suffix=".tmp", dir=target.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                _force_to_disk(file)
            with suppress(FileNotFoundError):
                Path(beside).chmod(stat.S_IMODE(target.stat().st_mode))
            Path(beside).replace(target)
        except BaseException:
            Path(beside).unlink(missing_ok=True)
            raise
        _force_folder_to_disk(target.parent)


def append_line(path: str | os.PathLike[str], line: bytes) -> None:
    """Append a line to a file that may have other writers; begin a new line where the last one was torn.

    Raises:
        FileWriteError: It could not be written; the file is as it was before.
    """
    with _naming(path), open(path, "ab+", buffering=0, opener=_open_private) as file, _locked(file):  # opener
        size = file.seek(0, os.SEEK_END)
        try:
            _write_all(file, (b"" if _ends_a_line(file, size) else b"\n") + line + b"\n")
            _force_to_disk(file)
        except OSError:
            file.truncate(size)
            raise


def create_private_file(path: str | os.PathLike[str]) -> None:
    """Create an empty file that its owner alone can read, unless there is one.

    Raises:
        FileWriteError: It could not be created.
    """
    with _naming(path), suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, PRIVATE))


@contextmanager
def _naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raise one clear error in place of the system's."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).rstrip(".")
        name = os.fsdecode(path)
        raise FileWriteError(f"{name} cannot be written: {reason}.", path=name, errno=error.errno) from error


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, PRIVATE)


def _write_all(file: IO[bytes], data: bytes) -> None:
    """Write all bytes; an unbuffered file may take fewer than it was given, as on a disk that is nearly full."""
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
    """Make a renaming outlast a power failure, where the system lets a folder be opened."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


if sys.platform == "win32":

    @contextmanager
    def _locked(file: IO[bytes]) -> Iterator[None]:
        """Keep other writers waiting: a byte that no file reaches is locked, since what is locked cannot be read."""
        import msvcrt

        file.seek(1 << 62)
        msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
        try:
            yield
        finally:
            file.seek(1 << 62)
            msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:

    @contextmanager
    def _locked(file: IO[bytes]) -> Iterator[None]:
        """Keep other writers waiting, of this process and others, until the block or the process ends."""
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file gives the lock back
