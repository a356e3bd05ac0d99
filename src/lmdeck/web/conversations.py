"""Conversations in an SQLite file, for frameworks without a database layer.

Each belongs to an owner, a text that the application chooses (a user's id), and only its owner can read it.
"""

from __future__ import annotations

import secrets
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from lmdeck._files import create_private_file
from lmdeck._text import storable_text
from lmdeck.messages import Message, Reply
from lmdeck.web.requests import PageQuestion
from lmdeck.web.stored_messages import LISTED, StoredMessage, nonempty_rounds, title_of

_TABLES = """
CREATE TABLE IF NOT EXISTS conversation (id TEXT PRIMARY KEY, owner TEXT NOT NULL, title TEXT NOT NULL, updated REAL NOT NULL);
CREATE TABLE IF NOT EXISTS message (
    conversation TEXT NOT NULL REFERENCES conversation(id) ON DELETE CASCADE, position INTEGER NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (conversation, position)
);
CREATE INDEX IF NOT EXISTS conversation_of_owner ON conversation (owner, updated);
"""


class Conversations:
    """The conversations in one file. Threads may share the object, and processes the file.

    A new file is readable by its owner only.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = str(path)
        self._lock = threading.Lock()
        create_private_file(self._path)
        with self._open() as database:
            database.executescript(_TABLES)

    def newest(self, owner: str) -> list[dict[str, Any]]:
        """Return an owner's newest conversations first: `id`, `title`, `updated` (seconds since 1970)."""
        with self._open() as database:
            rows = database.execute(
                "SELECT id, title, updated FROM conversation WHERE owner = ? ORDER BY updated DESC LIMIT ?",
                (owner, LISTED),
            )
            return [{"id": key, "title": title, "updated": updated} for key, title, updated in rows]

    def ask(self, question: PageQuestion, owner: str) -> tuple[str, list[Message]] | None:
        """Append a question to its conversation, or to a new one; return the id and all messages.

        None if the owner has no such conversation.
        """
        key = question.conversation or self._create(owner)
        stored = self.messages(key, owner)
        if stored is None:
            return None
        asked = StoredMessage(role="user", content=storable_text(question.text))
        self._add(key, [asked])
        return key, [message for one in [*stored, asked] for message in one.history()]

    def messages(self, key: str, owner: str) -> list[StoredMessage] | None:
        """Return the messages of a conversation; None if the owner has no such conversation."""
        with self._open() as database:
            if not database.execute("SELECT 1 FROM conversation WHERE id = ? AND owner = ?", (key, owner)).fetchone():
                return None
            rows = database.execute("SELECT body FROM message WHERE conversation = ? ORDER BY position", (key,))
            return [msgspec.json.decode(body, type=StoredMessage) for (body,) in rows]

    def add_reply(self, key: str, reply: Reply) -> None:
        """Append an answer with all its rounds; of an interrupted answer, the part that was received."""
        self._add(key, [StoredMessage.of_round(one) for one in nonempty_rounds(reply)])

    def remove(self, key: str, owner: str) -> bool:
        """Remove a conversation; False if the owner has no such conversation."""
        with self._open() as database:
            return bool(database.execute("DELETE FROM conversation WHERE id = ? AND owner = ?", (key, owner)).rowcount)

    def _create(self, owner: str) -> str:
        key = secrets.token_urlsafe(12)
        with self._open() as database:
            database.execute("INSERT INTO conversation VALUES (?, ?, '', ?)", (key, owner, time.time()))
        return key

    def _add(self, key: str, messages: Iterable[StoredMessage]) -> None:
        """Append messages; the first user message becomes the title. A conversation that was removed is not recreated."""
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")  # other processes may append at the same time
            if not database.execute("SELECT 1 FROM conversation WHERE id = ?", (key,)).fetchone():
                return
            ((count,),) = database.execute("SELECT count(*) FROM message WHERE conversation = ?", (key,))
            for at, message in enumerate(messages, count):
                body = msgspec.json.encode(message).decode()
                database.execute("INSERT INTO message VALUES (?, ?, ?)", (key, at, body))
                if message.role == "user":
                    title = title_of(message.content)
                    database.execute("UPDATE conversation SET title = ? WHERE id = ? AND title = ''", (title, key))
            database.execute("UPDATE conversation SET updated = ? WHERE id = ?", (time.time(), key))

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            database = sqlite3.connect(self._path)
            try:
                database.execute("PRAGMA foreign_keys = ON")
                with database:
                    yield database
            finally:
                database.close()
