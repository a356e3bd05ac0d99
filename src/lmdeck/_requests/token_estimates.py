"""How many tokens a chat has, estimated from its length and from what the server counted for earlier chats of the same model.

LM Studio counts no tokens over HTTP before it answers; `usage.prompt_tokens` of the answers includes template and tools. With
two answers or more of different length, a line through them separates what every prompt costs from what its text costs. A chat
that goes on with messages that were counted is estimated from that count, so that only its new messages are.

Lengths are those in UTF-8, in which the tokens of most languages are about equally long.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from lmdeck.outputs import TokenCount

BYTES_A_TOKEN = 3.5
TOKENS_A_MESSAGE = 4
TOKENS_AN_IMAGE = 1000
MOST_SAMPLES = 8
MOST_MODELS = 64
MOST_PREFIXES = 256
SPREAD = 1.2  # how much longer the longest sample must be than the shortest, so that a line means something
UNCALIBRATED_ERROR, LEAST_ERROR = 0.3, 0.03


class TokenEstimator:
    """Estimates of one client, calibrated by the answers of each model."""

    def __init__(self) -> None:
        self._samples: dict[str, deque[tuple[float, int]]] = {}
        self._prefixes: OrderedDict[tuple[str, int], tuple[float, int]] = OrderedDict()

    def learn(self, model: str, body: Mapping[str, Any], prompt_tokens: int) -> None:
        """Record the number of tokens that the server counted for a chat."""
        *_, (whole, plain) = _fingerprints(body)
        if prompt_tokens <= 0:
            return
        self.learn_from(model, plain, prompt_tokens)
        self._prefixes[model, whole] = plain, prompt_tokens
        if len(self._prefixes) > MOST_PREFIXES:
            self._prefixes.popitem(last=False)

    def learn_from(self, model: str, plain: float, prompt_tokens: int) -> None:
        """Record the number of tokens that the server counted for a chat with a plain estimate."""
        if prompt_tokens <= 0 or plain <= 0:
            return
        if model not in self._samples and len(self._samples) >= MOST_MODELS:
            self._samples.clear()
        self._samples.setdefault(model, deque(maxlen=MOST_SAMPLES)).append((plain, prompt_tokens))

    def estimate(self, model: str, body: Mapping[str, Any]) -> TokenCount:
        """Estimate the tokens of a chat."""
        marks = list(_fingerprints(body))
        plain = marks[-1][1]
        known = (self._prefixes.get((model, mark)) for mark, _ in reversed(marks))
        counted = next((each for each in known if each is not None), None)
        whole = self.estimate_from(model, plain)
        if counted is None:
            return whole
        size, tokens = counted
        new = _line(self._samples[model])[1] * (plain - size) if model in self._samples else plain - size
        return TokenCount(tokens=max(round(tokens + new), 1), error=round(whole.error * new / (tokens + new), 3))

    def estimate_from(self, model: str, plain: float) -> TokenCount:
        """Estimate the tokens of a chat with a plain estimate."""
        samples = self._samples.get(model)
        if not samples:
            return TokenCount(tokens=round(plain), error=UNCALIBRATED_ERROR)
        base, slope = _line(samples)
        worst = max(abs(base + slope * size - tokens) / tokens for size, tokens in samples)
        is_known = len(samples) > 1 or 1 / SPREAD < plain / samples[0][0] < SPREAD
        error = max(worst, LEAST_ERROR) if is_known else UNCALIBRATED_ERROR / 2
        return TokenCount(tokens=max(round(base + slope * plain), 1), error=round(error, 3))


def _line(samples: Sequence[tuple[float, int]] | deque[tuple[float, int]]) -> tuple[float, float]:
    """Return what every prompt costs, and what a token of the plain estimate costs: least squares, or their ratio."""
    sizes, counts = [size for size, _ in samples], [count for _, count in samples]
    ratio = sum(counts) / sum(sizes)
    if max(sizes) < SPREAD * min(sizes):
        return 0.0, ratio
    mean_size, mean_count = sum(sizes) / len(sizes), sum(counts) / len(counts)
    variance = sum((size - mean_size) ** 2 for size in sizes)
    slope = sum((size - mean_size) * (count - mean_count) for size, count in samples) / variance
    return (mean_count - slope * mean_size, slope) if slope > 0 else (0.0, ratio)


def plain_estimate(body: Mapping[str, Any]) -> float:
    """Estimate from length alone: 3.5 bytes a token, 4 tokens a message, 1,000 an image."""
    *_, (_, tokens) = _fingerprints(body)
    return tokens


def _fingerprints(body: Mapping[str, Any]) -> Iterator[tuple[int, float]]:
    """Yield a hash and the plain estimate of each beginning of a chat: its tools, then also its first message, and so on."""
    tools = msgspec.json.encode(body.get("tools") or [])
    mark, tokens = hash(tools), len(tools) / BYTES_A_TOKEN
    yield mark, tokens
    for message in body.get("messages") or ():
        mark, tokens = hash((mark, repr(message))), tokens + message_estimate(message)
        yield mark, tokens


def message_estimate(message: Mapping[str, Any]) -> float:
    """Estimate one message, in OpenAI's form."""
    tokens = float(TOKENS_A_MESSAGE)
    content = message.get("content") or ""
    for part in content if isinstance(content, list) else [content]:
        text = part if isinstance(part, str) else part.get("text") if isinstance(part, Mapping) else str(part)
        tokens += TOKENS_AN_IMAGE if text is None else _length(str(text)) / BYTES_A_TOKEN
    calls = message.get("tool_calls")
    return tokens + (len(msgspec.json.encode(calls)) / BYTES_A_TOKEN if calls else 0)


def _length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
