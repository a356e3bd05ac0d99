"""From the wire's chunks to the user's: content, reasoning, tool calls, and at the end the reply.

An answer is complete only with a finish reason or `[DONE]`; anything else is an error that carries the partial reply. A body
that was not streamed is one big chunk and takes the same way, so both give the same `Reply`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

import msgspec

from lmdeck._limits import DEFAULT_LIMITS, Limits
from lmdeck._parsing.call_ids import new_call_id
from lmdeck._parsing.offered_tools import Toolbox
from lmdeck._parsing.text_buffer import GrowingText
from lmdeck._streaming.logprobs import LOGPROBS_MISSING, read_logprobs
from lmdeck._streaming.mixed_calls import MixedCalls
from lmdeck._streaming.tool_call_slots import ToolSlots
from lmdeck._streaming.wire_chunks import Choice, Completion, Delta, content_text, lenient, speed_in, usage_in
from lmdeck.errors import EmptyReplyError, IncompleteStreamError, ToolCallParseError
from lmdeck.events import Chunk
from lmdeck.messages import ModelDetails, Problem, Reply, Runtime, TokenLogprob
from lmdeck.stats import Stats, Usage

__all__ = ["ChatAssembler", "TextParser"]

T = TypeVar("T", bound=msgspec.Struct)
USED_UP = (
    "The model used all the tokens it was allowed for its reasoning and gave no answer: raise `max_tokens`, or ask for less "
    "reasoning."
)


class TextParser(Protocol):
    """The seam for calls and reasoning that the model writes into its text.

    Content goes through it before the user sees it; what it recognises it gives as chunks of its own. The assembler keeps
    the calls of such chunks beside the native ones.
    """

    def read_whole(self, text: str) -> list[Chunk]:
        """Read an answer that came in one piece."""
        ...

    def feed_into(self, text: str, chunks: list[Chunk]) -> None:
        """Read new text and add to `chunks` what is certain."""
        ...

    def think(self, text: str, chunks: list[Chunk]) -> None:
        """Read new text of the server's own reasoning channel and add to `chunks` what is certain."""
        ...

    def finish(self, *, answered: bool = False) -> Iterable[Chunk]:
        """Read the end of the text and give the rest; with `answered`, calls in the reasoning do not count."""
        ...

    @property
    def content(self) -> GrowingText:
        """The content so far."""
        ...

    @property
    def reasoning(self) -> GrowingText:
        """The reasoning so far."""
        ...

    @property
    def problems(self) -> list[Problem]:
        """What was repaired or left as text."""
        ...


