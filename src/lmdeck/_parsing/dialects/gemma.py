"""Gemma 4 and FunctionGemma: `call:NAME{key:value,…}`, strings between tokens.

The tool's schema decides the type of a bare value. Models forget the string tokens, write ordinary quotes or add spaces; all of
these forms are read.

Sources: Google's Gemma 4 and FunctionGemma cards; vLLM, SGLang, llama.cpp, Ollama.
"""

from __future__ import annotations

from json.encoder import encode_basestring

from lmdeck._late_patterns import late_pattern
from lmdeck._limits import DEFAULT_LIMITS
from lmdeck._parsing.dialects.dialect import BodyReader, Dialect, Marker, ReasoningTags
from lmdeck._parsing.json_calls import json_objects
from lmdeck._parsing.literals import LiteralReader, escaped
from lmdeck._parsing.members import Block
from lmdeck._parsing.offered_tools import STRING, json_for, types_of
from lmdeck._parsing.sink import Sink
from lmdeck._parsing.source import NON_SPACE, MalformedCall, NotACall, Reader, Source, TruncatedCall, stops
from lmdeck._parsing.unmarked_json import drafted
from lmdeck._parsing.value_ends import literal_after
from lmdeck._parsing.writers import colons, each

GEMMA_QUOTE, ESCAPE = STRING_TOKENS = ('<|"|>', "<escape>")
BEGIN = stops("call:")
PROOF = stops(GEMMA_QUOTE, "}")
PROOF_LIMIT = 400
NAME = late_pattern(r"[^\s{}<(]*")
NUMBER = late_pattern(r"-?\d")
BARE_CALL = late_pattern(r"call:([\w.\-]{1,80})\{")
PARTIAL_BARE_CALL = late_pattern(r"call:[\w.\-]{0,80}\Z")
CONTENT_CHANNELS = tuple(f"<|channel>{label}\n" for label in ("content", "final", "response", "answer"))


