"""Hints for error responses, by their message.

Sources: LM Studio docs `2_rest`, reports in lmstudio-bug-tracker as numbered below, and the error messages of llama.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmdeck._responses.any_pattern import AnyPattern, about, in_order
from lmdeck._responses.error_patterns import (
    CONCURRENT,
    DAMAGED_FILE,
    ENGINE_FAILED,
    FORGOTTEN,
    GPU_FAILED,
    GRAMMAR_ERRORS,
    LOADING,
    MEDIA,
    NOT_USABLE,
    OUT_OF_MEMORY,
    OUTPUT_LIMIT,
    PLUGIN,
    SCHEMA_REFUSED,
    TIMED_OUT,
    TYPES,
    UNFIT_IMAGE,
    UNPARSED_CALL,
    UNREACHABLE,
    UNREAD_MEDIA,
)
from lmdeck._responses.proxy_pages import NO_UPSTREAM
from lmdeck.errors import (
    AuthenticationError,
    ContextLengthError,
    InvalidRequestError,
    LMStudioError,
    ModelCrashedError,
    ModelLoadError,
    ServerError,
)

HISTORY_HINT = (
    "Check the order of the messages: a system message first, user and assistant alternating (join two in a row), and each "
    "tool message directly after the assistant message with its call."
)
DAMAGED = (
    "LM Studio's stored answers are damaged: delete `.internal/api-prediction-history/packs` in its folder, send with "
    "`store=False`, or pass `recover=True` to a conversation to send its history again (bug tracker #1522)."
)
UNEXPLAINED = "The server does not say what is wrong: look at its log, and compare the request with one that worked."
EMBEDDING_MODEL = (
    "Load a model that `lmdeck models` shows as `embedding`: one that is shown as `llm` is refused (bug tracker #1908)."
)
GPU = "The GPU or its driver failed: update the driver or the engine's runtime, or lower the model's GPU offload."
NO_VISION = "Choose a vision model, which accepts images: `lmdeck models` shows those as `vlm`; or remove the images."

# The first pattern found in "param: message" determines the hint.
HINTS: list[tuple[AnyPattern, str]] = [
    (
        AnyPattern(
            r"must be (a )?base64",
            r"\burls?\b.{0,20}\bnot (supported|allowed)\b.{0,40}",
            r"\b(provide|use|send)( it as| a)? base64",
        ),
        "Pass images as file, bytes or data URI; the server does not fetch URLs.",
    ),
    (
        AnyPattern(
            r"unsupported image", r"image (format|type).{0,60}\bnot supported", r"\b(webp|gif|heic|avif|bmp|tiff|svg)\b"
        ),
        "Send the image as PNG or JPEG.",
    ),
    (
        AnyPattern(
            r"\b(audio|video)\b.{0,40}\bnot? (supported|enabled|available)", r"\bnot support(ed)? (audio|video)\b"
        ),
        "Choose a model that accepts audio or video, or leave it out; llama.cpp needs the model's `--mmproj` file for it.",
    ),
    (
        AnyPattern(
            r"\bmmproj\b",
            rf"\b{MEDIA}\b.{{0,40}}\b(not|only) (supported|enabled|available|loaded|installed|configured)",
            rf"\bnot support(ed)? {MEDIA}",
            r"required for image input",
            rf"\bunsupported (content|multimodal)\b.{{0,20}}\b{MEDIA}\b",
            r"\bonly '?text\b.{0,40}\b(supported|accepted|allowed)",
            r"at most 0 (image|audio|video)",
            r"not a (multimodal|vision)",
            r"not compiled for multimodal",
        ),
        NO_VISION,
    ),
    (
        AnyPattern(r"vision\.imageResizeSettings"),
        "Update LM Studio: this version fails on images (bug tracker #1132).",
    ),
    (
        AnyPattern(*UNFIT_IMAGE),
        "Send a larger image, or one whose sides differ less: the model cannot divide this one into patches.",
    ),
    (
        AnyPattern(r"\bpixels?\b", r"image.{0,40}\b(too (large|big)|exceeds?)\b"),
        "Send a smaller image: LM Studio accepts up to 5120 × 5120 pixels (bug tracker #2003).",
    ),
    (
        AnyPattern(r"image features and image tokens"),
        "The model's template has no place for images: update LM Studio and its runtime, or choose another vision model.",
    ),
    (
        AnyPattern(r"at most \d+ (image|audio|video)"),
        "Send fewer images in one request, or start the server with a higher limit.",
    ),
    (
        AnyPattern(r"\b(start|run) (it|the server) without\b"),
        "Start the server without the option that the message names, or use another server.",
    ),
    (
        AnyPattern(r"--embeddings?\b", r"pooling type"),
        "Start the server with `--embeddings` and an embedding model, or use another server.",
    ),
    (
        AnyPattern(
            r"not support (chat|generate|generation|completions?|logits)\b",
            r"\bis not an? (llm|chat|generative)\b",
            r"\bembedding\b.{0,40}\b(for|as an?) (chat|completion|generation|llm)",
        ),
        "Choose a chat model: `lmdeck models` shows each model's type.",
    ),
    (
        AnyPattern(r"not (an? )?embedding", r"not support embeddings?"),
        "Choose an embedding model: `lmdeck models` shows each model's type.",
    ),
    (
        AnyPattern(r"too large to process.{0,80}batch size"),
        "Embed shorter texts, or start the server with a larger `--ubatch-size`, as large as its context.",
    ),
    (
        AnyPattern(r"\bbatch size \d+ > ", r"\bmaximum allowed batch size\b"),
        "Send fewer texts at once, with a smaller `batch_size` of `lm.embed`, or start the server with a larger batch.",
    ),
    (
        AnyPattern(r"\bunsupported param\w*:? '?tools?\b"),
        "Start llama.cpp with `--jinja`, or update it: this server does not take tools. Or leave the tools out.",
    ),
    (
        AnyPattern(r"\bcannot use tools with stream"),
        "Use `send()` instead of `stream()`, or update the server: this version does not stream answers with tools.",
    ),
    (
        AnyPattern(
            r"expected 'function' \| 'mcp'",
            r"'type' of tool must be",
            r"\btools[.\[]\d+\]?[.]type\b",
            r"unsupported tool type",
        ),
        "Use only tools of the types function and mcp: the server does not support others.",
    ),
    (
        AnyPattern(
            r"\bhost header\b",
            r"\b(invalid|disallowed|untrusted|blocked|unknown) (host|origin)\b",
            r"\b(host|origin)\b.{0,60}\bnot allowed",
        ),
        "The server refuses the host of `base_url`: use a name that it accepts, or add this one to its trusted hosts.",
    ),
    (
        AnyPattern(r"tool call ids? (should|must)", r"\btool_call_id\b.{0,40}\b(must|should|invalid)"),
        "The model's template demands ids of tool calls in the form that the message names: use such ids in the history.",
    ),
    (
        AnyPattern(r"\bserver_url\b"),
        'Add a `server_url` to the MCP tool; a server of mcp.json is used by `lm.conversation(integrations=["mcp/name"])`.',
    ),
    (
        AnyPattern(r"permission denied to use", r"local (mcp|integrations?)\b.{0,80}(permission|not allowed|disabled)"),
        "Allow local MCP servers in the server's settings, and give the API token permission to use them.",
    ),
    (
        AnyPattern(r"\bplugin\b.{0,60}\bnot allowed\b"),
        "Allow the plugin for this API token in the server's settings, or leave it out of `integrations`.",
    ),
    (PLUGIN, TYPES["plugin_connection_error"][1]),
    (
        AnyPattern(r"\b(token|key)\b.{0,80}\b(permission|scope|not allowed)", r"\bpermission\b.{0,80}\b(token|key)\b"),
        "Give the API token this permission in the server's settings, or use a token that has it.",
    ),
    (
        AnyPattern(r"\bmultiple models are loaded"),
        "Name the model in the request, with `model=` of the client or lm.chat(): several are loaded.",
    ),
    (
        AnyPattern(r"\bLM Link\b", r"\bdevice\b.{0,60}\b(not connected|offline|unreachable)"),
        "Connect the device to LM Link, or choose a model on this device: `lmdeck models` lists them.",
    ),
    (
        AnyPattern(about(r"\w*budget", r"exceeded\w*|over\b|max\b|used up", within=60)),
        "Increase the budget of the key in the server's key management, or use another key.",
    ),
    (
        AnyPattern(
            r"(?<![\w-])--[a-z]+(-[a-z]+)+",
            r"\brequires? (the )?--\w",
            r"\b(start|launch|run) (it|the server|server) with\b",
            r"\bserver\b.{0,30}\b(started|launched|run) with(out)?\b",
        ),
        "Start the server with the options that the message names, or leave out the tools and parameters that need them.",
    ),
    (
        AnyPattern(UNREAD_MEDIA, r"cannot identify image"),
        "Check that the file is a complete image or audio file, for example PNG or JPEG; the server itself must reach a URL.",
    ),
    (
        AnyPattern(r"\bENOSPC\b", r"no space left", r"(disk|drive) (is )?full", r"not enough (disk )?space"),
        "The server's disk is full: delete models that are not needed, or move the models folder to another disk.",
    ),
    (
        AnyPattern(r"\bENOENT\b", r"no such file"),
        "A file of the server is missing: download the model again, or restart the server so that it lists its models anew.",
    ),
    (
        AnyPattern(r"\b(EACCES|EPERM)\b"),
        "The server may not open a file of its own: correct the owner or the access rights of the file that the message names.",
    ),
    (
        AnyPattern(
            r"\bsubscription\b", r"\b(billing|insufficient_quota|current quota|credits?)\b", r"\bpayment required\b"
        ),
        "The account at the provider does not include this model: change its plan or credit there, or choose another model.",
    ),
    (
        AnyPattern(r"\bsign(ed)?[ _-]?in\b"),
        "Sign in to the provider on the server's machine, or choose a model that runs locally.",
    ),
    (
        AnyPattern(
            r"\bdrop_params\b",
            r"\bunsupported ?param",
            r"not support (the )?(parameter|param|argument|field|option)s?\b",
        ),
        "Leave out the parameters that the message names: the model or the server behind the proxy does not have them.",
    ),
    (
        AnyPattern(r"\b(ENOTFOUND|EAI_AGAIN|ENETUNREACH)\b"),
        "The server cannot reach the internet: check its network and proxy settings.",
    ),
    (
        AnyPattern(r"\bprovider not provided\b"),
        "Name the model as the proxy lists it (`lmdeck models`): LiteLLM needs a provider before other names.",
    ),
    (
        AnyPattern(
            r"\b(no longer compatible|not compatible|incompatible) with (your|this|the) version",
            r"\b(requires? (an? )?(newer|later|more recent)|incompatible) version\b",
            r"\brequires?\b[^\n]{0,40}\d[\d.]* or (newer|later|above|higher)\b",
        ),
        "Update the server, or download the model again: the two do not fit each other.",
    ),
    (
        AnyPattern(about(r"database|db|prisma|redis", r"no\b|not (?:connected|available|initiali[sz]ed)|failed|error")),
        "The server has no connection to its database: look at its configuration and its log.",
    ),
    (
        AnyPattern(r"\bhugging ?face\b", r"\bhf-proxy\b", r"\bhf\.co\b"),
        "Hugging Face, or LM Studio's proxy to it, refused: check the name, accept the license there, or try again later.",
    ),
    (
        AnyPattern(
            r"not (support|expose|have) (thinking|reasoning)",
            r"(think\w*|reasoning)\b[^.\n]{0,40}\b(not supported|cannot be|only supported)",
        ),
        "Omit `reasoning`, use a level that the model has, or choose a reasoning model.",
    ),
    (
        AnyPattern(r"(?<![\w.])speculative(?![\w.])", r"draft[ _]model", r"\bdraft\b.{0,60}\bmodel"),
        "Remove `draft_model` (speculative decoding), or choose a draft model of the same family and vocabulary.",
    ),
    (
        AnyPattern(
            r"prediction history node",
            r"not found in shard",
            about(
                r"stored (?:response|answer)s?",
                r"(?:could not|cannot|failed to|unable to) (?:be )?(?:read|parse|open|load)",
            ),
        ),
        DAMAGED,
    ),
    (
        AnyPattern(r"'type' must be a string"),
        "Write a list of types in a schema as anyOf, as the rule `schemas` does.",
    ),
    (
        AnyPattern(r"cannot truncate prompt with n_keep"),
        str(ContextLengthError.default_hint),
    ),
    (
        AnyPattern(
            r"not support (tool use|tools|function calling)",
            r"tool (use|calling) is not supported",
            r"\bno (support for tools?|tool support)\b|\buse tools with (this|the) model",
        ),
        "Use a model trained for tools, or omit the tools.",
    ),
    (
        AnyPattern(r"no user query found"),
        "Keep a user message with text in the history: the model's template requires one, even after tool results.",
    ),
    (
        AnyPattern(r"cannot pass both content and thinking"),
        "Send assistant messages with calls either with content or with reasoning, not both; or update the model's template.",
    ),
    (
        AnyPattern(r"invalid '?messages'? in payload"),
        "Every message needs a role and content, every call a function, and every tool result its tool_call_id.",
    ),
    (
        AnyPattern(
            r"\broles? must alternate",
            r"consecutive (user|assistant|system)",
            r"no previous (assistant )?message",
            r"\bsystem (message|role)\b.{0,60}\b(beginning|first|start)\b",
            r"(tool|assistant) (message|role)\b.{0,60}\b(must|should) (follow|be preceded|come)",
            r"must be a response to a preceding",
            r"\blast message must be\b",
            r"unexpected (role|`?tool_use_id`?)",
            r"got system\b",
            about(r"system (?:role|message|prompt)s?", r"not support(?:ed)?|unsupported|not allowed"),
            r"roles are supported",
            r"assistant (messages|response prefill)\b",
        ),
        HISTORY_HINT,
    ),
    (
        AnyPattern(
            r"\bnot supported with\b",
            r"\bcannot (use|specify|set|combine|pass) [^.\n]{1,60}\b(with|and)\b",
            r"\b(cannot|can't|may not|must not) be (combined|used together|set together|both)\b",
            r"\bincompatible with\b|\bmutually exclusive\b",
        ),
        "Send only one of the two options that the message names.",
    ),
    (
        AnyPattern(r"\breasoning(_content)?\b.{0,60}\b(missing|required|must be (passed|sent|provided|included))\b"),
        "Keep the reasoning of earlier answers in the history (append `reply.message`), or turn reasoning off.",
    ),
    (
        AnyPattern(r"\bencrypted[ _]content\b"),
        "Leave the reasoning items out of `input`: the server cannot read those of an earlier answer.",
    ),
    (
        AnyPattern(r"\b(model|instance|identifier)\b.{0,120}\balready (exists|loaded|in use|running|taken)\b"),
        "The model is loaded: use it (`lmdeck models` lists its instances), or unload it first.",
    ),
    (
        AnyPattern(r"tool_choice"),
        "Use none, auto or required: with_tool_choice converts a tool's name into what LM Studio accepts.",
    ),
    (AnyPattern(r"response_format"), "Use a json_schema: chat.parse(Type) creates one."),
    (AnyPattern(r"'?input'? field must be a string"), "Embed texts, not tokens: a text or a list of texts."),
    (
        AnyPattern(r"invalid type for 'input'"),
        "Send text, or a list of messages with text, to /v1/responses; send images with lm.chat() instead.",
    ),
    (
        AnyPattern(*GRAMMAR_ERRORS, *SCHEMA_REFUSED),
        "The schema of a tool or of response_format is too complex for the engine: simplify it (no pattern, no deep nesting).",
    ),
    (
        AnyPattern(
            r"not support '?`?previous_response_id",
            r"previous_response_id'?`? (is )?(not supported|unsupported|ignored)",
        ),
        "This server does not store answers: send the whole history as `input`, or use lm.chat() with its messages.",
    ),
    (
        AnyPattern(r"previous.?response", *FORGOTTEN),
        "The server no longer has that answer: start a new conversation, or pass `recover=True` to send its history again.",
    ),
    (
        AnyPattern(r"invalid discriminator value. expected 'object'"),
        'Every tool needs `"parameters": {"type": "object", "properties": {…}}`.',
    ),
]


MCP_FAILURE = (
    AnyPattern(r"\bMCP\b"),
    "Check the MCP server: that it runs, its entry in mcp.json or in the request, and that the settings allow it.",
)
SERVER_FAILURES: list[tuple[AnyPattern, str]] = [
    MCP_FAILURE,
    (
        AnyPattern(OUT_OF_MEMORY, r"\ballocat(e|ing) \d+"),
        "The engine ran out of memory: shorten the prompt, load the model with a smaller context length, or unload others.",
    ),
    (
        AnyPattern(*GPU_FAILED),
        GPU,
    ),
    (
        AnyPattern(r"unexpected empty grammar stack"),
        "The model wrote text that the grammar excludes: ask again, or simplify the schema of the tools or response_format.",
    ),
    (
        AnyPattern(*UNPARSED_CALL),
        "The server could not parse the model's call: ask again, lower the temperature, or use a model trained for tools.",
    ),
    (
        AnyPattern(*ENGINE_FAILED, r"prediction[- ]error", r"broadcast"),
        "The engine failed during the answer: ask again; if the error persists, reload the model or update its runtime.",
    ),
    (
        AnyPattern(UNREACHABLE),
        NO_UPSTREAM,
    ),
    (
        AnyPattern(r"\btimed? ?out\b|\btimeout\b"),
        "The answer took longer than the server allows: increase its timeout, ask for a shorter answer, or use a faster model.",
    ),
    (
        LOADING,
        "The model is still loading: ask again later, or increase `first_token_timeout`, which limits the wait for it.",
    ),
    (
        AnyPattern(
            r"\bno slots?\b",
            r"\b(busy|overloaded|at capacity|queue is full|queue full)\b",
            CONCURRENT,
        ),
        "The server is busy: send fewer requests at once, or increase the number that it answers in parallel.",
    ),
    (
        AnyPattern(r"\b_0x[0-9a-f]{4,}\b", r"cannot read propert(y|ies) of (undefined|null)"),
        "The server failed on the request: check that messages and tools are lists of complete entries, or update LM Studio.",
    ),
]
# The hints of an error class, where no pattern of `HINTS` occurs: what failed, or the subject of the message.
TOPICS: dict[type[LMStudioError], list[tuple[AnyPattern, str]]] = {
    AuthenticationError: [
        MCP_FAILURE,
        (
            AnyPattern(r"\bip\b.{0,60}\b(not allowed|blocked|denied|forbidden)", r"\b(country|region)\b"),
            "The server refuses this network address: add it to the server's access rules.",
        ),
        (
            AnyPattern(
                r"^(?!.*\b(?:invalid|incorrect|wrong|missing|expired|malformed|required|no)\b)"
                r".{4,}\b(?:denied|forbidden|not allowed|not permitted|not authorized|blocked|disabled|turned off)\b"
            ),
            "The key may not do this: allow it where the server manages its keys, or use another key or model.",
        ),
    ],
    ServerError: SERVER_FAILURES,
    ModelCrashedError: SERVER_FAILURES,
    ModelLoadError: [
        (
            AnyPattern(OUT_OF_MEMORY, r"\ballocate\b"),
            str(ModelLoadError.default_hint),
        ),
        (
            AnyPattern(
                r"\boperation cancell?ed\b", r"\bload(ing)?\b.{0,60}\b(cancell?ed|aborted|interrupted|superseded)"
            ),
            "Loading was cancelled, in the server's window or by another request: load the model first, then ask again.",
        ),
        (
            AnyPattern(TIMED_OUT),
            "Loading took longer than the server allows: load the model first, from a faster disk, or choose a smaller one.",
        ),
        (
            AnyPattern(*GPU_FAILED),
            GPU,
        ),
        (
            AnyPattern(r"before becoming healthy", r"snapshot of system resources"),
            "The engine could not be started: free memory, choose a smaller model or context length, or update its runtime.",
        ),
        (
            AnyPattern(
                r"unknown model architecture", r"unsupported model (type|architecture)", r"model type \S+ not supported"
            ),
            "The engine does not know this model's architecture: update its runtime, or choose another model.",
        ),
        (
            AnyPattern(*DAMAGED_FILE),
            "The file is damaged or newer than the engine: download it again, update the runtime, or choose another model.",
        ),
        (
            AnyPattern(
                in_order("no|missing", "runtime|engine|backend", "found"),
                in_order("runtime|engine|backend", NOT_USABLE, within=20),
                r"\bno module named\b|\b(ModuleNotFound|Import)Error\b|\bshared (object|library)\b|\.(dll|so|dylib)\b",
            ),
            "Install or update the runtime of the model's format in the server's settings (LM Studio: `lms runtime get`).",
        ),
        (
            AnyPattern(r"\w{4}.{12}"),
            "Look at the server's log; free memory, choose a smaller model or context length, or update the engine's runtime.",
        ),
    ],
    InvalidRequestError: [
        (
            AnyPattern(
                r"^\W*(object object|bad request|unknown error|error|invalid request|something went wrong)\W*$",
                r"\bwithout a message\W*$",
            ),
            UNEXPLAINED,
        ),
        (
            AnyPattern(
                about(
                    r"guardrails?|content|polic(?:y|ies)|moderation|safety",
                    r"block\w*|violat\w*|flagged|filtered|reject\w*",
                )
            ),
            "A filter of the server blocked the content: change the text, or the rules of the filter.",
        ),
        (
            AnyPattern(r"\bunload\b", r"\bmodels?\b.{0,40}\bpinned\b"),
            "Unload a model that is not needed, for example with `lmdeck models unload`, then ask again.",
        ),
        MCP_FAILURE,
        (
            AnyPattern(r"\b(body|payload|entity|request size)\b.{0,40}\b(too large|exceed|limit)"),
            "Send less at once: fewer or smaller images, a shorter history; or increase the server's limit.",
        ),
        (
            AnyPattern(r"\b(images?|audio|video)\b|(?<!float or )\bbase64\b"),
            "Check the images: each must be a whole file in a format that the server reads, for example PNG or JPEG.",
        ),
        (
            AnyPattern(r"\barguments\b.{0,80}\bjson\b", r"\bjson\b.{0,80}\barguments\b", r"\bcall arguments\b"),
            "Correct the call in the history whose `arguments` are not a JSON object, or leave out that turn.",
        ),
        (
            AnyPattern(r"\b(json[ _]?)?schemas?\b", r"\bgrammars?\b", r"\bresponse_format\b", r"\bstructured output"),
            "Correct or simplify the schema of response_format or of the tools; not every server takes both in one request.",
        ),
        (
            AnyPattern(r"\b(tools?|tool_calls?|functions?)\b"),
            "Correct the tool that the message names, or leave the tools out if the server or the model does not support them.",
        ),
        (
            AnyPattern(r"\b(messages?|content|roles?|assistant)\b"),
            "Correct the message that the error names: each needs a role, and content that is not empty.",
        ),
        (
            AnyPattern(rf"\b(?:{OUTPUT_LIMIT})\b"),
            "Set `max_tokens` within the limits that the message names.",
        ),
        (
            AnyPattern(r"\b(invalid|malformed|not valid) json\b", r"\bjson (parse|parser|syntax|decod)"),
            "The body did not arrive as it was sent: look at what the proxy before the server changes.",
        ),
        (
            AnyPattern(
                r"\bnot (supported|enabled|available|implemented)\b", r"\b(does not|doesn't|do not) (support|have)\b"
            ),
            "Leave out what the message names, or use a model or server that supports it.",
        ),
    ],
}


def hint_for_topic(message: str, kind: type[LMStudioError]) -> str | None:
    """Return the hint for the subject of an error's message, or None if there is none."""
    return next((hint for topic, hint in TOPICS.get(kind, ()) if topic.search(message)), None)


def hint_for_message(message: str) -> str | None:
    """Return the hint for an error message, or None if the hint of the error class fits."""
    return next((hint for phrase, hint in HINTS if phrase.search(message)), None)


def suspect_images(error: InvalidRequestError, body: Mapping[str, Any]) -> None:
    """Name the images of a request as a possible cause in the hint of an error without a reason."""
    parts = (
        part
        for message in body.get("messages") or ()
        if isinstance(message, Mapping) and isinstance(message.get("content"), list)
        for part in message["content"]
    )
    has_images = any(isinstance(part, Mapping) and part.get("type") == "image_url" for part in parts)
    if has_images and error.hint in (InvalidRequestError.default_hint, UNEXPLAINED):
        error.hint = "The images may be the cause: try a smaller image (fewer pixels), or a vision model."
