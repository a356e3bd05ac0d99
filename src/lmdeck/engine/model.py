"""A small real model in this process: llama.cpp behind the `TextModel` protocol."""

from __future__ import annotations

import asyncio
import math
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import msgspec

from lmdeck._encoders.backend_events import Finished, LoadProgress
from lmdeck._requests.chat import RANDOM_SEED
from lmdeck.engine.errors import EngineError
from lmdeck.engine.llama import check_grammar
from lmdeck.engine.model_loading import ModelFile
from lmdeck.server.backend import BackendError
from lmdeck.server.jobs import Decided, Embedded, Instance, Loaded, Sampling
from lmdeck.server.text_model import Turn

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

    from lmdeck._encoders.backend_events import StopReason
    from lmdeck.engine.embeddings import TokenTable
    from lmdeck.engine.llama import LlamaServer
    from lmdeck.server.jobs import EmbeddingJob, EngineRuntime, LoadJob, ModelDescription
    from lmdeck.server.text_model import Generation, LetterChoice, Piece

MAX_WAITING = 64
MAX_LOGPROBS = 500

DEFAULTS = Sampling(temperature=0.8, top_p=0.95, top_k=40, min_p=0.05)
"""LM Studio's options, except its repeat penalty of 1.1.

Without the penalty, the default model answers more plainly.
"""


class EngineModel:
    """A loaded GGUF model, which answers one request at a time, in the order of their arrival."""

    def __init__(self, path: Path) -> None:
        """Load a model; blocks until it is loaded.

        Raises:
            EngineError: The extra is not installed, the file is not a GGUF, or it cannot be loaded.
        """
        self._file = ModelFile(path)
        self._description = self._file.describe()
        self._server: LlamaServer | None = self._file.load()
        self._table: TokenTable | None = None
        self._lock = asyncio.Lock()
        self._waiting = 0

    @property
    def runtime(self) -> EngineRuntime:
        """The name and version of the engine."""
        return self._file.runtime

    def models(self) -> Sequence[ModelDescription]:
        """List the model and, as a separate embedding model, the table of its token vectors."""
        described = self._description
        loaded = Instance(id=described.key, context_length=self._file.context_length, config={"parallel": 1})
        instances = () if self._server is None else (loaded,)
        return (msgspec.structs.replace(described, instances=instances), self._embedding())

    def _embedding(self) -> ModelDescription:
        described = self._description
        key = f"text-embedding-{described.key}"
        instance = Instance(id=key, context_length=self._file.context_length)
        return msgspec.structs.replace(
            described,
            key=key,
            type="embeddings",
            decides=False,
            display_name=f"{described.display_name} token vectors",
            instances=() if self._table is None else (instance,),
        )

    def generate(self, job: Generation) -> AsyncGenerator[Piece, None]:
        """Generate a text when its turn comes.

        Closing the generator leaves the queue, or stops the generation.

        Raises:
            BackendError: Too many requests are waiting, or the constraint cannot be compiled to a grammar.
        """
        if self._waiting >= MAX_WAITING:
            message = f"{MAX_WAITING} requests are already waiting for the model. Send this one again later."
            raise BackendError(message, status=503)
        fields = _fields(job.sampling)
        if job.constraint is not None:
            fields["grammar"] = check_grammar(job.constraint)
        return self._generate(job, fields)

    async def _generate(self, job: Generation, fields: dict[str, Any]) -> AsyncGenerator[Piece, None]:
        self._waiting += 1
        try:
            await self._lock.acquire()
        finally:
            self._waiting -= 1
        try:
            if self._server is None:
                yield LoadProgress(0.0)
                await self._loaded()
                yield LoadProgress(1.0)
            server = await self._loaded()
            fields["prompt"] = await _prompt(server, job.prompt)
            async with aclosing(_pieces(server, fields, job.sampling.max_tokens)) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            self._lock.release()

    async def embed(self, job: EmbeddingJob) -> Embedded:
        """Return one vector for each text, see `engine.embeddings`."""
        async with self._lock:
            server, table = await self._loaded(), await self._token_table()
            tokens = [await _tokens(server, text) for text in job.texts]
            vectors = await asyncio.to_thread(lambda: tuple(table.vector(each) for each in tokens))
        return Embedded(vectors=vectors, prompt_tokens=sum(len(each) for each in tokens))

    async def decide(self, model: str, choices: Sequence[LetterChoice]) -> Decided:  # `model`: there is only one
        """Return the probability of each letter, from the scores of the first token."""
        async with self._lock:
            server = await self._loaded()
            answered = [await _letters(server, choice) for choice in choices]
        return Decided(
            distributions=tuple(probabilities for probabilities, _ in answered),
            prompt_tokens=sum(tokens for _, tokens in answered),
        )

    async def load(self, job: LoadJob) -> Loaded:
        """Load the model again after it was unloaded; there is never more than one instance of it.

        Raises:
            BackendError: It is already loaded.
        """
        async with self._lock:
            if job.model != self._description.key:
                await self._token_table()
                return Loaded(instance=self._embedding().instances[0], type="embedding")
            if self._server is not None:
                message = f'Failed to load model "{job.model}". Error: the engine holds one instance, and it is loaded.'
                raise BackendError(message, code="model_load_failed")
            await self._loaded()
        return Loaded(instance=self.models()[0].instances[0])

    async def unload(self, instance_id: str) -> None:
        """Free the model's memory until it is loaded again, by a call or by the next request.

        Raises:
            BackendError: There is no such instance.
        """
        async with self._lock:
            loaded = [instance.id for model in self.models() for instance in model.instances]
            if instance_id not in loaded:
                message = f'No loaded model found with instance ID "{instance_id}".'
                raise BackendError(message, status=404, type="model_not_found")
            if instance_id == self._description.key:
                await asyncio.to_thread(self.close)
            else:
                self._table = None

    def close(self) -> None:
        """Free the model's memory, after the batch of tokens in progress."""
        server, self._server = self._server, None
        if server is not None:
            server.close()

    async def _loaded(self) -> LlamaServer:
        if self._server is None:
            try:
                self._server = await asyncio.to_thread(self._file.load)
            except EngineError as error:
                message = f'Failed to load model "{self._description.key}". Error: {error.message}'
                raise BackendError(message, code="model_load_failed") from error
        return self._server

    async def _token_table(self) -> TokenTable:
        if self._table is None:
            self._table = await asyncio.to_thread(self._file.token_table)
        return self._table


