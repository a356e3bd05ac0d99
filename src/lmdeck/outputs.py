"""The results of the smaller endpoints: embeddings and plain completions."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

from msgspec import Struct, field

from lmdeck.messages import Problem, TokenLogprob
from lmdeck.stats import Stats, Usage

__all__ = ["Completion", "Embeddings", "TokenCount"]


class Embeddings(Struct, frozen=True, kw_only=True):
    """The embeddings of texts: one vector for each, in the same order."""

    vectors: list[list[float]]
    model: str = ""
    usage: Usage | None = None

    def arrays(self) -> list[array[float]]:
        """Return each vector as an `array` of 4-byte floats, the precision of the models."""
        return [array("f", vector) for vector in self.vectors]

    def numpy(self) -> Any:  # numpy.ndarray, if numpy is installed
        """Return the vectors as one numpy array of float32, of shape (texts, dimensions).

        This requires numpy.
        """
        numpy = import_module("numpy")  # imported late: an optional dependency
        return numpy.asarray(self.vectors, dtype=numpy.float32)

    def __len__(self) -> int:
        return len(self.vectors)

    def __iter__(self) -> Iterator[Sequence[float]]:
        return iter(self.vectors)

    def __getitem__(self, index: int) -> list[float]:
        return self.vectors[index]


class Completion(Struct, frozen=True, kw_only=True):
    """The completion of a prompt: `text` as the model wrote it, white space included.

    `logprobs` has one entry for each token if they were requested (`logprobs=5`). `raw` is the decoded response body.
    """

    text: str
    finish_reason: str = ""
    model: str = ""
    id: str = ""
    usage: Usage | None = None
    stats: Stats = Stats()
    logprobs: list[TokenLogprob] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    raw: object = None

    def __str__(self) -> str:
        return self.text


class TokenCount(Struct, frozen=True, kw_only=True):
    """The tokens of a chat's prompt.

    `error` is the possible error of an estimate as a fraction of it; 0 for an exact count.
    """

    tokens: int
    is_exact: bool = False
    error: float = 0.0

    @property
    def most(self) -> int:
        """The count with its error."""
        return round(self.tokens * (1 + self.error))

    def __int__(self) -> int:
        return self.tokens
