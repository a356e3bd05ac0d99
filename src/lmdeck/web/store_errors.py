"""The errors of the file of conversations, each with what to do."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from lmdeck.errors import LMStudioError

_HINTS = {
    sqlite3.SQLITE_BUSY: "Another process keeps the file locked: try again, or end that process.",
    sqlite3.SQLITE_LOCKED: "Another connection keeps the file locked: try again.",
    sqlite3.SQLITE_FULL: "Free space on the disk, or move the file to another one.",
    sqlite3.SQLITE_READONLY: "Allow this process to write to the file and to its folder.",
    sqlite3.SQLITE_PERM: "Allow this process to read and write the file.",
    sqlite3.SQLITE_CANTOPEN: "Check that the folder exists, and that this process may write to it.",
    sqlite3.SQLITE_IOERR: "Check the disk, and that it has room.",
    sqlite3.SQLITE_CORRUPT: "The file is damaged: restore it from a backup, or pass the name of a new file.",
    sqlite3.SQLITE_NOTADB: "Pass the name of a new file, or of one that lmdeck has created.",
}


class ConversationsError(LMStudioError):
    """The file of conversations cannot be read or written, and is unchanged."""

    default_hint = "Check the file and the disk that it is on."


@contextmanager
def typed_errors(path: str) -> Iterator[None]:
    """Translate errors of SQLite, of rows and of texts into a `ConversationsError`."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte is the primary code
        raise ConversationsError(_failure(path, error), hint=_HINTS.get(code)) from error
    except UnicodeEncodeError as error:
        raise ConversationsError(_failure(path, error), hint="Pass owners and keys without lone surrogates.") from error
    except msgspec.DecodeError as error:
        hint = "The file is from another version of lmdeck: update lmdeck, or pass the name of a new file."
        raise ConversationsError(_failure(path, error), hint=hint) from error


def _failure(path: str, error: Exception) -> str:
    return f"The conversations in {path!r} are not available: {error}."