def _fields(sampling: Sampling) -> dict[str, Any]:
    """Return the fields of llama.cpp's `/completion` for sampling parameters.

    Source: the README of llama.cpp's server.
    """
    top_k = DEFAULTS.top_k if sampling.top_k is None else sampling.top_k
    chosen = {
        "n_predict": None if sampling.max_tokens is None else max(sampling.max_tokens, 1),
        "temperature": _value_or(sampling.temperature, DEFAULTS.temperature),
        "top_p": _value_or(sampling.top_p, DEFAULTS.top_p),
        "top_k": max(top_k or 0, 0),  # 0: all
        "min_p": _value_or(sampling.min_p, DEFAULTS.min_p),
        "repeat_penalty": sampling.repeat_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "logit_bias": list(sampling.logit_bias.items()) if sampling.logit_bias else None,
        "seed": None if sampling.seed is None else sampling.seed % RANDOM_SEED,
        "cache_prompt": sampling.seed is None,
        "stop": list(sampling.stop) or None,
    }
    return {name: value for name, value in chosen.items() if value is not None}


def _value_or(value: float | None, default: float | None) -> float | None:
    return default if value is None else value


async def _prompt(server: LlamaServer, prompt: tuple[Turn, ...] | str) -> str:
    """Return the text of a prompt, with the model's chat template around a history."""
    if isinstance(prompt, str):
        return prompt
    messages = [{"role": turn.role, "content": turn.text} for turn in prompt]
    return str((await server.ask("/apply-template", {"messages": messages}))["prompt"])


async def _pieces(server: LlamaServer, fields: dict[str, Any], limit: int | None) -> AsyncGenerator[Piece, None]:
    wanted = ["content", "stop", "stop_type", "tokens_evaluated", "tokens_predicted"]  # of the last event
    async with aclosing(server.stream("/completion", {**fields, "response_fields": wanted})) as events:
        async for event in events:
            if text := event["content"]:
                yield text
            if event["stop"]:
                generated = int(event["tokens_predicted"])
                yield Finished(
                    stop_reason=_stop_reason(event["stop_type"], generated, limit),
                    prompt_tokens=int(event["tokens_evaluated"]),
                    completion_tokens=generated,
                )
                return
    raise BackendError("The engine stopped before the answer was complete. Send the request again.", status=500)


def _stop_reason(stopped_by: str, generated: int, limit: int | None) -> StopReason:
    if stopped_by != "limit":
        return "stopStringFound" if stopped_by == "word" else "eosFound"
    return "contextLengthReached" if limit is None or generated < limit else "maxPredictedTokensReached"


async def _tokens(server: LlamaServer, text: str) -> list[int]:
    tokens: list[int] = (await server.ask("/tokenize", {"content": text, "add_special": False}))["tokens"]
    return tokens


async def _letters(server: LlamaServer, choice: LetterChoice) -> tuple[tuple[float, ...], int]:
    """Return the probability of each letter, and the number of prompt tokens.

    A letter that is not among the likeliest tokens gets the score of the last one.
    """
    prompt = await _prompt(server, (Turn("user", choice.prompt),))
    body = {"prompt": prompt, "n_predict": 1, "temperature": 0, "n_probs": MAX_LOGPROBS}
    answer = await server.ask("/completion", body)
    likeliest = answer["completion_probabilities"][0]["top_logprobs"]
    scores = {one["token"]: float(one["logprob"]) for one in reversed(likeliest)}
    floor = min(scores.values())
    weights = [math.exp(scores.get(letter, floor)) for letter in choice.letters]
    total = sum(weights)
    return tuple(weight / total for weight in weights), int(answer["tokens_evaluated"])
