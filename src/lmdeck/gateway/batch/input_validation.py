"""Validation of a batch's input.

As in OpenAI's API, an invalid row refuses the whole batch.
"""

from __future__ import annotations

from pathlib import Path

from lmdeck.batch.input_requests import BatchOptions, InvalidRowError, endpoint_of, request_of
from lmdeck.batch.ledger import InputRow, Ledger
from lmdeck.batch.readers import Record, read_jsonl
from lmdeck.errors import ConfigurationError
from lmdeck.gateway.batch.records import BatchError

__all__ = ["read_input"]

SHOWN_ERRORS = 50
READ_ROWS = 1000  # in one transaction


def read_input(path: Path, endpoint: str, ledger: Ledger, most_rows: int) -> list[BatchError]:
    """Read a file into a ledger and return its errors, at most `SHOWN_ERRORS`.

    It is safe to read a file again.
    """
    try:
        return _read(path, endpoint, ledger, most_rows)
    except ConfigurationError as error:
        return [BatchError(code="invalid_input_file", message=error.message, param="input_file_id")]


def _read(path: Path, endpoint: str, ledger: Ledger, most_rows: int) -> list[BatchError]:
    options = BatchOptions(endpoint=endpoint)
    errors: list[BatchError] = []
    rows: list[InputRow] = []
    seen: set[str] = set()
    count = 0
    for record in read_jsonl(path):
        count += 1
        if count > most_rows:
            return [*errors, BatchError(code="too_many_rows", message=f"The file has more than {most_rows} requests.")]
        try:
            rows.append(_row(record, options, seen))
        except InvalidRowError as error:
            errors.append(BatchError(code="invalid_request", message=str(error), line=record.line))
            if len(errors) >= SHOWN_ERRORS:
                return errors
        if len(rows) >= READ_ROWS and not errors:
            ledger.add_rows(count - len(rows), rows)
            rows = []
    if not count:
        return [BatchError(code="empty_file", message="The file has no requests.", param="input_file_id")]
    if not errors:
        ledger.add_rows(count - len(rows), rows)
    return errors


def _row(record: Record, options: BatchOptions, seen: set[str]) -> InputRow:
    if record.error:
        raise InvalidRowError(record.error)
    values = record.values
    custom_id = values.get("custom_id")
    if not isinstance(custom_id, str) or not custom_id:
        raise InvalidRowError("`custom_id` is missing, or is not a string.")
    if custom_id in seen:
        raise InvalidRowError(f"The custom_id {custom_id!r} is used by another request, too.")
    if values.get("method") != "POST":
        raise InvalidRowError("`method` is not 'POST'.")
    if "body" not in values:
        raise InvalidRowError("`body` is missing.")
    url = values.get("url")
    if not isinstance(url, str) or endpoint_of(url)[0] != options.endpoint:
        raise InvalidRowError(f"`url` is not the batch's endpoint {options.endpoint!r}.")
    request = request_of(values, options)
    seen.add(custom_id)
    return InputRow(line=record.line, custom_id=custom_id, request=request)
