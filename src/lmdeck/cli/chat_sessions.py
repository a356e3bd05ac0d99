"""Saved conversations of `lmdeck chat`: one JSON file each, readable by its owner only.

The newest hundred are kept.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from lmdeck._files import replace_file
from lmdeck._plans.history import History
from lmdeck._text import replace_lone_surrogates
from lmdeck.errors import ConfigurationError, FileWriteError

LIMIT = 100
TITLE_CHARS = 60
NAME = re.compile(r"[\w-]{1,60}", re.ASCII)


class ChatSession(NamedTuple):
    """A conversation with its name and model; `model` is None while the server chooses it."""

    name: str
    history: History = History()
    model: str | None = None

    @property
    def title(self) -> str:
        """The beginning of the first question."""
        questions = (message.content for message in self.history.messages if message.role == "user")
        return " ".join(str(next(questions, "")).split())[:TITLE_CHARS]

    def save(self) -> None:
        """Write the conversation to its file, and remove the oldest files over the limit.

        Raises:
            FileWriteError: The file or its folder cannot be written.
        """
        body = {
            "format": "lmdeck chat 1",
            "model": self.model,
            "messages": [message.to_dict() for message in self.history.messages],
        }
        folder = sessions_folder()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise FileWriteError(
                f"The folder {folder} cannot be created: {error.strerror}.",
                hint="Set LMDECK_CHATS_DIR to another folder, or use --no-save.",
            ) from error
        text = json.dumps(body, ensure_ascii=False, indent=1)
        replace_file(folder / f"{self.name}.json", replace_lone_surrogates(text).encode())
        for path in _files()[LIMIT:]:
            path.unlink(missing_ok=True)


def new_session() -> ChatSession:
    """Return an empty conversation, named after the time."""
    return ChatSession(datetime.now().astimezone().strftime("%Y-%m-%d-%H%M%S-") + f"{os.getpid() % 10000:04}")


def latest_session() -> ChatSession:
    """Return the conversation that was saved last.

    Raises:
        ConfigurationError: None is saved.
    """
    found = recent_sessions(1)
    if not found:
        raise ConfigurationError("No conversation is saved.", hint="Start one with `lmdeck chat`.")
    return found[0]


def recent_sessions(count: int) -> list[ChatSession]:
    """Return the newest conversations; unreadable files are skipped."""
    found: list[ChatSession] = []
    for path in _files()[:count]:
        with suppress(ConfigurationError):
            found.append(load_session(path.stem))
    return found


def load_session(name: str) -> ChatSession:
    """Return a saved conversation.

    Raises:
        ConfigurationError: There is none of this name, or its file cannot be read.
    """
    path = sessions_folder() / f"{name}.json"
    if not NAME.fullmatch(name) or not path.is_file():
        names = ", ".join(each.stem for each in _files()[:3])
        known = f"The last ones are: {names}. `/resume` in a chat lists more." if names else "None is saved yet."
        raise ConfigurationError(f"No conversation is named {name!r}.", hint=known)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The conversation {path} cannot be read: {error}.", hint="Check the file.") from error
    history = History.from_json(text)
    body = json.loads(text)
    model = body.get("model") if isinstance(body, dict) else None
    return ChatSession(name, history, model if isinstance(model, str) else None)


def sessions_folder() -> Path:
    """Return LMDECK_CHATS_DIR, or the folder for state files of this user on this platform."""
    if chosen := os.environ.get("LMDECK_CHATS_DIR"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return base / "lmdeck" / "chats"


def _files() -> list[Path]:
    """Return the files of the saved conversations, newest first."""
    found: list[tuple[float, Path]] = []
    for path in sessions_folder().glob("*.json"):
        with suppress(OSError):  # a link to nothing, or another chat removes the file at this moment
            status = path.stat()
            if stat.S_ISREG(status.st_mode):
                found.append((status.st_mtime, path))
    return [path for _, path in sorted(found, reverse=True)]
