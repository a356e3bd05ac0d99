"""A small real model in this process: mistralrs behind the `TextModel` protocol.

What was measured of mistralrs 0.9.5, and shapes this module:

- Loading and prompts: a GGUF is loaded from its file alone, tokenizer and template included, and no socket is ever opened. On
  two cores SmolLM2-135M Q4_1 makes 25 tokens a second as it is and 90 after requantizing to Q8_0 in memory (prompts: 28 and
  160 tokens a second), which costs 0.3 s of loading; so that is the default.
- Stopping: there is no abort call, but dropping the stream ends the generation with the token in the making; the process
  is idle after it. Prompt processing cannot be interrupted. A stream that is held unread goes on computing.
- Reusing: the longest common prefix of earlier finished prompts is not computed again (2.5 s became 0.08 s), but a prompt that
  is repeated whole is; a dropped stream leaves nothing behind.
- Counts come with the last chunk only, so an answer that ended at a stop string is counted afterwards, see `_counted`.
- Cores: its threads wait for each other at every step, spinning, so one other busy program stalls them all: two threads on two
  cores fell from 89 to 4 tokens a second beside one, a single thread from 50 to 43. One core is therefore left free, unless
  RAYON_NUM_THREADS says how many to use.
- Threads: every wait releases the GIL. Calls come from one worker thread here, which also makes requests queue.
- Seeds: there is one random generator a runner, always seeded alike when it is made. A seeded request therefore gets a new
  runner (1 s for the default model), advanced by as many draws as the seed says. `temperature: 0` draws nothing and needs none.
- Logging: it writes to standard output as RUST_LOG says, read once at import.
"""

from __future__ import annotations

import asyncio
import gc
import math
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

from lmdeck.engine.errors import EngineError
from lmdeck.engine.loading import Loader, first_line
from lmdeck.engine.stops import StopFilter
from lmdeck.engine.worker import Worker
from lmdeck.server.backend import BackendError
from lmdeck.server.events import Finished, LoadProgress
from lmdeck.server.jobs import Decided, Embedded, Instance, Loaded, Sampling
from lmdeck.server.text_model import Turn

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
    from pathlib import Path

    from mistralrs import ChatCompletionChunkResponse, ChatCompletionResponse, Runner

    from lmdeck.engine.embeddings import TokenTable
    from lmdeck.server.events import StopReason
    from lmdeck.server.jobs import EmbeddingJob, EngineRuntime, LoadJob, ModelDescription
    from lmdeck.server.text_model import Generation, LetterChoice, Piece

T = TypeVar("T")

MAX_WAITING = 64
MOST_LOGPROBS = 20
SECONDS_TO_CLOSE = 2.0
SEED_STREAMS = 64
"""Seeds are told apart modulo this: that many draws are the most that a seeded request first spends, at 10 ms each."""

DEFAULTS = Sampling(temperature=0.8, top_p=0.95, top_k=40, min_p=0.05)
"""LM Studio's, but for its repeat penalty of 1.1, without which the default model answers plainer."""

_OVERFLOW = (
    "The number of tokens to keep from the initial prompt is greater than the context length. "
    "Try to load the model with a larger context length, or provide a shorter input"
)


