"""A back end that answers from a script."""

from __future__ import annotations

import asyncio
import hashlib
import random
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import msgspec

from lmdeck._encoders.backend_events import Finished, ReasoningTextDelta, TextDelta, ToolArgumentsDelta
from lmdeck.server.backend import BackendError
from lmdeck.server.jobs import Decided, Embedded, EngineRuntime
from lmdeck.testing.faults import find_fault
from lmdeck.testing.raw import RawAnswer
from lmdeck.testing.scripted_answers import Answer, PlannedCall
from lmdeck.testing.scripted_decisions import distribution

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sequence

    from lmdeck._encoders.backend_events import BackendEvent
    from lmdeck.server.jobs import (
        ChatJob,
        CompletionJob,
        DecisionJob,
        DownloadState,
        EmbeddingJob,
        Loaded,
        LoadJob,
        ModelDescription,
    )
    from lmdeck.testing.fake_models import FakeModelStore
    from lmdeck.testing.received_requests import SentRequest
    from lmdeck.testing.scripting import Rule, Script

DIMENSIONS = 8
CHARACTERS_PER_TOKEN = 4
EVENTS_OF_A_TURN = 64
_OVERFLOW = (
    "Trying to keep the first {tokens} tokens when context the overflows. However, the model is loaded with context length of "
    "only {limit} tokens, which is not enough. Try to load the model with a larger context length, or provide a shorter input"
)


class FakeExchange:
    """A request to the fake, and the answer that was chosen for it."""

    def __init__(self, request: SentRequest, rule: Rule | None, rng: random.Random) -> None:
        self.request = request
        self.rule = rule
        self.rng = rng
        self.answer: Answer | RawAnswer | None = None


CURRENT: ContextVar[FakeExchange] = ContextVar("lmdeck_fake_exchange")


