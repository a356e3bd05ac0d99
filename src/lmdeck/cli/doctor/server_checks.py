"""The doctor's checks, in order of dependency: connection, models, abilities of the model.

A check returns a description of what it found. It raises `CheckWarning` for a possible problem, `CheckSkipped` if the server
does not report what it needs, and an `LMStudioError` if something does not work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

from msgspec.structs import replace

from lmdeck._client.clients import LMStudio
from lmdeck._pipeline.run_plan import drive
from lmdeck._plans.health import check_health, find_local_edition
from lmdeck._plans.model_lists import ask_json
from lmdeck._plans.session import Session
from lmdeck._responses.model_lists import MODEL_LIST_PATHS
from lmdeck._settings.sources import from_lm_studio
from lmdeck._transport.urllib3 import Urllib3Transport
from lmdeck.cli.doctor.context import CheckResult, CheckSkipped, CheckWarning, DoctorContext
from lmdeck.cli.doctor.model_checks import check_answer, check_context, check_structured, check_tools
from lmdeck.cli.terminal import size
from lmdeck.config import Settings
from lmdeck.errors import AuthenticationError, LMStudioError, NoModelLoadedError
from lmdeck.model_info import Health

DEFAULT_PORT = 1234


def run_checks(lm: LMStudio) -> Iterator[CheckResult]:
    """Run the checks in order; once one fails, those that build on it are skipped."""
    context, failed = DoctorContext(lm=lm, health=Health(reachable=False)), False
    for name, check in CHECKS:
        if failed:
            yield CheckResult(check=name, outcome="skipped", detail="an earlier check failed")
            continue
        try:
            result = CheckResult(check=name, outcome="ok", detail=check(context))
        except CheckSkipped as skipped:
            result = CheckResult(check=name, outcome="skipped", detail=str(skipped))
        except CheckWarning as warning:
            result = CheckResult(check=name, outcome="warning", detail=warning.detail, fix=warning.fix)
        except LMStudioError as error:
            result = CheckResult(check=name, outcome="failed", detail=error.message, fix=error.hint)
        failed = result.outcome == "failed"
        yield result


# --- connection ---


def _settings(context: DoctorContext) -> str:
    settings = context.lm.settings
    token = "with a token" if settings.api_token else "without a token"
    shown = f"{context.lm.base_url}, {token}, model {settings.model or 'not set: the loaded one'}{_origins(settings)}"
    if settings.notes:
        raise CheckWarning(
            f"{shown}; {' '.join(settings.notes)}", "Correct the names, or use a keyword or the environment."
        )
    return shown


def _origins(settings: Settings) -> str:
    """Return the origin of each setting that is not a default."""
    shown = {name: repr(value) if name != "api_token" else "***" for name, value in settings.__rich_repr__()}
    found = [f"{name} = {shown[name]} from {origin}" for name, origin in settings.origins.items()]
    return f"; {', '.join(found)}; the rest are defaults" if found else "; all are defaults"


def _server(context: DoctorContext) -> str:
    context.health = health = context.lm.health()
    if health.error is not None and not isinstance(health.error, AuthenticationError):
        if not health.reachable:
            _suggest_port(health.error, context.lm)
        raise health.error
    api = {"v1": " over /api/v1", "v0": " over /api/v0 (update LM Studio for all features)", "openai": " over /v1 only"}
    return f"{context.product} answers in {(health.latency or 0) * 1000:.0f} ms{api.get(health.api or '', '')}"


def _suggest_port(error: LMStudioError, lm: LMStudio) -> None:
    """Put the port on which LM Studio answers on this machine into the hint.

    If it runs without its HTTP server, the hint says so.
    """
    settings = replace(lm.settings, base_url="http://localhost", api_token=None, proxy=None)
    named = [found.value for found in from_lm_studio(Path.home())]
    with closing(Urllib3Transport(settings)) as transport:
        for port in named or [DEFAULT_PORT]:
            if port == lm.settings.port and lm.settings.base_url is None:
                continue
            health = drive(check_health(Session(replace(settings, base_url=f"http://localhost:{port}"))), transport)
            if health.reachable:
                answers = " ".join(word for word in (health.product or "A server", health.version) if word)
                use = f"set LMDECK_PORT={port}, or pass `port={port}` or `discover=True`"
                error.hint = f"{answers} answers on port {port}: {use}."
                return
        running = drive(find_local_edition(Session(settings)), transport)
    if running is not None:
        error.hint = (
            f"{running.name} {running.version} runs on this machine, but its HTTP server does not answer: start it with "
            "`lms server start`, or in the Developer tab."
        )


def _auth(context: DoctorContext) -> str:
    token, refusal = context.lm.settings.api_token, context.health.error
    if refusal is not None:
        if token:
            refusal.hint = (
                "Create a new token in LM Studio's Developer tab (Server Settings), and check its permissions."
            )
        raise refusal
    if not token:
        return "no token is required"
    if _is_open_without_token(context):
        return "a token is sent, but the server does not require one"
    return "a token is required, and yours is accepted"


def _is_open_without_token(context: DoctorContext) -> bool:
    path = next(path for api, path in MODEL_LIST_PATHS if api == context.health.api)
    try:
        _ask(context, path, with_token=False)
    except AuthenticationError:
        return False
    return True


def _ask(context: DoctorContext, path: str, *, with_token: bool = True) -> object:
    """Request one of the server's model lists."""
    settings = context.lm.settings if with_token else replace(context.lm.settings, api_token=None)
    session = Session(settings)
    with closing(Urllib3Transport(settings)) as transport:
        return drive(ask_json(session, "GET", path, timeouts=session.look_up_timeouts), transport)


