"""The script of a fake: methods that add answers, the queue, and rules for requests."""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from lmdeck.testing.faults import find_fault
from lmdeck.testing.raw import RawAnswer
from lmdeck.testing.scripted_answers import Answer, PlannedCall, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Self

    from lmdeck._encoders.backend_events import StopReason
    from lmdeck.testing.received_requests import SentRequest

    Predicate = Callable[[SentRequest], object]
    Made = Answer | RawAnswer | str
    Scripted = Answer | RawAnswer | Callable[[SentRequest], Made]

FinishReason = Literal["stop", "length", "tool_calls"]
_STOP_REASONS: dict[str, StopReason] = {
    "stop": "eosFound",
    "length": "maxPredictedTokensReached",
    "tool_calls": "toolCalls",
}
FILLER = "Well begun is half done, as they say, and what was begun here goes on for a while. 世界 🙂"


class Scripting:
    """The methods that script answers; each adds one answer and returns `self`."""

    _pending_reasoning = ""

    def _add(self, answer: Scripted) -> None:
        raise NotImplementedError

    def answer(self, answer: Answer | RawAnswer) -> Self:
        """Answer with an `Answer` or a `RawAnswer`."""
        if isinstance(answer, RawAnswer):
            self._add(answer)
            return self
        reasoning, self._pending_reasoning = self._pending_reasoning, ""
        self._add(msgspec.structs.replace(answer, reasoning=reasoning + answer.reasoning) if reasoning else answer)
        return self

    def respond(self, make: Callable[[SentRequest], Made]) -> Self:
        """Answer with the result of a function of the request: an `Answer`, a `RawAnswer`, or text."""
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
        """Answer with text; `dialect` writes the reasoning into it, as a model of that dialect does."""
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
        """Precede the next scripted answer with this reasoning."""
        self._pending_reasoning += text
        return self

    def tool_call(self, name: str, /, *, dialect: str | None = None, content: str = "", **arguments: object) -> Self:
        """Call a tool natively, or in the text as a model of `dialect` does."""
        return self.tool_calls([(name, arguments)], dialect=dialect, content=content)

    def tool_calls(
        self, calls: Sequence[tuple[str, Mapping[str, Any] | str]], *, dialect: str | None = None, content: str = ""
    ) -> Self:
        """Call several tools in one answer.

        Arguments that are a string are sent unchanged, valid JSON or not.
        """
        planned = tuple(PlannedCall(name=name, arguments=arguments) for name, arguments in calls)
        return self.answer(Answer(content=content, calls=planned, dialect=dialect))

    def server_tool(self, name: str, /, output: str, *, then: str, provider: str = "fake", **arguments: object) -> Self:
        """Answer with a tool that the server runs, then with `then`.

        `provider` is a plugin, `"mcp/…"`, or an MCP server.
        """
        call = PlannedCall(name=name, arguments=arguments, output=output, provider=provider)
        return self.answer(Answer(calls=(call,), content=then))

    def json(self, value: object) -> Self:
        """Answer with a value as JSON text."""
        return self.answer(Answer(content=json.dumps(value, ensure_ascii=False)))

    def from_schema(self) -> Self:
        """Answer with a value that matches the schema of the request.

        For a required tool, the value is its arguments.
        """
        return self.answer(Answer(from_schema=True))

    def decides(self, **answers: float | str | bool | Mapping[str, float] | None) -> Self:
        """Answer typed questions by their names.

        A value is the probability of a predicate, the probabilities of options by their labels, the one option that is certain,
        or None to decline. A question that is not named gets the same probability for each option.
        """
        return self.answer(Answer(decisions=answers))

    def error(self, status: int = 500, message: str = "The server had a problem.", *, body: object = None) -> Self:
        """Refuse with a status.

        If `body` is None, the message is sent in the error format of the endpoint.
        """
        return self.answer(Answer(refusal=refusal(status, message, body=body)))

    def raw(
        self,
        *steps: bytes | float,
        status: int = 200,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> Self:
        """Answer with exactly these bytes, each piece sent separately.

        A number is a wait in seconds.
        """
        return self.answer(RawAnswer(steps, status, {"content-type": content_type, **(headers or {})}))

    def body(self, value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Self:
        """Answer with exactly this JSON body, whatever was requested."""
        return self.answer(RawAnswer.json(value, status, headers))

    def frames(self, *frames: object, done: bool = True) -> Self:
        """Answer with exactly these JSON values as the events of a stream.

        A number is a wait in seconds.

        `[DONE]` ends the stream, unless its events have a `type` or `done` is False.
        """
        return self.answer(RawAnswer.frames(*frames, done=done))

    def fail(self, fault: str, /, *, reply: str | Answer = FILLER, **options: object) -> Self:
        """Inject one of `FakeLMStudio.faults()` into the next answer.

        Without the fault, the answer would be `reply`.

        Raises:
            ConfigurationError: There is no such fault, or it has no such option.
        """
        find_fault(fault).check(options)
        answer = reply if isinstance(reply, Answer) else Answer(content=reply)
        return self.answer(msgspec.structs.replace(answer, fault=fault, fault_options=options))


class Rule(Scripting):
    """Answers for matching requests, in order; the last one is repeated.

    `anywhere` is whether it also matches requests that do not need a model, such as model lists.
    """

    def __init__(self, fits: Predicate, *, anywhere: bool = False) -> None:
        self._fits = fits
        self.anywhere = anywhere
        self._answers: deque[Scripted] = deque()

    def _add(self, answer: Scripted) -> None:
        self._answers.append(answer)

    def has_answer_to(self, request: SentRequest) -> bool:
        """Whether this rule has an answer to a request."""
        return bool(self._answers) and (self.anywhere or request.wants_answer) and bool(self._fits(request))

    def peek(self) -> Scripted:
        """Return the next answer without removing it."""
        return self._answers[0]

    def next(self) -> Scripted:
        """Return the next answer, and remove it unless it is the last."""
        return self._answers.popleft() if len(self._answers) > 1 else self._answers[0]


class Script:
    """All scripted answers of a fake: the queue and the rules; None stands for the queue."""

    def __init__(self) -> None:
        self.queue: deque[Scripted] = deque()
        self.rules: list[Rule] = []
        self.always: str | None = None
        self.again: list[Scripted] = []

    def add(self, answer: Scripted) -> None:
        """Append an answer to the queue."""
        self.queue.append(answer)

    def rule(self, fits: Predicate, *, anywhere: bool = False) -> Rule:
        """Add a rule, which takes precedence over the queue."""
        rule = Rule(fits, anywhere=anywhere)
        self.rules.append(rule)
        return rule

    def rule_for(self, request: SentRequest) -> Rule | None:
        """Return the first rule that has an answer to a request."""
        return next((rule for rule in self.rules if rule.has_answer_to(request)), None)

    def peek(self, rule: Rule | None) -> Scripted | None:
        """Return the next answer of a rule or of the queue without removing it."""
        if rule is not None:
            return rule.peek()
        if not self.queue:
            self.queue.extend(self.again)
        return self.queue[0] if self.queue else None

    def take(self, request: SentRequest, rule: Rule | None) -> Answer | RawAnswer | None:
        """Return the answer to a request, and remove it; None if there is none."""
        scripted = self.peek(rule)
        if scripted is not None:
            scripted = self.queue.popleft() if rule is None else rule.next()
        if scripted is None or isinstance(scripted, Answer | RawAnswer):
            return scripted
        made = scripted(request)
        return Answer(content=made) if isinstance(made, str) else made

    def bypass_server(self, request: SentRequest, rule: Rule | None) -> Answer | RawAnswer | None:
        """Return the answer that bypasses the server.

        It consists of raw bytes, or answers a request without a model.
        """
        if request.wants_answer:
            return self.take(request, rule) if isinstance(self.peek(rule), RawAnswer) else None
        return None if rule is None else self.take(request, rule)
