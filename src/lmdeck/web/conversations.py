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
from itertools import chain, count
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from lmdeck._client.paused_run import PausedRun
from lmdeck._files import create_private_file
from lmdeck._incoming.trust import RefusedRequest
from lmdeck._text import storable_text
from lmdeck.messages import Message, Reply
from lmdeck.web.answer import ResumedRun
from lmdeck.web.requests import NO_LONGER_WAITING, NOT_FOUND, PageDecisions, PageQuestion
from lmdeck.web.store_errors import typed_errors
from lmdeck.web.stored_messages import LISTED, StoredMessage, new_rounds, title_of

_TABLES = """
CREATE TABLE IF NOT EXISTS conversation (id TEXT PRIMARY KEY, owner TEXT NOT NULL, title TEXT NOT NULL, updated REAL NOT NULL);
CREATE TABLE IF NOT EXISTS message (
    conversation TEXT NOT NULL REFERENCES conversation(id) ON DELETE CASCADE, position INTEGER NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (conversation, position)
);
CREATE TABLE IF NOT EXISTS paused (
    conversation TEXT PRIMARY KEY REFERENCES conversation(id) ON DELETE CASCADE, run TEXT NOT NULL, body TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS conversation_of_owner ON conversation (owner, updated);
"""


class StoredQuestion(NamedTuple):
    """A stored question: its conversation, the messages to send, and its id for the answer."""

    conversation: str
    messages: list[Message]
    id: str


class ConversationTurn(Struct, frozen=True, kw_only=True):
    """One turn of a stored conversation: its messages, and the paused run to resume, if any.

    `question` is the id of the question that starts it.
    """

    key: str
    messages: list[Message]
    question: str | None = None
    resumed: ResumedRun | None = None

    @property
    def paused(self) -> PausedRun | None:
        """The run to resume."""
        return None if self.resumed is None else self.resumed.paused


