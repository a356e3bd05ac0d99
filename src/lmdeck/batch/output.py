"""The output of a batch: one line per row, in the order of the input, replaced atomically."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from lmdeck.batch.ledger import Ledger, RowError, StoredRow
from lmdeck.batch.readers import INSTALL_PYARROW, NEEDS_PYARROW
from lmdeck.batch.stored_answers import text_of
from lmdeck.errors import ConfigurationError, FileWriteError, LMStudioError

PARQUET_ROWS = 1000  # written at once
_ENDED = {
    "batch_cancelled": "The batch was cancelled before this row was sent.",
    "batch_expired": "The batch expired before this row was sent.",
}
_encode = msgspec.json.encode


def ended_rows(ledger: Ledger) -> Iterator[StoredRow]:
    """Yield all rows; those not sent before the batch was cancelled have that error."""
    ended_by = ledger.totals().ended_by
    for row in ledger.rows():
        if row.answer is None and row.error is None:
            code = ended_by or "batch_unfinished"
            error = RowError(code=code, message=_ENDED.get(code, "The row has not been sent yet."), line=row.line)
            yield msgspec.structs.replace(row, error=error)
        else:
            yield row


def output_line(batch_id: str, row: StoredRow) -> bytes:
    """Return a row as a line of OpenAI's batch output, without the line's end.

    Its fields are `id`, `custom_id`, `response` and `error`.

    The body of an answer is the server's, repaired. A row without an answer has an `error` with `code`, `message` and
    `line`; if the server refused it, also its status.
    """
    head = b'{"id":"batch_req_%s_%d","custom_id":%s,"response":' % (
        batch_id.encode(),
        row.number + 1,
        _encode(row.custom_id),
    )
    if row.answer is not None:
        return b'%s{"status_code":%d,"request_id":%s,"body":%s},"error":null}' % (
            head,
            row.status or 200,
            _encode(row.request_id or ""),
            row.answer,
        )
    return b'%s%s,"error":%s}' % (head, _encode(_refusal(row)), _encode(row.error))


def _refusal(row: StoredRow) -> dict[str, Any] | None:
    """Return the response of a request that the server refused."""
    if not row.status or row.error is None:
        return None
    body = {"error": {"message": row.error.message, "code": row.error.code}}
    return {"status_code": max(row.status, 400), "request_id": row.request_id or "", "body": body}


def write_output(ledger: Ledger, path: Path) -> None:
    """Write the output of a ledger; the file's ending chooses `.jsonl` or `.parquet`.

    Raises:
        ConfigurationError: The name has another ending, or pyarrow is not installed.
        FileWriteError: The file could not be written; an earlier one is unchanged.
    """
    write = writer_for(path)
    with _replaced(path) as temporary:
        write(ledger.id, ended_rows(ledger), temporary)


def writer_for(path: Path) -> Callable[[str, Iterator[StoredRow], Path], None]:
    """Return the writer of a file.

    Raises:
        ConfigurationError: The name has an unknown ending, or pyarrow is not installed.
    """
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        raise ConfigurationError(
            f"The output {path} does not have a known ending.",
            hint=f"Use one of the endings {', '.join(sorted(_WRITERS))}.",
        )
    if writer is _write_parquet:
        _pyarrow()
    return writer


def _write_jsonl(batch_id: str, rows: Iterator[StoredRow], path: Path) -> None:
    with path.open("wb", buffering=1 << 20) as file:
        for row in rows:
            file.write(output_line(batch_id, row) + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _write_parquet(batch_id: str, rows: Iterator[StoredRow], path: Path) -> None:
    pyarrow, parquet = _pyarrow()
    text, number = pyarrow.string(), pyarrow.int32()
    schema = pyarrow.schema(
        [
            ("id", text),
            ("custom_id", text),
            ("content", text),
            ("response", pyarrow.struct([("status_code", number), ("request_id", text), ("body", text)])),
            ("error", pyarrow.struct([("code", text), ("message", text), ("line", number)])),
        ]
    )
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        while batch := [_columns(batch_id, row) for row in islice(rows, PARQUET_ROWS)]:
            writer.write_table(pyarrow.Table.from_pylist(batch, schema))
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _columns(batch_id: str, row: StoredRow) -> dict[str, Any]:
    response = _refusal(row)
    if row.answer is not None:
        response = {"status_code": row.status or 200, "request_id": row.request_id or "", "body": row.answer.decode()}
    elif response is not None:
        response["body"] = _encode(response["body"]).decode()
    return {
        "id": f"batch_req_{batch_id}_{row.number + 1}",
        "custom_id": row.custom_id,
        "content": _text(row),
        "response": response,
        "error": None if row.error is None else msgspec.to_builtins(row.error),
    }


def _text(row: StoredRow) -> str | None:
    if row.answer is None:
        return None
    try:
        return text_of(row.endpoint, row.answer)
    except LMStudioError:  # the body is written in full all the same
        return None


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa  # an extra
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise ConfigurationError(NEEDS_PYARROW, hint=INSTALL_PYARROW) from error
    return pa, parquet


_WRITERS: Mapping[str, Callable[[str, Iterator[StoredRow], Path], None]] = {
    ".jsonl": _write_jsonl,
    ".ndjson": _write_jsonl,
    ".parquet": _write_parquet,
}


@contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside `path`, which replaces it if the block succeeds.

    Raises:
        FileWriteError: The file could not be written; `path` is unchanged.
    """
    try:
        target = Path(os.path.realpath(path))
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name[:100]}.", suffix=".tmp", dir=target.parent)
        os.close(descriptor)
        temporary = Path(name)
        try:
            yield temporary
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        reason = (error.strerror or str(error)).rstrip(".")
        raise FileWriteError(f"{path} cannot be written: {reason}.", path=str(path), errno=error.errno) from error
