"""The plans of embeddings and plain completions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lmdeck._arguments import checked_text
from lmdeck._compatibility import CompatibilityFixes
from lmdeck._pipeline.calls import ResponseStream
from lmdeck._pipeline.effects import Plan
from lmdeck._plans.generation import GenerationRequest, generate
from lmdeck._plans.model_lists import ask_json, ask_listing
from lmdeck._plans.models import apply_profile
from lmdeck._plans.session import Session
from lmdeck._requests.fill_in_the_middle import fill_in_the_middle
from lmdeck._responses.embeddings import (
    batches,
    checked_texts,
    read_completion,
    read_usage,
    read_vectors,
)
from lmdeck._responses.json_reader import JSONReader
from lmdeck._streaming.assembler import ChatAssembler
from lmdeck._streaming.chat_reader import ChatReader
from lmdeck._streaming.openai_completions import CompletionTranslator
from lmdeck._streaming.translating_reader import TranslatingReader
from lmdeck.errors import EndpointNotFoundError, NoModelLoadedError
from lmdeck.outputs import Completion, Embeddings
from lmdeck.stats import Usage

NAME_IT = "Name the model: `lm.embed(text, model=…)`."


def embed(
    session: Session, input_: str | Sequence[str], model: str | None, batch_size: int, options: Mapping[str, Any]
) -> Plan[Embeddings]:
    """Embed texts, one batch at a time: LM Studio is reported to hang on concurrent embeddings."""
    texts = checked_texts(input_)
    named = model or (yield from choose_embedder(session))
    yield from apply_profile(session, named or "")
    vectors: list[list[float]] = []
    answered, usage = "", None
    for batch in batches(texts, batch_size):
        body = {"model": named, "input": batch[0] if isinstance(input_, str) else list(batch), **_sent(options)}
        answer = yield from ask_json(session, "POST", "/v1/embeddings", body, generates=True)
        vectors += read_vectors(answer, len(batch), options.get("dimensions"))
        usage = _sum(usage, read_usage(answer))
        answered = answered or _name(answer)
    return Embeddings(vectors=vectors, model=answered or named or "", usage=usage)


def complete(
    session: Session, prompt: str, suffix: str | None, model: str | None, options: Mapping[str, Any]
) -> Plan[Completion]:
    """Complete a text, or fill in the text before `suffix`; no prompt template is applied."""
    _check_texts(prompt, suffix)
    fixes = CompatibilityFixes(session.settings.without_rules)

    def build(named: str | None) -> GenerationRequest[JSONReader]:
        body = {**_completion_body(named, prompt, suffix, options), "stream": False}
        return GenerationRequest(path="/v1/completions", body=body, fixes=fixes, make_reader=JSONReader)

    stream = yield from generate(session, model, build)
    return read_completion(
        stream.reader.value,
        model or session.settings.model or session.models.chosen or "",
        expects_tokens=options.get("max_tokens") != 0,
        expects_logprobs=options.get("logprobs") not in (None, False),
    )


def begin_completion(
    session: Session, prompt: str, suffix: str | None, model: str | None, options: Mapping[str, Any]
) -> Plan[ResponseStream[ChatReader]]:
    """Request a streamed completion, and read it up to its first chunks."""
    _check_texts(prompt, suffix)
    fixes = CompatibilityFixes(session.settings.without_rules)

    def build(named: str | None) -> GenerationRequest[ChatReader]:
        def make_reader(status: int, headers: Mapping[str, str]) -> TranslatingReader:
            assembler = ChatAssembler(
                expects_tokens=options.get("max_tokens") != 0,
                expects_logprobs=options.get("logprobs") not in (None, False),
                problems=fixes.problems,
                model=named or "",
                model_names=session.models.facts(named).names,
            )
            return TranslatingReader(status, headers, assembler, CompletionTranslator())

        body = {**_completion_body(named, prompt, suffix, options), "stream": True}
        if fixes.is_enabled("include_usage"):
            body["stream_options"] = {**(options.get("stream_options") or {}), "include_usage": True}
        return GenerationRequest(path="/v1/completions", body=body, fixes=fixes, make_reader=make_reader)

    return generate(session, model, build)


def _check_texts(prompt: str, suffix: str | None) -> None:
    """Check the texts of a completion.

    Raises:
        ConfigurationError: One of them is not text.
    """
    checked_text(prompt, "A prompt", "For messages use `lm.chat()`.")
    if suffix is not None:
        checked_text(suffix, "A suffix", "Pass the text after the gap, or None.")


def _completion_body(model: str | None, prompt: str, suffix: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    text = prompt if suffix is None else fill_in_the_middle(model or "", prompt, suffix)
    return {**({"model": model} if model else {}), "prompt": text, **_sent(options)}


def choose_embedder(session: Session) -> Plan[str]:
    """Return an embedding model: a loaded one, or the first in the list."""
    try:
        listing = yield from ask_listing(session)
    except EndpointNotFoundError:
        raise NoModelLoadedError("The server does not list any models.", hint=NAME_IT) from None
    embedders = [model for model in listing.models if model.type == "embedding"]
    if not embedders and listing.api == "openai" and len(listing.models) == 1:
        embedders = listing.models  # such a list does not contain model types
    if not embedders:
        has_types = listing.api != "openai"
        raise NoModelLoadedError(
            "The server has no embedding model."
            if has_types
            else "The server does not report which models are embedding models.",
            hint=f"Download one, for example text-embedding-nomic-embed-text-v1.5, or: {NAME_IT}"
            if has_types
            else NAME_IT,
        )
    loaded = next((model for model in embedders if model.instances), None)
    return loaded.instances[0].id or loaded.key if loaded else embedders[0].key


def _sent(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _name(answer: object) -> str:
    return str(answer.get("model") or "") if isinstance(answer, Mapping) else ""


def _sum(one: Usage | None, other: Usage | None) -> Usage | None:
    return one or other if one is None or other is None else one + other
