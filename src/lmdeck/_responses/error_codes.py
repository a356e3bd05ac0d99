"""Codes, types and statuses of error responses, and the error of each."""

from __future__ import annotations

from lmdeck.errors import (
    APIError,
    AuthenticationError,
    ContextLengthError,
    EndpointNotFoundError,
    InvalidRequestError,
    ModelLoadError,
    ModelNotFoundError,
    RateLimitError,
    ServerError,
    TemplateError,
)

CODES: dict[str, type[APIError]] = {
    "invalid_api_key": AuthenticationError,
    "context_length_exceeded": ContextLengthError,
    "input_length_error": ContextLengthError,  # LMDeploy
    "exceed_context_size_error": ContextLengthError,
    "model_not_found": ModelNotFoundError,
    "model_load_failed": ModelLoadError,
    "not_supported_error": InvalidRequestError,
    "not_implemented": InvalidRequestError,
    "job_not_found": InvalidRequestError,
    "budget_exceeded": RateLimitError,  # LiteLLM
    "insufficient_quota": RateLimitError,  # OpenAI
    "template_error": TemplateError,  # TGI, as `missing_template_variable`
    "missing_template_variable": TemplateError,
}
# Names of errors in fields and messages, without "error" and "exception": of HTTP, gRPC, OpenAI, Anthropic and LiteLLM.
STATUS_NAMES: dict[str, int] = {
    "badrequest": 400, "invalidargument": 400, "invalidparameter": 400, "failedprecondition": 400, "unsupportedparams": 400,
    "authentication": 401, "unauthenticated": 401, "unauthorized": 401, "permission": 403, "permissiondenied": 403,
    "forbidden": 403, "notfound": 404, "methodnotallowed": 405, "requesttimeout": 408, "requesttoolarge": 413,
    "payloadtoolarge": 413, "validation": 422, "requestvalidation": 422, "unprocessableentity": 422, "ratelimit": 429,
    "ratelimitexceeded": 429, "resourceexhausted": 429, "toomanyrequests": 429, "server": 500, "internal": 500,
    "internalserver": 500, "unknown": 500, "generation": 500, "incompletegeneration": 500, "incompletegenerationstream": 500,
    "badgateway": 502, "apiconnection": 502, "unavailable": 503, "serviceunavailable": 503, "overloaded": 503,
    "timeout": 504, "apitimeout": 504, "gatewaytimeout": 504, "deadlineexceeded": 504,
}  # fmt: skip
# LM Studio's error types whose messages quote another server, so that the type decides (docs `2_rest/streaming-events.md`).
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
# Codes of a validation that names a field (Zod, OpenAI): its message may quote any text.
FIELD_CODES = {
    "invalid_type", "invalid_literal", "invalid_union", "invalid_union_discriminator", "invalid_enum_value", "invalid_string",
    "invalid_value", "invalid_format", "invalid_arguments", "unrecognized_keys", "too_small", "too_big", "not_multiple_of",
    "missing_required_parameter", "unknown_parameter", "string_above_max_length", "array_above_max_length",
}  # fmt: skip
STATUSES: dict[int, type[APIError]] = {
    401: AuthenticationError,
    403: AuthenticationError,
    404: EndpointNotFoundError,
    405: EndpointNotFoundError,
    407: AuthenticationError,
    408: ServerError,
    424: ServerError,  # TGI: the generation failed
    429: RateLimitError,
}
