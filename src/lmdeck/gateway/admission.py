"""Admission: keys, limits and budgets as a protocol.

The default admits every request.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Protocol

from msgspec import Struct, field

from lmdeck.errors import LMStudioError
from lmdeck.relay import Kind

CLIENT_GONE = 499
"""The status of a request whose client left, as in nginx's logs."""


class Principal(Struct, frozen=True, kw_only=True):
    """The holder of a key: its name, and patterns of the models that it may use.

    The name is `""` if no keys are required.

    Without patterns, it may use all models.
    """

    name: str = ""
    models: tuple[str, ...] = ()

    @property
    def scope(self) -> str:
        """The name under which answers for the holder are cached, which no other holder has."""
        return f"key {self.name}"

    def may_use(self, model: str) -> bool:
        """Whether the key may use a model."""
        return not self.models or any(fnmatchcase(model, pattern) for pattern in self.models)


class AdmissionRequest(Struct, frozen=True, kw_only=True):
    """What a request asks for: `tokens` is an estimate of its prompt and longest answer."""

    request_id: str
    endpoint: Kind
    model: str
    tokens: int


class RequestOutcome(Struct, kw_only=True):
    """How a request ended; times are in seconds, `started_at` is Unix time.

    `model` is the model that answered, or else the requested one; `variant` is its key with variant and quantization, as far as
    the host lists them. Token counts are the host's; if the client left early, they are the number of chunks that it received.
    `error` is the name of the error's class, or `""`; `failure` is the error itself. `cassette` is the path of a recording, or
    `""`. `problems` counts the answer's problems by code and dialect; an answer with `has_flaws` is not cached.
    """

    request_id: str
    started_at: float
    key: str = ""
    endpoint: str = ""
    method: str = ""
    path: str = ""
    model: str = ""
    variant: str = ""
    host: str = ""
    status: int = 0
    error: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cached_tokens: int = 0
    queue_seconds: float = 0.0
    first_token_seconds: float | None = None
    seconds: float = 0.0
    attempts: int = 0
    finish_reason: str = ""
    problems: Counter[tuple[str, str]] = field(default_factory=Counter)
    has_flaws: bool = False
    cache: str = ""
    cassette: str = ""
    failure: LMStudioError | None = None

    @property
    def names_model(self) -> bool:
        """Whether a host is known to have the model: an unserved request may name any."""
        return self.attempts > 0 or not self.error

    @property
    def is_broken(self) -> bool:
        """Whether the answer failed after it had begun, other than by the client leaving."""
        return bool(self.error) and self.first_token_seconds is not None and self.status != CLIENT_GONE


class AdmissionRefused(Exception):  # a refusal is an answer, not a failure
    """A request that is not admitted: the error, and headers to send with it."""

    def __init__(self, error: LMStudioError, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.headers = dict(headers or {})


class AdmittedRequest(Protocol):
    """An admitted request."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers to send with the answer, such as `x-ratelimit-remaining-requests`."""
        ...

    async def settle(self, outcome: RequestOutcome) -> None:
        """Record how the request ended; called exactly once."""
        ...


class Admission(Protocol):
    """The keys and limits of a gateway."""

    async def start(self) -> None:
        """Open the store."""
        ...

    async def aclose(self) -> None:
        """Close the store."""
        ...

    async def authenticate(self, headers: Mapping[str, str]) -> Principal:
        """Return the holder of the key in a request's headers, whose names are in lower case.

        Raises:
            AdmissionRefused: There is no key, or it is not valid.
        """
        ...

    async def principal_of(self, name: str) -> Principal:
        """Return the holder of a key by its name, for work that continues after its client left.

        Raises:
            AdmissionRefused: The key was revoked, or has expired.
        """
        ...

    async def admit(self, principal: Principal, ask: AdmissionRequest) -> AdmittedRequest:
        """Admit a request and reserve its tokens.

        Raises:
            AdmissionRefused: The key may not use the model, or a limit is reached.
        """
        ...


class _UnlimitedRequest:
    headers: Mapping[str, str] = {}

    async def settle(self, outcome: RequestOutcome) -> None:
        """Do nothing."""


_LEASE = _UnlimitedRequest()
_ANONYMOUS = Principal()


class OpenAdmission:
    """An admission without keys and limits."""

    async def start(self) -> None:
        """Do nothing."""

    async def aclose(self) -> None:
        """Do nothing."""

    async def authenticate(self, headers: Mapping[str, str]) -> Principal:
        """Return the same principal for every request."""
        return _ANONYMOUS

    async def principal_of(self, name: str) -> Principal:
        """Return the same principal for every name."""
        return _ANONYMOUS

    async def admit(self, principal: Principal, ask: AdmissionRequest) -> AdmittedRequest:
        """Admit every request."""
        return _LEASE