class ScriptedBackend:
    """A back end that answers from a script, with the models of a `FakeModelStore`."""

    runtime = EngineRuntime(name="lmdeck-fake", version="1.0", supported_formats=("gguf",))

    def __init__(
        self,
        script: Script,
        models: FakeModelStore,
        *,
        strict: bool,
        unexpected: list[SentRequest],
        tokens_per_second: float | None,
        time_to_first_token: float,
    ) -> None:
        self._script = script
        self._models = models
        self._strict = strict
        self._unexpected = unexpected
        self._tokens_per_second = tokens_per_second
        self._time_to_first_token = time_to_first_token
        self.in_progress = 0
        self.vectors: dict[str, tuple[float, ...]] = {}

    def models(self) -> Sequence[ModelDescription]:
        """Return the models of the store."""
        return self._models.describe()

    def chat(self, job: ChatJob) -> AsyncGenerator[BackendEvent, None]:
        """Answer a chat from the script.

        Raises:
            BackendError: The scripted answer is a refusal, or there is none for this request.
        """
        if self._models.models[job.model].type == "decision":
            raise BackendError(f'Model "{job.model}" is a decision model and does not chat.')
        exchange = CURRENT.get()
        answer = self._next(exchange)
        if answer.from_schema:
            answer = _from_schema(answer, job)
        tokens = sum(_tokens(message.text) for message in job.messages)
        self._check_context(job.model, tokens)
        return self._events(answer, exchange, job.model, tokens, job.sampling.max_tokens, job.ttl)

    def complete(self, job: CompletionJob) -> AsyncGenerator[BackendEvent, None]:
        """Continue a prompt from the script.

        Raises:
            BackendError: As for `chat`.
        """
        exchange = CURRENT.get()
        answer = self._next(exchange)
        return self._events(answer, exchange, job.model, _tokens(job.prompt), job.sampling.max_tokens)

    def _next(self, exchange: FakeExchange) -> Answer:
        answer = self._script.take(exchange.request, exchange.rule)
        if isinstance(answer, RawAnswer):
            exchange.answer = answer
            raise BackendError("The scripted answer is raw bytes, which replace this response.", status=500)
        if answer is None:
            if self._strict:
                self._unexpected.append(exchange.request)
                message = (
                    f"FakeLMStudio has no answer left for this request: {exchange.request}. Script one with `fake.reply(…)`, "
                    "or create the fake with `strict=False`."
                )
                raise BackendError(message, status=501)
            answer = Answer(content=f"You said: {exchange.request.last_user}")
        if self._script.always is not None and answer.fault is None:
            answer = msgspec.structs.replace(answer, fault=self._script.always)
        if answer.fault is not None:
            answer = find_fault(answer.fault).change_answer(answer)
        exchange.answer = answer
        if answer.refusal is not None:
            raise answer.refusal
        return answer

    def _check_context(self, key: str, tokens: int) -> None:
        limit = next((instance.context_length for instance in self._models.models[key].instances), None)
        if limit is not None and tokens > limit:
            raise BackendError(_OVERFLOW.format(tokens=tokens, limit=limit))

    async def _events(
        self,
        answer: Answer,
        exchange: FakeExchange,
        key: str,
        tokens: int,
        max_tokens: int | None,
        ttl: int | None = None,
    ) -> AsyncGenerator[BackendEvent, None]:
        async for progress in self._models.ensure_loaded(key, ttl):
            yield progress
        async with self._models.slot(key), _counted(self):
            wait = self._time_to_first_token if answer.time_to_first_token is None else answer.time_to_first_token
            if wait:
                await asyncio.sleep(wait)
            speed = answer.tokens_per_second or self._tokens_per_second
            events = answer.events(exchange.rng, tokens)
            for number, event in enumerate(events if max_tokens is None else _limited(events, tokens, max_tokens), 1):
                if speed and isinstance(event, TextDelta | ReasoningTextDelta | ToolArgumentsDelta):
                    await asyncio.sleep(1 / speed)
                elif number % EVENTS_OF_A_TURN == 0 or isinstance(event, Finished):
                    await asyncio.sleep(0)  # a disconnect is noticed, and other requests are answered
                yield event

    async def embed(self, job: EmbeddingJob) -> Embedded:
        """Return the scripted vectors; other texts get vectors that depend only on the text."""
        self._raise_scripted_error(CURRENT.get())
        async for _ in self._models.ensure_loaded(job.model):
            continue  # these endpoints do not report load progress
        vectors = tuple(self.vectors.get(text) or _vector(text) for text in job.texts)
        return Embedded(vectors=vectors, prompt_tokens=sum(map(_tokens, job.texts)))

    async def decide(self, job: DecisionJob) -> Decided:
        """Answer typed questions from the script.

        Raises:
            BackendError: The scripted answer is a refusal, or does not answer questions.
        """
        exchange = CURRENT.get()
        answer = self._next(exchange)
        if answer.decisions is None and not answer.from_schema and self._strict:
            message = "The next scripted answer does not answer typed questions. Script one with `fake.decides(…)`."
            raise BackendError(message, status=501)
        async for _ in self._models.ensure_loaded(job.model):
            continue  # these endpoints do not report load progress
        scripted = answer.decisions or {}
        return Decided(
            distributions=tuple(distribution(each, scripted) for each in job.questions), prompt_tokens=_tokens(job.text)
        )

    def _raise_scripted_error(self, exchange: FakeExchange) -> None:
        """Use the next scripted answer if it is a refusal, a fault or the function of a path.

        No other kind fits embeddings.
        """
        first = self._script.peek(exchange.rule)
        is_refusal = isinstance(first, Answer) and (first.refusal is not None or first.fault is not None)
        if is_refusal or (callable(first) and exchange.rule is not None and exchange.rule.anywhere):
            self._next(exchange)

    async def load(self, job: LoadJob) -> Loaded:
        """Load another instance of a model."""
        return await self._models.load(job)

    async def unload(self, instance_id: str) -> None:
        """Unload an instance."""
        self._models.unload(instance_id)

    async def download(self, model: str, quantization: str | None = None) -> DownloadState:
        """Start a scripted download."""
        return self._models.download(model)

    async def download_state(self, job_id: str) -> DownloadState:
        """Return the next state of a download."""
        return self._models.download_state(job_id)


@asynccontextmanager
async def _counted(backend: ScriptedBackend) -> AsyncIterator[None]:
    backend.in_progress += 1
    try:
        yield
    finally:
        backend.in_progress -= 1


def _from_schema(answer: Answer, job: ChatJob) -> Answer:
    """Return an answer that matches the schema or the required tool of the request."""
    from lmdeck.testing.schema_values import value_for  # few answers follow a schema

    if job.json_schema is not None:
        text = msgspec.json.encode(value_for(job.json_schema)).decode()
        return msgspec.structs.replace(answer, content=text)
    if job.tools and job.tool_choice == "required":
        tool = job.tools[0]
        return msgspec.structs.replace(
            answer, calls=(PlannedCall(name=tool.name, arguments=value_for(tool.parameters)),)
        )
    return msgspec.structs.replace(answer, content="text")


def _limited(events: Iterable[BackendEvent], prompt_tokens: int, max_tokens: int) -> Iterator[BackendEvent]:
    """Yield the events of an answer up to `max_tokens` pieces of text and reasoning.

    Calls are never cut.
    """
    remaining = max_tokens
    for event in events:
        if isinstance(event, TextDelta | ReasoningTextDelta):
            if remaining == 0:
                yield Finished(
                    stop_reason="maxPredictedTokensReached", prompt_tokens=prompt_tokens, completion_tokens=max_tokens
                )
                return
            remaining -= 1
        yield event


def _tokens(text: str) -> int:
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def _vector(text: str) -> tuple[float, ...]:
    rng = random.Random(hashlib.sha256(text.encode()).digest())  # not a secret
    numbers = [rng.gauss(0, 1) for _ in range(DIMENSIONS)]
    length = sum(number * number for number in numbers) ** 0.5
    return tuple(number / length for number in numbers)