class ChatAssembler:
    """Put one answer of `/v1/chat/completions` together."""

    def __init__(
        self,
        *,
        strict: bool = False,
        expects_tokens: bool = True,
        expects_logprobs: bool = False,
        expects_one_call: bool = False,
        text_parser: TextParser | None = None,
        tools: Iterable[Any] = (),
        problems: Iterable[Problem] = (),
        model: str = "",
        limits: Limits = DEFAULT_LIMITS,
        new_id: Callable[[], str] = new_call_id,
    ) -> None:
        self._strict = strict
        self._expects_tokens = expects_tokens
        self._expects_logprobs = expects_logprobs
        self._expects_one_call = expects_one_call
        self._text_parser = text_parser
        self._tools = tuple(tools)
        self._toolbox = Toolbox(self._tools)
        self._slots = ToolSlots(limits, new_id, self._toolbox)
        self._mixed = MixedCalls(self._toolbox)
        self._content = text_parser.content if text_parser else GrowingText()
        self._reasoning = text_parser.reasoning if text_parser else GrowingText()
        self._problems = list(problems)
        self._finish_reason = ""
        self._done = False
        self._is_whole = False
        self._id = ""
        self._asked_model = model
        self._model = ""
        self._choice: int | None = None
        self._has_choice = False
        self._has_head = False
        self._usage: Usage | None = None
        self._stats: dict[str, Any] = {}
        self._model_info: ModelDetails | None = None
        self._runtime: Runtime | None = None
        self._logprobs: list[TokenLogprob] = []

    @property
    def is_complete(self) -> bool:
        """Tell whether the answer has a finish reason, or its end mark came."""
        return bool(self._finish_reason) or self._done

    def feed(self, completion: Completion, chunks: list[Chunk]) -> None:
        """Read one of the wire's chunks, or a whole body, and add what happened in it to `chunks`."""
        if not self._has_head:
            self._read_head(completion)
        choices = completion.choices
        if not choices:
            self._read_figures(completion)
            return
        choice = choices[0]
        if (
            len(choices) == 1
            and choice.index == self._choice
            and not self._finish_reason
            and (text := _only_text(choice))
        ):
            self._is_whole = False
            self._read_content(text, chunks)
            return
        for choice in choices:
            if choice.index != self._choice:
                self._note_once("extra_choice", "The server sent more than one choice; only the first is used.")
                continue
            delta = choice.delta or choice.message
            first = len(chunks)
            if delta is not None:
                self._is_whole = choice.delta is None
                self._read_delta(delta, chunks)
            if choice.logprobs is not None:
                self._read_logprobs(choice.logprobs, chunks, first)
            if choice.finish_reason:
                self._read_figures(completion)
                self._finish(choice.finish_reason, chunks)
            elif self._finish_reason:  # some gateways send the usage last, beside an empty delta
                self._read_figures(completion)

    @property
    def is_in_call(self) -> bool:
        """Whether a native call has begun and the answer has not ended."""
        return bool(self._slots) and not self._finish_reason

    @property
    def is_done(self) -> bool:
        """Tell whether the end mark came."""
        return self._done

    def done(self) -> None:
        """Read the end mark, `[DONE]`."""
        self._done = True

    def note(self, problem: Problem) -> None:
        """Add a problem to the reply."""
        self._problems.append(problem)

    def close(self) -> list[Chunk]:
        """Read the end of the answer.

        Raises:
            IncompleteStreamError: There was neither finish reason nor end mark.
            EmptyReplyError: The answer is whole and empty.
            ToolCallParseError: With `strict`, a call could not be read.
        """
        chunks: list[Chunk] = []
        if not self.is_complete:
            raise IncompleteStreamError("The stream ended without a finish reason or [DONE].", partial=self.partial())
        if not self._finish_reason:
            self._finish("stop", chunks)
        self._take_native(chunks)  # whose deltas came after the finish reason
        if self._expects_logprobs and not self._logprobs:
            self._note_once("logprobs_missing", LOGPROBS_MISSING)
        if self._expects_one_call and len(self._mixed.made) > 1:
            self._note_once(
                "parallel_calls", f"The answer has {len(self._mixed.made)} calls though only one was allowed."
            )
        reply = self.reply()
        if self._strict:
            self._refuse_unread_calls(reply)
        if reply.finish_reason == "length" and reply.reasoning and not (reply.content or reply.tool_calls):
            self._note_once("reasoning_used_budget", USED_UP)
            reply = self.reply()
        is_empty = not (reply.content or reply.reasoning or reply.tool_calls or _lost_calls(reply))
        if is_empty and self._expects_tokens:
            raise EmptyReplyError(f"The server's answer is empty ({_why_empty(reply)}).", partial=reply)
        return chunks

    def partial(self) -> Reply:
        """Give the reply as far as it has come: whole calls only."""
        if not self._finish_reason and self._slots:
            calls, problems = self._slots.read(truncated=True)
            return msgspec.structs.replace(
                self.reply(), tool_calls=[*self._mixed.made, *calls], problems=self._problems + problems
            )
        return self.reply()

    def reply(self) -> Reply:
        """Give what has been put together."""
        return Reply(
            content=self._content.getvalue().strip(),
            reasoning=self._reasoning.getvalue().strip(),
            tool_calls=self._mixed.made,
            finish_reason="tool_calls" if self._mixed.made and self._finish_reason else self._finish_reason,
            model=self._model or self._asked_model,
            id=self._id,
            usage=self._usage,
            stats=_convert(self._stats, Stats),
            problems=[
                *self._problems,
                *self._mixed.problems,
                *(self._text_parser.problems if self._text_parser else ()),
            ],
            model_info=self._model_info,
            runtime=self._runtime,
            logprobs=list(self._logprobs),
        )

    def _read_head(self, completion: Completion) -> None:
        """Take id and model from the first chunk that has them, and the choice to follow from the first that has one."""
        self._id = self._id or completion.id or ""
        self._model = self._model or completion.model or ""
        if completion.choices and not self._has_choice:
            self._choice, self._has_choice = completion.choices[0].index, True
        self._has_head = bool(self._has_choice and self._id and self._model)

    def _read_delta(self, delta: Delta, chunks: list[Chunk]) -> None:
        if reasoning := delta.reasoning_content or delta.reasoning:
            self._read_reasoning(reasoning, chunks)
        if content := delta.content:
            self._read_content(content if isinstance(content, str) else content_text(content), chunks)
        if delta.refusal:
            self._note_once("refusal", "The model declined; its words are in the content.")
            self._read_content(delta.refusal, chunks)
        for tool_delta in delta.tool_calls or ():
            new = self._slots.feed(tool_delta)
            if new is not None:
                self._mixed.announce(new, chunks, embedded=False)

    def _read_logprobs(self, given: object, chunks: list[Chunk], first: int) -> None:
        """Keep the tokens' probabilities, and hand them on with the first chunk that they brought."""
        read = read_logprobs(given)
        if not read:
            return
        self._logprobs += read
        if len(chunks) > first:
            chunks[first] = msgspec.structs.replace(chunks[first], logprobs=read)
        else:
            chunks.append(Chunk(logprobs=read))

    def _read_reasoning(self, text: str, chunks: list[Chunk]) -> None:
        if self._text_parser is not None:
            self._text_parser.think(text, chunks)
        else:
            self._reasoning.write(text)
            chunks.append(Chunk("", text))

    def _read_content(self, text: str, chunks: list[Chunk]) -> None:
        parser, first = self._text_parser, len(chunks)
        if parser is None:
            self._content.write(text)
            chunks.append(Chunk(text))
        elif self._is_whole:
            chunks += parser.read_whole(text)
            self._count_calls(chunks, first)
        else:
            parser.feed_into(text, chunks)
            if len(chunks) > first + 1 or (len(chunks) > first and not chunks[-1].content):
                self._count_calls(chunks, first)

    def _count_calls(self, chunks: list[Chunk], first: int) -> None:
        """Count the calls that the text brought from a chunk on together with native ones."""
        if all(chunk.tool_call is None and chunk.tool_call_delta is None for chunk in chunks[first:]):
            return
        new = chunks[first:]
        del chunks[first:]
        for chunk in new:
            if chunk.tool_call is not None:
                self._mixed.take_embedded(chunk.tool_call, chunks)
            elif chunk.tool_call_delta is not None:
                self._mixed.announce(chunk.tool_call_delta, chunks, embedded=True)
            else:
                chunks.append(chunk)

    def _finish(self, reason: str, chunks: list[Chunk]) -> None:
        """Read a finish reason: from here on every call is whole, or never will be."""
        if self._finish_reason:
            return
        first = len(chunks)
        if self._text_parser is not None:
            chunks += self._text_parser.finish(answered=bool(self._slots))
            self._count_calls(chunks, first)
        self._take_native(chunks, truncated=reason == "length")
        self._finish_reason = reason
        chunks.append(Chunk("", "", None, None, "tool_calls" if self._mixed.made else reason))

    def _read_figures(self, completion: Completion) -> None:
        if completion.usage:
            usage = lenient(completion.usage)
            self._usage = _convert(usage_in(usage), Usage) if usage else self._usage
        if completion.timings:
            self._stats = {**speed_in(lenient(completion.timings)), **self._stats}
        if completion.stats:
            self._stats = lenient(completion.stats) or self._stats
        if completion.model_info:
            self._model_info = _convert(lenient(completion.model_info), ModelDetails)
        if completion.runtime:
            self._runtime = _convert(lenient(completion.runtime), Runtime)

    def _refuse_unread_calls(self, reply: Reply) -> None:
        for problem in _lost_calls(reply):
            raise ToolCallParseError(problem.detail, raw=problem.raw or problem.detail, partial=reply)

    def _take_native(self, chunks: list[Chunk], *, truncated: bool = False) -> None:
        """Take the native calls that are whole now."""
        calls, problems = self._slots.finish(truncated=truncated)
        self._mixed.take_native(calls, chunks)
        self._problems += problems
        for call in calls:
            if self._toolbox and self._toolbox.resolve(call.name) is None:
                self._note_once("unoffered_tool", f"The server called {call.name!r}, a tool that was not offered.")

    def _note_once(self, code: str, detail: str) -> None:
        problem = Problem(code, detail)
        if problem not in self._problems:
            self._problems.append(problem)


