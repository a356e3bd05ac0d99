"""Refusals: every shape and phrasing that was seen, and the false friends that only sound like one."""

from __future__ import annotations

import email.utils
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmdeck import errors
from lmdeck._responses.api_errors import api_error, retry_after_seconds
from lmdeck._responses.json_bodies import decoded_or_text, is_error_body
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

MODELS = (
    'Model "default" not found. Please specify a valid model.\n\nYour models:\n\n'
    "gemma-3-27b-it-qat\nqwen2.5-coder-3b-instruct\ntext-embedding-nomic-embed-text-v1.5"
)
OVERFLOW = (
    "Input does not fit in context length. The input has 31430 tokens, "
    "but the context length only supports 30000 tokens."
)
TOKEN_WANTED = (
    "An LM Studio API token is required to make requests to this server, but none was provided using the Authorization "
    "header using the 'Bearer' scheme (i.e., 'Authorization: Bearer $LM_API_TOKEN')."
)
ISSUES = [
    {"code": "invalid_type", "expected": "object", "received": "undefined",
     "path": [72, "function", "parameters", "properties"], "message": "Required"},
    {"code": "invalid_union_discriminator", "options": ["object"], "path": [1, "function", "parameters", "type"],
     "message": "Invalid discriminator value. Expected 'object'"},
]  # fmt: skip
ISSUES_TEXT = (
    "72.function.parameters.properties: Required (received undefined); "
    "1.function.parameters.type: Invalid discriminator value. Expected 'object'."
)

