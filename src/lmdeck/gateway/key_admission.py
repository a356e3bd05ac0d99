"""Admission by keys: allowed models, limits, and the usage that each request stores."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from lmdeck._usage_store import (
    KEEP_DAYS,
    FailureRecord,
    GatewayStore,
    Key,
    KeyLimits,
    StoreError,
    UsageRecord,
    day_of,
    open_store,
)
from lmdeck.errors import APIError, AuthenticationError, ConfigurationError, LMStudioError, ServerError
from lmdeck.gateway.admission import AdmissionRefused, AdmissionRequest, AdmittedRequest, Principal, RequestOutcome
from lmdeck.gateway.keys import KeyRing, key_in
from lmdeck.gateway.limits.limiter import MEMORY, Admitted, Limiter, rate_limit_headers
from lmdeck.observe.failure_recordings import RecordFailures
from lmdeck.stats import Usage

__all__ = ["KeyAdmission"]

_log = logging.getLogger("lmdeck.gateway")
COMMIT_SECONDS = 5.0
LATE_SECONDS = 0.05
CLOSE_SECONDS = 10.0
CHALLENGE = {"www-authenticate": "Bearer", "x-should-retry": "false"}
ANONYMOUS = Key(name="", digest="", start="")


class KeyHolder(Principal, frozen=True, kw_only=True):
    """The holder of a key, with its limits."""

    key: Key

    @property
    def scope(self) -> str:
        """The name under which answers for the holder are cached.

        It is the key's digest, since the key's name may be used again after it is revoked.
        """
        return f"key {self.key.digest}"


class KeyAdmission:
    """Admits the holders of keys; stores usage and failures.

    Unless keys are `required`, clients without one are admitted, too.

    `limits_url` is the address of Redis, which several workers need to count together; with `memory:` each counts alone.
    `recordings` is the folder in which the hosts' sessions record failed requests.
    """

    def __init__(
        self,
        store_url: str,
        *,
        limits_url: str = MEMORY,
        required: bool = True,
        workers: int = 1,
        keep_days: float = KEEP_DAYS,
        recordings: str = "",
    ) -> None:
        self._store_url = store_url
        self._limits_url = limits_url
        self._required = required
        self._counts_alone = workers > 1 and limits_url == MEMORY
        self._keep_days = keep_days
        self._recorder = RecordFailures(recordings) if recordings else None
        self._store: GatewayStore | None = None
        self._counted: tuple[str, set[str]] = ("", set())
        self._ending: set[asyncio.Task[None]] = set()
        self._store_is_late = False
        self._models: set[str] = set()

    async def start(self) -> None:
        """Open the store and read the keys.

        Raises:
            ConfigurationError: The store cannot be used, or several workers would count the limits of a key separately.
            StoreError: The store does not answer.
        """
        self._limiter = Limiter.open(self._limits_url)
        store = await asyncio.to_thread(open_store, self._store_url, keep_days=self._keep_days)
        try:
            self._ring = KeyRing(store)
            await self._ring.refresh()
            self._check_workers()
        except BaseException:
            store.close()
            raise
        self._store = store
        self._refreshing = asyncio.create_task(self._ring.keep_fresh())

    def _check_workers(self) -> None:
        limited = [key.name for key in self._ring.keys if key.limits != KeyLimits()]
        if self._counts_alone and limited:
            raise ConfigurationError(
                f"Several workers would each count the limits of the key {limited[0]!r} separately.",
                hint='Set `url = "redis://…"` in `[limits]`, or use one worker.',
            )

    @property
    def store(self) -> GatewayStore:
        """The open store, for the pages that show it."""
        assert self._store is not None, "start() opens it"
        return self._store

    async def aclose(self) -> None:
        """Store the usage of ended requests, and close."""
        if self._store is None:
            return
        self._refreshing.cancel()
        with suppress(asyncio.CancelledError):
            await self._refreshing
        if self._ending:
            await asyncio.wait(self._ending, timeout=CLOSE_SECONDS)
        await self._limiter.aclose()
        await asyncio.to_thread(self._store.close)

    async def authenticate(self, headers: Mapping[str, str]) -> Principal:
        """Return the holder of the key in a request's headers.

        Where keys are not required, a request without a key of this gateway is anonymous.

        Raises:
            AdmissionRefused: There is no key, or it is unknown, revoked or expired.
        """
        secret = key_in(headers)
        if not self._required and not self._ring.is_secret(secret):
            return KeyHolder(key=ANONYMOUS)
        try:
            key = await self._ring.find(secret)
        except AuthenticationError as error:
            raise AdmissionRefused(error, CHALLENGE) from error
        return KeyHolder(name=key.name, models=key.models, key=key)

    async def principal_of(self, name: str) -> Principal:
        """Return the holder of a key by its name; `""` is an anonymous client.

        Raises:
            AdmissionRefused: The key was revoked, or has expired.
        """
        if not name and not self._required:
            return KeyHolder(key=ANONYMOUS)
        try:
            key = self._ring.find_named(name)
        except AuthenticationError as error:
            raise AdmissionRefused(error, CHALLENGE) from error
        return KeyHolder(name=key.name, models=key.models, key=key)

    async def admit(self, principal: Principal, ask: AdmissionRequest) -> AdmittedRequest:
        """Admit a request, count it and reserve its tokens.

        Raises:
            AdmissionRefused: The key may not use the model, a limit is reached, or the limits cannot be checked.
        """
        key = principal.key if isinstance(principal, KeyHolder) else ANONYMOUS
        if not principal.may_use(ask.model):
            raise AdmissionRefused(_not_allowed(key, ask.model), {"x-should-retry": "false"})
        try:
            admitted = await self._limiter.admit(key, ask.tokens, await self._spent_before(key))
        except ServerError as error:
            raise AdmissionRefused(error, {"x-should-retry": "true"}) from error
        return _KeyRequest(self, admitted)

    async def _spent_before(self, key: Key) -> int:
        """Return the tokens that the key used today before this process began to count its budget."""
        today = day_of(time.time())
        if self._counted[0] != today:
            self._counted = (today, set())
        if key.limits.tokens_per_day is None or key.name in self._counted[1]:
            return 0
        try:
            spent = await asyncio.to_thread(self.store.tokens_of_day, today)
        except StoreError as error:
            _log.warning(
                "The tokens used today could not be read, so the daily budget of %r starts at 0: %s", key.name, error
            )
            return 0
        self._counted[1].add(key.name)
        return spent.get(key.name, 0)

    async def end(self, admitted: Admitted, outcome: RequestOutcome) -> None:
        """Settle the budgets of a request and commit its usage.

        Both happen even if the waiting task is cancelled.
        """
        ending = asyncio.ensure_future(self._end(admitted, outcome))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
        await asyncio.shield(ending)

    async def _end(self, admitted: Admitted, outcome: RequestOutcome) -> None:
        record = usage_record(outcome, self._known_model(outcome))
        if outcome.failure is not None:
            self.store.record_failure(_failure_record(outcome, outcome.failure, self._recording_of(outcome)))
        committed = asyncio.wrap_future(self.store.record(record))
        try:
            await self._limiter.settle(admitted, record.tokens)
        except LMStudioError as error:
            _log.warning("The tokens of request %s were not counted in its budgets: %s", record.id, error)
        committed.add_done_callback(self._note_commit)
        await asyncio.wait([committed], timeout=LATE_SECONDS if self._store_is_late else COMMIT_SECONDS)
        if not committed.done() and not self._store_is_late:
            self._store_is_late = True
            _log.warning(
                "The store is slow: answers no longer wait until their usage is written (request %s).", record.id
            )

    def _known_model(self, outcome: RequestOutcome) -> str:
        """Return the model for which a request counts.

        It is `""` if no host has the model, so that clients cannot fill the totals with invented names.
        """
        if outcome.names_model:
            self._models.add(outcome.model)
        return outcome.model if outcome.model in self._models else ""

    def _note_commit(self, committed: asyncio.Future[None]) -> None:
        """Note that the store can be written again, or that the usage of a request is lost."""
        if committed.cancelled():
            return
        error = committed.exception()
        self._store_is_late = self._store_is_late and error is not None
        if error is not None:
            _log.error("The usage of a request is lost: %s", error)

    def _recording_of(self, outcome: RequestOutcome) -> str:
        """Return the path of a request's recording, if a host's answer to it was recorded."""
        path = self._recorder.path_of(outcome.request_id) if self._recorder is not None else ""
        return path if path and Path(path).exists() else outcome.cassette


class _KeyRequest:
    """An admitted request of a key."""

    def __init__(self, admission: KeyAdmission, admitted: Admitted) -> None:
        self._admission = admission
        self._admitted: Admitted | None = admitted
        self.headers: Mapping[str, str] = rate_limit_headers(admitted.balances)

    async def settle(self, outcome: RequestOutcome) -> None:
        """Settle budgets and commit the usage; only the first call has an effect."""
        admitted, self._admitted = self._admitted, None
        if admitted is not None:
            outcome.key = admitted.key.name
            await self._admission.end(admitted, outcome)


def usage_record(outcome: RequestOutcome, model: str) -> UsageRecord:
    """Return the row of a request that has ended; it counts for `model`."""
    return UsageRecord(
        id=outcome.request_id,
        at=outcome.started_at + outcome.seconds,
        key=outcome.key,
        model=model,
        host=outcome.host,
        endpoint=outcome.endpoint,
        status=outcome.status,
        usage=Usage(
            prompt_tokens=outcome.prompt_tokens,
            completion_tokens=outcome.completion_tokens,
            total_tokens=outcome.prompt_tokens + outcome.completion_tokens,
            cached_tokens=outcome.cached_tokens,
            reasoning_tokens=outcome.reasoning_tokens,
        ),
        queued=outcome.queue_seconds,
        first_token=outcome.first_token_seconds,
        seconds=outcome.seconds,
        finish_reason=outcome.finish_reason,
        error=outcome.error,
        problems=outcome.problems.total(),
        problem_kinds=outcome.problems,
        cache=outcome.cache,
    )


def _failure_record(outcome: RequestOutcome, error: LMStudioError, cassette: str) -> FailureRecord:
    return FailureRecord.of(
        error,
        id=outcome.request_id,
        at=outcome.started_at + outcome.seconds,
        key=outcome.key,
        model=outcome.model,
        host=outcome.host,
        endpoint=outcome.endpoint,
        first_token=outcome.first_token_seconds,
        seconds=outcome.seconds,
        cassette=cassette,
    )


def _not_allowed(key: Key, model: str) -> APIError:
    refused = f"the model {model[:200]!r}" if model else "requests that name no model"
    return APIError(
        f"The key {key.name!r} may not use {refused}.",
        status=403,
        type="permission_error",
        code="model_not_allowed",
        param="model",
        hint=f"It may use {', '.join(key.models)}. Name such a model, or ask the gateway's operator for access.",
    )
