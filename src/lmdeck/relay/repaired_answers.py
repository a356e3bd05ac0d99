"""Readers of answers that convert the server's bytes to repaired bytes of the same format."""

from __future__ import annotations

import base64
from array import array
from collections.abc import Callable, Mapping
from sys import byteorder
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace

from lmdeck._chunks import Chunk
from lmdeck._incoming.headers import HOP_BY_HOP
from lmdeck._responses.api_errors import api_error
from lmdeck._responses.embeddings import read_vectors
from lmdeck._responses.json_bodies import decoded_or_text, is_error_body
from lmdeck._responses.json_reader import JSONReader, Reader
from lmdeck._streaming.chat_reader import ChatReader, Observer
from lmdeck._streaming.sse import EVENT_DATA
from lmdeck.errors import EndpointNotFoundError, LMStudioError, ToolCallParseError, TransportError
from lmdeck.messages import Problem, Reply
from lmdeck.relay.requested_json import RequestedJson
from lmdeck.relay.writing import Writer, rules_of
from lmdeck.stats import Usage

__all__ = ["ChatRelay", "EmbeddingRelay", "PassingRelay", "RelayReader"]

LOST_CALLS = {"tool_call_unparsed", "tool_call_unnamed"}
PASSED = Chunk()
REFUSAL_BYTES = 1 << 16
NOT_PASSED = HOP_BY_HOP | {"content-encoding", "content-length"}
JSON = {"content-type": "application/json"}
EVENTS = {"content-type": "text/event-stream", "cache-control": "no-cache", "x-accel-buffering": "no"}


class RelayReader(Reader, Protocol):
    """A reader that also writes the repaired answer."""

    def head(self) -> dict[str, str]:
        """Return the headers of the answer.

        They contain all problems only after the complete answer was read.
        """
        ...

    def take(self) -> bytes:
        """Return the bytes that were written since the last call."""
        ...

    def continue_text(self, data: bytes) -> bytes | None:
        """Read bytes that only continue the text, as most do, and return what to write.

        None: they are something else, and nothing was read.
        """
        ...

    def error_event(self, error: LMStudioError) -> bytes:
        """Return the event that ends a stream with an error."""
        ...


class ChatRelay:
    """The relay of an answer with generated text, in one of its wire formats."""

    def __init__(
        self,
        make_reader: Callable[[Observer], ChatReader],
        writer: Writer,
        *,
        streams: bool,
        adjusted: list[Problem],
        requested_json: RequestedJson | None,
        write_error: Callable[[LMStudioError], dict[str, Any]],
    ) -> None:
        self._reader = make_reader(requested_json.observing(writer.observe) if requested_json else writer.observe)
        self._writer = writer
        self._streams = streams
        self._problems = adjusted
        self._requested_json = requested_json
        self._write_error = write_error
        self._body = b""
        self._is_finished = False
        self.reply: Reply | None = None

    @property
    def failure(self) -> LMStudioError | None:
        """The error that followed the chunks read last."""
        return self._reader.failure

    @property
    def is_done(self) -> bool:
        """Whether the answer's own end mark was read."""
        return self._reader.is_done

    @property
    def is_in_call(self) -> bool:
        """Whether a tool call is being generated or run; servers may then be silent for long."""
        return self._reader.is_in_call

    def feed(self, data: bytes) -> list[Chunk]:
        """Read bytes and return the chunks with output of the model.

        The headers of the answer are sent with the first chunk, so that earlier failures get an error status.

        Raises:
            LMStudioError: The bytes report an error.
        """
        return [chunk for chunk in self._reader.feed(data) if _has_output(chunk)]

    def continue_text(self, data: bytes) -> bytes | None:
        """Read an event that differs from the last only in its text; return the bytes to send.

        None if the bytes are anything else; nothing was read then.
        """
        around = self._writer.around_text
        if around is None or self._requested_json is not None:
            return None
        chunks: list[Chunk] = []
        text = self._reader.continue_text(data, around, chunks)
        if not text:
            return None
        if len(chunks) == 1 and chunks[0].content == text and chunks[0].tool_call is None:
            return data
        self._writer.observe(data[EVENT_DATA], chunks)
        return self.take()

    def finish(self) -> list[Chunk]:
        """Read the end of the bytes, and write the end of the answer.

        Raises:
            LMStudioError: The answer is cut, empty, or not an answer of this format.
        """
        chunks = self._reader.finish()
        reply = self._counted(self._completed(_without_lost_calls(self._reader.reply())))
        self._problems = reply.problems
        self.reply = reply
        if self._streams:
            self._writer.end(reply)
        else:
            self._body = self._writer.body(reply)
        self._is_finished = True
        return chunks

    def partial(self) -> Reply:
        """Return the reply so far."""
        return self._reader.partial()

    def cut_off(self) -> Reply:
        """Read the end of an answer that failed, and return the reply so far."""
        return self._reader.cut_off()

    def is_whole_without_end(self, error: TransportError) -> bool:
        """Whether the answer is complete although its connection broke."""
        return self._reader.is_whole_without_end(error)

    def head(self) -> dict[str, str]:
        """Return the headers of the answer."""
        rules = rules_of(self._problems)
        report = {"x-lmdeck-problems": str(len(self._problems)), "x-lmdeck-rules": ",".join(rules)}
        return {**(EVENTS if self._streams else JSON), **report}

    def take(self) -> bytes:
        """Return the bytes that were written since the last call."""
        if self._streams:
            return self._writer.take()
        body, self._body = self._body, b""
        return body

    def error_event(self, error: LMStudioError) -> bytes:
        """Return the event that ends a stream with an error."""
        return self.take() + self._writer.failure(self._write_error(error))

    def _completed(self, reply: Reply) -> Reply:
        """Return the reply with the requested JSON, and write the part that was held back."""
        if self._requested_json is None:
            return reply
        reply, unwritten = self._requested_json.found(reply)
        if unwritten:
            self._writer.observe(b"", [Chunk(unwritten)])
        return reply

    @staticmethod
    def _counted(reply: Reply) -> Reply:
        """Return the reply with a usage, which clients require.

        If the server sent none, it is zeros, with a problem.
        """
        if reply.usage is not None:
            return reply
        problem = Problem("usage_missing", "The server did not report token counts.")
        return replace(reply, usage=Usage(), problems=[*reply.problems, problem])


