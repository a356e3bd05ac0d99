"""The order of the answers: a queue, rules that look at the request, and what happens where neither has one."""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from lmdeck.testing.answers import Answer, PlannedCall, refusal
from lmdeck.testing.faults import find_fault

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Self

    from lmdeck.server.events import StopReason
    from lmdeck.testing.sent import SentRequest

    Predicate = Callable[[SentRequest], object]
    Scripted = Answer | Callable[[SentRequest], Answer | str]

__all__ = ["Rule", "Script", "Scripting"]

FinishReason = Literal["stop", "length", "tool_calls"]
_STOP_REASONS: dict[str, StopReason] = {
    "stop": "eosFound",
    "length": "maxPredictedTokensReached",
    "tool_calls": "toolCalls",
}
_FILLER = "Well begun is half done, as they say, and what was begun here goes on for a while. 世界 🙂"


class Scripting:
    """The words by which answers are scripted; each call adds one answer and gives back what it was called on."""

    _thought = ""

    def _add(self, answer: Scripted) -> None:
        raise NotImplementedError

    def answer(self, answer: Answer) -> Self:
        """Answer with a value made by hand."""
        thought, self._thought = self._thought, ""
        self._add(msgspec.structs.replace(answer, reasoning=thought + answer.reasoning) if thought else answer)
        return self

    def respond(self, make: Callable[[SentRequest], Answer | str]) -> Self:
        """Answer with what a function makes of the request: an `Answer`, or words."""
        self._add(make)
        return self

    def reply(
        self,
        content: str,
        *,
        reasoning: str = "",
        finish_reason: FinishReason | None = None,
        dialect: str | None = None,
        tokens_per_second: float | None = None,
        time_to_first_token: float | None = None,
        prompt_tokens: int | None = None,
        completion_tokens: int | None = None,
    ) -> Self:
        """Answer with words; `dialect` writes the reasoning into them, as models of that dialect do."""
        return self.answer(
            Answer(
                content=content,
                reasoning=reasoning,
                stop_reason=_STOP_REASONS[finish_reason] if finish_reason else None,
                dialect=dialect,
                tokens_per_second=tokens_per_second,
                time_to_first_token=time_to_first_token,
                prompt_tokens=prompt_tokens,
                completion_tokens=completion_tokens,
            )
        )

    def reasoning(self, text: str) -> Self:
        """Think first: what is scripted next begins with this reasoning."""
        self._thought += text
        return self

    def tool_call(self, name: str, /, *, dialect: str | None = None, content: str = "", **arguments: object) -> Self:
        """Call a tool: natively, or written into the text as a model of that dialect writes it."""
        return self.tool_calls([(name, arguments)], dialect=dialect, content=content)

    def tool_calls(
        self, calls: Sequence[tuple[str, Mapping[str, Any] | str]], *, dialect: str | None = None, content: str = ""
    ) -> Self:
        """Call several tools in one answer; arguments given as text are sent as they are, broken or not."""
        planned = tuple(PlannedCall(name=name, arguments=arguments) for name, arguments in calls)
        return self.answer(Answer(content=content, calls=planned, dialect=dialect))

    def server_tool(self, name: str, /, output: str, *, then: str, provider: str = "fake", **arguments: object) -> Self:
        """Let the server call a tool by itself, as it does for plugins (`provider="mcp/…"`) and MCP servers, and then speak."""
        call = PlannedCall(name=name, arguments=arguments, output=output, provider=provider)
        return self.answer(Answer(calls=(call,), content=then))

    def json(self, value: object) -> Self:
        """Answer with a value as JSON text."""
        return self.answer(Answer(content=json.dumps(value, ensure_ascii=False)))

    def from_schema(self) -> Self:
        """Answer with a value that fits the schema of the request, or with arguments that fit a tool it requires."""
        return self.answer(Answer(from_schema=True))

    def error(self, status: int = 500, message: str = "The server had a problem.", *, body: object = None) -> Self:
        """Refuse with this status; `body` None writes the message in the form of the endpoint that was asked."""
        return self.answer(Answer(refusal=refusal(status, message, body=body)))

    def fail(self, fault: str, /, *, reply: str | Answer = _FILLER, **options: object) -> Self:
        """Let the next answer fail in a way that `FakeLMStudio.faults()` lists; `reply` is what it would have been.

        Raises:
            ConfigurationError: There is no fault of that name, or it has no such option.
        """
        find_fault(fault).check(options)
        answer = reply if isinstance(reply, Answer) else Answer(content=reply)
        return self.answer(msgspec.structs.replace(answer, fault=fault, fault_options=options))


class Rule(Scripting):
    """Answers for requests that fit: one after the other, the last of them again and again."""

    def __init__(self, fits: Predicate) -> None:
        self.fits = fits
        self._answers: deque[Scripted] = deque()

    def _add(self, answer: Scripted) -> None:
        self._answers.append(answer)

    def next(self) -> Scripted | None:
        """Give the next answer; None where none was scripted yet."""
        if len(self._answers) > 1:
            return self._answers.popleft()
        return self._answers[0] if self._answers else None


class Script(Scripting):
    """All answers of a fake."""

    def __init__(self) -> None:
        self.queue: deque[Scripted] = deque()
        self.rules: list[Rule] = []
        self.always: str | None = None
        self.again: list[Scripted] = []

    def _add(self, answer: Scripted) -> None:
        self.queue.append(answer)

    def when(self, fits: Predicate) -> Rule:
        """Script the answers for requests that fit, which go before the queue."""
        rule = Rule(fits)
        self.rules.append(rule)
        return rule

    def take(self, request: SentRequest) -> Answer | None:
        """Give the answer to a request; None where there is none."""
        scripted = self._next(request)
        if scripted is None or isinstance(scripted, Answer):
            return scripted
        made = scripted(request)
        return Answer(content=made) if isinstance(made, str) else made

    def _next(self, request: SentRequest) -> Scripted | None:
        for rule in self.rules:
            if rule.fits(request) and (answer := rule.next()) is not None:
                return answer
        if not self.queue:
            self.queue.extend(self.again)
        return self.queue.popleft() if self.queue else None
