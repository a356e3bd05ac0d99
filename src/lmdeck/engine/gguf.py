"""The metadata of a GGUF file, for the listings and the chat template.

Only the header is read, value by value; arrays (the vocabulary) are skipped. Format: ggml's `docs/gguf.md`,
versions 2 and 3.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

from lmdeck.engine.errors import EngineError

if TYPE_CHECKING:
    from pathlib import Path

Value: TypeAlias = str | int | float | bool

MAX_ENTRIES = 4096
MAX_STRING_BYTES = 4 << 20
MAX_ARRAY_ITEMS = 4 << 20

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9

FILE_TYPES = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    32: "BF16",
}
"""`general.file_type` → the usual name (llama.cpp, `llama_ftype`)."""


def read_header(path: Path) -> dict[str, Value]:
    """Return the metadata of a GGUF file, without arrays.

    Raises:
        EngineError: The file cannot be read, or is not a GGUF file.
    """
    try:
        with path.open("rb") as file:
            return _read(file)
    except OSError as error:
        raise EngineError(f"The model file {path} cannot be read: {error.strerror}.", hint="Check the path.") from error
    except (struct.error, ValueError) as error:
        raise EngineError(
            f"{path} is not a GGUF model file, or it is damaged ({error}).",
            hint="Pass the path of a .gguf file, or run `lmdeck engine pull` to get the small default model.",
        ) from error


def _read(file: BinaryIO) -> dict[str, Value]:
    if file.read(4) != b"GGUF" or _integer(file, "I") not in {2, 3}:
        raise ValueError("it does not begin with a GGUF header of version 2 or 3")
    _integer(file, "Q")  # the number of tensors
    header: dict[str, Value] = {}
    for _ in range(_at_most(MAX_ENTRIES, _integer(file, "Q"), "entries")):
        key = _string(file)
        kind = _integer(file, "I")
        if kind == _ARRAY:
            _skip_array(file)
        else:
            header[key] = _string(file) if kind == _STRING else _scalar(file, kind)
    return header


def _skip_array(file: BinaryIO) -> None:
    kind = _integer(file, "I")
    items = _at_most(MAX_ARRAY_ITEMS, _integer(file, "Q"), "items in an array")
    if kind == _STRING:
        for _ in range(items):
            file.seek(_at_most(MAX_STRING_BYTES, _integer(file, "Q"), "bytes in a string"), 1)
    else:
        file.seek(items * struct.calcsize(f"<{_layout(kind)}"), 1)


def _string(file: BinaryIO) -> str:
    size = _at_most(MAX_STRING_BYTES, _integer(file, "Q"), "bytes in a string")
    return file.read(size).decode("utf-8", "replace")


def _scalar(file: BinaryIO, kind: int) -> Value:
    layout = f"<{_layout(kind)}"
    value: Value = struct.unpack(layout, file.read(struct.calcsize(layout)))[0]
    return value


def _layout(kind: int) -> str:
    if kind not in _SCALARS:
        raise ValueError(f"its header holds a value of unknown type {kind}")
    return _SCALARS[kind]


def _integer(file: BinaryIO, layout: str) -> int:
    return int(struct.unpack(f"<{layout}", file.read(struct.calcsize(f"<{layout}")))[0])


def _at_most(limit: int, value: int, what: str) -> int:
    if value > limit:
        raise ValueError(f"its header claims more than {limit} {what}")
    return value