def _without_lost_calls(reply: Reply) -> Reply:
    """Return the reply; if the token limit cut its last call, its finish reason is `length`.

    Raises:
        ToolCallParseError: A call cannot be parsed; other clients do not look for problems in an answer.
    """
    if any(problem.code == "tool_call_incomplete" for problem in reply.problems):
        return replace(reply, finish_reason="length")
    for problem in reply.problems:
        if problem.code in LOST_CALLS:
            raise ToolCallParseError(problem.detail, raw=problem.raw, partial=reply)
    return reply


def _has_output(chunk: Chunk) -> bool:
    return bool(chunk.content or chunk.reasoning or chunk.tool_call or chunk.tool_call_delta)


class EmbeddingRelay(JSONReader):
    """The relay of an answer of `/v1/embeddings`.

    It checks that each text has a vector of the requested length, and encodes the vectors as requested.
    """

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str],
        count: int,
        *,
        dimensions: object,
        packs: bool,
        adjusted: list[Problem],
    ) -> None:
        super().__init__(status, headers)
        self._count = count
        self._dimensions = dimensions
        self._packs = packs
        self._problems = adjusted
        self._vectors: list[list[float]] = []

    def finish(self) -> list[Chunk]:
        """Read the end of the bytes.

        Raises:
            LMStudioError: The body is an error, or has not one vector per text, of the requested length.
        """
        chunks = super().finish()
        self._vectors = read_vectors(self.value, self._count, self._dimensions)
        return chunks

    def head(self) -> dict[str, str]:
        """Return the headers of the answer."""
        rules = ",".join(rules_of(self._problems))
        return {**JSON, "x-lmdeck-problems": str(len(self._problems)), "x-lmdeck-rules": rules}

    def take(self) -> bytes:
        """Return the complete body."""
        data = [
            {"object": "embedding", "index": index, "embedding": _packed(vector) if self._packs else vector}
            for index, vector in enumerate(self._vectors)
        ]
        problems = [{"code": each.code, "detail": each.detail, "rule": each.rule} for each in self._problems]
        receipt = {"problems": problems, "rules": rules_of(self._problems)}
        body = self.value if isinstance(self.value, Mapping) else {}
        return msgspec.json.encode({**body, "data": data, "lmdeck": receipt})

    def continue_text(self, data: bytes) -> None:
        """Read nothing: embeddings are not text."""
        return

    def error_event(self, error: LMStudioError) -> bytes:  # never streamed
        """Return nothing: embeddings are not streamed."""
        return b""


class PassingRelay:
    """The relay of an answer that is passed on unchanged.

    Only LM Studio's error for an unknown path with status 200 becomes an error.
    """

    def __init__(self, status: int, headers: Mapping[str, str]) -> None:
        self._status = status
        self._headers = headers
        self._held: list[bytes] | None = [] if "json" in headers.get("content-type", "") else None
        self._size = 0
        self._out: list[bytes] = []
        self.failure: LMStudioError | None = None

    @property
    def is_in_call(self) -> bool:
        """False: an answer that is passed on is not parsed."""
        return False

    @property
    def is_done(self) -> bool:
        """False: only the end of the bytes ends the answer."""
        return False

    def feed(self, data: bytes) -> list[Chunk]:
        """Pass bytes on; the start of a JSON body is held back until it is known not to be an error."""
        self._size += len(data)
        if self._held is None:
            self._out.append(data)
            return [PASSED]
        self._held.append(data)
        return self._release() if self._size > REFUSAL_BYTES else []

    def finish(self) -> list[Chunk]:
        """Read the end of the bytes.

        Raises:
            EndpointNotFoundError: The body says that the server does not know the path.
        """
        if self._held is not None:
            refusal = decoded_or_text(b"".join(self._held))
            if is_error_body(refusal):
                error = api_error(self._status, refusal, self._headers)
                if isinstance(error, EndpointNotFoundError):
                    raise error
        return self._release()

    def _release(self) -> list[Chunk]:
        self._out += self._held or ()
        self._held = None
        return [PASSED]

    def partial(self) -> None:
        """Return nothing: an answer that is passed on is not parsed."""
        return

    cut_off = partial

    def is_whole_without_end(self, error: TransportError) -> bool:  # its end is unknown
        """False: whether the answer is complete is known only at its end."""
        return False

    def head(self) -> dict[str, str]:
        """Return the server's headers, without those of the connection."""
        return {name: value for name, value in self._headers.items() if name not in NOT_PASSED}

    def take(self) -> bytes:
        """Return the bytes received since the last call."""
        out = b"".join(self._out)
        self._out.clear()
        return out

    def continue_text(self, data: bytes) -> None:
        """Read nothing: the format of the bytes is unknown."""
        return

    def error_event(self, error: LMStudioError) -> bytes:  # it has no known format
        """Return nothing: the connection is aborted instead."""
        return b""


def _packed(vector: list[float]) -> str:
    """Return 4-byte little-endian floats in base64, as in OpenAI's API."""
    packed = array("f", vector)
    if byteorder == "big":
        packed.byteswap()
    return base64.b64encode(packed.tobytes()).decode()