# status, body, class, message, and the attributes that the body gives
SHAPES: dict[str, tuple[int, object, type[APIError], str, dict[str, object]]] = {
    "bare string": (
        400, {"error": "Invalid tool_choice type: 'object'. Supported string values: none, auto, required"},
        InvalidRequestError, "Invalid tool_choice type: 'object'. Supported string values: none, auto, required.", {},
    ),
    "issues in a string": (400, {"error": json.dumps(ISSUES, indent=2)}, InvalidRequestError, ISSUES_TEXT, {}),
    "issues in a list": (400, {"error": ISSUES}, InvalidRequestError, ISSUES_TEXT, {}),
    "openai": (
        400,
        {"error": {"message": "Invalid input", "type": "invalid_request_error", "param": "tools.0", "code": "custom"}},
        InvalidRequestError, "Invalid input.", {"type": "invalid_request_error", "param": "tools.0", "code": "custom"},
    ),
    "openai, null code": (
        404,
        {"error": {"message": "No models loaded. Please load a model in the developer page or use the 'lms load' command.",
                   "type": "invalid_request_error", "param": "model", "code": None}},
        NoModelLoadedError, "No models loaded. Please load a model in the developer page or use the 'lms load' command.",
        {"type": "invalid_request_error", "param": "model", "code": None},
    ),
    "native": (
        401, {"error": {"type": "invalid_request", "code": "invalid_api_key", "message": TOKEN_WANTED}},
        AuthenticationError, TOKEN_WANTED, {"type": "invalid_request", "code": "invalid_api_key"},
    ),
    "native, status forgotten": (
        200, {"error": {"type": "invalid_request", "code": "invalid_api_key", "message": TOKEN_WANTED}},
        AuthenticationError, TOKEN_WANTED, {"status": 200},
    ),
    "anthropic": (
        529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        ServerError, "Overloaded.", {"type": "overloaded_error"},
    ),
    "detail with a message": (
        503, {"detail": {"msg": "Server is busy; please try again later.", "type": "service_unavailable"}},
        ServerError, "Server is busy; please try again later.", {"type": "service_unavailable"},
    ),
    "list of errors": (
        400, {"errors": [{"message": "'messages' is required"}]}, InvalidRequestError, "'messages' is required.", {},
    ),
    "name of the status beside the message": (
        500, {"statusCode": 400, "error": "Bad Request", "message": "Channel Error"},
        ModelCrashedError, "Bad Request: Channel Error.", {"code": "400"},
    ),
    "cause": (
        500, {"error": {"message": "Rehydrated error", "cause": {"message": "Model does not support images."}}},
        InvalidRequestError, "Rehydrated error: Model does not support images.", {},
    ),
    "engine, numeric code": (
        400,
        {"error": {"code": 400, "message": "Failed to initialize samplers: failed to parse grammar",
                   "type": "invalid_request_error"}},
        InvalidRequestError, "Failed to initialize samplers: failed to parse grammar.", {"code": "400"},
    ),
    "engine, nested as text": (
        500,
        {"type": "error", "error": {
            "type": "api_error",
            "message": 'Engine protocol predict request returned 400: {"error":{"code":400,"message":"Failed to initialize '
                       'samplers: failed to parse grammar","type":"invalid_request_error"}}'}},
        InvalidRequestError, "failed to parse grammar", {"type": "invalid_request_error", "code": "400"},
    ),
    "title and cause": (
        500, {"title": "Failed to embed string", "cause": "The model is busy"},
        ServerError, "Failed to embed string: The model is busy.", {},
    ),
    "frame of a stream": (
        200, {"error": {"message": OVERFLOW}, "message": OVERFLOW}, ContextLengthError, OVERFLOW, {"status": 200},
    ),
    "vllm, flat": (
        400, {"object": "error", "message": "It broke", "type": "BadRequestError", "param": None, "code": 400},
        InvalidRequestError, "It broke.", {"type": "BadRequestError", "code": "400"},
    ),
    "fastapi, text": (404, {"detail": "Not Found"}, EndpointNotFoundError, "Not Found.", {}),
    "fastapi, issues": (
        422, {"detail": [{"loc": ["body", "messages", 0], "msg": "Field required", "type": "missing"}]},
        InvalidRequestError, "body.messages.0: Field required.", {},
    ),
    "issues without words": (422, {"error": [{"odd": 1}, "text"]}, InvalidRequestError, "{'odd': 1}; text.", {}),
    "text": (400, b"Invalid 'messages' in payload", InvalidRequestError, "Invalid 'messages' in payload.", {}),
    "html": (
        502, b"<!DOCTYPE html><html><head><style>b{}</style></head><body><h1>Bad  Gateway</h1></body></html>",
        ServerError, "the server answered 502 with a web page, not JSON: Bad Gateway.", {},
    ),
    "nothing": (500, b"", ServerError, "the server answered 500 without a message.", {}),
    "null": (500, b"null", ServerError, "the server answered 500 without a message.", {}),
    "empty object": (400, {}, InvalidRequestError, "the server answered 400 without a message.", {}),
    "empty error": (400, {"error": ""}, InvalidRequestError, "the server answered 400 without a message.", {}),
    "empty message": (
        500, {"error": {"message": "", "type": "InternalServerError", "code": 500}},
        ServerError, "the server answered 500 without a message.", {"code": "500"},
    ),
    "fields with issues": (
        400, {"title": "Validation failed", "status": 400, "errors": {"messages": ["The field is required."]}},
        InvalidRequestError, "messages: The field is required.", {"code": "400"},
    ),
    "name of a status": (
        200, {"error": {"message": "It broke", "status": "RESOURCE_EXHAUSTED"}}, RateLimitError, "It broke.", {},
    ),
    "type of TGI": (
        422, {"error": "undefined value", "error_type": "template_error"},
        TemplateError, "undefined value.", {"type": "template_error"},
    ),
    "python dictionary after a sentence": (
        404, {"error": {"message": "NotFoundError: XException - Error code: 404 - {'detail': 'Not Found'}. Tried 2"}},
        EndpointNotFoundError, "Error code: 404: Not Found.", {},
    ),
    "cause of a provider": (
        400, {"error": {"message": "Provider returned error", "metadata": {"raw": '{"error":{"message":"model not found"}}'}}},
        ModelNotFoundError, "Provider returned error: model not found.", {},
    ),
    "page after a sentence": (
        502, {"error": {"message": "BadGatewayError: X - <!DOCTYPE html><html><h1>Bad Gateway</h1></html>"}},
        ServerError, "BadGatewayError: X: the server answered 502 with a web page, not JSON: Bad Gateway.", {},
    ),
    "cut JSON": (500, b'{"error":{"message":"Model unloaded.","type":"inter', ModelCrashedError, "Model unloaded.", {}),
    "cut message": (500, b'{"error":{"message":"It bro', ServerError, "It bro\u2026", {}),
    "counts in fields": (
        200, {"error": {"code": 400, "message": "It is too much", "type": "exceed_context_size_error", "n_prompt_tokens": 700,
                        "n_ctx": 512}},
        ContextLengthError, "It is too much.", {"prompt_tokens": 700, "context_length": 512},
    ),
    "JSON:API": (
        502, {"errors": [{"status": 502, "code": "BAD_GATEWAY", "title": "Bad gateway", "detail": "connection refused"}]},
        ServerError, "Bad gateway: connection refused.", {"code": "BAD_GATEWAY"},
    ),
    "code in a message": (500, {"error": "It broke, code model_not_found"}, ModelNotFoundError, "It broke", {}),
    "flag": (400, {"error": True, "message": "Model 'x' not found"}, ModelNotFoundError, "Model 'x' not found.", {}),
    "problem details": (
        400, {"title": "Bad Request", "detail": "Prompt exceeds the context length", "status": 400},
        ContextLengthError, "Bad Request: Prompt exceeds the context length.", {},
    ),
    "other names": (
        400, {"errorCode": "x1", "errorMessage": "No models loaded"}, NoModelLoadedError, "No models loaded.", {"code": "x1"},
    ),
    "fault": (400, {"fault": {"faultstring": "Model not found"}}, ModelNotFoundError, "Model not found.", {}),
    "event as body": (
        400, b'event: error\ndata: {"error":{"message":"Model not found"}}\n\n', ModelNotFoundError, "Model not found.", {},
    ),
    "page in parentheses": (
        400, {"error": "Upstream said (503 <html><h1>503 Service Unavailable</h1></html>)"},
        ServerError, "the server answered 400 with a web page", {},
    ),
    "list": (400, [1, "two"], InvalidRequestError, "1; two.", {}),
    "number": (400, b"42", InvalidRequestError, "42.", {}),
    "number as error": (400, {"error": 42}, InvalidRequestError, "42.", {}),
    "true": (500, {"error": True}, ServerError, "True.", {}),
    "binary": (500, b"\xff\x00\xfe", ServerError, "\ufffd\\x00\ufffd.", {}),
    "broken UTF-8": (500, b'{"error": "caf\xe9 broke"}', ServerError, "caf\ufffd broke.", {}),
    "BOM": (500, b'\xef\xbb\xbf{"error": "It broke"}', ServerError, "It broke.", {}),
    "error in an error": (400, {"error": {"error": {"error": "deep"}}}, InvalidRequestError, "deep.", {}),
    "python's None as text": (
        400, {"error": {"message": "x", "type": "None", "param": "None", "code": "400"}},
        InvalidRequestError, "x.", {"type": None, "code": "400", "param": None},
    ),
    "issues as python writes them": (
        422, {"error": str([{"loc": ("body", "messages", 0), "msg": "Input should be a valid dictionary"}])},
        InvalidRequestError, "body.messages.0: Input should be a valid dictionary.", {},
    ),
    "odd attributes": (
        400, {"error": {"message": "x", "type": ["a"], "code": {"b": 1}, "param": 5}},
        InvalidRequestError, "x.", {"type": "['a']", "code": "{'b': 1}", "param": "5"},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("status", "body", "kind", "message", "attributes"), SHAPES.values(), ids=SHAPES.keys())
def test_every_shape_is_read(
    status: int, body: Any, kind: type[APIError], message: str, attributes: dict[str, object]
) -> None:
    """Bytes and decoded values give the class, the message and the server's own words."""
    wire = body if isinstance(body, bytes) else json.dumps(body).encode()
    for given_body in (wire, bytearray(wire), memoryview(wire), decoded_or_text(wire)):
        error = api_error(status, given_body)
        assert type(error) is kind
        assert message in error.message
        assert error.status == status
        assert error.body == decoded_or_text(wire)
        assert {name: getattr(error, name) for name in attributes} == attributes


def test_the_path_is_named() -> None:
    """The path of the refused request is part of the message."""
    assert api_error(400, {"error": "No"}, path="/v1/chat/completions").message == "/v1/chat/completions: No."
    assert "embedding" in api_error(404, {"error": "No models loaded."}, path="/v1/embeddings").hint
    assert "embedding" not in api_error(404, {"error": "No models loaded."}, path="/v1/chat/completions").hint


# Messages of LM Studio and its kin, by the class that they mean, each with the status that it came with.
PHRASINGS = json.loads((Path(__file__).parent / "error_patterns.json").read_text(encoding="utf-8"))
FALSE_FRIENDS = PHRASINGS.pop("false friends")
TABLE = [(getattr(errors, name), status, message) for name, rows in PHRASINGS.items() for status, message in rows]


@pytest.mark.parametrize(("kind", "status", "message"), TABLE, ids=[message[:60] for _, _, message in TABLE])
def test_every_phrasing_means_what_it_means(kind: type[APIError], status: int, message: str) -> None:
    """Of LM Studio and its kin; bare, as an object, and in a stream where the words alone decide."""
    for body in (
        {"error": message},
        {"error": {"message": message, "type": "invalid_request_error", "code": None}},
        {"message": message},
    ):
        assert type(api_error(status, json.dumps(body).encode())) is kind
    by_words = kind not in {InvalidRequestError, ServerError, AuthenticationError, RateLimitError} and status not in {
        404,
        405,
    }
    if by_words:
        assert type(api_error(200, {"error": message})) is kind


@pytest.mark.parametrize(("status", "message"), FALSE_FRIENDS)
def test_a_false_friend_is_a_validation_message(status: int, message: str) -> None:
    """A message that merely mentions a word is what its status says."""
    assert type(api_error(status, {"error": message})) is InvalidRequestError


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": "context_length_exceeded"}, ContextLengthError),
        ({"type": "exceed_context_size_error"}, ContextLengthError),
        ({"code": "model_not_found"}, ModelNotFoundError),
        ({"type": "model_not_found"}, ModelNotFoundError),
        ({"type": "model_load_failed"}, ModelLoadError),
        ({"type": "authentication_error"}, AuthenticationError),
        ({"type": "permission_error"}, AuthenticationError),
        ({"type": "rate_limit_error"}, RateLimitError),
        ({"code": "rate_limit_exceeded"}, RateLimitError),
        ({"type": "api_error"}, ServerError),
        ({"type": "server_error"}, ServerError),
        ({"type": "internal_error"}, ServerError),
        ({"type": "unknown"}, ServerError),
        ({"type": "not_implemented"}, InvalidRequestError),
        ({"type": "budget_exceeded"}, RateLimitError),
        ({"code": "invalid_type", "message": "Expected a list, got: CUDA out of memory"}, InvalidRequestError),
        ({"type": "job_not_found"}, InvalidRequestError),
        ({"type": "invalid_request_error"}, InvalidRequestError),
        ({"type": "invalid_request"}, InvalidRequestError),
        ({"code": 500}, ServerError),
        ({"code": 429}, RateLimitError),
        ({"code": "401"}, AuthenticationError),
        ({"code": 400}, InvalidRequestError),
        ({"code": 7}, ServerError),
        ({}, ServerError),
    ],
)
def test_where_the_words_say_nothing_the_code_decides(error: dict[str, object], kind: type[APIError]) -> None:
    """In a stream there is no status to go by."""
    assert type(api_error(200, {"error": {"message": "It broke", **error}})) is kind


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequestError), (401, AuthenticationError), (403, AuthenticationError), (404, EndpointNotFoundError),
        (405, EndpointNotFoundError), (409, InvalidRequestError), (413, InvalidRequestError), (422, InvalidRequestError),
        (429, RateLimitError), (500, ServerError), (502, ServerError), (503, ServerError), (504, ServerError), (302, APIError),
        (200, ServerError),
    ],
)  # fmt: skip
def test_last_of_all_the_status_decides(status: int, kind: type[APIError]) -> None:
    """This is so if there are no words at all."""
    assert type(api_error(status, b"")) is kind