# --- the models ---


def _models(context: DoctorContext) -> str:
    context.models = models = context.lm.models.list()
    chat_models = [model for model in models if model.is_chat_model]
    if not chat_models:
        raise NoModelLoadedError(
            "the server has no chat model", hint="Download one: `lmdeck models get qwen/qwen3-4b`."
        )
    named = context.lm.settings.model
    if named and context.find(named) == (None, None):
        raise CheckWarning(
            f"your model {named!r} is not in the server's list",
            f"Choose one of `lmdeck models`, for example {chat_models[0].key!r}; or download it: `lmdeck models get {named}`.",
        )
    return f"{len(chat_models)} for chat, {len(models) - len(chat_models)} for embeddings"


def _loaded(context: DoctorContext) -> str:
    if context.health.api == "openai":
        raise CheckSkipped("this server does not report which models are loaded")
    loaded = [instance.id for model in context.models for instance in model.instances if model.is_chat_model]
    shown = ", ".join(loaded) or "none"
    on_demand = _loads_on_demand(context)
    _, instance = context.find(context.wanted)
    if instance is not None:
        others = {
            None: "",
            True: "; others are loaded at their first request",
            False: "; others must be loaded first, just-in-time loading is off",
        }
        return shown + others[on_demand]
    if on_demand is False:
        raise NoModelLoadedError(
            f"{context.wanted} is not loaded (loaded: {shown}), and just-in-time loading is off",
            hint=f"Load it: `lmdeck models load {context.wanted}`, or turn on Just in Time Model Loading in LM Studio.",
        )
    model, _ = context.find(context.wanted)
    bytes_ = f" ({size(model.size_bytes)})" if model and model.size_bytes else ""
    if on_demand is None:
        return f"{shown}; {context.wanted}{bytes_} may need to be loaded first"
    return f"{shown}; the first request loads {context.wanted}{bytes_}, which takes a while"


def _loads_on_demand(context: DoctorContext) -> bool | None:
    """Whether just-in-time loading is on, or None if unknown.

    Only then does `/v1/models` list models that are not loaded (LM Studio docs, `headless.md`).
    """
    idle = {model.key for model in context.models if not model.loaded and model.is_chat_model}
    if not idle:
        return None
    try:
        body = _ask(context, "/v1/models")
    except LMStudioError:
        return None
    entries = body.get("data") if isinstance(body, Mapping) else None
    listed = {entry.get("id") for entry in entries or () if isinstance(entry, Mapping)}
    return bool(idle & listed)


CHECKS: tuple[tuple[str, Callable[[DoctorContext], str]], ...] = (
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
