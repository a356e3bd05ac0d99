"""The keyword arguments of a client, with their types."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from lmdeck._secret import Secret


class ClientSettings(TypedDict, total=False):
    """The keyword arguments of a client, for type checkers and editors.

    `None` is the same as no argument.
    """

    host: str | None
    port: int | None
    base_url: str | None
    model: str | None
    api_token: str | Secret | None
    timeout: float | None
    first_token_timeout: float | None
    connect_timeout: float | None
    total_timeout: float | None
    retry_attempts: int | None
    retry_delay: float | None
    max_concurrency: int | None
    without_rules: str | Sequence[str] | None
    debug: bool | None
    discover: bool | None
    profiles: Mapping[str, Mapping[str, Any]] | None
    proxy: str | None
    tls_verify: bool | None
    tls_ca_file: str | os.PathLike[str] | None
    tls_client_cert: str | os.PathLike[str] | None
    tls_client_key: str | os.PathLike[str] | None
