"""Uploaded files: `multipart/form-data` (RFC 7578), written to disk as it arrives."""

from __future__ import annotations

from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import IO, Any

from lmdeck.errors import InvalidRequestError

__all__ = ["Upload", "boundary_of"]

FIELD_BYTES = 4096
FIELDS = 20
FILENAME_CHARS = 255


class Upload:
    """The parts of a form: short fields in memory, the part `file` on disk."""

    def __init__(self, boundary: str, path: Path) -> None:
        from python_multipart.multipart import MultipartParser  # an extra

        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.size = 0
        self._path = path
        self._file: IO[bytes] | None = None
        self._name = ""
        self._header = (bytearray(), bytearray())
        self._headers = Message()
        self._value = bytearray()
        self._parts = 0
        callbacks: dict[str, Callable[..., Any]] = {
            "on_part_begin": self._begin_part,
            "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._add,
            "on_part_end": self._end_part,
        }
        self._parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]  # a TypedDict of these

    def feed(self, data: bytes) -> None:
        """Read bytes of the form.

        Raises:
            InvalidRequestError: They are not a form, or one with too many or too long fields.
            OSError: The file cannot be written.
        """
        from python_multipart.exceptions import FormParserError

        try:
            self._parser.write(data)
        except FormParserError as error:
            raise InvalidRequestError(f"The body is not a valid multipart form: {error}.", status=400) from error

    def finish(self) -> None:
        """Close the file.

        Raises:
            InvalidRequestError: The form ends early, or has no file.
        """
        if self._file is not None and not self._file.closed:
            raise InvalidRequestError("The form ends in the middle of its file.", status=400)
        if self.filename is None:
            raise InvalidRequestError(
                "The form has no part `file`.", status=400, param="file", hint="Send the file in a part with that name."
            )

    def close(self) -> None:
        """Close the file, even if it is incomplete."""
        if self._file is not None:
            self._file.close()

    def _begin_part(self) -> None:
        self._headers, self._value, self._name = Message(), bytearray(), ""
        self._parts += 1
        if self._parts > FIELDS:
            raise InvalidRequestError(f"The form has more than {FIELDS} parts.", status=400)

    def _end_header(self) -> None:
        name, value = (bytes(part).decode("utf-8", "replace") for part in self._header)
        self._header = (bytearray(), bytearray())
        self._headers[name] = value

    def _end_headers(self) -> None:
        name = self._headers.get_param("name", "", "content-disposition")
        self._name = name if isinstance(name, str) else ""
        filename = self._headers.get_filename()
        if self._name == "file" and self._file is None:
            self.filename = Path((filename or "file").replace("\\", "/")).name[:FILENAME_CHARS] or "file"
            self._file = self._path.open("wb")

    def _add(self, data: bytes, start: int, end: int) -> None:
        if self._name == "file" and self._file is not None and not self._file.closed:
            self._file.write(data[start:end])
            self.size += end - start
            return
        self._value += data[start:end]
        if len(self._value) > FIELD_BYTES:
            raise InvalidRequestError(
                f"The form's field {self._name[:80]!r} is longer than {FIELD_BYTES} bytes.", status=400
            )

    def _end_part(self) -> None:
        if self._name == "file" and self._file is not None:
            self._file.close()
        else:
            self.fields[self._name] = self._value.decode("utf-8", "replace")


def boundary_of(content_type: str) -> str:
    """Return the boundary of a form.

    Raises:
        InvalidRequestError: It is not `multipart/form-data` with a boundary.
    """
    header = Message()
    header["content-type"] = content_type
    boundary = header.get_boundary()
    if header.get_content_type() != "multipart/form-data" or not boundary or len(boundary) > 200:
        raise InvalidRequestError(
            "The request is not a multipart form with a boundary.",
            status=400,
            hint="Send the file as multipart/form-data.",
        )
    return boundary