def test_a_gateway_status_has_a_hint_though_its_message_says_nothing() -> None:
    """A JSON body with status 502 or 504 usually comes from a proxy."""
    assert "could not reach" in api_error(502, {"error": "It broke"}).hint
    assert "timed out" in api_error(504, {"error": "It broke"}).hint
    assert api_error(500, {"error": "It broke"}).hint == ServerError.default_hint


def test_the_models_that_are_there_are_listed() -> None:
    """LM Studio names them below its message."""
    error = api_error(404, {"error": {"message": MODELS, "code": "model_not_found", "param": "model"}})
    assert isinstance(error, ModelNotFoundError)
    assert error.available == [
        "gemma-3-27b-it-qat",
        "qwen2.5-coder-3b-instruct",
        "text-embedding-nomic-embed-text-v1.5",
    ]
    other = api_error(404, {"error": "model 'x' not found"})
    assert isinstance(other, ModelNotFoundError)
    assert other.available == []


@pytest.mark.parametrize(
    ("message", "word"),
    [
        ("Model is not embedding.", "embedding model"),
        ("Failed to initialize samplers: failed to parse grammar", "simplify"),
        ("'url' field must be a base64 encoded image", "data URI"),
        ("Invalid discriminator value. Expected 'object'", '"type": "object"'),
        ("Failed to load model: insufficient system resources", "lms unload"),
        ('Error rendering prompt with jinja template: "No user query found in messages."', "user message"),
        ("Cannot pass both content and thinking in an assistant message with tool calls!", "not both"),
        ("Error in iterating prediction stream: Cannot truncate prompt with n_keep (9) >= n_ctx (4)", "Shorten"),
        ("Failed to process regex", "simplify"),
        ("Unexpected empty grammar stack after accepting piece", "simplify"),
        ("This model does not support tool use", "trained for tools"),
        ('"llama3.2" does not support thinking', "`reasoning`"),
        ("The model does not support Embeddings API", "embedding model"),
        ("At most 1 image(s) may be provided in one request.", "fewer images"),
        ("Multiple models are loaded. Please specify a model.", "`model=`"),
        ("System role not supported", "order of the messages"),
        ("Unsupported image format: image/heic", "PNG or JPEG"),
        ("Failed to find image for token at index 3", "PNG or JPEG"),
        ("Image size exceeds limit: 30 MB", "smaller image"),
        ("Error loading model: unknown model architecture: 'qwen4'", "update its runtime"),
        ("Failed to load model: the model is corrupted or incomplete", "download it again"),
        ("No LM Runtime found for model format 'gguf'!", "Install or update the runtime"),
        ("ENOSPC: no space left on device, write", "disk is full"),
        ("getaddrinfo ENOTFOUND huggingface.co", "reach the internet"),
        ("Your API token does not have permission to load models.", "this permission"),
        ("The device 'mac' is not connected to LM Link.", "Connect the device"),
        ('"auto" tool choice requires --enable-auto-tool-choice to be set', "the options that the message names"),
        ("Cannot have 2 or more assistant messages at the end of the list.", "order of the messages"),
        ("Images must contain valid base64 data.", "whole file"),
        ("Request body exceeds the 64 MiB limit.", "Send less"),
        ("Failed to parse tool call arguments as JSON: parse error at line 1", "`arguments`"),
        (
            "Failed to parse tools: type must be string; tools = [{'description': 'It does not support images.'}]",
            "the tool that",
        ),
        ("logprobs is not supported with tools + stream", "only one of the two"),
        ("messages.5: all messages must have non-empty content", "content that is not empty"),
        ("The provided JSON schema contains features not supported by xgrammar.", "simplify the schema"),
        ("This server does not support completions. Start it without `--embeddings`", "without the option"),
        ('"nomic-embed-text" does not support chat', "Choose a chat model"),
        ("lm_studio does not support parameters: ['tool_choice'], for model=qwen", "Leave out the parameters"),
        (
            "Failed to resolve model x: Api error with status 403. URL: https://search.lmstudio.ai/v1/hf-proxy/api",
            "license",
        ),
        ("tools and response_format cannot be combined", "only one of the two"),
        ("MCP not configured. Start server with --mcp-config", "the options that the message names"),
        ("Model 'text-embedding-x' is not an LLM.", "Choose a chat model"),
        ("MCP server 'files' is not running", "Check the MCP server"),
        ("key not allowed to access model. This key can only access models=['a']", "this permission"),
        ("ENOENT: no such file or directory, open '/models/x.gguf'", "download the model again"),
        ("EACCES: permission denied, open '/home/u/.lmstudio/x.json'", "access rights"),
        ("this model requires a subscription, upgrade for access", "plan or credit"),
        ("check_tensor_dims: tensor 'output.weight' has wrong shape; expected 4096, got 4097", "damaged or newer"),
        ("upstream connect error or disconnect/reset before headers", "could not reach its server"),
        ("litellm.Timeout: APITimeoutError - Request timed out.", "increase its timeout"),
        ("Budget has been exceeded! Current cost: 2.1, Max budget: 2.0", "budget of the key"),
        ("Model reloaded.", "Load the model"),
        ("Invalid host header", "trusted hosts"),
        ("Tool call ids must have 9 characters", "such ids"),
        ("Loading of the model was cancelled by the user", "cancelled"),
        ("Only 'text' parts are supported here", "accepts images"),
        ("image_url is only available for some models", "accepts images"),
        ("This is not a chat model", "Choose a chat model"),
        ("There are no safetensors: no weights found in /models/x", "download"),
        ("Error while loading the model: No module named 'engine'", "Install or update the runtime"),
        ("All slots are used by pinned models: unload one", "Unload a model"),
        ("[object Object]", "does not say what is wrong"),
        ("The option thinking needs --enable-strict-mode", "the options that the message names"),
        ("Unsupported param: tools", "--jinja"),
        ("Unsupported param: best_of", "Leave out the parameters"),
        ("Cannot use tools with stream", "`send()`"),
        ("'type' of tool must be 'function'", "types function"),
        ("batch size 100 > maximum allowed batch size 32", "`batch_size`"),
        ('Unsupported content part type: "image_url"', "accepts images"),
        ("height:17 or width:134 must be larger than factor:28", "larger image"),
        ("Image features and image tokens do not match: tokens: 0, features 64", "another vision model"),
        ("Model 'x' does not expose reasoning configuration.", "`reasoning`"),
        ("Invalid input the last message must be a user message or tool message.", "order of the messages"),
        ("The encrypted content gAAA could not be verified.", "reasoning items"),
        ("Model with identifier 'm' already exists.", "unload it first"),
        ("Image URLs are not supported. Please provide base64", "data URI"),
        ("audio input is not supported - hint: you may need to provide the mmproj", "audio"),
        ("Error when loading model: ValueError: Missing 1 parameters: x.biases", "update the runtime"),
        ("Model loading was aborted because another model was requested.", "cancelled"),
        ("Timed out waiting for the model to load", "Loading took longer"),
        ("Error in iterating prediction stream: RuntimeError: Insufficient Memory", "out of memory"),
        ("vk::Queue::submit: ErrorDeviceLost", "driver"),
        ("Content blocked by guardrail", "filter"),
        ("ExceededBudget: User=u over budget. Spend=12, Budget=10", "budget"),
        ("Reasoning effort 'xhigh' is not supported by this model", "level"),
        ("No Database connected", "database"),
        ("ROCm error: invalid device function", "driver"),
        ("response_format.json_schema: cannot resolve $ref '#/$defs/Foo'", "json_schema"),
        ("Cannot use tools with this model: its prompt template has no support for tools", "trained for tools"),
        ("Model 'x' requires LM Studio 0.4.25 or newer", "Update the server"),
        ('think value "ultra" is not supported for this model', "level"),
        ("OpenAIException - Invalid value for metadata.note: 'Budget has been exceeded!'", "Correct the field"),
        (
            "X - <html><head><title>504 Gateway Time-out</title></head><body>504 Gateway Time-out</body></html>",
            "timed out",
        ),
        ("Failed to load model. Model file x.gguf has unsupported version 4", "update the runtime"),
        ("Failed to load model: something odd happened", "log"),
        ("Image is too small: 4x4 pixels, the minimum is 28x28", "larger image"),
        ("The prompt template does not support the system role", "order of the messages"),
        ("Instance identifier 'm' is already in use", "unload it first"),
        ("max_tokens must be at least 1, got -186.", "within the limits"),
        ("Failed to load model. Error: Failed to create GPU context: Metal device not found", "driver"),
        ("Could not read stored response resp_9: Unexpected end of JSON input", "store=False"),
        ("Plugin 'a/b' is not allowed for API tokens", "Allow the plugin"),
        ("Tool call on MCP server 'web' failed: MCP error -32001: Request timed out", "MCP server"),
        ("litellm.APIConnectionError: Ollama_chatException - All connection attempts failed", "could not reach"),
        ("reasoning_content is missing in assistant tool call message at index 2", "append `reply.message`"),
        ("Infill is not supported by this model", "use a model"),
        ("something else", "Correct the field"),
    ],
)
def test_the_hint_fits_the_words(message: str, word: str) -> None:
    """Where the words tell more, the hint does too."""
    assert word in api_error(400, {"error": message}).hint