class Conversations:
    """The conversations in one file. Threads may share the object, and processes the file.

    A new file is readable by its owner only.
    """

    timeout = 5.0
    """The longest wait for a file that another process keeps locked, in seconds."""

    def __init__(self, path: str | Path) -> None:
        """Open the file, or create it.

        Raises:
            ConversationsError: The file is locked, damaged, or not a file of conversations. So do all methods.
            FileWriteError: The file cannot be created.
        """
        self._path = str(path)
        self._lock = threading.Lock()
        create_private_file(self._path)
        with self._open() as database:
            database.executescript(_TABLES)

    def newest(self, owner: str) -> list[dict[str, Any]]:
        """Return an owner's conversations, the newest first.

        Each is `id`, `title` and `updated` (seconds since 1970).
        """
        with self._open() as database:
            rows = database.execute(
                "SELECT id, title, updated FROM conversation WHERE owner = ? ORDER BY updated DESC LIMIT ?",
                (owner, LISTED),
            )
            return [{"id": key, "title": title, "updated": updated} for key, title, updated in rows]

    def begin(self, request: PageQuestion | PageDecisions, owner: str) -> ConversationTurn | RefusedRequest:
        """Return the turn of a request: of a new question, or of a paused run, which is removed.

        Raises:
            ConfigurationError: The decisions do not fit the calls that wait.
        """
        if isinstance(request, PageQuestion):
            stored = self.ask(request, owner)
            if stored is None:
                return NOT_FOUND
            return ConversationTurn(key=stored.conversation, messages=stored.messages, question=stored.id)
        waiting = self.paused(request.conversation, owner)
        if waiting is None or waiting.id != request.run:
            return NO_LONGER_WAITING
        waiting.decide(request.decisions)
        paused = self.take_paused(request.conversation, owner, request.run)
        if paused is None:
            return NO_LONGER_WAITING
        return ConversationTurn(key=request.conversation, messages=[], resumed=ResumedRun(paused, request.decisions))

    def ask(self, question: PageQuestion, owner: str) -> StoredQuestion | None:
        """Append a question to its conversation or a new one; return it with all messages to send.

        A question that replaces another one removes it and all messages after it. Calls of the conversation that wait
        for a decision are then discarded. None if the owner has no such conversation.
        """
        message = question.message()
        message = replace(message, content=storable_text(message.content), id=secrets.token_urlsafe(12))
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")  # other processes may append at the same time
            key = question.conversation or self._create(database, owner)
            stored = self._read(database, key, owner)
            if stored is None:
                return None
            if question.replaces is not msgspec.UNSET:
                stored = _before_question(stored, question.replaces)
                database.execute("DELETE FROM message WHERE conversation = ? AND position >= ?", (key, len(stored)))
            database.execute("DELETE FROM paused WHERE conversation = ?", (key,))
            self._append(database, key, [message])
        return StoredQuestion(key, [each for one in [*stored, message] for each in one.history()], str(message.id))

    def messages(self, key: str, owner: str) -> list[StoredMessage] | None:
        """Return the messages of a conversation; None if the owner has no such conversation."""
        with self._open() as database:
            return self._read(database, key, owner)

    def add_reply(
        self,
        key: str,
        outcome: Reply | PausedRun,
        *,
        question: str | None = None,
        resumed: PausedRun | None = None,
    ) -> None:
        """Append an answer with all its rounds.

        Of an interrupted answer, that is the part that was received.

        A paused run is stored with it, until `take_paused`. The answer of a `resumed` run continues the one that was
        paused. Nothing is appended if the conversation, or the `question` with this id, has been removed or replaced
        meanwhile.
        """
        messages = [StoredMessage.of_round(one) for one in new_rounds(outcome, resumed)]
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")
            if question is not None and not _has_question(database, key, question):
                return
            call_id = None if resumed is None else resumed.reply.tool_calls[0].id
            self._append(database, key, messages, in_place_of=call_id)
            if isinstance(outcome, PausedRun):
                database.execute(
                    "INSERT OR REPLACE INTO paused SELECT id, ?, ? FROM conversation WHERE id = ?",
                    (outcome.id, outcome.to_json(), key),
                )

    def paused(self, key: str, owner: str) -> PausedRun | None:
        """Return the paused run of a conversation, without removing it.

        None if no calls wait for a decision.
        """
        with self._open() as database:
            row = database.execute(
                "SELECT body FROM paused JOIN conversation ON id = conversation WHERE id = ? AND owner = ?",
                (key, owner),
            ).fetchone()
        return None if row is None else PausedRun.from_json(row[0])

    def take_paused(self, key: str, owner: str, run: str) -> PausedRun | None:
        """Return a paused run and remove it, so that it is resumed once.

        None if it no longer waits.

        Of several threads and processes, one gets it. If that one dies, the calls are lost rather than repeated.
        """
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")
            row = database.execute(
                "SELECT body FROM paused JOIN conversation ON id = conversation WHERE id = ? AND owner = ? AND run = ?",
                (key, owner, run),
            ).fetchone()
            database.execute("DELETE FROM paused WHERE conversation = ? AND run = ?", (key if row else None, run))
        return None if row is None else PausedRun.from_json(row[0])

    def rename(self, key: str, owner: str, title: str) -> bool:
        """Set the title of a conversation; False if the owner has no such conversation."""
        with self._open() as database:
            renamed = database.execute(
                "UPDATE conversation SET title = ? WHERE id = ? AND owner = ?", (storable_text(title), key, owner)
            )
            return bool(renamed.rowcount)

    def remove(self, key: str, owner: str) -> bool:
        """Remove a conversation; False if the owner has no such conversation."""
        with self._open() as database:
            return bool(database.execute("DELETE FROM conversation WHERE id = ? AND owner = ?", (key, owner)).rowcount)

    def _create(self, database: sqlite3.Connection, owner: str) -> str:
        key = secrets.token_urlsafe(12)
        database.execute("INSERT INTO conversation VALUES (?, ?, '', ?)", (key, owner, time.time()))
        return key

    def _read(self, database: sqlite3.Connection, key: str, owner: str) -> list[StoredMessage] | None:
        if not database.execute("SELECT 1 FROM conversation WHERE id = ? AND owner = ?", (key, owner)).fetchone():
            return None
        rows = database.execute("SELECT body FROM message WHERE conversation = ? ORDER BY position", (key,))
        return [msgspec.json.decode(body, type=StoredMessage) for (body,) in rows]

    def _append(
        self,
        database: sqlite3.Connection,
        key: str,
        messages: Iterable[StoredMessage],
        *,
        in_place_of: str | None = None,
    ) -> None:
        """Append messages; the first user message becomes the title.

        A removed conversation is not created again.

        The first message replaces the one with the call `in_place_of`, if there is one.
        """
        if not database.execute("SELECT 1 FROM conversation WHERE id = ?", (key,)).fetchone():
            return
        ((length,),) = database.execute("SELECT count(*) FROM message WHERE conversation = ?", (key,))
        positions = chain(_positions_with(database, key, in_place_of), count(length))
        for at, message in zip(positions, messages, strict=False):
            body = msgspec.json.encode(message).decode()
            database.execute("INSERT OR REPLACE INTO message VALUES (?, ?, ?)", (key, at, body))
            if message.role == "user":
                title = title_of(message.content)
                database.execute("UPDATE conversation SET title = ? WHERE id = ? AND title = ''", (title, key))
        database.execute("UPDATE conversation SET updated = ? WHERE id = ?", (time.time(), key))

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._lock, typed_errors(self._path):
            database = sqlite3.connect(self._path, timeout=self.timeout)
            try:
                database.execute("PRAGMA foreign_keys = ON")
                with database:
                    yield database
            finally:
                database.close()


def _before_question(messages: list[StoredMessage], index: int) -> list[StoredMessage]:
    """Return the messages before the question with an index, counted from 0.

    All of them if there is no such question.
    """
    questions = [at for at, message in enumerate(messages) if message.role == "user"]
    return messages[: questions[index]] if 0 <= index < len(questions) else messages


def _has_question(database: sqlite3.Connection, key: str, question: str) -> bool:
    sql = "SELECT 1 FROM message WHERE conversation = ? AND json_extract(body, '$.id') = ?"
    return database.execute(sql, (key, question)).fetchone() is not None


def _positions_with(database: sqlite3.Connection, key: str, call_id: str | None) -> list[int]:
    """Return the position of the message with a call, as a list of at most one."""
    if call_id is None:
        return []
    rows = database.execute("SELECT position, body FROM message WHERE conversation = ? ORDER BY position DESC", (key,))
    stored = ((at, msgspec.json.decode(body, type=StoredMessage)) for at, body in rows)
    return [at for at, message in stored if any(call.id == call_id for call in message.calls)][:1]
