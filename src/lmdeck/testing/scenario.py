"""Scenario files: a script as TOML, for applications in any language.

```toml
seed = 1
strict = false

[[model]]
key = "qwen2.5-7b-instruct"

[[answer]]
when = "weather"                       # the last user message contains this
tool_call = { name = "get_weather", arguments = { city = "Paris" } }

[[answer]]
when = "weather"                       # with the tool's result
reply = "It is warm in Paris."

[[answer]]
reply = "Hello"

[[answer]]
fail = "reset"
after_chunks = 3
```
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from lmdeck._parsing.dialects import dialect_named
from lmdeck.errors import ConfigurationError
from lmdeck.testing.fake import FakeLMStudio
from lmdeck.testing.faults import find_fault
from lmdeck.testing.received_requests import SentRequest
from lmdeck.testing.scripted_answers import Answer, PlannedCall, refusal
from lmdeck.testing.scripting import FILLER


class _ToolCallEntry(Struct, forbid_unknown_fields=True, kw_only=True):
    name: str
    arguments: dict[str, Any] | str = {}


class _ModelEntry(Struct, forbid_unknown_fields=True, kw_only=True):
    key: str
    type: str = "llm"
    loaded: bool = True
    load_seconds: float = 0.0
    context_length: int = 4096
    max_context_length: int = 32768
    parallel: int = 4
    refuses_to_load: str | None = None


class _AnswerEntry(Struct, forbid_unknown_fields=True, kw_only=True):
    when: str | None = None
    reply: str = ""
    reasoning: str = ""
    json: Any = None
    tool_call: _ToolCallEntry | None = None
    tool_calls: list[_ToolCallEntry] = []
    dialect: str | None = None
    error: int | None = None
    message: str = "The server had a problem."
    fail: str | None = None
    from_schema: bool = False
    tokens_per_second: float | None = None
    time_to_first_token: float | None = None
    after_chunks: int | None = None
    seconds: float | None = None
    retry_after: int | None = None

    def answer(self) -> Answer:
        """Return the answer that the entry describes."""
        if self.dialect is not None:
            dialect_named(self.dialect)
        calls = [*([self.tool_call] if self.tool_call else []), *self.tool_calls]
        options = {
            name: value
            for name in ("after_chunks", "seconds", "retry_after")
            if (value := getattr(self, name)) is not None
        }
        if self.fail is not None:
            find_fault(self.fail).check(options)
        return Answer(
            content=self._content(),
            reasoning=self.reasoning,
            calls=tuple(PlannedCall(name=call.name, arguments=call.arguments) for call in calls),
            dialect=self.dialect,
            refusal=None if self.error is None else refusal(self.error, self.message),
            fault=self.fail,
            fault_options=options,
            from_schema=self.from_schema,
            tokens_per_second=self.tokens_per_second,
            time_to_first_token=self.time_to_first_token,
        )

    def _content(self) -> str:
        """Return the text of the answer; if there is only a fault, a filler text that it can cut."""
        if self.json is not None:
            return msgspec.json.encode(self.json).decode()
        has_answer = self.reply or self.reasoning or self.tool_call or self.tool_calls or self.from_schema
        return FILLER if self.fail is not None and not has_answer else self.reply


class Scenario(Struct, forbid_unknown_fields=True, kw_only=True):
    """A scenario file.

    Without `strict`, a request without a scripted answer gets its own text back.
    """

    seed: int = 0
    strict: bool = False
    cuts: bool = True
    repeat: bool = False
    tokens_per_second: float | None = None
    time_to_first_token: float = 0.0
    api_token: str | None = None
    jit: bool = True
    model: list[_ModelEntry] = []
    answer: list[_AnswerEntry] = []

    def fake(self, *, host: str = "127.0.0.1", port: int = 0, allowed_hosts: Iterable[str] = ()) -> FakeLMStudio:
        """Return the fake that the scenario describes, not yet started.

        Raises:
            ConfigurationError: An answer is invalid.
        """
        fake = FakeLMStudio(
            seed=self.seed,
            strict=self.strict,
            cuts=self.cuts,
            tokens_per_second=self.tokens_per_second,
            time_to_first_token=self.time_to_first_token,
            api_token=self.api_token,
            host=host,
            port=port,
            allowed_hosts=allowed_hosts,
        )
        for model in self.model:
            fake.add_model(**msgspec.structs.asdict(model))
        if not self.jit:
            fake.turn_off_jit()
        self.script(fake)
        return fake

    def script(self, fake: FakeLMStudio) -> None:
        """Add the answers to a fake's script; with `repeat`, they restart when all are used."""
        for entry in self.answer:
            if entry.when is None:
                fake.answer(entry.answer())
            else:
                answer = entry.answer()
                fake.when(_user_says(entry.when, calls=bool(answer.calls))).answer(answer)
        if self.repeat:
            fake.repeat()


def _user_says(words: str, *, calls: bool) -> Callable[[SentRequest], bool]:
    """Return a condition: the last user message contains `words`.

    The result of a call is not answered by the same call again.
    """
    return lambda request: words.lower() in request.last_user.lower() and not (calls and request.brings_tool_result)


def load_scenario(path: str | Path) -> Scenario:
    """Read a scenario file.

    Raises:
        ConfigurationError: It cannot be read, is not TOML, or has an unknown field.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        return msgspec.convert(tomllib.loads(text), Scenario)
    except OSError as error:
        raise ConfigurationError(
            f"The scenario {path} cannot be read: {error.strerror}.", hint="Check the path."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(
            f"The scenario {path} is not TOML: {error}.", hint="Correct the line that it names."
        ) from error
    except msgspec.ValidationError as error:
        raise ConfigurationError(
            f"The scenario {path} is not valid: {error}.", hint="`lmdeck fake --help` shows an example."
        ) from error
