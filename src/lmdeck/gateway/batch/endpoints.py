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

from msgspec.structs import replace

from lmdeck.batch.input_requests import InvalidRowError, endpoint_of
from lmdeck.errors import InvalidRequestError, RateLimitError, ServerError
from lmdeck.gateway.batch.batch_store import BatchStore, Page, new_id
from lmdeck.gateway.batch.records import Batch, StoredFile
from lmdeck.gateway.batch.runner import BatchRunner
from lmdeck.gateway.batch.uploads import Upload, boundary_of
from lmdeck.gateway.config import Config
from lmdeck.gateway.durations import seconds_of
from lmdeck.gateway.http import Access, Endpoint, HTTPAnswer, HTTPRequest, json_answer, json_object

__all__ = ["batch_routes"]

CHUNK_BYTES = 1 << 16
FORM_BYTES = 1 << 16  # of a form beside its file
MAX_OPEN = 1000
DAY = 86400


class FilesGateway(Protocol):
    """What the endpoints need of a gateway."""

    config: Config
    batches: BatchRunner


def batch_routes(gateway: FilesGateway) -> Iterator[tuple[str, str, Endpoint, Access]]:
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


async def _upload(gateway: FilesGateway, incoming: HTTPRequest) -> HTTPAnswer:
    limits, store = gateway.config.batches, gateway.batches.store
    boundary = boundary_of(incoming.headers.get("content-type", ""))
    used = await asyncio.to_thread(store.bytes_of, incoming.principal.name)
    announced = incoming.headers.get("content-length", "")
    if used + (int(announced) if announced.isdigit() else 0) > limits.key_bytes + FORM_BYTES:
        raise _key_is_full(limits.key_bytes)
    path = await asyncio.to_thread(store.temporary_path)
    try:
        upload = await _received(incoming, boundary, path, limits.file_bytes)
        if used + upload.size > limits.key_bytes:
            raise _key_is_full(limits.key_bytes)
        record = _file_record(upload, incoming.principal.name, limits.keep_days)
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


def _key_is_full(limit: int) -> InvalidRequestError:
    return InvalidRequestError(
        f"The files of this key would exceed {limit} bytes. The limit is the setting batches.key_bytes.",
        status=413,
        hint="Delete files that are no longer needed.",
    )


async def _received(incoming: HTTPRequest, boundary: str, path: Path, limit: int) -> Upload:
    """Read a form as it arrives, writing its file to `path`."""
    upload = Upload(boundary, path)
    try:
        too_large = _file_too_large(limit)
        async with aclosing(incoming.stream(limit + FORM_BYTES, too_large)) as pieces:
            async for piece in pieces:
                upload.feed(piece)
                if upload.size > limit:
                    raise too_large
        upload.finish()
    finally:
        upload.close()
    return upload


def _file_too_large(limit: int) -> InvalidRequestError:
    return InvalidRequestError(
        f"The file is larger than {limit} bytes. The limit is the setting batches.file_bytes.",
        status=413,
        hint="Split the file into several batches.",
    )


def _file_record(upload: Upload, owner: str, keep_days: float) -> StoredFile:
    purpose = upload.fields.get("purpose", "")
    if not purpose or len(purpose) > 64:
        raise InvalidRequestError(
            "The form's field `purpose` is missing, or longer than 64 characters.", status=400, param="purpose"
        )
    now = int(time.time())
    seconds = upload.fields.get("expires_after[seconds]")
    return StoredFile(
        id=new_id("file-"),
        owner=owner,
        filename=upload.filename or "",
        purpose=purpose,
        bytes=upload.size,
        created_at=now,
        expires_at=now + (round(keep_days * DAY) if seconds is None else _seconds(seconds, "expires_after")),
    )


def _seconds(value: Any, field: str) -> int:
    try:
        seconds = int(value)
    except (TypeError, ValueError):
        seconds = 0
    if not 1 <= seconds <= 366 * DAY:
        raise InvalidRequestError(
            f"`{field}.seconds` is not a number of seconds between 1 and {366 * DAY}.", status=400, param=field
        )
    return seconds


async def _list_files(gateway: FilesGateway, incoming: HTTPRequest) -> HTTPAnswer:
    query = incoming.query
    page = await asyncio.to_thread(
        gateway.batches.store.files,
        incoming.principal.name,
        query.get("purpose"),
        query.get("after"),
        _limit(query, 10_000),
        is_ascending=query.get("order") == "asc",
    )
    return _listed(page)


