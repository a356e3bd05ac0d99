"""Assemble the chunks of the server into chunks for the user and, at the end, the reply.

An answer is complete with a finish reason or `[DONE]`; without either, an error with the partial reply is raised. A body that
was not streamed is read as one large chunk, so both have the same `Reply`. The finish reason and the end mark move an answer
from stage to stage, as `NEXT` defines.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from enum import Enum, auto
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec
from msgspec import UNSET, UnsetType

from lmdeck._chunks import Chunk
from lmdeck._limits import DEFAULT_LIMITS, Limits
from lmdeck._parsing.call_ids import new_call_id
from lmdeck._parsing.offered_tools import NO_TOOLS, OfferedTools
from lmdeck._parsing.text_buffer import TextBuffer
from lmdeck._responses.figures import ENDED_EARLY, Figures
from lmdeck._streaming.wire_chunks import Choice, Delta, WireCompletion, content_text
from lmdeck.errors import EmptyReplyError, IncompleteStreamError, ToolCallMissingError, ToolCallParseError
from lmdeck.messages import TOOL_CALL_ANNOUNCED, Problem, Reply, TokenLogprob

if TYPE_CHECKING:
    from lmdeck._streaming.mixed_calls import MixedCalls
    from lmdeck._streaming.tool_call_slots import ToolCallSlots

TOOL_CALL_MISSING = "`tool_choice` demanded a tool call, but the model did not make one."
CALL_REASONS = ("tool_calls", "function_call")
NO_REASONS = ("None", "null")  # written as text in every chunk by SGLang (vercel/ai #2548)
TEXT_LATE = "Text arrived after the finish reason."
REASONING_USED_BUDGET = (
    "The model used all its tokens for reasoning and wrote no answer: raise `max_tokens`, or ask for less reasoning."
)
INTERNAL_MARK = "__LM_STUDIO_INTERNAL_"
MARK_DROPPED = (
    "LM Studio left its mark of the end of the reasoning in the content: the text before it is the reasoning."
)
REASONING_ONLY = "The model ended its answer after the reasoning: ask again, or ask for less reasoning."


class Stage(Enum):
    """The state of an answer."""

    STREAMING = auto()
    FINISHED = auto()  # the finish reason was read; figures and late tool-call deltas may follow
    ENDED = auto()  # the end mark was read, but no finish reason
    CLOSED = auto()  # both were read


Mark = Literal["finish_reason", "end_mark"]
NEXT: dict[tuple[Stage, Mark], Stage] = {  # a mark that is not listed for a stage repeats an earlier one and is ignored
    (Stage.STREAMING, "finish_reason"): Stage.FINISHED,
    (Stage.STREAMING, "end_mark"): Stage.ENDED,
    (Stage.FINISHED, "end_mark"): Stage.CLOSED,
    (Stage.ENDED, "finish_reason"): Stage.CLOSED,
}


class TextParser(Protocol):
    """A parser of the reasoning and tool calls that a model writes into its text.

    Content passes through it before it reaches the user. The assembler merges the calls in its chunks with the native ones.
    """

    content: TextBuffer
    reasoning: TextBuffer
    problems: list[Problem]

    def feed_whole(self, text: str, chunks: list[Chunk]) -> None:
        """Read an answer that arrived in one piece and append its chunks."""
        ...

    def feed_into(self, text: str, chunks: list[Chunk]) -> None:
        """Read new text and append the chunks that are certain."""
        ...

    def feed_texts(self, texts: list[str], chunks: list[Chunk]) -> None:
        """Read new texts that arrived together and append the chunks that are certain."""
        ...

    def feed_reasoning(self, text: str, chunks: list[Chunk]) -> None:
        """Read text of the server's reasoning channel and append the chunks that are certain."""
        ...

    def finish(self, *, answered: bool = False) -> Iterable[Chunk]:
        """Return the last chunks of the text; with `answered`, calls in the reasoning do not count."""
        ...