ENGINES = {
    "Error in predictNext: RuntimeError: the sampler gave nothing": "engine failed",
    "Error in iterating prediction stream: KeyError: 'logits'": "engine failed",
    "Error in predictTokens: ValueError: 'type' must be a string, not a list": "anyOf",
    "Failed to parse tool call: a comma was expected at 17": "ask again",
    "The following tool call could not be parsed: expected '}' at position 44": "ask again",
    "Failed to generate a tool call (it is left out): the text ended": "ask again",
    "[Server Error] _0x1f2e3d is not a function": "failed on the request",
    "Cannot read properties of undefined (reading 'parameters')": "failed on the request",
}


@pytest.mark.parametrize("status", [200, 400, 500])
@pytest.mark.parametrize("message", ENGINES)
def test_what_the_server_could_not_do_is_the_server_s_fault(message: str, status: int) -> None:
    """This holds for any status: the next attempt may succeed."""
    error = api_error(status, {"error": message})
    assert type(error) is ServerError
    assert error.retryable
    assert ENGINES[message] in error.hint


@pytest.mark.parametrize(
    ("body", "message", "word"),
    [
        ({"message": "Required", "param": "text.format", "code": "missing"}, "text.format: Required.", "the message names"),
        ({"message": "Not a valid input", "param": "tools.0"}, "tools.0: Not a valid input.", "the message names"),
        ({"message": "Expected 'function' | 'mcp'", "param": "tools.2"}, "tools.2: Expected 'function' | 'mcp'.", "and mcp"),
        ({"message": "Invalid type for 'input', sorry.", "param": "input"}, "Invalid type for 'input', sorry.", "lm.chat()"),
        ({"message": "x" * 100, "param": "seed"}, "x" * 100 + ".", "the message names"),
        ({"message": "These messages are an invalid 'messages' in payload"}, None, "tool_call_id"),
        ({"message": "tool_choice cannot be an object"}, None, "with_tool_choice"),
        ({"message": "response_format.type is not one we know"}, None, "chat.parse"),
        ({"message": "the 'input' field must be a string or a list of them"}, None, "not tokens"),
    ],
)  # fmt: skip
def test_a_field_is_named_and_has_its_hint(body: dict[str, str], message: str | None, word: str) -> None:
    """A bare "Required" gets the field's name in front."""
    error = api_error(400, {"error": {"type": "invalid_request_error", **body}})
    assert type(error) is InvalidRequestError
    assert error.message == (message or f"{body['message']}.")
    assert word in error.hint


