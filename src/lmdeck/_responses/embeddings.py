"""Embeddings and plain completions: checks of the input, and parsing of the responses.

Sources: LM Studio docs `3_openai-compat/embeddings.md` and `completions.mdx`. LM Studio returns numbers even if base64 was
requested, and does not accept token ids (lmstudio-bug-tracker).
"""

from __future__ import annotations

import base64
import binascii
from array import array
from collections.abc import Iterator, Mapping, Sequence
from sys import byteorder
from typing import Any

import msgspec

from lmdeck._arguments import checked_list
from lmdeck._responses.figures import ENDED_EARLY, flatten_usage, stats_of_timings, with_draft_tokens
from lmdeck._responses.logprobs import LOGPROBS_MISSING, read_logprobs
from lmdeck._responses.model_names import is_same_model
from lmdeck.errors import ConfigurationError, EmptyReplyError, IncompleteStreamError, MalformedStreamError, describe
from lmdeck.messages import Problem, Reply
from lmdeck.outputs import Completion
from lmdeck.stats import Stats, Usage


def checked_texts(input_: str | Sequence[str]) -> list[str]:
    """Return the texts to embed as a list.

    Raises:
        ConfigurationError: It is not a list, the list is empty, or an item is not text: LM Studio does not accept token ids.
    """
    hint = "Pass a text or a list of texts."
    items: list[object] = [input_]
    if not isinstance(input_, str):
        items = [*checked_list(input_, "The input", hint, expected="a text or a list of texts")]
    texts = [item for item in items if isinstance(item, str)]
    if len(texts) < len(items):
        invalid = next(item for item in items if not isinstance(item, str))
        raise ConfigurationError(
            f"Only text can be embedded, not {describe(repr(invalid), 80)}.",
            hint="Pass a text or a list of texts; LM Studio does not accept token ids.",
        )
    if not texts:
        raise ConfigurationError("There is nothing to embed.", hint=hint)
    return texts


def batches(texts: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """Return an iterator over batches of at most `size` texts.

    Raises:
        ConfigurationError: `size` is not positive.
    """
    if size < 1:
        raise ConfigurationError(f"batch_size must be positive, not {size}.", hint="Omit it for the default.")
    return (texts[start : start + size] for start in range(0, len(texts), size))


def read_vectors(body: object, count: int, dimensions: object = None) -> list[list[float]]:
    """Return one vector for each of `count` texts, in their order, from numbers or base64.

    Raises:
        MalformedStreamError: The number of vectors differs from `count`, one cannot be read, their lengths differ, or the
            server ignored `dimensions`.
    """
    entries = body.get("data") if isinstance(body, Mapping) else None
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise MalformedStreamError(f"The answer has no embeddings: {describe(str(body))}")
    if len(entries) != count:
        raise MalformedStreamError(f"The server returned {len(entries)} embeddings for {count} texts.")
    indexes = [entry.get("index") for entry in entries]
    if sorted(index for index in indexes if isinstance(index, int)) == list(range(count)):
        entries = sorted(entries, key=lambda entry: int(entry["index"]))
    vectors = [_vector(entry.get("embedding")) for entry in entries]
    lengths = sorted({len(vector) for vector in vectors})
    if len(lengths) > 1:
        raise MalformedStreamError(f"The embeddings have different lengths: {lengths[0]} and {lengths[-1]} numbers.")
    if lengths and isinstance(dimensions, int) and lengths != [dimensions]:
        raise MalformedStreamError(
            f"The embeddings have {lengths[0]} numbers, although {dimensions} dimensions were requested.",
            hint="Leave `dimensions` out, or use a model and a server that support it.",
        )
    return vectors


def _vector(value: object) -> list[float]:
    try:
        if isinstance(value, str):
            return _from_base64(value)
        vector = msgspec.convert(value, list[float])
    except (msgspec.ValidationError, binascii.Error, ValueError) as error:
        raise MalformedStreamError(f"An embedding cannot be read: {error}.") from error
    if not vector:
        raise MalformedStreamError("An embedding is empty.")
    return vector


def _from_base64(text: str) -> list[float]:
    """Return the numbers of base64-encoded 4-byte little-endian floats.

    Source: OpenAI's `encoding_format`.
    """
    packed = array("f")
    packed.frombytes(base64.b64decode(text, validate=True))
    if byteorder == "big":
        packed.byteswap()
    return packed.tolist()


def read_usage(body: object) -> Usage | None:
    """Return the token counts of a body, or None."""
    usage = body.get("usage") if isinstance(body, Mapping) else None
    if not isinstance(usage, Mapping):
        return None
    flat = flatten_usage(dict(usage))
    counts = {name: flat[name] for name in Usage.__struct_fields__ if isinstance(flat.get(name), (int, float))}
    return Usage(**{name: int(count) for name, count in counts.items()})


def read_completion(
    body: object, model: str, adjusted: Sequence[Problem] = (), *, expects_tokens: bool, expects_logprobs: bool = False
) -> Completion:
    """Return the completion in a response of `/v1/completions`.

    Raises:
        MalformedStreamError: The body has no text.
        EmptyReplyError: The text is empty although tokens were requested.
        IncompleteStreamError: LM Studio ended the text early.
    """
    fields: Mapping[str, Any] = body if isinstance(body, Mapping) else {}
    choices = fields.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], Mapping) else {}
    text = choice.get("text")
    if not isinstance(text, str):
        raise MalformedStreamError(f"The answer has no completion: {describe(str(body))}")
    stats = _stats(fields.get("stats"), fields.get("timings"))
    if stats.stop_reason in ENDED_EARLY:
        raise IncompleteStreamError(ENDED_EARLY[stats.stop_reason], partial=Reply(content=text))
    if not text and expects_tokens:
        reason = choice.get("finish_reason")
        hint = EmptyReplyError.token_limit_hint if reason == "length" else None
        raise EmptyReplyError(f"The server's completion is empty (finish reason {reason!r}).", hint=hint)
    problems = list(adjusted)
    if isinstance(choices, list) and len(choices) > 1:
        problems.append(Problem("extra_choice", "The server sent more than one choice; only the first is used."))
    answered = str(fields.get("model") or model)
    if not is_same_model(model, answered):
        problems.append(Problem("model_differs", f"The model {answered} answered instead of {model}."))
    logprobs = read_logprobs(choice.get("logprobs"))
    if expects_logprobs and not logprobs:
        problems.append(Problem("logprobs_missing", LOGPROBS_MISSING))
    return Completion(
        text=text,
        finish_reason=str(choice.get("finish_reason") or ""),
        model=answered,
        id=str(fields.get("id") or ""),
        usage=read_usage(body),
        stats=stats,
        logprobs=logprobs,
        problems=problems,
        raw=body,
    )


def _stats(stats: object, timings: object) -> Stats:
    """Return the statistics of LM Studio, or of llama.cpp."""
    figures = {
        **stats_of_timings(timings if isinstance(timings, dict) else {}),
        **with_draft_tokens(stats if isinstance(stats, dict) else {}),
    }
    try:
        return msgspec.convert(figures, Stats, strict=False)
    except msgspec.ValidationError:
        return Stats()
