"""The JSON of a paused run."""

from __future__ import annotations

from typing import Any, Self

import msgspec
from msgspec import Struct

from lmdeck._agent.approvals import Decision
from lmdeck._text import replace_lone_surrogates
from lmdeck.errors import ConfigurationError, ToolExecutionError
from lmdeck.messages import Message, Problem, Reply, Round, ServerCall, ToolCall, ToolResult
from lmdeck.stats import Stats, Usage

FORMAT = "lmdeck paused run 1"


class StoredReply(Struct, kw_only=True, omit_defaults=True):
    """The fields of a reply that a run needs to continue, and to report at its end."""

    content: str = ""
    reasoning: str = ""
    tool_calls: list[ToolCall] = []
    finish_reason: str = ""
    model: str = ""
    id: str = ""
    usage: Usage | None = None
    stats: Stats = Stats()
    problems: list[Problem] = []
    server_calls: list[ServerCall] = []

    @classmethod
    def of(cls, reply: Reply) -> Self:
        """Return the stored form of a reply."""
        return cls(**{name: getattr(reply, name) for name in cls.__struct_fields__})

    def reply(self) -> Reply:
        """Return the reply."""
        return Reply(**{name: getattr(self, name) for name in self.__struct_fields__})


class StoredResult(Struct, kw_only=True, omit_defaults=True):
    """A tool's result without the handler's value, which JSON may not represent."""

    call: ToolCall
    content: str
    error: str | None = None
    repeated: bool = False
    seconds: float = 0.0
    problems: list[Problem] = []
    images: list[str] = []

    @classmethod
    def of(cls, result: ToolResult) -> Self:
        """Return the stored form of a result."""
        error = None if result.error is None else result.error.message
        fields = {name: getattr(result, name) for name in cls.__struct_fields__ if name != "error"}
        return cls(error=error, **fields)

    def result(self) -> ToolResult:
        """Return the result."""
        error = None if self.error is None else ToolExecutionError(self.error)
        fields: dict[str, Any] = {name: getattr(self, name) for name in self.__struct_fields__ if name != "error"}
        return ToolResult(error=error, **fields)


class StoredRound(Struct):
    """A finished round."""

    reply: StoredReply
    results: list[StoredResult]

    @classmethod
    def of(cls, one: Round) -> Self:
        """Return the stored form of a round."""
        return cls(StoredReply.of(one.reply), [StoredResult.of(each) for each in one.results])

    def round(self) -> Round:
        """Return the round."""
        return Round(reply=self.reply.reply(), results=[result.result() for result in self.results])


class StoredRun(Struct, kw_only=True):
    """The JSON of a paused run."""

    format: str
    id: str
    model: str | None
    messages: list[dict[str, Any]]
    rounds: list[StoredRound]
    reply: StoredReply
    decided: dict[str, Decision]
    waiting: list[str]

    @classmethod
    def of(cls, *, messages: list[Message], rounds: list[Round], reply: Reply, **rest: Any) -> Self:
        """Return the stored form of a run's fields."""
        return cls(
            format=FORMAT,
            messages=[message.to_dict() for message in messages],
            rounds=[StoredRound.of(one) for one in rounds],
            reply=StoredReply.of(reply),
            **rest,
        )

    def to_json(self) -> str:
        """Return the run as JSON text."""
        return replace_lone_surrogates(msgspec.json.encode(self).decode())

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read a run from JSON text.

        Raises:
            ConfigurationError: The text is not a paused run, or is one of another version.
        """
        try:
            stored = msgspec.json.decode(text, type=cls)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise ConfigurationError(
                f"This is not a paused run: {error}.", hint="Pass the output of `to_json`."
            ) from error
        if stored.format != FORMAT:
            raise ConfigurationError(
                f"The paused run has the format {stored.format!r}, not {FORMAT!r}.",
                hint="Resume it with the version of lmdeck that wrote it.",
            )
        return stored

    def fields(self) -> dict[str, Any]:
        """Return the fields of the run."""
        return {
            "id": self.id,
            "model": self.model,
            "messages": [Message.from_dict(message) for message in self.messages],
            "rounds": [one.round() for one in self.rounds],
            "reply": self.reply.reply(),
            "decided": self.decided,
            "waiting": self.waiting,
        }