@pytest.mark.parametrize(
    ("message", "counts"),
    [
        ("The input has 700 tokens, but the context length only supports 512 tokens.", (700, 512)),
        ("Cannot truncate prompt with n_keep (700) >= n_ctx (512)", (700, 512)),
        ("Trying to keep the first 700 tokens when context the overflows, loaded with only 512 tokens", (700, 512)),
        ("request (700 tokens) exceeds the available context size (512 tokens), raise it", (700, 512)),
        ("This model's maximum context length is 512 tokens. However, you asked for 700 tokens", (700, 512)),
        ("prompt is too long: 700 tokens > 512 maximum", (700, 512)),
        ("Prepared prompt has 40,960 tokens, exceeding the fitted 32,768-token context", (40960, 32768)),
        ("maximum context length is 512 tokens and your request has 700 input tokens (99 > 512 - 700)", (700, 512)),
        (
            "maximum context length is 512 tokens. You requested 709 tokens (700 in the messages, 9 in the completion)",
            (700, 512),
        ),
        ("`inputs` tokens + `max_new_tokens` must be <= 512. Given: 700 `inputs` tokens", (700, 512)),
        ("The conversation (700 tokens) does not fit into the model's context (512 tokens).", (700, 512)),
        ("max_tokens is too large: 900. The maximum context length is 512 tokens.", (None, 512)),
        ("`inputs` must have less than 512 tokens. Given: 700", (700, 512)),
        ("model max length exceeded, max length: 512", (None, 512)),
        ("Context size has been exceeded.", (None, None)),
        ("The input has many tokens. Input does not fit in context length.", (None, None)),
    ],
)
def test_an_overflow_says_how_much_it_was(message: str, counts: tuple[int | None, int | None]) -> None:
    """Programs get the numbers if the server reports them."""
    error = api_error(400, {"error": {"message": message, "code": "context_length_exceeded"}})
    assert isinstance(error, ContextLengthError)
    assert (error.prompt_tokens, error.context_length) == counts


