"""The endpoints of files and batches, as in OpenAI's API.
A key sees only the files and batches that were created with it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace

from lmdeck.batch.input_requests import InvalidRowError, endpoint_of
from lmdeck.errors import InvalidRequestError, RateLimitError, ServerError
from lmdeck.gateway.batch.batch_store import BatchStore, Page, new_id
from lmdeck.gateway.batch.records import Batch, StoredFile
from lmdeck.gateway.batch.runner import BatchRunner
from lmdeck.gateway.batch.uploads import Upload, boundary_of
from lmdeck.gateway.config import Config
from lmdeck.gateway.durations import seconds_of
from lmdeck.gateway.http import Access, Arrived, Endpoint, HTTPAnswer, json_answer

__all__ = ["batch_routes"]

CHUNK_BYTES = 1 << 16
FORM_BYTES = 1 << 16  # of a form beside its file
MOST_OPEN = 1000
DAY = 86400


class Served(Protocol):
    """What the endpoints need of a gateway."""

    config: Config
    batches: BatchRunner


def batch_routes(gateway: Served) -> Iterator[tuple[str, str, Endpoint, Access]]:
    """Yield the endpoints: method, path, endpoint and access."""
    yield "POST", "/v1/files", partial(_upload, gateway), "key"
    yield "GET", "/v1/files", partial(_list_files, gateway), "key"
    yield "GET", "/v1/files/{id}", partial(_file, gateway), "key"
    yield "DELETE", "/v1/files/{id}", partial(_delete_file, gateway), "key"
    yield "GET", "/v1/files/{id}/content", partial(_content, gateway), "key"
    yield "POST", "/v1/batches", partial(_create, gateway), "key"
    yield "GET", "/v1/batches", partial(_list_batches, gateway), "key"
    yield "GET", "/v1/batches/{id}", partial(_batch, gateway), "key"
    yield "POST", "/v1/batches/{id}/cancel", partial(_cancel, gateway), "key"


async def _upload(gateway: Served, arrived: Arrived) -> HTTPAnswer:
    limits, store = gateway.config.batches, gateway.batches.store
    boundary = boundary_of(arrived.headers.get("content-type", ""))
    used = await asyncio.to_thread(store.bytes_of, arrived.principal.name)
    announced = arrived.headers.get("content-length", "")
    if used + (int(announced) if announced.isdigit() else 0) > limits.key_bytes + FORM_BYTES:
        raise InvalidRequestError(
            f"The files of this key would exceed {limits.key_bytes} bytes, the setting batches.key_bytes.",
            status=413,
            hint="Delete files that are no longer needed.",
        )
    path = await asyncio.to_thread(store.temporary)
    try:
        upload = await _received(arrived, boundary, path, limits.file_bytes)
        if used + upload.size > limits.key_bytes:
            raise InvalidRequestError("The files of this key have become too large.", status=413)
        record = _file_record(upload, arrived.principal.name, limits.keep_days)
        await asyncio.to_thread(store.add_file, record, path)
    except OSError as error:
        raise ServerError(
            f"The gateway cannot store the file: {error.strerror or error}.",
            status=507,
            hint="Free disk space on the gateway's machine.",
        ) from error
    finally:
        path.unlink(missing_ok=True)
    return json_answer(record.to_openai())


async def _received(arrived: Arrived, boundary: str, path: Path, limit: int) -> Upload:
    """Read a form as it arrives, writing its file to `path`."""
    upload = Upload(boundary, path)
    try:
        async with aclosing(arrived.stream(limit + FORM_BYTES)) as pieces:  # type: ignore[type-var]  # it is a generator
            async for piece in pieces:
                upload.feed(piece)
                if upload.size > limit:
                    raise InvalidRequestError(
                        f"The file is larger than {limit} bytes, the setting batches.file_bytes.", status=413
                    )
        upload.finish()
    finally:
        upload.close()
    return upload


def _file_record(upload: Upload, owner: str, keep_days: float) -> StoredFile:
    purpose = upload.fields.get("purpose", "")
    if not purpose or len(purpose) > 64:
        raise InvalidRequestError("The form has no field `purpose`.", status=400, param="purpose")
    now = int(time.time())
    seconds = upload.fields.get("expires_after[seconds]")
    return StoredFile(
        id=new_id("file-"),
        owner=owner,
        filename=upload.filename or "",
        purpose=purpose,
        bytes=upload.size,
        created_at=now,
        expires_at=now + (round(keep_days * DAY) if seconds is None else _seconds(seconds)),
    )


def _seconds(given: Any) -> int:
    try:
        seconds = int(given)
    except (TypeError, ValueError):
        seconds = 0
    if not 1 <= seconds <= 366 * DAY:
        raise InvalidRequestError(
            "`expires_after.seconds` is not a number of seconds up to a year.", status=400, param="expires_after"
        )
    return seconds


async def _list_files(gateway: Served, arrived: Arrived) -> HTTPAnswer:
    query = arrived.query
    page = await asyncio.to_thread(
        gateway.batches.store.files,
        arrived.principal.name,
        query.get("purpose"),
        query.get("after"),
        _limit(query, 10_000),
        is_ascending=query.get("order") == "asc",
    )
    return _listed(page)


async def _file(gateway: Served, arrived: Arrived) -> HTTPAnswer:
    return json_answer((await _found_file(gateway.batches.store, arrived)).to_openai())


async def _delete_file(gateway: Served, arrived: Arrived) -> HTTPAnswer:
    file = await _found_file(gateway.batches.store, arrived)
    await asyncio.to_thread(gateway.batches.store.delete_file, file.id)
    return json_answer({"id": file.id, "object": "file", "deleted": True})


async def _content(gateway: Served, arrived: Arrived) -> HTTPAnswer:
    store = gateway.batches.store
    file = await _found_file(store, arrived)
    headers = {"content-type": "application/octet-stream", "content-length": str(file.bytes)}
    return HTTPAnswer(headers=headers, body=_pieces(store.content_of(file.id)))


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(path.open, "rb") as file:
        while piece := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield piece


async def _create(gateway: Served, arrived: Arrived) -> HTTPAnswer:
    store, owner = gateway.batches.store, arrived.principal.name
    body = _json_object(await arrived.body())
    file_id = body.get("input_file_id")
    file = await asyncio.to_thread(store.file, file_id, owner) if isinstance(file_id, str) else None
    if file is None:
        raise InvalidRequestError(
            "`input_file_id` is not the id of one of your files.", status=400, param="input_file_id"
        )
    batch = _batch_of(body, file, owner)
    if len(await asyncio.to_thread(store.open_batches)) >= MOST_OPEN:
        raise RateLimitError(f"{MOST_OPEN} batches are already open.", status=429, retry_after=60.0)
    await asyncio.to_thread(store.add_batch, batch)
    gateway.batches.wake()
    return json_answer(batch.to_openai())


def _batch_of(body: Mapping[str, Any], file: StoredFile, owner: str) -> Batch:
    """Return the batch that a request creates.

    Raises:
        InvalidRequestError: One of its fields is wrong.
    """
    if file.purpose != "batch":
        raise InvalidRequestError(
            f"The purpose of the file is {file.purpose!r}, not 'batch'.", status=400, param="input_file_id"
        )
    try:
        endpoint = endpoint_of(str(body.get("endpoint")))[0]
    except InvalidRowError as error:
        raise InvalidRequestError(str(error), status=400, param="endpoint") from error
    window = body.get("completion_window", "24h")
    try:
        seconds = seconds_of(str(window))
    except ValueError as error:
        raise InvalidRequestError(
            f"`completion_window` is not {error}.", status=400, param="completion_window"
        ) from None
    metadata = body.get("metadata")
    if metadata is not None and not (
        isinstance(metadata, dict) and len(metadata) <= 16 and all(isinstance(each, str) for each in metadata.values())
    ):
        raise InvalidRequestError("`metadata` is not an object of up to 16 texts.", status=400, param="metadata")
    after = body.get("output_expires_after")
    now = int(time.time())
    return Batch(
        id=new_id("batch_"),
        owner=owner,
        endpoint=endpoint,
        input_file_id=file.id,
        completion_window=str(window),
        created_at=now,
        expires_at=now + max(1, round(seconds)),
        metadata=metadata,
        output_seconds=_seconds(after.get("seconds")) if isinstance(after, Mapping) else None,
    )


async def _list_batches(gateway: Served, arrived: Arrived) -> HTTPAnswer:
    query = arrived.query
    store = gateway.batches.store
    page = await asyncio.to_thread(store.batches, arrived.principal.name, query.get("after"), _limit(query, 20))
    return _listed(page)


async def _batch(gateway: Served, arrived: Arrived) -> HTTPAnswer:
    return json_answer((await _found_batch(gateway.batches.store, arrived)).to_openai())


async def _cancel(gateway: Served, arrived: Arrived) -> HTTPAnswer:
    store = gateway.batches.store
    batch = await _found_batch(store, arrived)
    if batch.is_over or batch.status == "finalizing":
        raise InvalidRequestError(
            f"The batch is {batch.status} and cannot be cancelled.", status=409, code="batch_not_cancellable"
        )

    def change(known: Batch) -> Batch:
        if known.status in {"finalizing", "cancelling"}:
            return known
        return replace(known, status="cancelling", cancelling_at=int(time.time()))

    changed = await asyncio.to_thread(store.change_batch, batch.id, change)
    gateway.batches.wake()
    return json_answer(changed.to_openai())


async def _found_file(store: BatchStore, arrived: Arrived) -> StoredFile:
    found = await asyncio.to_thread(store.file, arrived.params["id"], arrived.principal.name)
    if found is None:
        raise InvalidRequestError(
            f"There is no file {arrived.params['id']!r}.", status=404, code="file_not_found", param="id"
        )
    return found


async def _found_batch(store: BatchStore, arrived: Arrived) -> Batch:
    found = await asyncio.to_thread(store.batch, arrived.params["id"], arrived.principal.name)
    if found is None:
        raise InvalidRequestError(
            f"There is no batch {arrived.params['id']!r}.", status=404, code="batch_not_found", param="id"
        )
    return found


def _limit(query: Mapping[str, str], usual: int) -> int:
    given = query.get("limit", "")
    return min(max(int(given), 1), 10_000) if given.isdigit() else usual


def _listed(page: Page) -> HTTPAnswer:
    data = [record.to_openai() for record in page.records]
    ids = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return json_answer({"object": "list", "data": data, **ids, "has_more": page.has_more})


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        given = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequestError(f"The request's body is not JSON: {error}.", status=400) from error
    if not isinstance(given, dict):
        raise InvalidRequestError("The request's body is not a JSON object.", status=400)
    return given
