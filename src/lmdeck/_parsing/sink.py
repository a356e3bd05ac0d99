"""The calls that a text asks for, on their way out: announced with their name, then argument fragments, then the whole call."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from json.encoder import encode_basestring
from typing import Any, Never, Protocol

import msgspec
from msgspec.structs import force_setattr

from lmdeck._limits import DEFAULT_LIMITS
from lmdeck._parsing.code_spans import Prose
from lmdeck._parsing.offered_tools import NAME_PREFIXES, Toolbox
from lmdeck._parsing.source import MalformedCall, Reader, Source, Stops, UnofferedCall
from lmdeck._parsing.text_buffer import GrowingText
from lmdeck.events import Chunk, ToolCallDelta
from lmdeck.messages import Problem, ToolCall

__all__ = ["Calls", "decode_arguments", "decode_mended"]

LONG_LOOKS = 16
"""How often the values of an answer may look to the end of the text in vain, so that the cost stays linear."""


def decode_arguments(raw: str) -> Any:  # noqa: ANN401 - JSON is anything
    """Decode JSON text; None where it is none. Halves of surrogate pairs become U+FFFD; numbers must be finite."""
    return decode_mended(raw)[0]


def decode_mended(raw: str) -> tuple[Any, bool]:
    """Decode JSON text as `decode_arguments` does; whether it had to be mended, so that `raw` is not the same."""
    try:
        return msgspec.json.decode(raw), False
    except (msgspec.DecodeError, UnicodeError):
        pass
    except RecursionError:
        return None, False
    try:
        value = json.loads(raw, parse_constant=_refuse, parse_float=_finite)
        text = json.dumps(value, ensure_ascii=False)
        mended = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return json.loads(mended), mended != text
    except (ValueError, RecursionError):
        return None, False


def _refuse(constant: str) -> Never:
    raise ValueError(f"{constant} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is too large")
    return number


class Scanner(Protocol):
    """What reads text that may hold calls: the bodies of messages go through it like the answer itself."""

    def read_message(self, ends: Stops) -> Reader[str]:
        """Read the body of a message to the user up to one of `ends` and return that, unread."""
        ...

    def read_thought(self, ends: Stops) -> Reader[str]:
        """Read the body of a message that is reasoning up to one of `ends` and return that, unread."""
        ...


def _nothing() -> Reader[str]:
    yield from ()
    return ""


class Calls:
    """What the readers of all dialects write into; one call is open at a time."""

    is_draft = False
    """Whether the calls may still prove to be none, so that all of their text is given back."""

    def __init__(self, toolbox: Toolbox, new_id: Callable[[], str], scanner: Scanner | None = None) -> None:
        self.toolbox = toolbox
        self.chunks: list[Chunk] = []
        self.source = Source()
        self.sink: Callable[[str], object] | None = None
        self.problems: list[Problem] = []
        self.made: list[ToolCall] = []
        self.name = ""
        self.content = GrowingText()
        self.reasoning = GrowingText()
        self.prose = Prose()
        self.coerces = False
        self.long_looks = LONG_LOOKS
        self.thought_place = 0
        self._scanner = scanner
        self.template = ""
        self._block = 0
        self._last: ToolCall | Problem | None = None
        self._gap: list[str] = []
        self._held: list[tuple[str, int]] = []
        self._has_markup = False
        self._kind = ""
        self._new_id = new_id
        self._id = ""
        self._index = -1
        self._announced = False
        self._new: list[str] = []
        self._fragments: list[str] = []
        self._size = 0
        self._repairs: list[str] = []
        self._keys: set[str] = set()
        self._repeats = False
        self._refused: str | None = None
        self._holds = False

    @property
    def is_open(self) -> bool:
        """Tell whether a call is being written."""
        return bool(self.name)

    @property
    def is_aside(self) -> bool:
        """Whether text goes elsewhere than to the content."""
        return self.sink is not None

    @property
    def is_at_start(self) -> bool:
        """Whether no content came yet."""
        return self.sink is None and not self.content

    def say(self, text: str) -> None:
        """Pass content on. White space waits where content may turn out not to follow: at the start, and behind calls."""
        if self.sink is not None:
            self.sink(text)
            self.prose.see(text)
            return
        if self.template and not (text := self._behind_template(text)):
            return
        if not self.flows:
            if text.isspace():
                self._gap.append(text)
                return
            follows_markup = self._has_markup and not self.content
            text = text.lstrip() if follows_markup else "".join((*self._gap, text))
            self._gap.clear()
            self._held.clear()
        self.pass_on(text)

    @property
    def flows(self) -> bool:
        """Whether text is content as it stands: some came before, and nothing waits."""
        return self.sink is None and not self._gap and bool(self.content)

    def pass_on(self, text: str) -> None:
        """Pass on text that is content as it stands."""
        self.content.write(text)
        self.prose.see(text)
        self.chunks.append(Chunk(text))

    def _behind_template(self, text: str) -> str:
        """Return what is left of content without what the template had written, which is no part of the answer."""
        template, self.template = self.template, ""
        if template.startswith(text):
            self.template = template[len(text) :]
            return ""
        return text.removeprefix(template)

    def hold_token(self, token: str) -> None:
        """Let a token wait that is dropped where no content follows."""
        self._held.append((token, self.source.place))
        self._gap.append(token)

    def hold_space(self) -> None:
        """Let white space wait until other content follows; tokens that waited are dropped."""
        self._has_markup = True
        if self._held:
            self._drop_held()
        self._gap.append("")

    def _drop_held(self) -> None:
        for token, place in self._held:
            self.dropped("token_dropped", f"The token {token} was left out", token, (place - len(token), place))
        self._held.clear()
        self._gap = [text for text in self._gap if text.isspace()]

    def end(self) -> None:
        """Pass on what white space still waits, where it is all there is."""
        self._drop_held()
        if self._gap and not self._has_markup:
            self.content.write("".join(self._gap))
            self.chunks.append(Chunk("".join(self._gap)))
            self._gap.clear()

    def message(self, ends: Stops) -> Reader[str]:
        """Read the body of a message to the user up to one of `ends` and return that, unread."""
        return self._scanner.read_message(ends) if self._scanner else _nothing()

    def thought(self, ends: Stops) -> Reader[str]:
        """Read the body of a message that is reasoning up to one of `ends` and return that, unread."""
        return self._scanner.read_thought(ends) if self._scanner else _nothing()

    def think(self, text: str) -> None:
        """Pass reasoning on."""
        self._has_markup = True
        if not self.reasoning:
            text = text.lstrip()
            self.thought_place = self.source.place
        if text:
            self.reasoning.write(text)
            self.chunks.append(Chunk("", text))

    def separate(self, kind: str) -> None:
        """Begin a message on a new line where the last one was of another kind, as a preamble is before the answer."""
        if self.content and kind and self._kind and kind != self._kind:
            self.say("\n")
        self._kind = kind

    def separate_thoughts(self) -> None:
        """Begin a thought of its own on a new line."""
        if self.reasoning:
            self.think("\n")

    def dropped(self, code: str, detail: str, raw: str = "", span: tuple[int, int] | None = None) -> None:
        """Report that something was left out; `span` is where it stood in the source text, without the template's part."""
        self.problems.append(Problem(code, f"{detail}.", raw, span=span and (max(span[0], 0), max(span[1], 0))))

    def refuse(self, refusal: MalformedCall, text: str, span: tuple[int, int]) -> None:
        """Report a call that was left as text, and where that stood in the source text."""
        if isinstance(refusal, UnofferedCall):
            self.dropped("unoffered_tool", f"Left as text: {refusal}", text, span)
        else:
            self.dropped("tool_call_unparsed", f"A call could not be read and was left as text: {refusal}", text, span)

    def leave_out(self, source: Source, wanted: Stops, what: str) -> Reader[None]:
        """Read text that is for nobody up to the first of some literals, and tell of it."""
        parts: list[str] = []
        begin = source.place
        yield from source.until(wanted, parts.append)
        if text := "".join(parts).strip():
            self.dropped("text_left_out", f"{what} was left out: {text}", span=(begin, source.place))

    def open(self, name: str) -> None:
        """Begin a call; that of a tool that was not offered is read like any other, and refused by `close`."""
        resolved = self.toolbox.resolve(name)
        if resolved is None:
            self._reset()
            self._keys.clear()
            self._refused = name.strip()
            self.name = self._refused or "?"
            self._announced = True
            return
        if len(self.made) >= DEFAULT_LIMITS.tool_calls:
            raise MalformedCall(f"more than {DEFAULT_LIMITS.tool_calls} tool calls")
        self.name = resolved
        self._id = self._new_id()
        self._index += 1
        self._announced = False
        self._size = 0
        self._new = []
        self._fragments = []
        self._keys.clear()
        self._repeats = False
        if (
            resolved != (said := name.strip())
            and not said.startswith(NAME_PREFIXES)
            and said != f"{resolved}.{resolved}"
        ):
            self.note(f"the name {said!r}")

    def begin_block(self, place: int) -> None:
        """Begin a block of calls at a place of the source text: its calls and what is refused of it share its text."""
        self._block = place
        self._last = None

    def part_of_block(self, place: int) -> tuple[int, int]:
        """Return the part of the block from what was read of it before up to a place, which belongs to no other one."""
        part = (max(self._block, 0), max(place, 0))
        self._block = place
        return part

    def end_block(self, place: int) -> None:
        """End a block: what stands between its last part and a place of the source text belongs to that part."""
        if self._last is not None and self._last.span is not None and place > self._block:
            force_setattr(self._last, "span", (self._last.span[0], place))
            self._block = place
        self._last = None

    def leave_part(self, refusal: MalformedCall, text: str, span: tuple[int, int]) -> None:
        """Pass on the text of a refused part of a block as content, and report it."""
        self.say(text)
        self.refuse(refusal, text, span)
        if span[1] == self._block:
            self._last = self.problems[-1]

    def adopt(self, draft: Calls) -> None:
        """Take over the calls of a draft, and what it refused."""
        for call in draft.made:
            begin, end = call.span or (self._block, self.source.place)
            self._block = begin
            self.open(call.name)
            self.write(call.raw_arguments)
            self.close(end)
        self.problems.extend(draft.problems)
        if refused := draft.content.getvalue():
            self.say(refused)
        if isinstance(draft._last, Problem):
            self._last, self._block = draft._last, draft._block

    def write(self, fragment: str) -> None:
        """Add to the arguments of the open call."""
        self._new.append(fragment)

    def write_key(self, key: str, *, is_first: bool) -> None:
        """Add the name of a parameter, and what parts it from the one before."""
        self._repeats = self._repeats or key in self._keys
        self._keys.add(key)
        self.write(f"{'' if is_first else ', '}{encode_basestring(key)}: ")

    @property
    def has_keys(self) -> bool:
        """Whether the open call has a parameter."""
        return bool(self._keys)

    def has_key(self, key: str) -> bool:
        """Whether the open call has a parameter of that name."""
        return key in self._keys

    def note(self, repair: str) -> None:
        """Remember that something in the open call was put right."""
        if repair not in self._repairs:
            self._repairs.append(repair)

    def flush(self) -> None:
        """Hand on what is new in the open call."""
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
        """End the open call, at a place of the source text or where that was read to.

        Raises:
            MalformedCall: The arguments are not an object.
            UnofferedCall: No tool of that name was offered.
        """
        if self._refused is not None:
            name = self._refused
            self.abandon()
            raise UnofferedCall(f"the tool {name[:200]!r} was not offered")
        self._holds = False
        self.flush()
        raw = "".join(self._fragments)
        if not raw:
            raw = "{}"
            self.write(raw)
            self.flush()
        arguments, is_mended = decode_mended(raw)
        if arguments is None and raw.strip() == "null":
            arguments = {}
        if not isinstance(arguments, dict):
            raise MalformedCall("the arguments are no JSON object")
        if is_mended:
            self.note("half a surrogate pair")
            raw = json.dumps(arguments, ensure_ascii=False)
        if self.coerces and (fitting := self.toolbox.fitted(self.name, arguments)) != arguments:
            self.note("values of the wrong type")
            arguments, raw = fitting, msgspec.json.encode(fitting).decode()
        if self._repeats:
            self._tell_repeated(raw)
        span = self.part_of_block(self.source.place if place is None else place)
        call = ToolCall(id=self._id, name=self.name, arguments=arguments, raw_arguments=raw, span=span)
        self._last = call
        self.made.append(call)
        self.chunks.append(Chunk("", "", call))
        self.hold_space()
        if self._repairs:
            self.dropped("repaired", f"In the call of {self.name!r}: {', '.join(self._repairs)}", span=span)
        self._reset()

    def _tell_repeated(self, raw: str) -> None:
        """Tell of values that a later one of the same name replaced."""
        pairs: list[tuple[str, object]] = json.loads(raw, object_pairs_hook=list)
        last = {key: at for at, (key, _) in enumerate(pairs)}
        for at, (key, value) in enumerate(pairs):
            if at != last[key]:
                self.dropped(
                    "text_left_out", f"The first value of {key!r}, which was given twice, was left out: {value!r}"
                )

    def hold(self) -> None:
        """Announce nothing of the open call until it is closed: its text may prove to be no call."""
        self._holds = True

    def release(self) -> None:
        """Announce the open call: it is one."""
        self._holds = False

    def abandon(self) -> str:
        """Give up the open call, and give its name."""
        name = self.name
        if name and not self._announced:
            self._index -= 1
        self._reset()
        return name

    def _reset(self) -> None:
        self.name = ""
        self._new = []
        self._fragments = []
        self._repairs = []
        self._refused = None
        self._holds = False