def test_a_redirect_says_where_to() -> None:
    """It is not followed; the address is shown without its secrets."""
    error = api_error(307, b"", {"location": "https://me:S3cr3t@other/v1?key=S3cr3t"})
    assert "https://other/v1" in error.hint
    assert "S3cr3t" not in str(error)


@pytest.mark.parametrize(
    ("decoded", "is_refusal"),
    [
        ({"error": "x"}, True),
        ({"error": {"message": "x"}}, True),
        ({"type": "error"}, True),
        ({"object": "error", "message": "x"}, True),
        ({"choices": [], "error": "x"}, True),
        ({"choices": [{}], "error": "x"}, False),
        ({"choices": [{"finish_reason": "error"}], "error": "x"}, True),
        ({"choices": 5, "error": "x"}, True),
        ({"error": None}, False),
        ({"error": ""}, False),
        ({"object": "list", "data": []}, False),
        ({}, False),
        ([], False),
        ("error", False),
        (None, False),
    ],
)
def test_a_refusal_is_distinguished_from_an_answer(decoded: object, is_refusal: bool) -> None:
    """The status does not matter."""
    assert is_error_body(decoded) is is_refusal


# --- anything -------------------------------------------------------------------------------------------------------------

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["error", "message", "detail", "title", "cause", "type", "code", "param", "path"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.integers(200, 599), plain)
def test_any_body_is_an_error_with_words(status: int, body: object) -> None:
    """Whatever was sent, there is a class, a message and a hint."""
    error = api_error(status, body)
    assert error.message.strip(". ") or not str(body).strip("[]{}'\" .,")
    assert error.hint
    assert len(error.message) < 5000
    assert error.status == status


