"""The sink of the readers, which emits content, reasoning and calls.

Of a call, it emits the name, then argument fragments, then the call.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from json.encoder import encode_basestring
from typing import Protocol

import msgspec
from msgspec.structs import force_setattr

from lmdeck._chunks import Chunk, ToolCallDelta
from lmdeck._limits import DEFAULT_LIMITS
from lmdeck._parsing.argument_values import decode_repaired, repeated_keys
from lmdeck._parsing.code_spans import CodeSpans
from lmdeck._parsing.offered_tools import NAME_PREFIXES, OfferedTools
from lmdeck._parsing.source import MalformedCall, Reader, Source, Stops, UnofferedCall
from lmdeck._parsing.text_buffer import TextBuffer
from lmdeck.messages import Problem, ToolCall

MAX_SEARCHES = 16
"""How many values without an end may be searched to the end of the text, so that the cost stays linear."""


class TextScanner(Protocol):
    """A reader of the bodies of messages, which may contain calls like the answer itself."""

    def read_message(self, ends: Stops) -> Reader[str]:
        """Read the body of a message to the user up to one of `ends` and return that, unread."""
        ...

    def read_reasoning(self, ends: Stops) -> Reader[str]:
        """Read the body of a message that is reasoning up to one of `ends` and return that, unread."""
        ...


class Sink:
    """The output of all readers; one call is open at a time."""

    __slots__ = (
        "_announced", "_block", "_deferred", "_fragments", "_gap", "_has_markup", "_holds", "_id", "_index", "_keys",
        "_kind", "_last", "_new", "_new_id", "_refused", "_repairs", "_size", "chunks",
        "code_spans", "coerces", "completed", "content", "dialect", "name", "open_block", "problems", "reasoning",
        "reasoning_start", "redirect", "scanner", "searches_left", "source", "template", "tools",
    )  # fmt: skip

    scanner: TextScanner
    """The reader of messages; drafts and separate arguments do not contain any."""

    is_draft = False
    """Whether the calls are tentative, so that all of their text may still become content."""

    def __init__(self, tools: OfferedTools, new_id: Callable[[], str], source: Source) -> None:
        self.tools = tools
        self.chunks: list[Chunk] = []
        self.source = source
        self.redirect: Callable[[str], object] | None = None
        self.problems: list[Problem] = []
        self.completed: list[ToolCall] = []
        self.name = ""
        self.content = TextBuffer()
        self.reasoning = TextBuffer()
        self.code_spans = CodeSpans()
        self.coerces = False
        self.dialect: Callable[[], str] = str
        self.searches_left = MAX_SEARCHES
        self.reasoning_start = 0
        self.template = ""
        self._block = 0
        self._last: ToolCall | Problem | None = None
        self._gap: list[str] = []
        self._deferred: list[tuple[str, int]] = []
        self.open_block: tuple[str, ...] = ()  # the end tags of a block of calls that was left before its end
        self._has_markup = False
        self._kind = ""
        self._new_id = new_id
        self._id = ""
        self._index = -1
        self._announced = False
        self._new: list[str] = []
        self._fragments: list[str] = []
        self._size = 0
        self._repairs: tuple[str, ...] = ()
        self._keys: set[str] | None = None
        self._refused: str | None = None
        self._holds = False

    @property
    def is_open(self) -> bool:
        """Whether a call is open."""
        return bool(self.name)

    @property
    def is_redirected(self) -> bool:
        """Whether text is not written to the content."""
        return self.redirect is not None

    @property
    def is_at_start(self) -> bool:
        """Whether there is no content yet."""
        return self.redirect is None and not self.content

    def emit_content(self, text: str) -> None:
        """Emit content; white space at the start and after calls waits until content follows."""
        if self.redirect is not None:
            self.redirect(text)
            self.code_spans.feed(text)
            return
        if self.template and not (text := self._after_template(text)):
            return
        if not self.is_flowing:
            if text.isspace():
                self._gap.append(text)
                return
            follows_markup = self._has_markup and not self.content
            text = text.lstrip() if follows_markup else "".join((*self._gap, text))
            self._gap.clear()
            self._deferred.clear()
        self.emit_flowing(text)

    @property
    def is_flowing(self) -> bool:
        """Whether text can be emitted unchanged: there is content already, and nothing is deferred."""
        return self.redirect is None and not self._gap and bool(self.content)

    @property
    def text_so_far(self) -> str:
        """The content, with the white space that is deferred."""
        return "".join((self.content.getvalue(), *self._gap))

    def emit_flowing(self, text: str) -> None:
        """Emit content unchanged."""
        self.content.write(text)
        self.code_spans.feed(text)
        self.chunks.append(Chunk(text))

    def _after_template(self, text: str) -> str:
        """Return content without the part of it that the template wrote."""
        template, self.template = self.template, ""
        if template.startswith(text):
            self.template = template[len(text) :]
            return ""
        return text.removeprefix(template)

    def defer_token(self, token: str) -> None:
        """Defer a token that is dropped if no content follows."""
        self._deferred.append((token, self.source.place))
        self._gap.append(token)

    def defer_space(self) -> None:
        """Defer white space until other content follows; deferred tokens are dropped."""
        self._has_markup = True
        if self._deferred:
            self._drop_deferred()
        self._gap.append("")

    def drop_token(self, token: str) -> None:
        """Drop the token that was read last, and report it."""
        self._report_dropped(token, self.source.place)
        self.defer_space()

    def _drop_deferred(self) -> None:
        for token, place in self._deferred:
            self._report_dropped(token, place)
        self._deferred.clear()
        self._gap = [text for text in self._gap if text.isspace()]

    def _report_dropped(self, token: str, place: int) -> None:
        self.report("token_dropped", f"The token {token} was dropped", token, (place - len(token), place))

    def end(self) -> None:
        """Emit deferred white space if the answer is nothing else."""
        self._drop_deferred()
        if self._gap and not self._has_markup:
            self.content.write("".join(self._gap))
            self.chunks.append(Chunk("".join(self._gap)))
            self._gap.clear()

    def message(self, ends: Stops) -> Reader[str]:
        """Read the body of a message to the user up to one of `ends` and return that, unread."""
        return self.scanner.read_message(ends)

    def reasoning_body(self, ends: Stops) -> Reader[str]:
        """Read the body of a message that is reasoning up to one of `ends` and return that, unread."""
        return self.scanner.read_reasoning(ends)

    def emit_reasoning(self, text: str) -> None:
        """Emit reasoning."""
        if self.redirect is not None:
            self.redirect(text)
        else:
            self.write_reasoning(text)

    def write_reasoning(self, text: str) -> None:
        """Emit reasoning even if text is redirected."""
        self._has_markup = True
        if self._deferred:
            self._drop_deferred()
        if not self.reasoning:
            space = len(text) - len(text.lstrip())
            self.reasoning_start += space
            text = text[space:]
        if text:
            self.reasoning.write(text)
            self.chunks.append(Chunk("", text))

    def separate_message(self, kind: str) -> None:
        """Start a message on a new line if the last one was of another kind, such as a preamble."""
        if self.content and kind and self._kind and kind != self._kind:
            self.emit_content("\n")
        self._kind = kind

    def separate_reasoning(self) -> None:
        """Start a new part of the reasoning on a new line."""
        if self.reasoning:
            self.emit_reasoning("\n")

    def report(self, code: str, detail: str, raw: str = "", span: tuple[int, int] | None = None) -> None:
        """Add a problem; `span` is its position in the source text, without the template's part."""
        place = span and (max(span[0], 0), max(span[1], 0))
        self.problems.append(Problem(code, f"{detail}.", raw, span=place, dialect=self.dialect()))

    def report_unopened(self, close: str) -> None:
        """Report the end of a reasoning that nothing opened."""
        self.report(
            "reasoning_unopened",
            f"{close} ends reasoning that was not opened: the content before it is probably reasoning; "
            "send() without a stream separates the two",
        )

    def refuse(self, refusal: MalformedCall, text: str, span: tuple[int, int]) -> None:
        """Report a call that was left as text, with its position in the source text."""
        if isinstance(refusal, UnofferedCall):
            self.report("unoffered_tool", f"Left as text: {refusal}", text, span)
        else:
            self.report("tool_call_unparsed", f"A call could not be read and was left as text: {refusal}", text, span)

    def discard_until(self, source: Source, wanted: Stops, what: str, begin: int | None = None) -> Reader[None]:
        """Skip text up to the first of some literals, and report it as `what`.

        The reported span begins at `begin`, by default at the current position.
        """
        parts: list[str] = []
        begin = source.place if begin is None else begin
        yield from source.until(wanted, parts.append)
        if text := "".join(parts).strip():
            self.report("text_left_out", f"{what} was left out: {text}", span=(begin, source.place))

    def open(self, name: str) -> None:
        """Open a call.

        A call of a tool that was not offered is read like any other and refused by `close`.
        """
        resolved = self.tools.resolve(name)
        if resolved is None:
            self._reset()
            self._keys = None
            self._refused = name.strip()
            self.name = self._refused or "?"
            self._announced = True
            return
        if len(self.completed) >= DEFAULT_LIMITS.tool_calls:
            raise MalformedCall(f"more than {DEFAULT_LIMITS.tool_calls} tool calls")
        self.name = resolved
        self._id = self._new_id()
        self._index += 1
        self._announced = False
        self._size = 0
        self._new = []
        self._fragments = []
        self._keys = None
        if (
            resolved != (stripped := name.strip())
            and not stripped.startswith(NAME_PREFIXES)
            and stripped != f"{resolved}.{resolved}"
        ):
            self.note(f"the name was written as {stripped!r}")

    def begin_block(self, place: int) -> None:
        """Start a block of calls at a position in the source text.

        Its calls and refused parts divide the text among them.
        """
        self._block = place
        self._last = None

    def part_of_block(self, place: int) -> tuple[int, int]:
        """Return the span from the end of the last part of the block up to a position."""
        part = (max(self._block, 0), max(place, 0))
        self._block = place
        return part

    def rewind_block(self, place: int) -> None:
        """Continue the block at an earlier position.

        The text after it, refused parts included, is still undivided.
        """
        self._block = place

    def end_block(self, place: int) -> None:
        """End a block: text between its last part and a position belongs to that part."""
        if self._last is not None and self._last.span is not None and place > self._last.span[1]:
            force_setattr(self._last, "span", (self._last.span[0], place))
            self._block = place
        self._last = None

    def emit_refused_part(self, refusal: MalformedCall, text: str, span: tuple[int, int]) -> None:
        """Emit a refused part of a block as content, and report it."""
        self.emit_content(text)
        self.refuse(refusal, text, span)
        if span[1] == self._block:
            self._last = self.problems[-1]

    def merge_draft(self, draft: Sink) -> None:
        """Add the calls and the refused parts of a draft."""
        for call in draft.completed:
            begin, end = call.span or (self._block, self.source.place)
            self._block = begin
            self.open(call.name)
            self.write(call.raw_arguments)
            self.close(end)
        self.problems.extend(draft.problems)
        if refused := draft.content.getvalue():
            self.emit_content(refused)
        if isinstance(draft._last, Problem):
            self._last, self._block = draft._last, draft._block

    def write(self, fragment: str) -> None:
        """Append to the arguments of the open call."""
        self._new.append(fragment)

    def write_key(self, key: str, *, is_first: bool) -> None:
        """Append the name of a parameter, after a comma unless it is the first.

        Raises:
            MalformedCall: The name is empty, because its markup is broken.
        """
        if not key and key not in self.tools.properties(self.name):
            raise MalformedCall("a parameter has no name")
        self._keys = self._keys or set()
        self._keys.add(key)
        self.write(f"{'' if is_first else ', '}{encode_basestring(key)}: ")

    @property
    def has_keys(self) -> bool:
        """Whether the open call has a parameter."""
        return bool(self._keys)

    def has_key(self, key: str) -> bool:
        """Whether the open call has a parameter of that name."""
        return self._keys is not None and key in self._keys

    def note(self, repair: str) -> None:
        """Record a repair of the open call."""
        if repair not in self._repairs:
            self._repairs += (repair,)

    def flush(self) -> None:
        """Emit what is new in the open call."""
        if not self.name or self._refused is not None or self._holds:
            return
        fragment = "".join(self._new)
        if fragment or not self._announced:
            name = "" if self._announced else self.name
            self._announced = True
            self._new.clear()
            self._fragments.append(fragment)
            self._size += len(fragment)
            if self._size > DEFAULT_LIMITS.tool_arguments_chars:
                raise MalformedCall(f"arguments longer than {DEFAULT_LIMITS.tool_arguments_chars} characters")
            self.chunks.append(Chunk("", "", None, ToolCallDelta(self._index, self._id, name, fragment)))

    def close(self, place: int | None = None) -> None:
        """Complete the open call.

        It ends at `place` in the source text, by default at the current position.

        Raises:
            MalformedCall: The arguments are not an object.
            UnofferedCall: The tool was not offered.
        """
        if self._refused is not None:
            name = self._refused
            self.cancel()
            raise UnofferedCall(f"the tool {name[:200]!r} was not offered")
        self._holds = False
        self.flush()
        raw = "".join(self._fragments)
        if not raw:
            raw = "{}"
            self.write(raw)
            self.flush()
        arguments, is_repaired = decode_repaired(raw)
        if not isinstance(arguments, dict):
            raise MalformedCall("the arguments are not a JSON object")
        if is_repaired:
            self.note("a lone surrogate")
            raw = json.dumps(arguments, ensure_ascii=False)
        if self.coerces and (fitting := self.tools.coerce(self.name, arguments)) != arguments:
            self.note("values of the wrong type")
            arguments, raw = fitting, msgspec.json.encode(fitting).decode()
        for note in () if self.is_draft else repeated_keys(raw):
            self.note(note)
        span = self.part_of_block(self.source.place if place is None else place)
        call = ToolCall(id=self._id, name=self.name, arguments=arguments, raw_arguments=raw, span=span)
        self._last = call
        self.completed.append(call)
        self.chunks.append(Chunk("", "", call))
        self.defer_space()
        if self._repairs:
            self.report("repaired", f"In the call of {self.name!r}: {', '.join(self._repairs)}", span=span)
        self._reset()

    def hold(self) -> None:
        """Hold the open call back until it is released or closed, because it may not be a call."""
        self._holds = True

    def release(self) -> None:
        """Allow the open call to be announced."""
        self._holds = False

    def cancel(self) -> str:
        """Cancel the open call and return its name."""
        name = self.name
        if name and not self._announced:
            self._index -= 1
        self._reset()
        return name

    def _reset(self) -> None:
        self.name = ""
        self._new = []
        self._fragments = []
        self._repairs = ()
        self._refused = None
        self._holds = False
