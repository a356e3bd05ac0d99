"""Loading of a GGUF file into mistralrs, without log output or network, and its description for the listings."""

from __future__ import annotations

import os
import re
import secrets
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, cast

from lmdeck.engine.embeddings import TokenTable
from lmdeck.engine.errors import EngineError, needs_extra
from lmdeck.engine.gguf import FILE_TYPES, read_header
from lmdeck.server.jobs import EngineRuntime, ModelDescription

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    from mistralrs import Runner

    from lmdeck.engine.gguf import Value

_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_QUANTIZATION_SUFFIX = re.compile(r"[-._](I?Q\d\w*|B?F16|F32)$", re.IGNORECASE)


class Loader:
    """One model file and how it is to be loaded.

    `requantize` is the quantization that the weights get in memory (None: as they are). `raw_role` is the role by which a
    message is a whole prompt, with no template around it; no client can name it.

    Raises:
        EngineError: mistralrs is not installed, or the file is no GGUF.
    """

    def __init__(self, path: Path, requantize: str | None) -> None:
        self._path = path
        self._requantize = requantize
        self._header = read_header(path)
        self.raw_role = f"raw-{secrets.token_hex(8)}"
        self.mistralrs = _import_quietly()
        os.environ.setdefault("RAYON_NUM_THREADS", str(max(1, _cores() - 1)))  # read anew wherever it makes threads

    @property
    def runtime(self) -> EngineRuntime:
        """The name and version of mistralrs."""
        return EngineRuntime(name="mistralrs", version=version("mistralrs"))

    def load(self) -> Runner:
        """Load the model, which blocks for as long as that takes; each call makes a new runner with a random generator as new.

        Raises:
            EngineError: mistralrs cannot load it.
        """
        quantized = FILE_TYPES.get(_integer(self._header, "general.file_type", -1))
        with tempfile.TemporaryDirectory(prefix="lmdeck-") as scratch:
            template = Path(scratch) / "template.jinja"
            template.write_text(self._template(), encoding="utf-8")
            try:
                return cast(
                    "Runner",
                    self.mistralrs.Runner(
                        self.mistralrs.Which.GGUF(
                            quantized_model_id=str(self._path.parent), quantized_filename=self._path.name
                        ),
                        token_source="none",  # it means: no token
                        in_situ_quant=None if quantized == self._requantize else self._requantize,
                        jinja_explicit=str(template),
                        max_seqs=1,
                    ),
                )
            except Exception as error:
                raise EngineError(
                    f"The model {self._path.name} cannot be loaded: {first_line(error)}.",
                    hint="Try another GGUF of an architecture that mistralrs supports, or `lmdeck engine pull`.",
                ) from error

    def describe(self) -> ModelDescription:
        """Return the description of the model, from the file's name and header."""
        header = self._header
        architecture = str(header.get("general.architecture", "unknown"))
        context = _integer(header, f"{architecture}.context_length")
        size = self._path.stat().st_size
        name = _QUANTIZATION_SUFFIX.sub("", self._path.stem)
        return ModelDescription(
            key=name.lower(),
            display_name=name.replace("-", " ").replace("_", " "),
            publisher=str(header.get("general.organization", "unknown")),
            architecture=architecture,
            quantization=FILE_TYPES.get(_integer(header, "general.file_type", -1)),
            size_bytes=size,
            parameters=str(header["general.size_label"]) if "general.size_label" in header else None,
            max_context_length=context,
            decides=True,
        )

    def token_table(self) -> TokenTable:
        """Read the vectors of the model's tokens.

        Raises:
            EngineError: The extra is not installed.
            BackendError: The file has none.
        """
        return TokenTable(self._path)

    def _template(self) -> str:
        """Return the model's chat template, extended by a role that stands for a raw prompt."""
        own = str(self._header.get("tokenizer.chat_template", _CHATML))
        return (
            f"{{% if messages[0]['role'] == '{self.raw_role}' %}}{{{{ messages[0]['content'] }}}}"
            f"{{% else %}}{own}{{% endif %}}"
        )


def _import_quietly() -> ModuleType:
    """Import mistralrs with its logging off, unless the user has set RUST_LOG."""
    chosen = os.environ.get("RUST_LOG")
    os.environ.setdefault("RUST_LOG", "off")
    try:
        with needs_extra():
            import mistralrs
    finally:
        if chosen is None:
            os.environ.pop("RUST_LOG", None)
    return mistralrs


def _cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _integer(header: Mapping[str, Value], key: str, default: int = 0) -> int:
    value = header.get(key)
    return value if isinstance(value, int) else default


def first_line(error: Exception) -> str:
    """Return the first line of a message, without the stack trace that candle adds."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:500].rstrip(".")