@pytest.mark.parametrize(
    "body",
    [b'{"error":' * 500 + b"1" + b"}" * 500, b'{"error":' * 50_000, b"[" * 900 + b"]" * 900,
     b'{"error": "' + b"x" * 3_000_000 + b'"}', b"<html>" + b"<" * 300_000, b"\x00" * 1_000_000,
     b'{"error": "[' + b"[" * 100_000 + b'"}', b"model " * 200_000, b"x_" * 200_000],
    ids=["deep", "cut and deep", "nested lists", "huge text", "tags", "zeros", "deep issues", "repetitions", "names"],
)  # fmt: skip
def test_no_body_is_too_much(body: bytes) -> None:
    """Depth and size end in a short message, soon."""
    error = api_error(500, body)
    assert 0 < len(error.message) < 5000


# --- Retry-After ------------------------------------------------------------------------------------------------------------

NOON = 1_700_000_000.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "5"}, 5.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": email.utils.formatdate(NOON + 30, usegmt=True)}, 30.0),
        ({"retry-after": email.utils.formatdate(NOON - 30, usegmt=True)}, 0.0),
        (
            {
                "retry-after": email.utils.formatdate(NOON + 90, usegmt=True),
                "date": email.utils.formatdate(NOON + 60, usegmt=True),
            },
            30.0,
        ),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "1e9"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "99999999999999999999"}, None),
        ({"retry-after": ""}, None),
        ({}, None),
    ],
)
def test_retry_after_has_many_forms(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds, milliseconds, a date; what is none of them is nothing."""
    assert retry_after_seconds(headers, now=NOON) == seconds


def test_a_date_without_a_clock_is_nothing() -> None:
    """The server's own `Date` is the better clock; without any there is no telling."""
    assert retry_after_seconds({"retry-after": email.utils.formatdate(NOON, usegmt=True)}) is None


@given(st.text(max_size=40))
def test_no_header_whatever_breaks_the_error(value: str) -> None:
    """A server may say anything."""
    seconds = retry_after_seconds({"retry-after": value, "date": value, "retry-after-ms": value}, now=NOON)
    assert seconds is None or seconds >= 0


def test_the_wait_is_on_the_error() -> None:
    """Not only on `RateLimitError`: a busy server may say so with 503."""
    assert api_error(503, b"", {"retry-after": "5"}).retry_after == 5.0
    assert api_error(429, b"").retry_after is None
