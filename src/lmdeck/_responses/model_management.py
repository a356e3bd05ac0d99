"""The bodies of LM Studio's model management: loading, unloading and downloading.

Sources: LM Studio docs `2_rest/load.md`, `unload.md`, `download.md` and `download-status.md`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, get_args

import msgspec

from lmdeck.errors import ConfigurationError, InvalidRequestError, MalformedStreamError, describe
from lmdeck.model_info import DownloadJob, DownloadStatus, LoadedModel, ModelInfo, ModelInstance

_STATES: tuple[str, ...] = get_args(DownloadStatus)
_JOB_ID = re.compile(r"[\w.:-]{1,200}")


def checked_load_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return load options without those that are None; unknown names are sent unchanged.

    Raises:
        ConfigurationError: A count is not a positive integer.
    """
    sent = {name: value for name, value in options.items() if value is not None}
    for name in ("context_length", "eval_batch_size", "num_experts", "parallel"):
        value = sent.get(name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise ConfigurationError(
                f"{name} must be a positive integer, not {value!r}.", hint=f"Pass for example {name}=4096."
            )
    return sent


def fitting_instance(
    models: Iterable[ModelInfo], key: str, options: Mapping[str, Any], known: Iterable[ModelInfo] = ()
) -> tuple[ModelInfo, ModelInstance] | None:
    """Return a loaded instance of a model that fits the options, or None.

    The context must be at least as long as requested, other options equal; options that the server does not report are
    ignored. `key` is a model key or an instance id. Instances in the earlier list `known` are not considered.
    """
    earlier = {instance.id for model in known for instance in model.instances}
    for model in models:
        for instance in model.instances:
            is_candidate = key in (model.key, instance.id) and instance.id not in earlier
            if is_candidate and _fits(instance, options):
                return model, instance
    return None


def _fits(instance: ModelInstance, options: Mapping[str, Any]) -> bool:
    known = {"context_length": instance.context_length, "parallel": instance.parallel, **instance.config}
    for name, wanted in options.items():
        actual = known.get(name)
        if actual is None:
            continue
        if actual < wanted if name == "context_length" else actual != wanted:
            return False
    return True


def read_loaded(body: object, key: str) -> LoadedModel:
    """Return the loaded model in the response to a load request.

    Raises:
        MalformedStreamError: The body does not name an instance.
    """
    fields = body if isinstance(body, Mapping) else {}
    instance_id = fields.get("instance_id") or fields.get("model_instance_id") or fields.get("id")
    if not instance_id and fields.get("status") != "loaded":
        raise MalformedStreamError(f"The answer to loading {key!r} does not name an instance: {describe(str(body))}")
    config = fields.get("load_config")
    time = fields.get("load_time_seconds")
    return LoadedModel(
        instance_id=str(instance_id or key),
        type=fields["type"] if isinstance(fields.get("type"), str) else "llm",
        load_time=float(time) if isinstance(time, (int, float)) and not isinstance(time, bool) else None,
        config=dict(config) if isinstance(config, Mapping) else {},
    )


def read_download(body: object) -> DownloadJob:
    """Return the state of a download; values of a wrong type are ignored.

    Raises:
        MalformedStreamError: The body has no status that LM Studio documents.
    """
    reported = dict(body) if isinstance(body, Mapping) else {}
    if reported.get("status") not in _STATES:
        raise MalformedStreamError(f"The server does not report a download status: {describe(str(body))}")
    fields: dict[str, Any] = {}
    for name in DownloadJob.__struct_fields__:
        if reported.get(name) is not None:
            try:
                converted = msgspec.convert({"status": reported["status"], name: reported[name]}, DownloadJob)
            except msgspec.ValidationError:
                continue
            fields[name] = getattr(converted, name)
    return DownloadJob(**fields)


def checked_job_id(job_id: str) -> str:
    """Return a download job's id if it can be used in a path.

    Raises:
        InvalidRequestError: It has characters that job ids do not have.
    """
    if not _JOB_ID.fullmatch(job_id):
        raise InvalidRequestError(
            f"{describe(job_id)!r} is not the id of a download job.", hint="Pass the `job_id` of a DownloadJob."
        )
    return job_id