class ChatAssembler:
    """An assembler of one answer of `/v1/chat/completions`.

    Objects for calls and figures are created when the first of them arrives, because many streams may be open at once.
    """

    __slots__ = (
        "_calls", "_choice", "_content", "_expects_call", "_expects_logprobs", "_expects_one_call",
        "_expects_tokens", "_finish_reason", "_id", "_limits", "_logprobs", "_model", "_model_names", "_native", "_new_id",
        "_problems", "_reasoning", "_requested_model", "_stage", "_strict", "_text_parser", "_tools", "figures",
        "is_in_call",
    )  # fmt: skip

    def __init__(
        self,
        *,
        strict: bool = False,
        expects_tokens: bool = True,
        expects_logprobs: bool = False,
        expects_one_call: bool = False,
        expects_call: bool = False,
        text_parser: TextParser | None = None,
        tools: OfferedTools = NO_TOOLS,
        problems: Iterable[Problem] = (),
        model: str = "",
        model_names: Collection[str] = (),
        limits: Limits = DEFAULT_LIMITS,
        new_id: Callable[[], str] = new_call_id,
    ) -> None:
        self._strict = strict
        self._expects_tokens = expects_tokens
        self._expects_logprobs = expects_logprobs
        self._expects_one_call = expects_one_call
        self._expects_call = expects_call
        self._text_parser = text_parser
        self._tools = tools
        self._limits = limits
        self._new_id = new_id
        self._native: ToolCallSlots | None = None  # created at the first call: most answers have none
        self._calls: MixedCalls | None = None
        self._content = TextBuffer() if text_parser is None else text_parser.content
        self._reasoning = TextBuffer() if text_parser is None else text_parser.reasoning
        self._problems = list(problems)
        self._stage = Stage.STREAMING
        self._finish_reason = ""
        self._choice: int | UnsetType | None = UNSET
        self._requested_model = model
        self._id = ""
        self._model = ""
        self.is_in_call = False  # whether a native call has started and the answer continues
        self._model_names = model_names
        self.figures = Figures()
        self._logprobs: list[TokenLogprob] | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the finish reason or the end mark was read."""
        return self._stage is not Stage.STREAMING

    def text_alone(self, completion: WireCompletion) -> str:
        """Return the text of a chunk that contains only text, as most do; otherwise `""`."""
        if not (self._id and self._model):
            self._read_head(completion)
        choices = completion.choices
        if not choices or len(choices) > 1 or self._stage is not Stage.STREAMING:
            return ""
        choice = choices[0]
        delta = choice.delta
        if delta is None or choice.finish_reason or choice.logprobs is not None or choice.index != self._choice:
            return ""
        if delta.tool_calls or delta.function_call or delta.reasoning_content or delta.reasoning or delta.refusal:
            return ""
        content = delta.content
        return content if isinstance(content, str) else ""

    def feed_texts(self, texts: list[str], chunks: list[Chunk]) -> None:
        """Read the texts of chunks that contain only text.

        A chunk is appended for each text without markup.
        """
        parser, first = self._text_parser, len(chunks)
        if parser is None:
            self._content.write("".join(texts))
            chunks += map(Chunk, texts)
            return
        if len(texts) == 1:
            parser.feed_into(texts[0], chunks)
        else:
            parser.feed_texts(texts, chunks)
        is_one_text = len(chunks) == first + 1 and chunks[first].content
        if not is_one_text and any(chunk.tool_call_delta or chunk.tool_call for chunk in chunks[first:]):
            self._merge_embedded_calls(chunks, first)

    def feed(self, completion: WireCompletion, chunks: list[Chunk]) -> None:
        """Read a chunk of the server, or a whole body, and append the chunks for the user."""
        if not (self._id and self._model):
            self._read_head(completion)
        choices = completion.choices
        if not choices:
            self.figures.read(completion)
            return
        if self._choice is UNSET:
            self._choice = choices[0].index
        for choice in choices:
            if choice.index == self._choice:
                self._read_choice(choice, completion, chunks)
            else:
                self._note_once("extra_choice", "The server sent more than one choice; only the first is used.")

    def end(self) -> None:
        """Read the end mark, `[DONE]`."""
        self.is_in_call = False
        self._stage = NEXT.get((self._stage, "end_mark"), self._stage)

    def note(self, problem: Problem) -> None:
        """Add a problem to the reply."""
        self._problems.append(problem)

    def close(self, chunks: list[Chunk]) -> Reply:
        """Read the end of the answer, append its last chunks, and return the complete reply.

        Raises:
            IncompleteStreamError: Neither a finish reason nor the end mark was read, or LM Studio ended the answer early.
            EmptyReplyError: The answer is complete and empty.
            ToolCallParseError: With `strict`, a call could not be read.
            ToolCallMissingError: With `strict`, a call was demanded and there is none.
        """
        if self._stage is Stage.STREAMING:
            raise IncompleteStreamError("The stream ended without a finish reason or [DONE].", partial=self.cut_off())
        if not self._finish_reason:
            self._finish("stop", chunks)
        if self._native is not None:
            self._add_native_calls(self._native, chunks)  # deltas may arrive after the finish reason
        reply = self.reply()
        text = reply.content
        if "assistantfinal" in text or "to=functions." in text or INTERNAL_MARK in text:
            reply = self._with_leftovers(reply)
        lost = _lost_call(reply.problems) if reply.problems else None
        missing = "" if lost or reply.tool_calls else self._missing_call()
        if self._note_missing(reply, missing):
            reply = self.reply()
        if reply.stats.stop_reason in ENDED_EARLY:
            raise IncompleteStreamError(ENDED_EARLY[reply.stats.stop_reason], partial=reply)
        if self._strict and lost is not None:
            raise ToolCallParseError(lost.detail, raw=lost.raw or lost.detail, partial=reply)
        if self._strict and missing:
            raise ToolCallMissingError(missing, partial=reply)
        if self._expects_tokens and not (lost or reply.tool_calls or reply.content or reply.reasoning):
            hint = EmptyReplyError.token_limit_hint if reply.finish_reason == "length" else None
            raise EmptyReplyError(f"The server's answer is empty ({_why_empty(reply)}).", hint=hint, partial=reply)
        return reply

    def cut_off(self) -> Reply:
        """Read the end of an answer that failed, and return the partial reply.

        What the text parser still holds becomes content or a problem, as at a regular end. A call that only this end completes
        is reported instead of returned, because it may be cut off.
        """
        if self._text_parser is not None and not self._finish_reason:
            for chunk in self._text_parser.finish(answered=True):
                if (call := chunk.tool_call) is not None:
                    detail = f"The call of {call.name!r} may be cut off: {call.raw_arguments[:2000]}"
                    self.note(Problem("tool_call_incomplete", detail, call.raw_arguments, span=call.span))
        return self.partial()

    def partial(self) -> Reply:
        """Return the reply so far, with complete calls only."""
        reply = self.reply()
        if self._finish_reason or self._native is None:
            return reply
        calls, problems = self._native.read(truncated=True)
        return msgspec.structs.replace(
            reply, tool_calls=[*reply.tool_calls, *calls], problems=[*reply.problems, *problems]
        )

    def reply(self) -> Reply:
        """Return the reply assembled so far."""
        figures = self.figures
        calls = [] if self._calls is None else self._calls.complete
        return Reply(
            content=self._content.getvalue().strip(),
            reasoning=self._reasoning.getvalue().strip(),
            tool_calls=calls,
            finish_reason="tool_calls" if calls and self._finish_reason else self._finish_reason,
            model=self._model or self._requested_model,
            id=self._id,
            usage=figures.usage,
            stats=figures.stats,
            problems=[
                *self._problems,
                *(() if self._calls is None else self._calls.problems),
                *(() if self._text_parser is None else self._text_parser.problems),
            ],
            model_info=figures.model_info,
            runtime=figures.runtime,
            logprobs=list(self._logprobs or ()),
        )

    def _read_head(self, completion: WireCompletion) -> None:
        self._id = self._id or completion.id or ""
        self._model = self._model or completion.model or ""

    def _read_choice(self, choice: Choice, completion: WireCompletion, chunks: list[Chunk]) -> None:
        first = len(chunks)
        if choice.delta is not None:
            self._read_delta(choice.delta, chunks)
        elif choice.message is not None:
            self._read_delta(choice.message, chunks, is_whole=True)
        if choice.logprobs is not None:
            self._read_logprobs(choice.logprobs, chunks, first)
        if choice.finish_reason or self._finish_reason:  # some gateways send the usage last, with an empty delta
            self.figures.read(completion)
        if choice.finish_reason:
            self._finish(choice.finish_reason, chunks)

    def _read_delta(self, delta: Delta, chunks: list[Chunk], *, is_whole: bool = False) -> None:
        if reasoning := delta.reasoning_content or delta.reasoning:
            self._read_reasoning(reasoning, chunks)
        if content := delta.content:
            self._read_content(
                content if isinstance(content, str) else content_text(content), chunks, is_whole=is_whole
            )
        if delta.refusal:
            self._note_once("refusal", "The model declined; the content is its refusal.")
            self._read_content(delta.refusal, chunks, is_whole=is_whole)
        for tool_delta in delta.calls if delta.tool_calls or delta.function_call else ():
            self.is_in_call = self._stage is Stage.STREAMING
            if self._native is None:
                from lmdeck._streaming.tool_call_slots import ToolCallSlots  # imported late: most answers have none

                self._native = ToolCallSlots(self._limits, self._new_id, self._tools)
            new = self._native.feed(tool_delta)
            if new is not None:
                self._mixed_calls().announce(new, chunks, embedded=False)

    def _read_logprobs(self, logprobs: object, chunks: list[Chunk], first: int) -> None:
        """Read the log probabilities of tokens into the chunk at `first`, or into a new one."""
        from lmdeck._responses.logprobs import read_logprobs  # imported late: few requests want them

        tokens = read_logprobs(logprobs)
        if not tokens:
            return
        self._logprobs = self._logprobs or []
        self._logprobs += tokens
        if len(chunks) > first:
            chunks[first] = msgspec.structs.replace(chunks[first], logprobs=tokens)
        else:
            chunks.append(Chunk(logprobs=tokens))

    def _read_reasoning(self, text: str, chunks: list[Chunk]) -> None:
        if self._text_parser is not None:
            self._text_parser.feed_reasoning(text, chunks)
        else:
            self._reasoning.write(text)
            chunks.append(Chunk("", text))

    def _read_content(self, text: str, chunks: list[Chunk], *, is_whole: bool = False) -> None:
        if is_whole and INTERNAL_MARK in text:
            text = self._without_mark(text, chunks)
        parser, first = self._text_parser, len(chunks)
        is_late = bool(self._finish_reason) and not text.isspace()
        if is_late:
            self._note_once("text_late", TEXT_LATE)
        if parser is None or is_late:
            self._content.write(text)
            chunks.append(Chunk(text))
            return
        if is_whole:
            parser.feed_whole(text, chunks)
        else:
            parser.feed_into(text, chunks)
        if len(chunks) > first + 1 or (len(chunks) > first and not chunks[-1].content):
            self._merge_embedded_calls(chunks, first)

    def _merge_embedded_calls(self, chunks: list[Chunk], first: int) -> None:
        """Merge the calls in the parser's chunks, which begin at `first`, with the native ones."""
        new = chunks[first:]
        del chunks[first:]
        for chunk in new:
            if chunk.tool_call is not None:
                self._mixed_calls().add_embedded(chunk.tool_call, chunks)
            elif chunk.tool_call_delta is not None:
                self._mixed_calls().announce(chunk.tool_call_delta, chunks, embedded=True)
            else:
                chunks.append(chunk)

    def _finish(self, reason: str, chunks: list[Chunk]) -> None:
        """Read a finish reason, after which no call continues; only the first one counts."""
        following = NEXT.get((self._stage, "finish_reason"))
        if following is None or reason in NO_REASONS:
            return
        if self._text_parser is not None:
            first = len(chunks)
            chunks += self._text_parser.finish(answered=self._native is not None)
            if len(chunks) > first:
                self._merge_embedded_calls(chunks, first)
        if self._native is not None:
            self._add_native_calls(self._native, chunks, truncated=reason == "length")
        self.is_in_call = False
        self._stage, self._finish_reason = following, reason
        has_calls = self._calls is not None and self._calls.complete
        chunks.append(Chunk("", "", None, None, "tool_calls" if has_calls else reason))

    def _mixed_calls(self) -> MixedCalls:
        if self._calls is None:
            from lmdeck._streaming.mixed_calls import MixedCalls  # imported late: most answers have none

            self._calls = MixedCalls(self._tools)
        return self._calls

    def _add_native_calls(self, native: ToolCallSlots, chunks: list[Chunk], *, truncated: bool = False) -> None:
        """Add the native calls that are complete now."""
        from lmdeck._streaming.tool_call_slots import NATIVE

        calls, problems = native.finish(truncated=truncated)
        self._mixed_calls().add_native(calls, chunks)
        self._problems += problems
        for call in calls:
            if self._tools and self._tools.resolve(call.name) is None:
                detail = f"The server called {call.name!r}, a tool that was not offered."
                self._note_once("unoffered_tool", detail, dialect=NATIVE)

    def _without_mark(self, text: str, chunks: list[Chunk]) -> str:
        """Read the reasoning before LM Studio's mark, and return the text behind it."""
        from lmdeck._streaming.leftover_tokens import split_reasoning  # imported late: few answers have any

        reasoning, rest = split_reasoning(text)
        if rest != text:
            self._note_once("token_dropped", MARK_DROPPED)
            self._read_reasoning(reasoning, chunks)
        return rest

    def _with_leftovers(self, reply: Reply) -> Reply:
        """Return the reply, with problems for what the server left of special tokens in the content."""
        from lmdeck._streaming.leftover_tokens import leftovers

        self._problems += leftovers(reply, self._tools)
        return self.reply()

    def _missing_call(self) -> str:
        """Return why an answer without calls should have one, or `""`."""
        if self._expects_call:
            return TOOL_CALL_MISSING
        return TOOL_CALL_ANNOUNCED if self._finish_reason in CALL_REASONS else ""

    def _note_missing(self, reply: Reply, missing: str) -> bool:
        """Add a problem for each request that the reply does not meet; return whether there is one.

        `missing` is the reason why the reply should have a call, or `""`.
        """
        from lmdeck._responses.model_names import is_same_model  # imported late: the first chunk does not need it

        before = len(self._problems)
        if self._expects_logprobs and not self._logprobs:
            from lmdeck._responses.logprobs import LOGPROBS_MISSING

            self._note_once("logprobs_missing", LOGPROBS_MISSING)
        if self._expects_one_call and (count := len(reply.tool_calls)) > 1:
            self._note_once("parallel_calls", f"The answer has {count} calls, but only one was allowed.")
        requested, answered = self._requested_model, self._model
        if answered != requested and answered not in self._model_names and not is_same_model(requested, answered):
            self._note_once("model_differs", f"The model {answered} answered instead of {requested}.")
        has_answer = reply.tool_calls or reply.content
        if reply.reasoning and not has_answer:
            if self._finish_reason == "length":
                self._note_once("reasoning_used_budget", REASONING_USED_BUDGET)
            elif not (missing or any(problem.code == "reasoning_unclosed" for problem in reply.problems)):
                self._note_once("reasoning_only", REASONING_ONLY)
        if missing:
            self._note_once("tool_call_missing", missing)
        return len(self._problems) > before

    def _note_once(self, code: str, detail: str, *, dialect: str = "") -> None:
        problem = Problem(code, detail, dialect=dialect)
        if problem not in self._problems:
            self._problems.append(problem)


def _lost_call(problems: Iterable[Problem]) -> Problem | None:
    """Return the first problem of a call that could not be read."""
    return next((problem for problem in problems if problem.code.startswith("tool_call_")), None)


def _why_empty(reply: Reply) -> str:
    figures = [f"finish reason {reply.finish_reason!r}"]
    if reply.usage:
        figures.append(f"{reply.usage.prompt_tokens} prompt tokens, {reply.usage.completion_tokens} completion tokens")
    return ", ".join(figures)
