"""The check of an answer against the schema of its batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from lmdeck.batch.ledger import Lease
from lmdeck.batch.stored_answers import text_of
from lmdeck.errors import StructuredOutputError
from lmdeck.tools.checker import Checker


class SchemaCheck:
    """A JSON Schema for the content of every answer."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        """Compile a schema.

        Raises:
            ConfigurationError: It is not a JSON Schema.
        """
        self._checker = Checker(schema, "The batch's schema")
        self._checker.errors(None)

    def check(self, lease: Lease, answer: bytes) -> None:
        """Check an answer in its wire format.

        Raises:
            StructuredOutputError: Its text is not JSON, or does not match.
        """
        text = text_of(lease.endpoint, answer)
        try:
            errors = self._checker.errors(msgspec.json.decode(text))
        except (msgspec.DecodeError, RecursionError) as error:
            raise StructuredOutputError(f"The answer is not JSON: {error}.", raw=text) from error
        if errors:
            raise StructuredOutputError(f"The answer does not match the schema: {errors[0]}", raw=text)
