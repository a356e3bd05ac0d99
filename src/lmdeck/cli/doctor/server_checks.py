"""The doctor's checks, in the order in which they build on each other: the way there, the models, what a model can do.

A check gives what it found, raises `Concern` for what works but may surprise, and an `LMStudioError` for what does not work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing

from msgspec.structs import replace

from lmdeck._client.clients import LMStudio
from lmdeck._client.plans.model_lists import ask_json
from lmdeck._client.session import Session
from lmdeck._pipeline.run_plan import drive
from lmdeck._responses.model_lists import MODEL_LIST_PATHS
from lmdeck._transport.urllib3 import Urllib3Transport
from lmdeck.cli.doctor.context import Concern, Finding, NotKnown, Patient
from lmdeck.cli.doctor.model_checks import check_answer, check_context, check_structured, check_tools
from lmdeck.cli.terminal import size
from lmdeck.config import Settings
from lmdeck.errors import AuthenticationError, LMStudioError, NoModelLoadedError
from lmdeck.model_info import Health

__all__ = ["examine"]


def examine(lm: LMStudio) -> Iterator[Finding]:
    """Run the checks in order; once one fails, those that build on it are skipped."""
    patient, failed = Patient(lm=lm, health=Health(reachable=False)), False
    for name, check in CHECKS:
        if failed:
            yield Finding(check=name, outcome="skipped", detail="an earlier check failed")
            continue
        try:
            finding = Finding(check=name, outcome="ok", detail=check(patient))
        except NotKnown as unknown:
            finding = Finding(check=name, outcome="skipped", detail=str(unknown))
        except Concern as concern:
            finding = Finding(check=name, outcome="warning", detail=concern.detail, fix=concern.fix)
        except LMStudioError as error:
            finding = Finding(check=name, outcome="failed", detail=error.message, fix=error.hint)
        failed = finding.outcome == "failed"
        yield finding


# --- the way there ---


def _settings(patient: Patient) -> str:
    settings = patient.lm.settings
    token = "with a token" if settings.api_token else "without a token"
    shown = f"{patient.lm.base_url}, {token}, model {settings.model or 'not set: the loaded one'}{_origins(settings)}"
    if settings.notes:
        raise Concern(f"{shown}; {' '.join(settings.notes)}", "Correct the names, or say it by keyword or environment.")
    return shown


def _origins(settings: Settings) -> str:
    """Say where each setting that is not the default comes from."""
    shown = {name: repr(value) if name != "api_token" else "***" for name, value in settings.__rich_repr__()}
    found = [f"{name} = {shown[name]} from {origin}" for name, origin in settings.origins.items()]
    return f"; {', '.join(found)}; the rest is default" if found else "; all by default"


def _server(patient: Patient) -> str:
    patient.health = health = patient.lm.health()
    if health.error is not None and not isinstance(health.error, AuthenticationError):
        raise health.error
    api = {"v1": " over /api/v1", "v0": " over /api/v0 (update LM Studio for all features)", "openai": " over /v1 only"}
    return f"{patient.product} answers in {(health.latency or 0) * 1000:.0f} ms{api.get(health.api or '', '')}"


def _auth(patient: Patient) -> str:
    token, refusal = patient.lm.settings.api_token, patient.health.error
    if refusal is not None:
        if token:
            refusal.hint = "Make a new token in LM Studio's Developer tab (Server Settings), and check its permissions."
        raise refusal
    if not token:
        return "no token is needed"
    if _is_open_to_strangers(patient):
        return "a token is sent, though the server asks for none"
    return "a token is needed, and yours is accepted"


def _is_open_to_strangers(patient: Patient) -> bool:
    path = next(path for api, path in MODEL_LIST_PATHS if api == patient.health.api)
    try:
        _ask(patient, path, with_token=False)
    except AuthenticationError:
        return False
    return True


def _ask(patient: Patient, path: str, *, with_token: bool = True) -> object:
    """Ask one of the server's own lists."""
    settings = patient.lm.settings if with_token else replace(patient.lm.settings, api_token=None)
    session = Session(settings)
    with closing(Urllib3Transport(settings)) as route:
        return drive(ask_json(session, "GET", path, timeouts=session.look_up_timeouts), route)


# --- the models ---


def _models(patient: Patient) -> str:
    patient.models = models = patient.lm.models.list()
    chat_models = [model for model in models if model.is_chat_model]
    if not chat_models:
        raise NoModelLoadedError(
            "the server has no model that answers chats", hint="Download one: `lmdeck models get qwen/qwen3-4b`."
        )
    named = patient.lm.settings.model
    if named and patient.find(named) == (None, None):
        raise Concern(
            f"your model {named!r} is not in the server's list",
            f"Choose one of `lmdeck models`, for example {chat_models[0].key!r}; or download it: `lmdeck models get {named}`.",
        )
    return f"{len(chat_models)} for chats, {len(models) - len(chat_models)} for embeddings"


def _loaded(patient: Patient) -> str:
    if patient.health.api == "openai":
        raise NotKnown("this server does not tell what it has loaded")
    loaded = [instance.id for model in patient.models for instance in model.instances if model.is_chat_model]
    shown = ", ".join(loaded) or "none"
    on_demand = _loads_on_demand(patient)
    _, instance = patient.find(patient.wanted)
    if instance is not None:
        others = "" if on_demand is None else "; others load at their first request"
        return shown + (
            others if on_demand is not False else "; others must be loaded first, just-in-time loading is off"
        )
    if on_demand is False:
        raise NoModelLoadedError(
            f"{patient.wanted} is not loaded (loaded: {shown}), and just-in-time loading is off",
            hint=f"Load it: `lmdeck models load {patient.wanted}`, or turn on Just in Time Model Loading in LM Studio.",
        )
    model, _ = patient.find(patient.wanted)
    bytes_ = f" ({size(model.size_bytes)})" if model and model.size_bytes else ""
    if on_demand is None:
        return f"{shown}; {patient.wanted}{bytes_} may have to be loaded first"
    return f"{shown}; the first request loads {patient.wanted}{bytes_}, which takes a while"


def _loads_on_demand(patient: Patient) -> bool | None:
    """Tell whether just-in-time loading is on: only then does `/v1/models` list what is not loaded (docs `headless.md`)."""
    idle = {model.key for model in patient.models if not model.loaded and model.is_chat_model}
    if not idle:
        return None
    try:
        body = _ask(patient, "/v1/models")
    except LMStudioError:
        return None
    entries = body.get("data") if isinstance(body, Mapping) else None
    listed = {entry.get("id") for entry in entries or () if isinstance(entry, Mapping)}
    return bool(idle & listed)


CHECKS: tuple[tuple[str, Callable[[Patient], str]], ...] = (
    ("settings", _settings),
    ("server", _server),
    ("auth", _auth),
    ("models", _models),
    ("loaded", _loaded),
    ("answer", check_answer),
    ("context", check_context),
    ("tools", check_tools),
    ("structured", check_structured),
)
