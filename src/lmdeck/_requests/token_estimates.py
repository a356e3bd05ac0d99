"""Estimates of the number of tokens of a chat.

They use its text, and what the server counted for earlier chats of the same model. LM Studio counts no tokens over HTTP before
it answers; `usage.prompt_tokens` of the answers includes template and tools. A line through what was counted separates what
every prompt costs from what its text costs. A chat that goes on with messages that were counted is estimated from that count,
so that only its new messages are.

A text is measured in two ways, by its length in UTF-8 and by its words, digits and signs; the one that fits the counts better
is used. Counted answers are measured when an estimate is next asked for, since most programs ask for none.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeAlias

import msgspec

from lmdeck._late_patterns import late_pattern
from lmdeck._streaming.figures import Figures
from lmdeck.outputs import TokenCount

BYTES_A_TOKEN = 3.5
WORD_BYTES, BYTES_MORE = 6, 4  # a word of six bytes is a token, and each four bytes more are another
PIECE = late_pattern(r"[^\W\d_]+|\d|[^\s\w]|_|\s{2,}|\n")
TOKENS_A_MESSAGE = 4
TOKENS_AN_IMAGE = 1000
MOST_SAMPLES = 8
MOST_MODELS = 64
MOST_PREFIXES = 256
MOST_PENDING = 8
SPREAD = 1.2  # how much longer than the only sample a chat may be, so that the sample says something about it
NOISE = 0.05  # by which share the tokens of a text differ from its estimate
USUAL_BASE = 50.0  # tokens that a prompt costs without its text
UNCALIBRATED_ERROR, LEAST_ERROR = 0.3, 0.03


Sizes: TypeAlias = tuple[float, ...]
"""The size of a text in tokens, measured in one or more ways."""


class CountedAnswer(Protocol):
    """An answer whose tokens the server may have counted, such as a `ChatReader`."""

    figures: Figures


class TokenEstimator:
    """Estimates of one client, calibrated by the answers of each model."""

    def __init__(self) -> None:
        self._samples: dict[str, deque[tuple[Sizes, int]]] = {}
        self._prefixes: OrderedDict[tuple[str, int], tuple[Sizes, int]] = OrderedDict()
        self._pending: deque[tuple[str, Mapping[str, Any], int]] = deque(maxlen=MOST_PENDING)

    def learn(self, model: str, body: Mapping[str, Any], answer: CountedAnswer) -> None:
        """Record the number of tokens that the server counted for a chat, if it did."""
        usage = answer.figures.usage
        if usage is None or usage.prompt_tokens <= 0:
            return
        for message in body.get("messages") or ():
            if not isinstance(message.get("content") or "", str):
                self._measure(model, body, usage.prompt_tokens)  # images are not kept
                return
        self._pending.append((model, body, usage.prompt_tokens))

    def learn_from(self, model: str, plain: float, prompt_tokens: int) -> None:
        """Record the number of tokens that the server counted for a chat with a plain estimate."""
        self._add(model, (plain,), prompt_tokens)

    def estimate(self, model: str, body: Mapping[str, Any]) -> TokenCount:
        """Estimate the tokens of a chat."""
        while self._pending:
            self._measure(*self._pending.popleft())
        marks = list(_fingerprints(body))
        sizes = marks[-1][1]
        known = (self._prefixes.get((model, mark)) for mark, _ in reversed(marks))
        counted = next((each for each in known if each is not None), None)
        whole = self._estimate(model, sizes)
        if counted is None:
            return whole
        earlier, tokens = counted
        way, _, slope = self._fit(model, sizes)
        new = slope * (sizes[way] - earlier[way])
        return TokenCount(tokens=max(round(tokens + new), 1), error=round(whole.error * new / (tokens + new), 3))

    def estimate_from(self, model: str, plain: float) -> TokenCount:
        """Estimate the tokens of a chat with a plain estimate."""
        return self._estimate(model, (plain,))

    def _estimate(self, model: str, sizes: Sizes) -> TokenCount:
        samples = self._samples.get(model)
        if not samples:
            return TokenCount(tokens=round(max(sizes)), error=UNCALIBRATED_ERROR)
        way, base, slope = self._fit(model, sizes)
        is_known = len(samples) > 1 or 1 / SPREAD < sizes[way] / samples[0][0][way] < SPREAD
        error = max(_worst(samples, way, base, slope), LEAST_ERROR) if is_known else UNCALIBRATED_ERROR / 2
        return TokenCount(tokens=max(round(base + slope * sizes[way]), 1), error=round(error, 3))

    def _fit(self, model: str, sizes: Sizes) -> tuple[int, float, float]:
        """Return the measure that fits the counts of a model best, and its line.
        The text's length is chosen only if it fits twice as well.
        """
        samples = self._samples.get(model, ())
        lines = [(way, *_line([(each[way], count) for each, count in samples])) for way in range(len(sizes))]
        return min(lines, key=lambda line: _worst(samples, *line) * (len(sizes) - line[0]))

    def _measure(self, model: str, body: Mapping[str, Any], prompt_tokens: int) -> None:
        *_, (whole, sizes) = _fingerprints(body)
        self._add(model, sizes, prompt_tokens)
        self._prefixes[model, whole] = sizes, prompt_tokens
        if len(self._prefixes) > MOST_PREFIXES:
            self._prefixes.popitem(last=False)

    def _add(self, model: str, sizes: Sizes, prompt_tokens: int) -> None:
        if prompt_tokens <= 0 or min(sizes) <= 0:
            return
        if model not in self._samples and len(self._samples) >= MOST_MODELS:
            self._samples.clear()
        self._samples.setdefault(model, deque(maxlen=MOST_SAMPLES)).append((sizes, prompt_tokens))


def _worst(samples: Iterable[tuple[Sizes, int]], way: int, base: float, slope: float) -> float:
    """Return the largest share by which a line misses the counts."""
    return max((abs(base + slope * sizes[way] - count) / count for sizes, count in samples), default=0.0)


def _line(samples: Iterable[tuple[float, int]]) -> tuple[float, float]:
    """Return what every prompt costs, and what a token of the plain estimate costs.

    It is the likeliest line if estimates differ by `NOISE` of the count, and a prompt costs about `USUAL_BASE` or less.
    """
    ones, sizes, squares, counts, products = USUAL_BASE**-2, 0.0, 0.0, 0.0, 0.0
    for size, count in samples:
        weight = (NOISE * count) ** -2
        ones += weight
        sizes += weight * size
        squares += weight * size * size
        counts += weight * count
        products += weight * size * count
    if not counts:
        return 0.0, 1.0
    determinant = ones * squares - sizes * sizes
    base, slope = (counts * squares - sizes * products) / determinant, (ones * products - sizes * counts) / determinant
    return (base, slope) if base >= 0 and slope > 0 else (0.0, products / squares)


def _fingerprints(body: Mapping[str, Any]) -> Iterator[tuple[int, Sizes]]:
    """Yield a hash and the size of each beginning of a chat.

    The first is that of its tools, the next also has its first message, and so on.
    """
    tools = msgspec.json.encode(body.get("tools") or [])
    mark, length, words = hash(tools), len(tools) / BYTES_A_TOKEN, _pieces(tools.decode())
    yield mark, (length, words)
    for message in body.get("messages") or ():
        mark = hash((mark, repr(message)))
        length, words = length + message_estimate(message), words + message_estimate(message, _pieces)
        yield mark, (length, words)


def message_estimate(message: Mapping[str, Any], measure: Callable[[str], float] | None = None) -> float:
    """Estimate one message in OpenAI's form.

    It counts the text by its length or another measure, 4 tokens, and 1,000 tokens for each image.
    """
    size = measure or _length
    tokens = float(TOKENS_A_MESSAGE)
    content = message.get("content") or ""
    for part in content if isinstance(content, list) else [content]:
        text = part if isinstance(part, str) else part.get("text") if isinstance(part, Mapping) else str(part)
        tokens += TOKENS_AN_IMAGE if text is None else size(str(text))
    calls = message.get("tool_calls")
    return tokens + (size(msgspec.json.encode(calls).decode()) if calls else 0)


def _length(text: str) -> float:
    return (len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))) / BYTES_A_TOKEN


def _pieces(text: str) -> float:
    """Return about how many tokens a text has."""
    tokens = 0.0
    for piece in PIECE.findall(text):
        length = len(piece) if piece.isascii() else len(piece.encode(errors="surrogatepass"))
        tokens += 1.0 if length <= WORD_BYTES or piece.isspace() else 1.0 + (length - WORD_BYTES) / BYTES_MORE
    return tokens