def _only_text(choice: Choice) -> str:
    """Return the text of a streamed choice that holds nothing else, as most do; `""` where it does."""
    delta = choice.delta
    if (
        delta is None
        or choice.finish_reason is not None
        or choice.logprobs is not None
        or delta.tool_calls is not None
        or delta.reasoning_content is not None
        or delta.reasoning is not None
        or delta.refusal is not None
    ):
        return ""
    return delta.content if isinstance(delta.content, str) else ""


def _convert(given: dict[str, Any], shape: type[T]) -> T:
    """Read figures leniently: a field of the wrong type is left out rather than losing the answer."""
    try:
        return msgspec.convert(given, shape, strict=False)
    except msgspec.ValidationError:
        return _convert_each(given, shape)


def _convert_each(given: dict[str, Any], shape: type[T]) -> T:
    kept = {}
    for name, value in given.items():
        try:
            msgspec.convert({name: value}, shape, strict=False)
        except msgspec.ValidationError:
            continue
        kept[name] = value
    return msgspec.convert(kept, shape, strict=False)


def _lost_calls(reply: Reply) -> list[Problem]:
    return [problem for problem in reply.problems if problem.code.startswith("tool_call_")]


def _why_empty(reply: Reply) -> str:
    figures = [f"finish reason {reply.finish_reason!r}"]
    if reply.usage:
        figures.append(f"{reply.usage.prompt_tokens} prompt tokens, {reply.usage.completion_tokens} completion tokens")
    return ", ".join(figures)