def braces(quote: str, *ends: str) -> BodyReader:  # noqa: C901 - one grammar, read top down
    """Return a reader of `call:NAME{…}` with `quote` around strings."""
    wanted = stops(*ends)
    string_end = stops(quote)
    bare_end = stops(",", "}", "]", quote, *ends)

    def read(source: Source, sink: Sink) -> Reader[None]:
        char = yield from source.skip_space()
        if char == ":" and (yield from literal_after(source, 1, BEGIN)):
            source.at += 1
            sink.note("a superfluous colon")
        if not char:
            raise TruncatedCall
        if char == "{":
            yield from json_objects(source, sink, wanted)
        elif (yield from source.ahead(stops(*BEGIN.literals, *(f"{name}{{" for name in sink.tools.schemas)))):
            yield from calls(source, sink)
        elif (yield from source.ends_inside(BEGIN, least=1)):
            raise TruncatedCall
        else:
            raise NotACall
        if not sink.is_draft:
            source.mark()
        yield from source.skip_space()
        yield from source.take(wanted)

    def calls(source: Source, sink: Sink) -> Reader[None]:
        """Read one call, or several directly after one another, each separately."""
        block = Block(source, sink)
        while True:
            yield from block.member(call(source, sink), wanted)
            char = yield from source.skip_space()
            if char == "," and (yield from literal_after(source, 1, BEGIN)):
                source.at += 1
                yield from source.skip_space()
            if not (yield from source.ahead(BEGIN)):
                break
        block.end()

    def call(source: Source, sink: Sink) -> Reader[None]:
        begin = yield from source.take(BEGIN)
        yield from source.skip_space()
        name = yield from source.collect_while(NAME)
        char = yield from source.skip_space()
        if not char:
            raise TruncatedCall
        if char not in "{<(":
            raise MalformedCall(f"expected a brace, found {char!r}")
        sink.open(name)
        if not begin:
            sink.note("a missing 'call:'")
        sink.flush()
        if char == "(":
            yield from in_brackets(source, sink)
        elif char == "{":
            source.at += 1
            yield from object_(source, sink, sink.tools.schemas.get(sink.name, {}), 0)
        sink.close()

    def in_brackets(source: Source, sink: Sink) -> Reader[None]:
        """Read `({…})` or `(key=value, …)`, which models write for `{…}` (hermes-agent #7449)."""
        sink.note("brackets instead of braces")
        schema = sink.tools.schemas.get(sink.name, {})
        source.at += 1
        if (yield from source.skip_space()) == "{":
            source.at += 1
            yield from object_(source, sink, schema, 0)
            yield from source.skip_space()
            yield from source.take(stops(")"))
        else:
            yield from object_(source, sink, schema, 0, closer=")")

    def object_(source: Source, sink: Sink, schema: object, depth: int, closer: str = "}") -> Reader[None]:
        properties = schema.get("properties") if isinstance(schema, dict) else None
        sink.write("{")
        is_first = True
        while True:
            char = yield from source.skip_space()
            if char == closer:
                source.at += 1
                break
            if char == ",":
                source.at += 1
                continue
            if not char:
                raise TruncatedCall
            if (yield from source.ahead(wanted)):
                sink.note("a missing closing bracket")
                break
            key = yield from key_(source)
            if depth:
                sink.write(f"{'' if is_first else ', '}{encode_basestring(key)}: ")
            else:
                sink.write_key(key, is_first=is_first)
            is_first = False
            inner = properties.get(key) if isinstance(properties, dict) else None
            yield from value_(source, sink, inner, depth + 1, closer)
        sink.write("}")

    def key_(source: Source) -> Reader[str]:
        if (yield from source.take(string_end)):
            key = yield from source.collect(string_end)
            source.at += len(quote)
            yield from source.skip_space()
        else:
            key = (yield from source.collect(stops(":", "=", "}", quote, *ends))).strip().strip("\"'")
        if not (yield from source.peek()):
            raise TruncatedCall
        if (yield from source.take(stops(":", "="))) == "" or not key:
            raise MalformedCall("a key without a value")
        return key

    def value_(source: Source, sink: Sink, schema: object, depth: int, closer: str = "") -> Reader[None]:
        if depth > DEFAULT_LIMITS.nested_values:
            raise MalformedCall(f"more than {DEFAULT_LIMITS.nested_values} nested values")
        char = yield from source.skip_space()
        if not char:
            raise TruncatedCall
        if (yield from source.take(string_end)):
            sink.write('"')
            yield from string(source, sink)
            sink.write('"')
        elif char == "{":
            source.at += 1
            yield from object_(source, sink, schema, depth)
        elif char == "[":
            source.at += 1
            yield from array(source, sink, schema.get("items") if isinstance(schema, dict) else None, depth)
        elif char in "\"'":
            sink.note("ordinary quotes")
            yield from LiteralReader(source, sink.write, sink.note, ends=wanted).string()
        else:
            yield from bare(source, sink, schema, closer)

    def string(source: Source, sink: Sink) -> Reader[None]:
        """Read up to the token that ends a string, after which the call continues."""
        tail, is_empty, has_end = "", True, False

        def put(text: str) -> None:
            nonlocal tail, is_empty, has_end
            is_empty = False
            tail += text
            has_end = has_end or wanted.pattern.search(tail) is not None
            tail = tail[-wanted.longest :]
            sink.write(escaped(text))

        while (yield from source.until(string_end, put)):
            source.at += len(quote)
            if (yield from continues(source)):
                return
            if has_end:
                raise MalformedCall("a string has no end")
            sink.note("a superfluous string token")
            if not is_empty:
                sink.write(escaped(quote))
        if has_end:
            raise MalformedCall("a string has no end")
        raise TruncatedCall

    def continues(source: Source) -> Reader[bool]:
        """Whether a comma, a bracket or the end of the call comes next."""
        while True:
            found = NON_SPACE.search(source.text, source.at)
            if found and (found.group() in ",}])" or wanted.pattern.match(source.text, found.start())):
                return True
            if source.closed or (found and source.text[found.start() :] not in wanted.prefixes):
                return found is None
            yield

    def array(source: Source, sink: Sink, items: object, depth: int) -> Reader[None]:
        sink.write("[")
        is_first = True
        while True:
            char = yield from source.skip_space()
            if char == "]":
                source.at += 1
                break
            if char == ",":
                source.at += 1
                continue
            if not char:
                raise TruncatedCall
            if char == "}" or (yield from source.ahead(wanted)):
                sink.note("a missing closing bracket")
                break
            sink.write("" if is_first else ", ")
            is_first = False
            yield from value_(source, sink, items, depth + 1)
        sink.write("]")

    def bare(source: Source, sink: Sink, schema: object, closer: str) -> Reader[None]:
        text = (yield from source.collect(stops(*bare_end.literals, closer))).strip()
        if any(token in text for token in STRING_TOKENS if token != quote):
            raise MalformedCall("a string token of another dialect")
        if (yield from source.take(string_end)):
            sink.note("a missing string token")
        if text == "null":
            sink.write(text)
            return
        types = types_of(schema, {})
        written = json_for(text, types)
        if not types and not NUMBER.match(text) and text not in ("true", "false", "null"):
            written = encode_basestring(text)
        sink.write(written if types != STRING else encode_basestring(text))

    return read


