"""What to do about a refusal: by its words, by the page of a proxy that it is, and by the product that sent it.

Sources: LM Studio docs `2_rest`, and reports in lmstudio-bug-tracker as numbered below; nginx's, Cloudflare's and
llama.cpp's own words.
"""

from __future__ import annotations

import re

from lmdeck._requests.tool_schema_fallback import GRAMMAR_ERRORS
from lmdeck.errors import (
    AuthenticationError,
    EndpointNotFoundError,
    LMStudioError,
    MalformedStreamError,
    ModelLoadError,
    ModelNotFoundError,
    NoModelLoadedError,
    ServerUnreachableError,
    TemplateError,
    TransportError,
)

LM_STUDIO = "LM Studio"
HISTORY_HINT = (
    "Look at the order of the messages: a system message first, user and assistant in turn (join two in a row), and each "
    "tool message right behind the assistant message with its call."
)
DAMAGED = (
    "The answers that LM Studio keeps are damaged: delete `.internal/api-prediction-history/packs` in its folder, send with "
    "`store=False`, or pass `recover=True` to a conversation to have its history told again (bug tracker #1522)."
)
NO_VISION = "Choose a vision model, which takes images: `lmdeck models` shows those as `vlm`; or leave the images out."


def _words(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


# The first that is found in "param: message" counts.
HINTS: list[tuple[re.Pattern[str], str]] = [
    (
        _words(
            r"\bmmproj\b",
            r"\b(image|vision|audio|video|multimodal)\b.{0,40}\bnot (supported|enabled|available)",
            r"\bnot support(ed)? (image|vision|audio|video|multimodal)",
            r"required for image input",
            r"at most 0 (image|audio|video)",
            r"not a (multimodal|vision)",
        ),
        NO_VISION,
    ),
    (
        _words(r"vision\.imageResizeSettings"),
        "Update LM Studio: this version stumbles over images (bug tracker #1132).",
    ),
    (
        _words(r"\bpixels?\b", r"image.{0,40}\btoo large\b"),
        "Send a smaller image: LM Studio takes up to 5120 × 5120 pixels (bug tracker #2003).",
    ),
    (_words(r"not embedding"), "Choose an embedding model: `lmdeck models` shows each model's type."),
    (
        _words(r"--embeddings?\b", r"pooling type"),
        "Start the server with `--embeddings` and an embedding model, or ask another server.",
    ),
    (
        _words(r"too large to process.{0,80}batch size"),
        "Embed shorter texts, or start the server with a larger `--ubatch-size`, as large as its context.",
    ),
    (_words(r"insufficient system resources"), str(ModelLoadError.default_hint)),
    (
        _words(r"before becoming healthy", r"snapshot of system resources"),
        "The engine could not be started: free memory, choose a smaller model or context length, or update its runtime.",
    ),
    (
        _words(r"expected 'function' \| 'mcp'", r"\btools[.\[]\d+\]?[.]type\b", r"unsupported tool type"),
        "Offer tools of the types function and mcp only: the server runs no others.",
    ),
    (
        _words(r"\bserver_url\b"),
        'Give the MCP tool a `server_url`; a server of mcp.json is used by `lm.conversation(integrations=["mcp/name"])`.',
    ),
    (
        _words(r"permission denied to use", r"local (mcp|integrations?)\b.{0,80}(permission|not allowed|disabled)"),
        "Allow local MCP servers in the server's settings, and give the API token the permission to use them.",
    ),
    (
        _words(r"speculative", r"draft[ _]model", r"\bdraft\b.{0,60}\bmodel"),
        "Leave `draft_model` out (speculative decoding), or choose a draft model of the same family and vocabulary.",
    ),
    (
        _words(r"prediction history node", r"not found in shard"),
        DAMAGED,
    ),
    (
        _words(r"'type' must be a string"),
        "Write a list of types in a schema as anyOf, which the rule `schemas` does.",
    ),
    (
        _words(
            r"failed to (parse|generate) (a |the )?tool call",
            r"peg-native",
            r"does not match the expected .{0,40}format",
        ),
        "The model wrote a call that the server could not read: ask again, cooler, or use a model trained for tools.",
    ),
    (
        _words(
            r"error in (predict\w*|iterating prediction stream)",
            r"prediction[- ]error",
            r"broadcast",
            r"fetch failed",
            r"decode\(\) failed",
        ),
        "The engine failed in the middle of the answer: ask again; if it stays, load the model again or update its runtime.",
    ),
    (
        _words(r"\b_0x[0-9a-f]{4,}\b", r"cannot read propert(y|ies) of (undefined|null)"),
        "The server stumbled over the request: check that messages and tools are lists of whole entries, or update LM Studio.",
    ),
    (
        _words(r"invalid '?messages'? in payload"),
        "Give every message a role and content, every call a function, and every tool's result its tool_call_id.",
    ),
    (
        _words(
            r"\broles? must alternate",
            r"consecutive (user|assistant|system)",
            r"no previous (assistant )?message",
            r"\bsystem (message|role)\b.{0,60}\b(beginning|first|start)\b",
            r"(tool|assistant) (message|role)\b.{0,60}\b(must|should) (follow|be preceded|come)",
            r"must be a response to a preceding",
            r"unexpected (role|`?tool_use_id`?)",
            r"got system\b",
            r"roles are supported",
        ),
        HISTORY_HINT,
    ),
    (
        _words(r"tool_choice"),
        "Use none, auto or required: with_tool_choice turns a tool's name into what LM Studio takes.",
    ),
    (_words(r"response_format"), "Use a json_schema: chat.parse(Type) makes one."),
    (_words(r"'?input'? field must be a string"), "Embed texts, not tokens: a text or a list of texts."),
    (
        _words(r"invalid type for 'input'"),
        "Send text, or a list of messages with text, to /v1/responses; show images with lm.chat() instead.",
    ),
    (
        _words(*GRAMMAR_ERRORS),
        "The schema of a tool or of response_format is too complex for the engine: simplify it (no pattern, no deep nesting).",
    ),
    (
        _words(
            r"not support '?`?previous_response_id",
            r"previous_response_id'?`? (is )?(not supported|unsupported|ignored)",
        ),
        "This server keeps no answers: send the whole history as `input`, or use lm.chat() with its messages.",
    ),
    (
        _words(r"previous.?response", r"\bresp_\w+\W+(was )?not found"),
        "The server has forgotten that answer: begin a new conversation, or pass `recover=True` to have its history told.",
    ),
    (
        _words(r"must be a base64 encoded image"),
        "Pass images as file, bytes or data URI; the server fetches no web addresses.",
    ),
    (
        _words(r"invalid discriminator value. expected 'object'"),
        'Give every tool `"parameters": {"type": "object", "properties": {…}}`.',
    ),
]


def hint_for_message(message: str) -> str | None:
    """Return what to do about the words of a refusal; None where the class of the error says as much."""
    return next((hint for phrase, hint in HINTS if phrase.search(message)), None)


# A web page instead of JSON comes from what stands between: nginx, Cloudflare, a load balancer.
TIMED_OUT = (
    "A proxy in between gave up waiting for the answer: stream it, so that it begins early, or raise the proxy's limit "
    "(nginx: proxy_read_timeout; Cloudflare's is about 100 s)."
)
NOTHING_BEHIND = (
    "The proxy in between reached no server behind it: check that one runs there and what the proxy leads to."
)
PAGES: dict[int, str] = {
    401: "The proxy in between asks for a login of its own: ask its owner for a way in without a browser.",
    403: "The proxy in between refused the request: check its rules of access, or go around it.",
    404: "Check `base_url` and the proxy in between: this path leads to a web site, not to an API.",
    408: TIMED_OUT,
    413: "The proxy in between takes no request this large: raise its limit (nginx: client_max_body_size), or send less.",
    429: "The proxy in between limits how many requests are sent: send fewer at once, or raise its limit.",
    502: NOTHING_BEHIND,
    503: NOTHING_BEHIND,
    504: TIMED_OUT,
    520: NOTHING_BEHIND,
    521: NOTHING_BEHIND,
    522: NOTHING_BEHIND,
    523: NOTHING_BEHIND,
    524: TIMED_OUT,
}
GATEWAYS = PAGES.keys() - {401, 403, 404, 429, 503}  # which servers behind a proxy do not answer themselves
OTHER_PAGE = "A web page came, no API's answer: check `base_url`, and the proxy in between."


def proxy_hint(status: int, *, is_page: bool, is_bare: bool) -> str | None:
    """Return what to do about an error that a proxy made: a web page, or a status of its own with no JSON at all."""
    if is_page:
        return PAGES.get(status, OTHER_PAGE)
    return PAGES[status] if is_bare and status in GATEWAYS else None


# What the hint of a class says where another product than LM Studio answers.
ELSEWHERE: dict[type[LMStudioError], str] = {
    ServerUnreachableError: "Start {product}, or set LMDECK_HOST and LMDECK_PORT to where it listens.",
    TransportError: "Check that {product} is running and reachable.",
    AuthenticationError: "Set LM_API_TOKEN, or pass `api_token=`, to a key that {product} accepts.",
    EndpointNotFoundError: "Here answers {product}, which does not have this endpoint: use lm.chat(), or update it.",
    ModelNotFoundError: "Choose one of `lmdeck models`.",
    NoModelLoadedError: "Have {product} load one, or name one that it has: `lmdeck models` lists them.",
    ModelLoadError: "Free memory, choose a smaller model or a smaller context length.",
    TemplateError: "Update the model, or start {product} with another chat template.",
    MalformedStreamError: "Check that `base_url` leads to {product} and not to a proxy's login page.",
}


def adapt_hint(error: LMStudioError, product: str | None) -> None:
    """Let the hint of an error speak of the product that answers, where that is known and not LM Studio."""
    if product is None or product == LM_STUDIO or not re.search(r"\bLM Studio|`lms\b", error.hint):
        return
    name = "the server" if product.startswith("an ") else product
    of_class = ELSEWHERE.get(type(error))
    if of_class and (error.hint == error.default_hint or "`lms" in error.hint):
        error.hint = of_class.format(product=name)
    else:
        error.hint = error.hint.replace("LM Studio's", f"{name}'s").replace(LM_STUDIO, name)