async def _file(gateway: FilesGateway, incoming: HTTPRequest) -> HTTPAnswer:
    return json_answer((await _found_file(gateway.batches.store, incoming)).to_openai())


async def _delete_file(gateway: FilesGateway, incoming: HTTPRequest) -> HTTPAnswer:
    file = await _found_file(gateway.batches.store, incoming)
    await asyncio.to_thread(gateway.batches.store.delete_file, file.id)
    return json_answer({"id": file.id, "object": "file", "deleted": True})


async def _content(gateway: FilesGateway, incoming: HTTPRequest) -> HTTPAnswer:
    store = gateway.batches.store
    file = await _found_file(store, incoming)
    headers = {"content-type": "application/octet-stream", "content-length": str(file.bytes)}
    return HTTPAnswer(headers=headers, body=_pieces(store.content_of(file.id)))


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(path.open, "rb") as file:
        while piece := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield piece


async def _create(gateway: FilesGateway, incoming: HTTPRequest) -> HTTPAnswer:
    store, owner = gateway.batches.store, incoming.principal.name
    body = json_object(await incoming.body())
    file_id = body.get("input_file_id")
    file = await asyncio.to_thread(store.file, file_id, owner) if isinstance(file_id, str) else None
    if file is None:
        raise InvalidRequestError(
            "`input_file_id` is not the id of a file of this key.",
            status=400,
            param="input_file_id",
            hint="Upload the file with `POST /v1/files` and purpose `batch`, with the same key.",
        )
    batch = _batch_of(body, file, owner)
    if len(await asyncio.to_thread(store.open_batches)) >= MAX_OPEN:
        raise RateLimitError(
            f"{MAX_OPEN} batches are open, the most that a gateway accepts.",
            status=429,
            retry_after=60.0,
            hint="Wait until one has ended, or cancel one.",
        )
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
            f"The purpose of the file is {file.purpose!r}, not 'batch'.",
            status=400,
            param="input_file_id",
            hint="Upload it again with purpose `batch`.",
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
        raise InvalidRequestError("`metadata` is not an object of up to 16 strings.", status=400, param="metadata")
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
        output_seconds=_seconds(after.get("seconds"), "output_expires_after") if isinstance(after, Mapping) else None,
    )


async def _list_batches(gateway: FilesGateway, incoming: HTTPRequest) -> HTTPAnswer:
    query = incoming.query
    store = gateway.batches.store
    page = await asyncio.to_thread(store.batches, incoming.principal.name, query.get("after"), _limit(query, 20))
    return _listed(page)


async def _batch(gateway: FilesGateway, incoming: HTTPRequest) -> HTTPAnswer:
    return json_answer((await _found_batch(gateway.batches.store, incoming)).to_openai())


async def _cancel(gateway: FilesGateway, incoming: HTTPRequest) -> HTTPAnswer:
    store = gateway.batches.store
    batch = await _found_batch(store, incoming)
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


async def _found_file(store: BatchStore, incoming: HTTPRequest) -> StoredFile:
    found = await asyncio.to_thread(store.file, incoming.params["id"], incoming.principal.name)
    if found is None:
        raise InvalidRequestError(
            f"There is no file {incoming.params['id']!r} of this key.",
            status=404,
            code="file_not_found",
            param="id",
            hint="`GET /v1/files` lists the files of a key.",
        )
    return found


async def _found_batch(store: BatchStore, incoming: HTTPRequest) -> Batch:
    found = await asyncio.to_thread(store.batch, incoming.params["id"], incoming.principal.name)
    if found is None:
        raise InvalidRequestError(
            f"There is no batch {incoming.params['id']!r} of this key.",
            status=404,
            code="batch_not_found",
            param="id",
            hint="`GET /v1/batches` lists the batches of a key.",
        )
    return found


def _limit(query: Mapping[str, str], default: int) -> int:
    text = query.get("limit", "")
    return min(max(int(text), 1), 10_000) if text.isdigit() else default


def _listed(page: Page) -> HTTPAnswer:
    data = [record.to_openai() for record in page.records]
    ids = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return json_answer({"object": "list", "data": data, **ids, "has_more": page.has_more})