class EngineModel:
    """One GGUF model, loaded, answering one request at a time in the order in which they came."""

    def __init__(self, path: Path, *, requantize: str | None = "Q8_0") -> None:
        """Load a model, which blocks for as long as that takes.

        Raises:
            EngineError: mistralrs is not installed, the file is no GGUF, or it cannot be loaded.
        """
        self._loader = Loader(path, requantize)
        self._mistralrs = self._loader.mistralrs
        self._runner: Runner | None = self._loader.load()
        self._description = self._loader.describe()
        self._is_loaded = True
        self._table: TokenTable | None = None
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._worker = Worker("lmdeck-engine")

    @property
    def runtime(self) -> EngineRuntime:
        """The name and version of mistralrs."""
        return self._loader.runtime

    def models(self) -> Sequence[ModelDescription]:
        """List the one model, and, as an embedding model of its own, the table of its token vectors."""
        described = self._description
        loaded = Instance(id=described.key, context_length=described.max_context_length, config={"parallel": 1})
        instances = (loaded,) if self._is_loaded else ()
        return (msgspec.structs.replace(described, instances=instances), self._embedding())

    def _embedding(self) -> ModelDescription:
        described = self._description
        key = f"text-embedding-{described.key}"
        instance = Instance(id=key, context_length=described.max_context_length)
        return msgspec.structs.replace(
            described,
            key=key,
            type="embeddings",
            decides=False,
            display_name=f"{described.display_name} token vectors",
            instances=() if self._table is None else (instance,),
        )

    def generate(self, job: Generation) -> AsyncGenerator[Piece, None]:
        """Generate a text when its turn comes; closing the generator leaves the queue, or stops the generation.

        Raises:
            BackendError: Too many requests are waiting.
        """
        if self._waiting >= MAX_WAITING:
            message = f"{MAX_WAITING} requests are waiting for the model already. Send this one again later."
            raise BackendError(message, status=503)
        return self._generate(job)

    async def _generate(self, job: Generation) -> AsyncGenerator[Piece, None]:
        self._waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self._waiting -= 1
        pieces = self._pieces(job)
        try:
            if not self._is_loaded:
                yield LoadProgress(0.0)
                await self._in_worker(self._ensure)
                yield LoadProgress(1.0)
            while (piece := await asyncio.wrap_future(self._worker.submit(lambda: next(pieces, None)))) is not None:
                yield piece
        finally:
            self._turn.release()
            self._worker.submit(pieces.close)  # behind the step in progress, and before the next request's first

    async def embed(self, job: EmbeddingJob) -> Embedded:
        """Return one vector for each text, see `engine.embeddings`."""
        async with self._turn:
            return await self._in_worker(lambda: self._embed(job.texts))

    async def decide(self, model: str, choices: Sequence[LetterChoice]) -> Decided:  # there is one
        """Return the probability of each letter, from the scores of the first token."""
        async with self._turn:
            answered = [await self._in_worker(partial(self._letters, choice)) for choice in choices]
        return Decided(
            distributions=tuple(probabilities for probabilities, _ in answered),
            prompt_tokens=sum(tokens for _, tokens in answered),
        )

    async def load(self, job: LoadJob) -> Loaded:
        """Load the model again after it was unloaded; there is never more than one instance of it.

        Raises:
            BackendError: It is loaded already.
        """
        async with self._turn:
            if job.model != self._description.key:
                await self._in_worker(self._token_table)
                return Loaded(instance=self._embedding().instances[0], type="embedding")
            if self._is_loaded:
                message = f'Failed to load model "{job.model}". Error: the engine holds one instance, and it is loaded.'
                raise BackendError(message, code="model_load_failed")
            await self._in_worker(self._ensure)
        return Loaded(instance=self.models()[0].instances[0])

    async def unload(self, instance_id: str) -> None:
        """Free the model's memory until it is loaded again, by a call or by the next request.

        Raises:
            BackendError: There is no such instance.
        """
        async with self._turn:
            loaded = [instance.id for model in self.models() for instance in model.instances]
            if instance_id not in loaded:
                message = f'No loaded model found with instance ID "{instance_id}".'
                raise BackendError(message, status=404, type="model_not_found")
            await self._in_worker(self._unload if instance_id == self._description.key else self._unload_table)

    async def _in_worker(self, call: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._worker.submit(call))

    def close(self) -> None:
        """Stop generating and give the memory back, as soon as the step in progress is done; do not wait long for that."""
        self._worker.submit(self._drop)
        self._worker.close(SECONDS_TO_CLOSE)

    # --- from here on in the worker thread ---

    def _ensure(self) -> None:
        if self._runner is None:
            try:
                self._runner = self._loader.load()
            except EngineError as error:
                message = f'Failed to load model "{self._description.key}". Error: {error.message}'
                raise BackendError(message, code="model_load_failed") from error
        self._is_loaded = True

    def _unload(self) -> None:
        self._is_loaded = False
        self._drop()

    def _unload_table(self) -> None:
        self._table = None

    def _token_table(self) -> TokenTable:
        if self._table is None:
            self._table = self._loader.token_table()
        return self._table

    def _embed(self, texts: Sequence[str]) -> Embedded:
        if self._runner is None:
            self._ensure()
        runner, table = cast("Runner", self._runner), self._token_table()
        tokens = [runner.tokenize_text(text, add_special_tokens=False, enable_thinking=None) for text in texts]
        return Embedded(
            vectors=tuple(table.vector(each) for each in tokens), prompt_tokens=sum(len(each) for each in tokens)
        )

    def _letters(self, choice: LetterChoice) -> tuple[tuple[float, ...], int]:
        """Decode one letter under a grammar; a letter that is not among the likeliest tokens scores as the last of them."""
        if self._runner is None:
            self._ensure()
        runner = cast("Runner", self._runner)
        request = self._mistralrs.ChatCompletionRequest(
            messages=[{"role": "user", "content": choice.prompt}],
            model="default",
            max_tokens=1,
            temperature=0.0,
            logprobs=True,
            top_logprobs=MOST_LOGPROBS,
            grammar=" | ".join(f'"{letter}"' for letter in choice.letters).join(("start: ", "")),
            grammar_type="lark",
        )
        try:
            answer = cast("ChatCompletionResponse", runner.send_chat_completion_request(request))
        except ValueError as error:
            raise _failure(error) from None
        told = answer.choices[0].logprobs
        likeliest = told.content[0].top_logprobs if told and told.content else []
        scores = {one.bytes: one.logprob for one in reversed(likeliest)}
        floor = min(scores.values(), default=0.0)
        weights = [math.exp(scores.get(letter, floor)) for letter in choice.letters]
        total = sum(weights)
        return tuple(weight / total for weight in weights), answer.usage.prompt_tokens

    def _pieces(self, job: Generation) -> Generator[Piece, None, None]:
        runner = self._runner_for(job)
        limit = job.sampling.max_tokens
        try:
            request = self._request(job, limit)
            stops = StopFilter(job.sampling.stop)
            made: list[str] = []
            for chunk in _chunks(runner, request):
                text = chunk.choices[0].delta.content or ""
                made.append(text)
                if passed := stops.feed(text):
                    yield passed
                if stops.found:
                    break
                reason = chunk.choices[0].finish_reason
                if reason is not None and chunk.usage is not None:
                    if rest := stops.finish():
                        yield rest
                    used = chunk.usage
                    yield Finished(
                        stop_reason=_stop_reason(reason, used.completion_tokens, limit),
                        prompt_tokens=used.prompt_tokens,
                        completion_tokens=used.completion_tokens,
                    )
                    return
            if stops.found:
                yield self._counted(runner, job, "".join(made))
        except ValueError as error:
            raise _failure(error) from None

    def _counted(self, runner: Runner, job: Generation, text: str) -> Finished:
        """Count the tokens of an answer that ended at a stop string, by asking for one token more on the same prompt.

        Its cost is hidden behind the text, and it leaves the prompt in the prefix cache, which a dropped stream does not.
        """
        plain = self._request(job, 1, probe=True)
        used = [chunk.usage for chunk in _chunks(runner, plain) if chunk.usage is not None]
        return Finished(
            stop_reason="stopStringFound",
            prompt_tokens=used[-1].prompt_tokens if used else 0,
            completion_tokens=len(runner.tokenize_text(text, add_special_tokens=False, enable_thinking=None)),
        )

    def _request(self, job: Generation, max_tokens: int | None, *, probe: bool = False) -> Any:  # theirs
        asked = job.sampling
        turns = (Turn(self._loader.raw_role, job.prompt),) if isinstance(job.prompt, str) else job.prompt
        top_k = DEFAULTS.top_k if asked.top_k is None else asked.top_k
        return self._mistralrs.ChatCompletionRequest(
            messages=[{"role": turn.role, "content": turn.text} for turn in turns],
            model="default",
            stream=True,
            max_tokens=None if max_tokens is None else max(max_tokens, 1),
            temperature=0.0 if probe else _or(asked.temperature, DEFAULTS.temperature),
            top_p=_or(asked.top_p, DEFAULTS.top_p),
            top_k=top_k if top_k and top_k > 0 else None,
            min_p=_or(asked.min_p, DEFAULTS.min_p),
            repetition_penalty=asked.repeat_penalty,
            presence_penalty=asked.presence_penalty,
            frequency_penalty=asked.frequency_penalty,
            logit_bias=asked.logit_bias,
            grammar=job.constraint.grammar if job.constraint and not probe else None,
            grammar_type=job.constraint.kind if job.constraint and not probe else None,
        )

    def _runner_for(self, job: Generation) -> Runner:
        seed = job.sampling.seed
        if self._runner is None or (seed is not None and job.sampling.temperature != 0):
            self._drop()
            self._runner = self._loader.load()
            if seed is not None:
                self._advance(self._runner, seed)
        return self._runner

    def _advance(self, runner: Runner, seed: int) -> None:
        """Draw from the fresh random generator as often as the seed says, one draw a token."""
        request = self._mistralrs.ChatCompletionRequest(
            messages=[{"role": self._loader.raw_role, "content": "\n"}],
            model="default",
            stream=True,
            max_tokens=1 + seed % SEED_STREAMS,
            temperature=1.0,
            ignore_eos=True,
        )
        for _ in _chunks(runner, request):
            """Only the drawing matters."""

    def _drop(self) -> None:
        self._runner = None
        gc.collect()


def _chunks(runner: Runner, request: Any) -> Iterator[ChatCompletionChunkResponse]:  # theirs
    return cast("Iterator[ChatCompletionChunkResponse]", runner.send_chat_completion_request(request))


def _or(value: float | None, default: float | None) -> float | None:
    return default if value is None else value


def _stop_reason(reason: str, made: int, limit: int | None) -> StopReason:
    if reason != "length":
        return "eosFound"
    return "contextLengthReached" if limit is None or made < limit else "maxPredictedTokensReached"


def _failure(error: ValueError) -> BackendError:
    said = str(error)
    if "sequence length" in said:
        return BackendError(_OVERFLOW)
    if "rammar" in said or "JSON schema" in said:
        return BackendError(f"Failed to initialize samplers: failed to parse grammar: {said[:1000]}")
    return BackendError(f"The engine failed: {first_line(error)}. Send the request again.", status=500)
