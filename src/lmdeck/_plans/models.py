"""The plans that load, unload and download models."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lmdeck._pipeline.effects import Plan, RunCallback, Sleep
from lmdeck._pipeline.retry import may_have_started
from lmdeck._plans.model_lists import ask_json, list_models
from lmdeck._plans.session import Session
from lmdeck._responses.model_management import (
    checked_job_id,
    checked_load_options,
    fitting_instance,
    read_download,
    read_loaded,
)
from lmdeck._responses.server_detection import LM_STUDIO
from lmdeck.errors import (
    APIError,
    EndpointNotFoundError,
    InvalidRequestError,
    LMStudioError,
    MalformedStreamError,
    ModelNotFoundError,
    NoModelLoadedError,
    RequestTimeoutError,
    TimeoutPhase,
    TransportError,
)
from lmdeck.events import ModelLoadProgress
from lmdeck.model_info import DownloadJob, LoadedModel, ModelInfo, ModelInstance

_log = logging.getLogger("lmdeck.http")
MANAGEMENT = "/api/v1/models"
UNKNOWN_INSTANCE = re.compile(r"\b(not (found|loaded)|unknown|no such|does not exist)\b", re.IGNORECASE)
MIN_POLL, MAX_POLL = 0.2, 2.0  # seconds between two polls of a download
TOO_OLD = "Update LM Studio to 0.4.0 or newer, which can do this over HTTP, or use `lms` on its machine."
NO_MANAGEMENT = (
    "This server is {product}, which cannot load, unload or download models over HTTP: do it on its machine."
)
NOT_IN_CATALOGUE = (
    "Use a name from LM Studio's catalogue, such as `qwen/qwen3-4b`, or the URL of a model on Hugging Face."
)
MAY_CONTINUE = "It may continue: wait with `lm.models.wait_for_download({!r})`, or look at LM Studio's Downloads."
NO_INSTANCE = "Name a loaded instance: `lmdeck ps` or `lm.models.loaded()` lists them."


def load(session: Session, key: str, options: Mapping[str, Any], *, force: bool) -> Plan[LoadedModel]:
    """Load a model, or return a loaded instance that already matches the options.

    The model's profile supplies options that are missing.
    """
    checked = _options(session, key, options)
    if force:
        return (yield from _load(session, key, checked, (yield from _list_or_empty(session))))
    return (yield from session.load_once.exclusively(key, lambda: _load_unless_loaded(session, key, checked)))


def _options(session: Session, key: str, options: Mapping[str, Any]) -> dict[str, Any]:
    return checked_load_options({**session.settings.profiles.get(key, {}), **options})


def _load_unless_loaded(session: Session, key: str, checked: Mapping[str, Any]) -> Plan[LoadedModel]:
    before = yield from _list_or_empty(session)
    existing = fitting_instance(before, key, checked)
    if existing is not None:
        return _as_loaded(*existing, already_loaded=True)
    return (yield from _load(session, key, checked, before))


def apply_profile(session: Session, model: str) -> Plan[None]:
    """Load a model with the options of its profile before a request, unless it is loaded.

    An instance that was loaded with other options is not changed, since another program may use it; a warning is logged.
    """
    profile = session.profiles.to_apply(model)
    if profile is None:
        return
    checked = checked_load_options(profile)
    try:
        yield from session.load_once.exclusively(model, lambda: _load_with_profile(session, model, checked))
    except EndpointNotFoundError as error:
        _warn_once(session, model, f"The profile of {model} is not applied: {error.message}")
        session.profiles.note_applied(model)


def _load_with_profile(session: Session, model: str, checked: Mapping[str, Any]) -> Plan[None]:
    if session.profiles.to_apply(model) is None:  # another request has loaded it meanwhile
        return
    models = yield from _list_or_empty(session)
    loaded = [one for each in models for one in each.instances if model in (each.key, one.id)]
    if not loaded:
        yield from _report_progress(session, ModelLoadProgress(model, 0.0), None)
        yield from _load(session, model, checked, models)
        yield from _report_progress(session, ModelLoadProgress(model, 1.0), None)
    elif fitting_instance(models, model, checked) is None:
        _warn_once(
            session, model,
            f"{model} is loaded with other options than those of its profile ({checked}): unload it to apply them.",
        )  # fmt: skip
    session.profiles.note_applied(model)


def _warn_once(session: Session, model: str, warning: str) -> None:
    if session.profiles.should_warn(model):
        _log.warning("%s", warning)


def _load(session: Session, key: str, checked: Mapping[str, Any], before: list[ModelInfo]) -> Plan[LoadedModel]:
    """Load an instance that is not in the list `before`.

    If the response is lost, the request is not repeated, which could load two instances: the list shows the result.
    """
    body = {"model": key, "echo_load_config": True, **checked}
    session.models.forget_choice()
    try:
        answer = yield from _manage(session, "POST", f"{MANAGEMENT}/load", body, has_effects=True)
    except LMStudioError as error:
        if isinstance(error, ModelNotFoundError):
            _add_listed(error, key, before)
        now = yield from _list_after(error, session)
        loaded = fitting_instance(now, key, checked, known=before)
        if loaded is None:
            raise
        return _as_loaded(*loaded, already_loaded=False)
    return read_loaded(answer, key)


def _add_listed(error: ModelNotFoundError, key: str, listed: list[ModelInfo]) -> None:
    """Add the listed models to the error of an unknown key, and the key to use for a variant.

    LM Studio lists the variants of a model, and loads the selected one by the model's key only (lmstudio-bug-tracker #1462).
    """
    error.available = error.available or [model.key for model in listed]
    model = key.partition("@")[0]
    if model != key and model in error.available:
        error.hint = f"LM Studio loads the variant selected in its My Models: `lm.models.load({model!r})`."


def ensure_loaded(
    session: Session, key: str, options: Mapping[str, Any], on_progress: Callable[[ModelLoadProgress], object] | None
) -> Plan[LoadedModel]:
    """Load a model unless it is loaded, and report the progress; `options` override its profile."""
    checked = _options(session, key, options)
    return (yield from session.load_once.exclusively(key, lambda: _ensure_loaded(session, key, checked, on_progress)))


def _ensure_loaded(
    session: Session, key: str, checked: Mapping[str, Any], on_progress: Callable[[ModelLoadProgress], object] | None
) -> Plan[LoadedModel]:
    before = yield from _list_or_empty(session)
    existing = fitting_instance(before, key, checked)
    if existing is not None:
        loaded = _as_loaded(*existing, already_loaded=True)
    else:
        yield from _report_progress(session, ModelLoadProgress(key, 0.0), on_progress)
        loaded = yield from _load(session, key, checked, before)
    yield from _report_progress(session, ModelLoadProgress(key, 1.0), on_progress)
    return loaded


def _report_progress(
    session: Session, progress: ModelLoadProgress, on_progress: Callable[[ModelLoadProgress], object] | None
) -> Plan[None]:
    session.bus.emit(progress)
    if on_progress is not None:
        yield RunCallback(on_progress, progress)


def unload(session: Session, instance_id: str) -> Plan[str]:
    """Unload an instance, and return its id; if the response is lost, the list shows the result."""
    session.models.forget_choice()
    body = {"instance_id": instance_id}
    try:
        answer = yield from _manage(session, "POST", f"{MANAGEMENT}/unload", body, has_effects=True)
    except (ModelNotFoundError, NoModelLoadedError) as error:
        raise _no_instance(error) from error
    except LMStudioError as error:
        if isinstance(error, InvalidRequestError) and UNKNOWN_INSTANCE.search(error.message):
            raise _no_instance(error) from error
        now = yield from _list_after(error, session)
        if not now or any(instance.id == instance_id for model in now for instance in model.instances):
            raise
        return instance_id
    if not isinstance(answer, Mapping):
        raise MalformedStreamError(
            f"The answer to unloading {instance_id!r} is not JSON of this API: {str(answer)[:100]!r}."
        )
    return str(answer.get("instance_id") or instance_id)


def _no_instance(error: APIError) -> ModelNotFoundError:
    """Return the error for unloading an instance that is not loaded."""
    return _as_not_found(error, NO_INSTANCE)


def _as_not_found(error: APIError, hint: str | None = None) -> ModelNotFoundError:
    found = ModelNotFoundError(
        error.message,
        status=error.status,
        type=error.type,
        code=error.code,
        param=error.param,
        body=error.body,
        hint=hint,
    )
    found.request_id, found.url, found.attempts = error.request_id, error.url, error.attempts
    return found


def download(
    session: Session,
    model: str,
    quantization: str | None,
    on_progress: Callable[[DownloadJob], object] | None,
    *,
    wait: bool,
) -> Plan[DownloadJob]:
    """Start a download, and with `wait`, wait for it."""
    body = {"model": model} if quantization is None else {"model": model, "quantization": quantization}
    limit = _DownloadLimit(session)
    try:
        answer = yield from _manage(session, "POST", f"{MANAGEMENT}/download", body, has_effects=True)
    except ModelNotFoundError as error:
        error.hint = NOT_IN_CATALOGUE
        raise
    job = read_download(answer)
    return (yield from _wait(session, job, on_progress, limit)) if wait else job


def download_status(session: Session, job_id: str) -> Plan[DownloadJob]:
    """Return the status of a download.

    Raises:
        RequestTimeoutError: The server did not answer in time; the hint names the job.
    """
    path = f"{MANAGEMENT}/download/status/{checked_job_id(job_id)}"
    try:
        return read_download((yield from _manage(session, "GET", path)))
    except RequestTimeoutError as error:
        error.hint = MAY_CONTINUE.format(job_id)
        raise


def wait_for_download(
    session: Session, job_id: str, on_progress: Callable[[DownloadJob], object] | None
) -> Plan[DownloadJob]:
    """Wait for a download that was started before."""
    limit = _DownloadLimit(session)
    return (yield from _wait(session, (yield from download_status(session, job_id)), on_progress, limit))


class _DownloadLimit:
    """The time limits of waiting for a download.

    `total_timeout` limits the whole wait, `timeout` the wait once every byte has arrived: LM Studio may report "downloading"
    endlessly for a complete download (bug tracker #1477).
    """

    def __init__(self, session: Session) -> None:
        self._clock = session.clock
        self._settings = session.settings
        total = session.settings.total_timeout
        self._deadline = None if total is None else self._clock() + total
        self._complete_since: float | None = None

    def pause(self, wanted: float, job: DownloadJob) -> float:
        """Return the seconds to wait before the next poll.

        Raises:
            RequestTimeoutError: A limit was exceeded; the message names the job.
        """
        now = self._clock()
        if job.status == "downloading" and job.progress == 1:
            self._complete_since = now if self._complete_since is None else self._complete_since
            if now - self._complete_since >= self._settings.timeout:
                raise self._timed_out(
                    f"The download {job.job_id} stayed at 100 % and did not finish", "idle", job.job_id
                )
        else:
            self._complete_since = None
        if self._deadline is None:
            return wanted
        if now >= self._deadline:
            what = "is paused and did" if job.status == "paused" else "did"
            raise self._timed_out(f"The download {job.job_id} {what} not finish", "total", job.job_id)
        return min(wanted, self._deadline - now)

    def _timed_out(self, what: str, phase: TimeoutPhase, job_id: str | None) -> RequestTimeoutError:
        seconds = self._settings.timeout if phase == "idle" else self._settings.total_timeout or 0.0
        return RequestTimeoutError(
            f"{what} within {seconds:g} s.",
            phase=phase,
            seconds=seconds,
            hint=MAY_CONTINUE.format(job_id),
        )


def _wait(
    session: Session, job: DownloadJob, on_progress: Callable[[DownloadJob], object] | None, limit: _DownloadLimit
) -> Plan[DownloadJob]:
    """Poll until the download ends, also while the user has paused it."""
    job_id = job.job_id
    pauses = _polls()
    while True:
        if on_progress is not None:
            yield RunCallback(on_progress, job)
        if job.status == "failed":
            raise APIError(
                f"The download {job_id or ''} failed.",
                hint="Find the reason in LM Studio's Downloads, then start the download again: it resumes.",
                type="download_failed",
            )
        if job.is_over:
            return job
        if job_id is None:
            raise MalformedStreamError("The server started a download without sending a job id.")
        yield Sleep(limit.pause(next(pauses), job))
        job = yield from download_status(session, job_id)


def _polls() -> Iterator[float]:
    """Yield the growing pauses between polls, in seconds."""
    pause = MIN_POLL
    while True:
        yield pause
        pause = min(pause * 1.5, MAX_POLL)


def _list_or_empty(session: Session) -> Plan[list[ModelInfo]]:
    """List the models; empty if the server has no list."""
    try:
        return (yield from list_models(session))
    except (EndpointNotFoundError, MalformedStreamError):
        return []


def _list_after(error: LMStudioError, session: Session) -> Plan[list[ModelInfo]]:
    """List the models after a failed request; the list is empty if it cannot have taken effect.

    Raises:
        LMStudioError: `error` itself, if the list cannot be fetched either.
    """
    if not (isinstance(error, TransportError) or error.retryable) or not may_have_started(error):
        return []
    try:
        return (yield from _list_or_empty(session))
    except LMStudioError:
        raise error from None


def _as_loaded(model: ModelInfo, instance: ModelInstance, *, already_loaded: bool) -> LoadedModel:
    return LoadedModel(instance_id=instance.id, type=model.type, config=instance.config, already_loaded=already_loaded)


def _manage(
    session: Session, method: str, path: str, body: Mapping[str, Any] | None = None, *, has_effects: bool = False
) -> Plan[object]:
    """Call LM Studio's model management, which older versions and other servers do not have."""
    try:
        return (yield from ask_json(session, method, path, body, has_effects=has_effects))
    except EndpointNotFoundError as error:
        if isinstance(error.body, Mapping) and "model" in str(error.body.get("error", "")).lower():
            raise _as_not_found(error) from error
        product = session.peer.product
        error.hint = TOO_OLD if product in (None, LM_STUDIO) else NO_MANAGEMENT.format(product=product)
        raise
