"""Loading, unloading and downloading: the bodies of LM Studio's model management, read leniently.

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
    """Leave out what is None; a name the server may not know goes to it as it is, since LM Studio adds some.

    Raises:
        ConfigurationError: A count is no positive whole number.
    """
    given = {name: value for name, value in options.items() if value is not None}
    for name in ("context_length", "eval_batch_size", "num_experts", "parallel"):
        value = given.get(name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise ConfigurationError(
                f"{name} must be a positive whole number, not {value!r}.", hint=f"Pass for example {name}=4096."
            )
    return given


def fitting_instance(
    models: Iterable[ModelInfo], key: str, options: Mapping[str, Any], besides: Iterable[ModelInfo] = ()
) -> tuple[ModelInfo, ModelInstance] | None:
    """Find an instance of the model that is loaded as asked: as long a context or a longer one, the rest the same.

    A model is found by its key or by the id of an instance. An option that the server does not report is no obstacle.
    Instances of an earlier list, `besides`, do not count.
    """
    earlier = {instance.id for model in besides for instance in model.instances}
    for model in models:
        for instance in model.instances:
            is_meant = key in (model.key, instance.id) and instance.id not in earlier
            if is_meant and _fits(instance, options):
                return model, instance
    return None


def _fits(instance: ModelInstance, options: Mapping[str, Any]) -> bool:
    known = {"context_length": instance.context_length, "parallel": instance.parallel, **instance.config}
    for name, wanted in options.items():
        there = known.get(name)
        if there is None:
            continue
        if there < wanted if name == "context_length" else there != wanted:
            return False
    return True


def read_loaded(body: object, key: str) -> LoadedModel:
    """Read the answer to a load.

    Raises:
        MalformedStreamError: The body names no instance.
    """
    given = body if isinstance(body, Mapping) else {}
    instance_id = given.get("instance_id") or given.get("model_instance_id") or given.get("id")
    if not instance_id and given.get("status") != "loaded":
        raise MalformedStreamError(f"The answer to loading {key!r} names no instance: {describe(str(body))}")
    config = given.get("load_config")
    time = given.get("load_time_seconds")
    return LoadedModel(
        instance_id=str(instance_id or key),
        type=given["type"] if isinstance(given.get("type"), str) else "llm",
        load_time=float(time) if isinstance(time, (int, float)) and not isinstance(time, bool) else None,
        config=dict(config) if isinstance(config, Mapping) else {},
    )


def read_download(body: object) -> DownloadJob:
    """Read what the server says of a download; a figure of the wrong kind is left out.

    Raises:
        MalformedStreamError: The body has no status that LM Studio documents.
    """
    given = dict(body) if isinstance(body, Mapping) else {}
    if given.get("status") not in _STATES:
        raise MalformedStreamError(f"The server tells no download status: {describe(str(body))}")
    kept: dict[str, Any] = {}
    for name in DownloadJob.__struct_fields__:
        if given.get(name) is not None:
            try:
                kept[name] = getattr(msgspec.convert({"status": given["status"], name: given[name]}, DownloadJob), name)
            except msgspec.ValidationError:
                continue
    return DownloadJob(**kept)


def checked_job_id(job_id: str) -> str:
    """Give a job's id as it stands in a path.

    Raises:
        InvalidRequestError: It has characters that no job id has.
    """
    if not _JOB_ID.fullmatch(job_id):
        raise InvalidRequestError(
            f"{describe(job_id)!r} is no download job's id.", hint="Pass the `job_id` of a DownloadJob."
        )
    return job_id
