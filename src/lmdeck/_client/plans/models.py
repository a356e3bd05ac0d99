"""Loading, unloading and downloading models, as plans."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lmdeck._client.plans.chat import ask_json, list_models
from lmdeck._client.session import Session
from lmdeck._pipeline import Plan, Sleep, Tell
from lmdeck._pipeline.retry_policy import may_have_begun
from lmdeck._responses.model_management import (
    checked_job_id,
    checked_load_options,
    fitting_instance,
    read_download,
    read_loaded,
)
from lmdeck.errors import (
    APIError,
    EndpointNotFoundError,
    LMStudioError,
    MalformedStreamError,
    ModelNotFoundError,
    TransportError,
)
from lmdeck.events import ModelLoadProgress
from lmdeck.model_info import DownloadJob, LoadedModel, ModelInfo, ModelInstance

__all__ = ["download", "download_status", "ensure_loaded", "load", "unload", "wait_for_download"]

MANAGEMENT = "/api/v1/models"
FIRST_POLL, LONGEST_POLL = 0.2, 2.0  # seconds between two questions about a download
TOO_OLD = "Update LM Studio to 0.4.0 or newer, which can do this over HTTP, or use `lms` on its machine."


def load(session: Session, key: str, options: Mapping[str, Any], *, force: bool) -> Plan[LoadedModel]:
    """Load a model, or return the instance that is loaded as asked already."""
    checked = checked_load_options(options)
    before = yield from _listed(session)
    there = None if force else fitting_instance(before, key, checked)
    if there is not None:
        return _as_loaded(*there, already_loaded=True)
    return (yield from _load(session, key, checked, before))


def _load(session: Session, key: str, checked: Mapping[str, Any], before: list[ModelInfo]) -> Plan[LoadedModel]:
    """Load another instance than those of the list `before`.

    A load whose answer was lost is not asked for again, or there would be two instances: the list says what came of it.
    """
    body = {"model": key, "echo_load_config": True, **checked}
    session.forget_model()
    try:
        answer = yield from _managed(session, "POST", f"{MANAGEMENT}/load", body, has_effects=True)
    except LMStudioError as error:
        now = yield from _listed_after(error, session)
        loaded = fitting_instance(now, key, checked, besides=before)
        if loaded is None:
            raise
        return _as_loaded(*loaded, already_loaded=False)
    return read_loaded(answer, key)


def ensure_loaded(
    session: Session, key: str, options: Mapping[str, Any], on_progress: Callable[[ModelLoadProgress], object] | None
) -> Plan[LoadedModel]:
    """Load a model if it is not, and tell of the progress."""
    checked = checked_load_options(options)
    before = yield from _listed(session)
    there = fitting_instance(before, key, checked)
    if there is not None:
        loaded = _as_loaded(*there, already_loaded=True)
    else:
        yield from _tell_progress(session, ModelLoadProgress(key, 0.0), on_progress)
        loaded = yield from _load(session, key, checked, before)
    yield from _tell_progress(session, ModelLoadProgress(key, 1.0), on_progress)
    return loaded


def _tell_progress(
    session: Session, progress: ModelLoadProgress, on_progress: Callable[[ModelLoadProgress], object] | None
) -> Plan[None]:
    session.bus.tell(progress)
    if on_progress is not None:
        yield Tell(on_progress, progress)


def unload(session: Session, instance_id: str) -> Plan[str]:
    """Unload an instance, and return its id; where the answer was lost, the list says whether it is gone."""
    session.forget_model()
    body = {"instance_id": instance_id}
    try:
        answer = yield from _managed(session, "POST", f"{MANAGEMENT}/unload", body, has_effects=True)
    except LMStudioError as error:
        now = yield from _listed_after(error, session)
        if not now or any(instance.id == instance_id for model in now for instance in model.instances):
            raise
        return instance_id
    said = answer.get("instance_id") if isinstance(answer, Mapping) else None
    return str(said or instance_id)


def download(
    session: Session,
    model: str,
    quantization: str | None,
    on_progress: Callable[[DownloadJob], object] | None,
    *,
    wait: bool,
) -> Plan[DownloadJob]:
    """Ask for a download, and wait until it is over."""
    body = {"model": model} if quantization is None else {"model": model, "quantization": quantization}
    job = read_download((yield from _managed(session, "POST", f"{MANAGEMENT}/download", body, has_effects=True)))
    return (yield from _wait(session, job, on_progress)) if wait else job


def download_status(session: Session, job_id: str) -> Plan[DownloadJob]:
    """Ask how far a download is."""
    path = f"{MANAGEMENT}/download/status/{checked_job_id(job_id)}"
    return read_download((yield from _managed(session, "GET", path)))


def wait_for_download(
    session: Session, job_id: str, on_progress: Callable[[DownloadJob], object] | None
) -> Plan[DownloadJob]:
    """Wait for a download that was begun before."""
    return (yield from _wait(session, (yield from download_status(session, job_id)), on_progress))


def _wait(session: Session, job: DownloadJob, on_progress: Callable[[DownloadJob], object] | None) -> Plan[DownloadJob]:
    """Ask until it is over; a pause is waited out, since it is the user's."""
    job_id = job.job_id
    pauses = _polls()
    while True:
        if on_progress is not None:
            yield Tell(on_progress, job)
        if job.status == "failed":
            raise APIError(
                f"The download {job_id or ''} failed.",
                hint="Look at LM Studio's Downloads for the reason, then ask for the download again: it resumes.",
                type="download_failed",
            )
        if job.is_over:
            return job
        if job_id is None:
            raise MalformedStreamError("The server began a download without giving its job's id.")
        yield Sleep(next(pauses))
        job = yield from download_status(session, job_id)


def _polls() -> Iterator[float]:
    """Ask often at first, for what is quick, and then seldom."""
    pause = FIRST_POLL
    while True:
        yield pause
        pause = min(pause * 1.5, LONGEST_POLL)


def _listed(session: Session) -> Plan[list[ModelInfo]]:
    """List the models; none where the server has no list."""
    try:
        return (yield from list_models(session))
    except (EndpointNotFoundError, MalformedStreamError):
        return []


def _listed_after(error: LMStudioError, session: Session) -> Plan[list[ModelInfo]]:
    """List the models after a request that may have done its work though it failed; none where it cannot have.

    Raises:
        LMStudioError: `error` itself, where the list cannot be had either.
    """
    if not (isinstance(error, TransportError) or error.retryable) or not may_have_begun(error):
        return []
    try:
        return (yield from _listed(session))
    except LMStudioError:
        raise error from None


def _as_loaded(model: ModelInfo, instance: ModelInstance, *, already_loaded: bool) -> LoadedModel:
    return LoadedModel(instance_id=instance.id, type=model.type, config=instance.config, already_loaded=already_loaded)


def _managed(
    session: Session, method: str, path: str, body: Mapping[str, Any] | None = None, *, has_effects: bool = False
) -> Plan[object]:
    """Ask LM Studio's model management, which older versions and other servers do not have."""
    try:
        return (yield from ask_json(session, method, path, body, has_effects=has_effects))
    except EndpointNotFoundError as error:
        if isinstance(error.body, Mapping) and "model" in str(error.body.get("error", "")).lower():
            raise ModelNotFoundError(error.message, status=error.status, body=error.body) from error
        error.hint = TOO_OLD
        raise
