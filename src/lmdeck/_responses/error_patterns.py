"""How refusals are worded, by LM Studio and its kin: which error a phrase means, what to do about it, and what it counts.

Sources: LM Studio docs `2_rest`, and reports in lmstudio-bug-tracker; other servers' own words are marked.
"""

from __future__ import annotations

import re

from lmdeck._requests.tool_schema_fallback import COMPILER_REFUSALS
from lmdeck.errors import (
    APIError,
    AuthenticationError,
    ContextLengthError,
    EndpointNotFoundError,
    InvalidRequestError,
    ModelCrashedError,
    ModelLoadError,
    ModelNotFoundError,
    NoModelLoadedError,
    RateLimitError,
    ServerError,
    TemplateError,
)

__all__ = ["CODES", "HINTS", "PHRASES", "STATUSES", "TOKEN_COUNTS", "TYPES"]


def _words(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


# The order matters: a crash caused by a full context names the context, a load that fails for memory names the model.
PHRASES: list[tuple[re.Pattern[str], type[APIError]]] = [
    (_words(r"unexpected endpoint or method"), EndpointNotFoundError),
    (
        _words(
            r"trying to keep the first \d+ tokens",
            r"number of tokens to keep from the initial prompt is greater",
            r"cannot truncate prompt with n_keep",
            r"input does not fit in context",
            r"context (size|length|window) (has been |was |is )?(exceeded|too small|overflow)",
            r"(exceeds?|exceeded|greater than|larger than|longer than|beyond)\b[^.\n]{0,60}\bcontext (size|length|window)",
            r"context[ _-]?length[ _-]?exceeded",
            r"maximum context length(?! must| should)",
            r"(model|context) length is only \d",  # vLLM
            r"context overflow(?!\W*policy)",
            r"overflows? the (model'?s )?context",
            r"exceeds? context limit",  # Anthropic
            r"(prompt|input)( \([^)\n]{0,40}\))? (is )?too long\b",  # Anthropic, vLLM
            r"longer than the maximum model length",
            r"(input|prompt|token)\b[^.\n]{0,40} exceeds? the maximum (allowed length|number of tokens)",  # SGLang, Gemini
            r"prompt (sequence )?length (\d+ )?is greater than",  # mistral.rs, exllamav2
            r"tokens`? \+ `?max_new_tokens`? must be <=",  # TGI
        ),
        ContextLengthError,
    ),
    (_words(r"no models? (is |are )?(currently )?loaded", r"model (\S+ )?(is )?not (currently )?loaded"), NoModelLoadedError),
    (_words(r"model is not embedding", r"does not support embeddings?", r"is not an embedding model"), InvalidRequestError),
    (
        _words(
            r"failed to load (the )?model",
            r"unable to load (the )?model",
            r"requires more system memory",  # Ollama
            r"\bout of memory",
            r"model loading aborted",
            r"insufficient system resources",
            r"error loading model",
            r"operation canceled",
            r"model load(ing)? (was |has been )?cancell?ed",
        ),
        ModelLoadError,
    ),
    (
        _words(
            r"model has crashed",
            r"model (process )?crashed",
            r"model (is|was|has been|got) unloaded",
            r"model unloaded",
            r"channel error",
            r"lost connection to (the )?(model|engine|worker)",
            r"runner process (has terminated|no longer running)",  # Ollama
            r"unexpectedly (exited|stopped|terminated|died)",
            r"(exited|stopped|terminated|died) unexpectedly",
            r"engine(core|deaderror)\b",  # vLLM
        ),
        ModelCrashedError,
    ),
    (_words(*COMPILER_REFUSALS), InvalidRequestError),
    (
        _words(
            r"error in (predict\w*|iterating prediction stream)",  # the MLX engine's
            r"failed to (parse|generate) (a |the )?tool call",
            r"\b_0x[0-9a-f]{4,}\b",  # LM Studio's own code, which has no other names
            r"cannot read propert(y|ies) of (undefined|null)",
        ),
        ServerError,
    ),
    (
        _words(
            r"jinja",
            r"unable to generate parser for this template",
            r"(prompt|chat) template",
            r"(?<!json )parser error: ",
            r"expected closing (statement|expression)",
            r"unknown (statement|filter|test) type",
            r"conversation roles must alternate",
            r"only (user|system)\b.{0,40} roles are supported",
            r"system role (is )?not supported",
            r"tool call ids should be alphanumeric",
            r"cannot apply filter",
            r"\bat row \d+, column \d+:",  # llama.cpp's minja
        ),
        TemplateError,
    ),
    (_words(r"invalid discriminator value"), InvalidRequestError),
    (_words(r"previous.?response\b.{0,120}(not found|unknown|expired|does not exist)", r"\bresp_\w+\W+(was )?not found",
            r"download job\b", r"\bjob\b.{0,60} not found"), InvalidRequestError),
    (_words(r"\bmodel( \S+)? not found", r"model_not_found", r"no such model",
            r"model .{0,200} (does not exist|was not found)"), ModelNotFoundError),
]  # fmt: skip
CODES: dict[str, type[APIError]] = {
    "invalid_api_key": AuthenticationError,
    "authentication_error": AuthenticationError,
    "permission_error": AuthenticationError,
    "context_length_exceeded": ContextLengthError,
    "exceed_context_size_error": ContextLengthError,
    "model_not_found": ModelNotFoundError,
    "model_load_failed": ModelLoadError,
    "rate_limit_exceeded": RateLimitError,
    "rate_limit_error": RateLimitError,
    "overloaded_error": ServerError,
    "api_error": ServerError,
    "server_error": ServerError,
    "internal_server_error": ServerError,
    "internal_error": ServerError,
    "unknown": ServerError,
    "not_implemented": InvalidRequestError,
    "job_not_found": InvalidRequestError,
}
# LM Studio's own types whose messages quote another server, so that the type decides (docs `2_rest/streaming-events.md`).
TYPES: dict[str, tuple[type[APIError], str]] = {
    "mcp_connection_error": (
        ServerError,
        "LM Studio could not reach the MCP server: check its address and headers, and that LM Studio's settings allow it.",
    ),
    "plugin_connection_error": (
        ServerError,
        "LM Studio could not start the plugin: check its id in `integrations`, and that it is installed and runs in LM Studio.",
    ),
}
STATUSES: dict[int, type[APIError]] = {
    401: AuthenticationError,
    403: AuthenticationError,
    404: EndpointNotFoundError,
    405: EndpointNotFoundError,
    429: RateLimitError,
}
TOKEN_COUNTS = [
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        r"input has (?P<prompt>\d{1,12}) tokens.{1,80}?(?P<limit>\d{1,12}) tokens",
        r"n_keep \((?P<prompt>\d{1,12})\) >= n_ctx \((?P<limit>\d{1,12})\)",
        r"first (?P<prompt>\d{1,12}) tokens.{1,200}?only (?P<limit>\d{1,12}) tokens",
        r"request \((?P<prompt>\d{1,12}) tokens\) exceeds .{1,60}?\((?P<limit>\d{1,12}) tokens\)",  # llama.cpp
        r"context length is (?P<limit>\d{1,12}) tokens.{1,80}?(?P<prompt>\d{1,12}) tokens",  # OpenAI, vLLM
        r"too long: (?P<prompt>\d{1,12}) tokens > (?P<limit>\d{1,12})",  # Anthropic
    )
]
HINTS: list[tuple[re.Pattern[str], str]] = [
    (_words(r"not embedding"), "Choose an embedding model: `lmdeck models` shows each model's type."),
    (_words(r"insufficient system resources"), str(ModelLoadError.default_hint)),
    (_words(r"expected 'function' \| 'mcp'"), "Offer tools of the types function and mcp only: LM Studio runs no others."),
    (_words(r"'type' must be a string"), "Write a list of types in a schema as anyOf, which the rule `schemas` does."),
    (_words(r"failed to (parse|generate) (a |the )?tool call"),
     "The model wrote a call that LM Studio could not read: ask again, cooler, or use a model trained for tools."),
    (_words(r"error in (predict\w*|iterating prediction stream)"),
     "The engine failed in the middle of the answer: ask again; if it stays, load the model again or update its runtime."),
    (_words(r"\b_0x[0-9a-f]{4,}\b", r"cannot read propert(y|ies) of (undefined|null)"),
     "LM Studio stumbled over the request: check that messages and tools are lists of whole entries, or update LM Studio."),
    (_words(r"invalid '?messages'? in payload"),
     "Give every message a role and content, every call a function, and every tool's result its tool_call_id."),
    (_words(r"tool_choice"), "Use none, auto or required: with_tool_choice turns a tool's name into what LM Studio takes."),
    (_words(r"response_format"), "Use a json_schema: chat.parse(Type) makes one."),
    (_words(r"'?input'? field must be a string"), "Embed texts, not tokens: a text or a list of texts."),
    (_words(r"invalid type for 'input'"),
     "Send text, or a list of messages with text, to /v1/responses; show images with lm.chat() instead."),
    (_words(*COMPILER_REFUSALS),
     "The schema of a tool or of response_format is too complex for the engine: simplify it (no pattern, no deep nesting)."),
    (_words(r"previous.?response", r"\bresp_\w+\W+(was )?not found"),
     "The server has forgotten that answer: begin a new conversation, or pass `recover=True` to have the history told again."),
    (_words(r"must be a base64 encoded image"), "Pass images as file, bytes or data URI; LM Studio fetches no web addresses."),
    (_words(r"invalid discriminator value. expected 'object'"),
     'Give every tool `"parameters": {"type": "object", "properties": {…}}`.'),
]  # fmt: skip
