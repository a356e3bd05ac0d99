"""Vectors for texts, from the token embeddings of a language model.

A model has one vector for each of its tokens. A text's vector is the weighted mean of its tokens' vectors, of length 1, as in
static embedding models (Model2Vec). Their weight of a token is the logarithm of its rank by frequency; the token numbers of a
BPE vocabulary are such ranks, since merges are learned most frequent first. Before, the components that all tokens share are
removed: their mean and a hundredth of their principal directions (Mu and Viswanath 2018, "All-but-the-Top"). With them, any two
texts would have a similarity of about 0.8. Texts that share words or kinds of words get similar vectors; word order and context
are ignored. Rows are read from the file as needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lmdeck.engine.errors import needs_extra
from lmdeck.server.backend import BackendError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy import float32, float64
    from numpy.typing import NDArray

_TENSOR = "token_embd.weight"
_ROWS_AT_ONCE = 4096
_DIRECTIONS = 100
"""The number of dimensions for which one direction is removed."""


class TokenTable:
    """The table of token vectors of one GGUF file.

    Raises:
        BackendError: The file has none.
    """

    def __init__(self, path: Path) -> None:
        with needs_extra():
            import gguf
            import numpy as np

        self._np = np
        self._dequantize = gguf.dequantize
        found: list[Any] = [tensor for tensor in gguf.GGUFReader(path).tensors if tensor.name == _TENSOR]
        if not found:
            raise BackendError(
                f"The model file {path.name} has no token vectors, so it cannot embed texts.", status=500
            )
        self._rows = found[0].data
        self._type = found[0].tensor_type
        self._mean, self._common = self._mean_and_directions()

    def vector(self, tokens: Sequence[int]) -> tuple[float, ...]:
        """Return the vector of a text by its tokens; all zeros for an empty text."""
        np = self._np
        known = np.array([token for token in tokens if token < len(self._rows)], dtype=np.int64)
        if not len(known):
            return (0.0,) * len(self._mean)
        vector = np.average(self._vectors(known) - self._mean, axis=0, weights=np.log(2 + known))
        vector -= self._common @ (self._common.T @ vector)
        length = float(np.linalg.norm(vector)) or 1.0
        return tuple(map(float, vector / length))

    def _vectors(self, tokens: NDArray[Any] | slice) -> NDArray[float32]:
        rows: NDArray[float32] = self._dequantize(self._rows[tokens], self._type)
        return rows

    def _mean_and_directions(self) -> tuple[NDArray[float64], NDArray[float64]]:
        """Return the mean of all rows, and their principal directions as columns."""
        np = self._np
        rows, width = len(self._rows), len(self._vectors(slice(0, 1))[0])
        total, products = np.zeros(width), np.zeros((width, width))
        for start in range(0, rows, _ROWS_AT_ONCE):
            part = self._vectors(slice(start, start + _ROWS_AT_ONCE)).astype(np.float64)
            total += part.sum(axis=0)
            products += part.T @ part
        mean = total / rows
        _, directions = np.linalg.eigh(products / rows - np.outer(mean, mean))
        return mean, directions[:, width - width // _DIRECTIONS :]
