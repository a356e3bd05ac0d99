"""Estimates of the number of tokens of a chat.

They use its text, and the server's counts for earlier chats with the same model. Over HTTP, LM Studio does not count tokens
before it answers; `usage.prompt_tokens` of an answer includes template and tools. A linear fit of these counts separates the
constant part of a prompt from the part that depends on its text. If a chat begins with messages that were counted, only its new
messages are estimated.

A text is measured in two ways, by its length in UTF-8 and by its words, digits and signs; the one that fits the counts better
is used. Answers are measured when the next estimate is requested, because most programs do not request any.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import msgspec

from lmdeck._late_patterns import late_pattern

if TYPE_CHECKING:
    from lmdeck.outputs import TokenCount
    from lmdeck.stats import Usage

BYTES_PER_TOKEN = 3.5
WORD_BYTES, EXTRA_BYTES = 6, 4  # a word of up to six bytes is one token, and each further four bytes are another
PIECE = late_pattern(r"[^\W\d_]+|\d|[^\s\w]|_|\s{2,}|\n")
TOKENS_PER_MESSAGE = 4
TOKENS_PER_IMAGE = 1000
MAX_SAMPLES = 8
MAX_MODELS = 64
MAX_PREFIXES = 256
MAX_PENDING = 8
SPREAD = 1.2  # the ratio of lengths up to which a single sample is used for another chat
NOISE = 0.05  # the expected relative difference between the tokens of a text and its estimate
USUAL_BASE = 50.0  # the expected tokens of a prompt without its text
UNCALIBRATED_ERROR, MIN_ERROR = 0.3, 0.03


Sizes: TypeAlias = tuple[float, ...]
"""The size of a text in tokens, measured in one or more ways."""


class CountedFigures(Protocol):
    """The figures of an answer."""

    @property
    def usage(self) -> Usage | None:
        """The tokens that the server counted, or None."""
        ...


class CountedAnswer(Protocol):
    """An answer whose tokens the server may have counted, such as a `ChatReader`."""

    @property
    def figures(self) -> CountedFigures:
        """The figures of the answer."""
        ...


class TokenEstimator:
    """Estimates of one client, calibrated by the answers of each model."""

    def __init__(self) -> None:
        self._samples: dict[str, deque[tuple[Sizes, int]]] = {}
        self._prefixes: OrderedDict[tuple[str, int], tuple[Sizes, int]] = OrderedDict()
        self._pending: deque[tuple[str, Mapping[str, Any], int]] = deque(maxlen=MAX_PENDING)

    def learn(self, model: str, body: Mapping[str, Any], answer: CountedAnswer) -> None:
        """Record the number of tokens that the server counted for a chat, if it did."""
        usage = answer.figures.usage
        if usage is None or usage.prompt_tokens <= 0:
            return
        for message in body.get("messages") or ():
            if not isinstance(message.get("content") or "", str):
                self._measure(model, body, usage.prompt_tokens)  # at once, so that images are not held in memory
                return
        self._pending.append((model, body, usage.prompt_tokens))

    def learn_from(self, model: str, plain: float, prompt_tokens: int) -> None:
        """Record the number of tokens that the server counted for a chat with the estimate `plain`."""
        self._add(model, (plain,), prompt_tokens)

    def estimate(self, model: str, body: Mapping[str, Any]) -> TokenCount:
        """Estimate the tokens of a chat."""
        from lmdeck.outputs import TokenCount  # imported late: most programs estimate nothing

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
        measure, _, slope = self._fit(model, sizes)
        new = slope * (sizes[measure] - earlier[measure])
        return TokenCount(tokens=max(round(tokens + new), 1), error=round(whole.error * new / (tokens + new), 3))

    def estimate_from(self, model: str, plain: float) -> TokenCount:
        """Calibrate the estimate `plain` of the tokens of a chat."""
        return self._estimate(model, (plain,))

    def _estimate(self, model: str, sizes: Sizes) -> TokenCount:
        from lmdeck.outputs import TokenCount

        samples = self._samples.get(model)
        if not samples:
            return TokenCount(tokens=round(max(sizes)), error=UNCALIBRATED_ERROR)
        measure, base, slope = self._fit(model, sizes)
        is_known = len(samples) > 1 or 1 / SPREAD < sizes[measure] / samples[0][0][measure] < SPREAD
        error = max(_max_error(samples, measure, base, slope), MIN_ERROR) if is_known else UNCALIBRATED_ERROR / 2
        return TokenCount(tokens=max(round(base + slope * sizes[measure]), 1), error=round(error, 3))

    def _fit(self, model: str, sizes: Sizes) -> tuple[int, float, float]:
        """Return the index of the measure that fits the counts of a model best, and its line.

        The text's length is chosen only if it fits twice as well.
        """
        samples = self._samples.get(model, ())
        lines = [(index, *_line([(each[index], count) for each, count in samples])) for index in range(len(sizes))]
        return min(lines, key=lambda line: _max_error(samples, *line) * (len(sizes) - line[0]))

    def _measure(self, model: str, body: Mapping[str, Any], prompt_tokens: int) -> None:
        *_, (whole, sizes) = _fingerprints(body)
        self._add(model, sizes, prompt_tokens)
        self._prefixes[model, whole] = sizes, prompt_tokens
        if len(self._prefixes) > MAX_PREFIXES:
            self._prefixes.popitem(last=False)

    def _add(self, model: str, sizes: Sizes, prompt_tokens: int) -> None:
        if prompt_tokens <= 0 or min(sizes) <= 0:
            return
        if model not in self._samples and len(self._samples) >= MAX_MODELS:
            self._samples.clear()
        self._samples.setdefault(model, deque(maxlen=MAX_SAMPLES)).append((sizes, prompt_tokens))


def _max_error(samples: Iterable[tuple[Sizes, int]], measure: int, base: float, slope: float) -> float:
    """Return the largest relative error of a line."""
    return max((abs(base + slope * sizes[measure] - count) / count for sizes, count in samples), default=0.0)


def _line(samples: Iterable[tuple[float, int]]) -> tuple[float, float]:
    """Return the constant and the slope of the line through the counts.

    It is the most likely line if estimates differ by `NOISE` of the count, and the constant is about `USUAL_BASE` or less.
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
    """Yield a hash and the size of each prefix of a chat.

    The first prefix is its tools, the second also has its first message, and so on.
    """
    tools = msgspec.json.encode(body.get("tools") or [])
    mark, length, words = hash(tools), len(tools) / BYTES_PER_TOKEN, _pieces(tools.decode())
    yield mark, (length, words)
    for message in body.get("messages") or ():
        mark = hash((mark, repr(message)))
        length, words = length + message_estimate(message), words + message_estimate(message, _pieces)
        yield mark, (length, words)


def message_estimate(message: Mapping[str, Any], measure: Callable[[str], float] | None = None) -> float:
    """Estimate one message in OpenAI's format: text, plus 4 tokens, plus 1,000 for each image.

    The text is measured by its length or by `measure`.
    """
    size = measure or _length
    tokens = float(TOKENS_PER_MESSAGE)
    content = message.get("content") or ""
    for part in content if isinstance(content, list) else [content]:
        text = part if isinstance(part, str) else part.get("text") if isinstance(part, Mapping) else str(part)
        tokens += TOKENS_PER_IMAGE if text is None else size(str(text))
    calls = message.get("tool_calls")
    return tokens + (size(msgspec.json.encode(calls).decode()) if calls else 0)


def _length(text: str) -> float:
    return (len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))) / BYTES_PER_TOKEN


def _pieces(text: str) -> float:
    """Return the approximate number of tokens of a text, from its words, digits and signs."""
    tokens = 0.0
    for piece in PIECE.findall(text):
        length = len(piece) if piece.isascii() else len(piece.encode(errors="surrogatepass"))
        tokens += 1.0 if length <= WORD_BYTES or piece.isspace() else 1.0 + (length - WORD_BYTES) / EXTRA_BYTES
    return tokens
