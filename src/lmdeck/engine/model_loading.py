"""One GGUF file: its description for the listings, and its loading into llama.cpp."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lmdeck.engine.embeddings import TokenTable
from lmdeck.engine.gguf import FILE_TYPES, read_header
from lmdeck.engine.llama import LlamaServer, library_version
from lmdeck.server.jobs import EngineRuntime, ModelDescription

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lmdeck.engine.gguf import Value

MAX_CONTEXT_LENGTH = 8192
"""The context length of models that were trained for more: memory grows with it."""

_QUANTIZATION_SUFFIX = re.compile(r"[-._](I?Q\d\w*|B?F16|F32)$", re.IGNORECASE)


class ModelFile:
    """One GGUF file.

    Raises:
        EngineError: The file is not a GGUF.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._header = read_header(path)
        self._architecture = str(self._header.get("general.architecture", "unknown"))
        self._trained_length = _integer(self._header, f"{self._architecture}.context_length")
        self.context_length = min(self._trained_length or MAX_CONTEXT_LENGTH, MAX_CONTEXT_LENGTH)

    @property
    def runtime(self) -> EngineRuntime:
        """The name and version of xllamacpp."""
        return EngineRuntime(name="xllamacpp", version=library_version())

    def load(self) -> LlamaServer:
        """Load the model; blocks until it is loaded.

        Raises:
            EngineError: The extra is not installed, or llama.cpp cannot load it.
        """
        return LlamaServer(self._path, self.context_length)

    def describe(self) -> ModelDescription:
        """Return the description of the model, from the file's name and header."""
        header = self._header
        name = _QUANTIZATION_SUFFIX.sub("", self._path.stem)
        return ModelDescription(
            key=name.lower(),
            display_name=name.replace("-", " ").replace("_", " "),
            publisher=str(header.get("general.organization", "unknown")),
            architecture=self._architecture,
            quantization=FILE_TYPES.get(_integer(header, "general.file_type", -1)),
            size_bytes=self._path.stat().st_size,
            parameters=str(header["general.size_label"]) if "general.size_label" in header else None,
            max_context_length=self._trained_length or self.context_length,
            decides=True,
        )

    def token_table(self) -> TokenTable:
        """Read the vectors of the model's tokens.

        Raises:
            EngineError: The extra is not installed.
            BackendError: The file has none.
        """
        return TokenTable(self._path)


def _integer(header: Mapping[str, Value], key: str, default: int = 0) -> int:
    value = header.get(key)
    return value if isinstance(value, int) else default
