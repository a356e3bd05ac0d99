"""Patterns of error messages, and the error that each means.

They cover LM Studio and similar servers, and read token counts.

Sources: LM Studio docs `2_rest`, and reports in lmstudio-bug-tracker; messages of other servers are marked.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property

from lmdeck._requests.tool_schema_fallback import GRAMMAR_ERRORS
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


class Words:
    """Expressions of which one must occur.
    The first search compiles them, since most programs see no error.
    """

    def __init__(self, *patterns: str, flags: int = re.IGNORECASE) -> None:
        self._patterns = patterns
        self._flags = flags

    @cached_property
    def search(self) -> Callable[[str], re.Match[str] | None]:
        """Search a text for any of them."""
        return re.compile("|".join(self._patterns), self._flags).search


PLUGIN = Words(r"\bplugin process\b", r"(load|start|connect to|find) (the )?plugin\b")

# The order matters: a crash caused by a full context names the context, a load that runs out of memory names the model.
PHRASES: list[tuple[Words, type[APIError]]] = [
    (Words(r"unexpected endpoint or method", r"^invalid url \(", r"^unsupported method \("), EndpointNotFoundError),
    (
        Words(
            r"\bnot support(ed)? (image|vision|audio|video|multimodal)",
            r"\b(image|vision|audio|video|multimodal)( input| content)?s? (is|are) not (supported|enabled|available)",
            r"missing data required for image input",  # Ollama
            r"failed to (load|decode|process) (the )?(image|audio|video)",  # llama.cpp
            r"number of bitmaps does not match",  # llama.cpp: a prompt that contains its marker of images
            r"at most 0 (image|audio|video)",  # vLLM
            r"is not a (multimodal|vision)[ -]model",
        ),
        InvalidRequestError,
    ),
    (Words(r"prediction history node\b", r"not found in shard"), ServerError),
    (Words(r"permission denied to use"), AuthenticationError),
    (PLUGIN, InvalidRequestError),
    (
        Words(
            r"trying to keep the first \d+ tokens",
            r"number of tokens to keep from the initial prompt is greater",
            r"cannot truncate prompt with n_keep",
            r"input does not fit in context",
            r"context (size|length|window) (has been |was |is )?(exceeded|too small|overflow)",
            r"context (size|length|window|limit)\b[^.\n]{0,40}\breached\b",
            r"\breached (the )?(maximum )?context (size|length|window|limit)\b",
            r"(exceeds?|exceeded|greater than|larger than|longer than|beyond)\b[^.\n]{0,60}\bcontext (size|length|window)",
            r"context[ _-]?(length|window|size)[ _-]?exceeded",
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
            r"tokens exceed\b[^.\n]{0,40} limit of \d",  # Azure
            r"\btoken limit exceeded",
            r"(exceeds?|greater than|longer than) [^.\n]{0,40}\bmax(imum)?[ _](input|model|seq\w*|prompt|sequence)[ _]len",
            r"\bn_ctx\b[^.\n]{0,20} too small",
            r"\binput( \([^)\n]{0,40}\))? is too large to process",  # llama.cpp: longer than a batch of embeddings
        ),
        ContextLengthError,
    ),
    (
        Words(r"no models? (is |are )?(currently )?loaded", r"model (\S+ )?(is |has )?not (been |currently )?loaded"),
        NoModelLoadedError,
    ),
    (Words(r"model is not embedding", r"does not support embeddings?", r"is not an embedding model"), InvalidRequestError),
    (
        Words(
            r"(failed|unable|could not|cannot|can't|not enough memory) (to )?load(ing)? (the |this )?model",
            r"\bmodel\b[^.\n]{0,200}\bfailed to load",
            r"failed to load (the )?(llm )?engine",
            r"failed to (initiali[sz]e|create) (the )?(context|model|engine|mlx)\b",
            r"\bno\b[^.\n]{0,40}\b(runtime|engine)\b[^.\n]{0,20}\bfound",
            r"\bhealth check timed out",  # llama-swap
            r"(failed|unable) to allocate\b[^\n]{0,60}\bbuffers?\b",  # llama.cpp
            r"waiting for (the )?(llama )?(runner|server|engine) to start",  # Ollama
            r"\bmodel( type \S+| architecture)? (is )?not supported( by (your|this) version)?\W*($|\n|by )",
            r"requires more system memory",  # Ollama
            r"\bout of memory",
            r"model loading aborted",
            r"insufficient system resources",
            r"snapshot of system resources",
            r"before becoming healthy",
            r"error loading model",
            r"operation canceled",
            r"model load(ing)? (was |has been )?cancell?ed",
        ),
        ModelLoadError,
    ),
    (
        Words(
            r"model has crashed",
            r"model (process )?crashed",
            r"model (is|was|has been|got) unloaded",
            r"model (un|re)loaded",
            r"channel error",
            r"lost connection to (the )?(model|engine|worker)",
            r"runner process (has terminated|no longer running)",  # Ollama
            r"unexpectedly (exited|stopped|terminated|died)",
            r"(exited|stopped|terminated|died) unexpectedly",
            r"engine(core|deaderror)\b",  # vLLM
            r"\bsegmentation fault\b",
            r"\bcore dumped\b",
            r"\b(process|engine|worker|server|runner) (was (killed|terminated)|(was )?(killed|terminated|stopped) by)\b",
            r"\b(process|engine|worker|server|runner) exited with (exit )?(code|status|signal)",
            r"\b(engine|runtime|worker|backend)( process)? (has )?(crashed|died|exited|terminated)",
        ),
        ModelCrashedError,
    ),
    (Words(*GRAMMAR_ERRORS, r"\brequires? (the )?--\w"), InvalidRequestError),
    (
        Words(
            r"error in (predict\w*|iterating prediction stream)",  # the MLX engine
            r"\breceived [\w-]+[- ]error\b",
            r"\bfetch failed\b",
            r"peg-native",
            r"output that does not match the expected",
            r"decode\(\) failed",
            r"\b(failed to decode|compute error)\b",  # llama.cpp
            r"\bfind (a |free )?(memory|kv)( cache)? (slot|space)\b",  # llama.cpp
            r"unexpected empty grammar stack",  # llama.cpp: the model wrote what the grammar excludes
            r"\[broadcast_shapes\]",
            r"(cannot|could not) be broadcast",
            r"failed to (parse|generate) (a |the )?tool call",
            r"failed to parse input at pos",  # llama.cpp
            r"\b_0x[0-9a-f]{4,}\b",  # an obfuscated name in LM Studio's code
            r"cannot read propert(y|ies) of (undefined|null)",
        ),
        ServerError,
    ),
    (
        Words(
            r"jinja",
            r"unable to generate parser for this template",
            r"(prompt|chat) template",
            r"(?<!json )parser error: ",
            r"expected closing (statement|expression)",
            r"unknown (statement|filter|test)( type|:)",
            r"\broles must alternate",
            r"but there was no previous (assistant )?message",
            r"only (user|system)\b.{0,40} roles are supported",
            r"system role (is )?not supported",
            r"tool call ids should be alphanumeric",
            r"cannot apply filter",
            r"\bat row \d+, column \d+:",  # llama.cpp's minja
            r"(unable|failed) to render\b",
            r"\bundefinederror\b",
            r"'(dict|list|str) object' has no (attribute|element)",
        ),
        TemplateError,
    ),
    (
        Words(
            r"invalid discriminator value",
            r"\b(does not|doesn't|do not) support\b",
            r"\bmultiple models are loaded",
        ),
        InvalidRequestError,
    ),
    (Words(r"previous.?response\b.{0,120}(not found|unknown|expired|does not exist)", r"\bresp_\w+\W+(was )?not found",
            r"download job\b", r"\bjob\b.{0,60} not found"), InvalidRequestError),
    (Words(r"\bmodel( instance)?( \S+)? not found", r"model_not_found", r"no such model", r"\binvalid model (name|id)\b",
            r"^model: \S+$",  # Anthropic
            r"\bunknown model\b(?! (architecture|type))", r"\bmodel\b.{0,200}\bis not (downloaded|installed|available)\b",
            r"no router for requested model", r"could not find real modelid",  # llama-swap
            r"\bmodel\b.{0,200}\bstill downloading",
            r"\brepository not found\b",  # mlx_lm.server, which loads from Hugging Face
            r"(cannot|can't|could not|couldn't|unable to) find (the )?model\b", r"\bmodel does(n't| not) exist",
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
    "unavailable_error": ServerError,
    "not_supported_error": InvalidRequestError,
    "server_error": ServerError,
    "internal_server_error": ServerError,
    "internal_error": ServerError,
    "unknown": ServerError,
    "not_implemented": InvalidRequestError,
    "job_not_found": InvalidRequestError,
}
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
STATUSES: dict[int, type[APIError]] = {
    401: AuthenticationError,
    403: AuthenticationError,
    404: EndpointNotFoundError,
    405: EndpointNotFoundError,
    408: ServerError,
    424: ServerError,  # TGI: the generation failed
    429: RateLimitError,
}
TOKEN_COUNTS = [
    Words(pattern, flags=re.IGNORECASE | re.DOTALL)
    for pattern in (
        r"input has (?P<prompt>\d{1,12}) tokens.{1,80}?(?P<limit>\d{1,12}) tokens",
        r"n_keep \((?P<prompt>\d{1,12})\) >= n_ctx \((?P<limit>\d{1,12})\)",
        r"first (?P<prompt>\d{1,12}) tokens.{1,200}?only (?P<limit>\d{1,12}) tokens",
        r"request \((?P<prompt>\d{1,12}) tokens\) exceeds .{1,60}?\((?P<limit>\d{1,12}) tokens\)",  # llama.cpp
        r"context length is (?P<limit>\d{1,12}) tokens.{1,80}?(?P<prompt>\d{1,12}) tokens",  # OpenAI, vLLM
        r"input \((?P<prompt>\d{1,12}) tokens\) is too large to process.{1,120}?batch size: (?P<limit>\d{1,12})",  # llama.cpp
        r"too long: (?P<prompt>\d{1,12}) tokens > (?P<limit>\d{1,12})",  # Anthropic
    )
]

# LM Studio's messages about its engine: the engine failed, unless the message names another status.
ENGINE = Words(
    r"\bengine protocol\b",
    r"\bllama-server\b",
    r"internal (server )?error",
    r"\b(cuda|metal|vulkan|rocm|hip|sycl|opencl|ggml|mlx|gpu)\w*\b.{0,80}\b(error|failed|failure|lost|assert|timeout)",
    r"\b(ggml|llama)_\w+|\bvk::|\bGGML_ASSERT\b",
    r"\btraceback \(most recent",
    r"\bassertion\b.{0,80}\bfailed|\bassertion failed\b",
    r"(?<!json )\b[A-Z]?[a-z]*exception\b",
    r"\b(Type|Value|Index|Key|Attribute|Runtime|Reference|Range|Assertion|Memory|OS|NotImplemented)Error\b",
    r"\bis not (iterable|a function|defined)\b",
    r"\bobject (is not|has no|does not|cannot)\b|\bindex out of (range|bounds)\b|\bunsupported operand\b",
    r"\[(metal|cuda|\w+::\w+)\]",
)
# The server is not ready yet; only with status 503, or llama.cpp's type for it.
LOADING = Words(r"\bloading (the )?model\b", r"\bmodel\b.{0,200}\b(is (currently |still )?loading|being loaded)\b")
# A failed validation of the request, for responses with a success status.
VALIDATION = Words(
    r"^invalid\b",
    r"\bis required\b",
    r"^required\b",
    r"\bmust be (a|an|one of|of type)\b",
    r"^expected\b",
    r"^unrecognized key",
)