GEMMA_CALLS = braces(GEMMA_QUOTE, "<tool_call|>", "<call|>", "</call>")
MISSPELLED = ("<|tool_call|>", "<call>")


def misspelled_calls(source: Source, sink: Sink) -> Reader[None]:
    """Read calls after a first token that is misspelled (vmlx-swift #61)."""
    yield from source.take(stops(*MISSPELLED))
    yield from GEMMA_CALLS(source, sink)


def bare_calls(source: Source, sink: Sink) -> Reader[None]:
    """Read calls whose first token a server has removed.

    Such a call is `call:NAME{key:<|"|>…<|"|>}` and stands alone.

    Raises:
        NotACall: Another word follows, no offered tool has this name, or no string token proves the dialect.
    """
    while not (found := BARE_CALL.match(source.text, source.at)):
        if source.closed or not PARTIAL_BARE_CALL.match(source.text, source.at):
            raise NotACall
        yield
    if sink.tools.resolve(found.group(1)) is None:
        raise NotACall
    while not (proof := PROOF.pattern.search(source.text, source.at, source.at + PROOF_LIMIT)):
        if source.closed or len(source.text) - source.at >= PROOF_LIMIT:
            raise NotACall
        yield
    if proof.group() != GEMMA_QUOTE:
        raise NotACall
    yield from drafted(source, sink, GEMMA_CALLS)


DIALECTS = (
    Dialect(
        name="gemma4", writes=each("<|tool_call>", colons(GEMMA_QUOTE), "<tool_call|>", between=""),
        models="Gemma 4",
        markers=(
            Marker("<|tool_call>", GEMMA_CALLS), Marker("<|call>", GEMMA_CALLS),
            Marker("call:", bare_calls, keeps=True, at_start=True),
            *(Marker(f"{token}call:", misspelled_calls, keeps=True, at_start=token == "<call>") for token in MISSPELLED),
        ),
        reasoning=(ReasoningTags("<|channel>", "<channel|>", anywhere=True, label="thought", content=CONTENT_CHANNELS),),
        drops=("<tool_call|>", "<|tool_response>", "<turn|>", "<tool_response|>"), architectures=("gemma4",),
        example='<|tool_call>call:f{a:<|"|>x<|"|>,n:1}<tool_call|>',
    ),
    Dialect(
        name="functiongemma", writes=each("<start_function_call>", colons(ESCAPE), "<end_function_call>", between=""),
        models="FunctionGemma 270M",
        markers=(Marker("<start_function_call>", braces(ESCAPE, "<end_function_call>")),), architectures=("gemma3",),
        drops=("<end_function_call>", "<start_function_response>"),
        example="<start_function_call>call:f{a:<escape>x<escape>,n:1}<end_function_call>",
    ),
)  # fmt: skip
