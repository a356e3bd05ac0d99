"""Requests of `/api/v1/chat` and of model management (LM Studio's docs, `2_rest/`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from lmdeck._encoders.backend_events import Provider
from lmdeck.server.errors import issue
from lmdeck.server.jobs import ChatJob, ChatMessage, Integration, LoadJob
from lmdeck.server.requests.body import IMAGE_URI, choose_model, flag
from lmdeck.server.requests.sampling import integer, sampling

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lmdeck.server.jobs import ModelDescription

REASONING = ("off", "low", "medium", "high", "on")
MAX_INTEGRATIONS = 32
_LOAD_FLAGS = ("flash_attention", "offload_kv_cache_to_gpu")
_LOAD_NUMBERS = ("eval_batch_size", "num_experts", "parallel")


class NativeChat(Struct, frozen=True, kw_only=True):
    """A chat of the native API.

    It has the job without its history, the new message, and the options of the answer.
    """

    job: ChatJob
    message: ChatMessage
    system_prompt: str | None
    previous: str | None
    stream: bool
    store: bool


def native_chat(body: Mapping[str, Any], models: Sequence[ModelDescription]) -> NativeChat:
    """Validate a chat of the native API.

    Raises:
        Refusal: The request is invalid.
    """
    model = choose_model(required_text(body, "model"), models)
    system_prompt, previous = body.get("system_prompt"), body.get("previous_response_id")
    if system_prompt is not None and not isinstance(system_prompt, str):
        raise issue("Expected string", "system_prompt", "invalid_type")
    if previous is not None and not (isinstance(previous, str) and previous.startswith("resp_")):
        raise issue('Must start with "resp_"', "previous_response_id", "invalid_string")
    reasoning = body.get("reasoning")
    if reasoning is not None and reasoning not in REASONING:
        options = " | ".join(f"'{option}'" for option in REASONING)
        raise issue(f"Invalid enum value. Expected {options}", "reasoning", "invalid_enum_value")
    message = _message(body.get("input"))
    return NativeChat(
        job=ChatJob(
            model=model,
            messages=(),
            sampling=sampling(body),
            reasoning=reasoning,
            context_length=integer("context_length", body.get("context_length")),
            integrations=_integrations(body.get("integrations")),
        ),
        message=message,
        system_prompt=system_prompt,
        previous=previous,
        stream=flag("stream", body.get("stream")),
        store=flag("store", body.get("store"), default=True),
    )


def required_text(body: Mapping[str, Any], name: str) -> str:
    """Return a required text.

    Raises:
        Refusal: It is missing, or not a text.
    """
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise issue(f'"{name}" is required', name, "missing_required_parameter")
    return value


def _message(value: object) -> ChatMessage:
    if isinstance(value, str):
        return ChatMessage(role="user", text=value)
    if not isinstance(value, list) or not value:
        raise issue('"input" is required', "input", "missing_required_parameter")
    texts: list[str] = []
    images: list[str] = []
    for index, item in enumerate(value):
        match item:
            case {"type": "message" | "text", "content": str(text)}:
                texts.append(text)
            case {"type": "image", "data_url": str(url)} if IMAGE_URI.fullmatch(url):
                images.append(url)
            case {"type": "image"}:
                raise issue("Expected a base64-encoded data URL", f"input.{index}.data_url", "invalid_string")
            case _:
                raise issue("Invalid input", f"input.{index}", "invalid_union")
    return ChatMessage(role="user", text="\n".join(texts), images=tuple(images))


def _integrations(value: object) -> tuple[Integration, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAX_INTEGRATIONS:
        raise issue(f"Expected an array of at most {MAX_INTEGRATIONS}", "integrations", "invalid_type")
    return tuple(_integration(item, f"integrations.{index}") for index, item in enumerate(value))


def _integration(item: Any, param: str) -> Integration:  # JSON
    match item:
        case str(plugin) if plugin:
            return Integration(provider=Provider(type="plugin", plugin_id=plugin))
        case {"type": "plugin", "id": str(plugin)} if plugin:
            provider = Provider(type="plugin", plugin_id=plugin)
            return Integration(provider=provider, allowed_tools=_allowed(item, param))
        case {"type": "ephemeral_mcp", "server_label": str(label), "server_url": str(url)} if label and url:
            headers = item.get("headers") or {}
            if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
                raise issue("Expected an object of strings", f"{param}.headers", "invalid_type")
            return Integration(
                provider=Provider(type="ephemeral_mcp", server_label=label),
                url=url,
                allowed_tools=_allowed(item, param),
                headers=headers,
            )
        case _:
            raise issue("Invalid input", param, "invalid_union")


def _allowed(item: dict[str, Any], param: str) -> tuple[str, ...] | None:
    allowed = item.get("allowed_tools")
    if allowed is None:
        return None
    if not isinstance(allowed, list) or not all(isinstance(name, str) for name in allowed):
        raise issue("Expected an array of strings", f"{param}.allowed_tools", "invalid_type")
    return tuple(allowed)


def load_job(body: Mapping[str, Any], models: Sequence[ModelDescription]) -> LoadJob:
    """Validate `POST /api/v1/models/load`.

    Raises:
        Refusal: The request is invalid, or there is no such model.
    """
    model = choose_model(required_text(body, "model"), models)
    config: dict[str, int | float | bool] = {
        name: flag(name, body[name]) for name in _LOAD_FLAGS if body.get(name) is not None
    }
    for name in _LOAD_NUMBERS:
        if (number := integer(name, body.get(name))) is not None:
            config[name] = number
    return LoadJob(model=model, context_length=integer("context_length", body.get("context_length")), config=config)


def download_request(body: Mapping[str, Any]) -> tuple[str, str | None]:
    """Validate `POST /api/v1/models/download`.

    Raises:
        Refusal: The request is invalid.
    """
    quantization = body.get("quantization")
    if quantization is not None and not isinstance(quantization, str):
        raise issue("Expected string", "quantization", "invalid_type")
    return required_text(body, "model"), quantization
