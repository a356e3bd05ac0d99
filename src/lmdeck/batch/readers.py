"""Input files as a stream of records: JSONL, CSV and Parquet.

A faulty line becomes a record with an error, and never stops the batch.

A file is read in pieces, so that its size does not matter. JSON lines end at a newline only, since JSON may contain
U+2028.
"""

from __future__ import annotations

import csv
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any

import msgspec
from msgspec import Struct

from lmdeck.errors import ConfigurationError

MAX_LINE_BYTES = 64 << 20
PARQUET_ROWS = 1000  # read at once
NEEDS_PYARROW = "Parquet files need the package pyarrow, which is not installed."
INSTALL_PYARROW = 'Install it with `pip install "lmdeck[batch]"`.'
BOM = b"\xef\xbb\xbf"
_decode = msgspec.json.Decoder().decode


class Record(Struct, frozen=True):
    """One record: the line where it begins, counted from 1, and its values or its error.

    In Parquet, the line is the row.
    """

    line: int
    values: Mapping[str, Any]
    error: str = ""


def read_records(path: Path) -> Iterator[Record]:
    """Yield the records of a file; its ending chooses the format.

    `.jsonl`, `.ndjson`, `.json`, `.csv`, `.tsv` and `.parquet` are known.

    Raises:
        ConfigurationError: The file cannot be read, or its name has another ending.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ConfigurationError(
            f"The input {path} does not have a known ending.",
            hint=f"Use one of the endings {', '.join(sorted(_READERS))}.",
        )
    try:
        yield from reader(path)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"The input {path} cannot be read: {error.strerror or error}.", hint="Check its name and its permissions."
    )


def digest_of(path: Path) -> str:
    """Return a hash of a file's content, which detects a changed input.

    Raises:
        ConfigurationError: The file cannot be read.
    """
    digest = blake2b(digest_size=16)
    try:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    except OSError as error:
        raise _unreadable(path, error) from error
    return digest.hexdigest()


def read_jsonl(path: Path) -> Iterator[Record]:
    """Yield the records of a file of JSON lines.

    Raises:
        OSError: It cannot be read.
        ConfigurationError: It is UTF-16, as some editors and shells of Windows write.
    """
    _refuse_utf16(path)
    with path.open("rb") as file:
        for number, (line, is_whole) in enumerate(_lines(file), 1):
            if not is_whole:
                yield Record(number, {}, f"The line is longer than {MAX_LINE_BYTES} bytes.")
            elif text := (line.removeprefix(BOM) if number == 1 else line).strip(b" \t\r\n"):
                yield _json_record(number, text)


def _refuse_utf16(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(2) in (BOM_UTF16_LE, BOM_UTF16_BE):
            raise ConfigurationError(f"The input {path} is UTF-16.", hint="Save it as UTF-8.")


def _lines(file: IO[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Yield each line, and whether it is complete; overlong lines are cut."""
    while line := file.readline(MAX_LINE_BYTES):
        is_whole = len(line) < MAX_LINE_BYTES or line.endswith(b"\n")
        yield line, is_whole
        while not (is_whole or line.endswith(b"\n") or not line):
            line = file.readline(MAX_LINE_BYTES)


def _json_record(number: int, text: bytes) -> Record:
    try:
        values = _decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Record(number, {}, f"The line is not JSON: {error}.")
    if not isinstance(values, dict):
        return Record(number, {}, "The line is not a JSON object.")
    return Record(number, values)


def _read_csv(path: Path) -> Iterator[Record]:
    _refuse_utf16(path)
    csv.field_size_limit(MAX_LINE_BYTES)
    # Bytes that are not UTF-8 become surrogates, so that only their own row is faulty.
    with path.open("r", encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=False)
        while True:
            line = reader.line_num + 1
            try:
                values = next(reader, None)
            except csv.Error as error:
                yield Record(line, {}, f"The row is not CSV: {error}.")
                continue
            if values is None:
                return
            yield _csv_record(max(line, 2), values)


def _csv_record(line: int, values: dict[str | Any, str | Any]) -> Record:
    if None in values:
        return Record(line, {}, "The row has more values than the header has names.")
    present = {name: value for name, value in values.items() if value not in (None, "")}
    try:
        "".join(present.values()).encode()
    except UnicodeEncodeError:
        return Record(line, {}, "The row is not UTF-8; save the file in that encoding.")
    return Record(line, present)


def _read_parquet(path: Path) -> Iterator[Record]:
    try:
        from pyarrow import ArrowException, parquet  # an extra
    except ModuleNotFoundError as error:
        raise ConfigurationError(NEEDS_PYARROW, hint=INSTALL_PYARROW) from error
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=PARQUET_ROWS):
                for values in _rows_of(batch):
                    number += 1
                    yield _parquet_record(number, values)
    except ArrowException as error:
        raise ConfigurationError(
            f"{path} is not a Parquet file: {error}.", hint="Check that it was written completely."
        ) from error


def _rows_of(batch: Any) -> Iterator[Mapping[str, Any] | ValueError]:
    """Yield the rows of a Parquet batch; an unreadable row as its error."""
    try:
        yield from batch.to_pylist()
        return
    except (ValueError, OverflowError):  # a value that Python cannot represent, or text that is not UTF-8
        pass
    for at in range(batch.num_rows):
        try:
            yield from batch.slice(at, 1).to_pylist()
        except (ValueError, OverflowError) as error:
            yield ValueError(str(error))


def _parquet_record(number: int, values: Mapping[str, Any] | ValueError) -> Record:
    if isinstance(values, ValueError):
        return Record(number, {}, f"The row cannot be read: {values}.")
    return Record(number, {name: value for name, value in values.items() if value is not None})


_READERS: Mapping[str, Callable[[Path], Iterator[Record]]] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_jsonl,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
}
