"""Patterns of the error messages of LM Studio and similar servers, and the error of each.

Sources: LM Studio docs `2_rest`, and reports in lmstudio-bug-tracker; messages of other servers are marked.
"""

from __future__ import annotations

from lmdeck._responses.any_pattern import AnyPattern, about, in_order
from lmdeck._responses.error_expressions import (
    CONCURRENT,
    COULD_NOT,
    DAMAGED_FILE,
    ENGINE_FAILED,
    EXCEEDED,
    FAILED,
    FORGOTTEN,
    GRAMMAR_ERRORS,
    INVALID_SCHEMA,
    LENGTH,
    LIMITED,
    LOADS,
    MCP,
    MEDIA,
    MISSING,
    MODEL,
    NOT_USABLE,
    OUT_OF_MEMORY,
    OUTPUT_LIMIT,
    PLUGIN,
    PREDICTING,
    PROCESS,
    REFUSED,
    SCHEMA_REFUSED,
    STARTS,
    TIMED_OUT,
    UNFIT_IMAGE,
    UNPARSED_CALL,
    UNREACHABLE,
    UNREAD_MEDIA,
)
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

# The order matters: a crash caused by a full context names the context, a load that runs out of memory names the model.
PHRASES: list[tuple[AnyPattern, type[APIError]]] = [
    (AnyPattern(r"unexpected endpoint or method", r"^invalid url \(", r"^unsupported method \("), EndpointNotFoundError),
    (
        AnyPattern(
            rf"\bnot support(ed)? {MEDIA}",
            rf"\b{MEDIA}\b[^.\n]{{0,30}} (is|are|was|were) (not|only)\b",
            r"missing data required for image input",  # Ollama
            UNREAD_MEDIA,
            r"\bunsupported (image|audio|video)\b|\bnumber of images\b",
            r"not (compiled|built|started) (for|with) (multimodal|vision)",  # llama.cpp
            r"number of bitmaps does not match",  # llama.cpp: a prompt that contains its marker of images
            r"at most 0 (image|audio|video)",  # vLLM
            *UNFIT_IMAGE,
            r"image features and image tokens do not match",  # the MLX engine (mlx-engine #325)
            r"is not a (multimodal|vision)[ -]model",
        ),
        InvalidRequestError,
    ),
    (AnyPattern(r"prediction history node\b", r"not found in shard"), ServerError),
    (
        AnyPattern(r"permission denied to use", r"\b(lacks?|missing|insufficient) (the |required )?(scope|permission)s?\b"),
        AuthenticationError,
    ),
    (PLUGIN, InvalidRequestError),
    (MCP, InvalidRequestError),
    (
        AnyPattern(
            r"trying to keep the first \d+ tokens",
            r"number of tokens to keep from the initial prompt is greater",
            r"cannot truncate prompt with n_keep",
            in_order("prompt|input|request|tokens?|messages", r"(does|do|did|will) not fit\b"),
            r"context (size|length|window) (has been |was |is )?(exceeded|too small|overflow)",
            r"context (size|length|window|limit)\b[^.\n]{0,40}\breached\b",
            r"\breached (the )?(maximum )?context (size|length|window|limit)\b",
            in_order(r"exceed|larger than|longer than|beyond|too (long|large|big) (for|to)", r"context\b", within=60),
            in_order("greater than", "context (size|length|window)", within=60),
            r"context[ _-]?(length|window|size)[ _-]?exceeded",
            r"max(imum)? context length(?! must| should)",
            r"(model|context) length is only \d",  # vLLM
            r"context overflow(?!\W*policy)",
            r"overflows? the (model'?s )?context",
            r"exceeds? context limit",  # Anthropic
            r"(prompt|input)( text| \([^)\n]{0,40}\))? (is )?too (long|big)\b",  # Anthropic, vLLM, llama-box
            r"longer than the maximum model length",
            r"(input|prompt|token)\b[^.\n]{0,40} exceeds? the maximum (allowed length|number of tokens)",  # SGLang, Gemini
            r"prompt (sequence )?length (\d+ )?is greater than",  # mistral.rs, exllamav2
            r"tokens`? \+ `?max_new_tokens`? must be <=",  # TGI
            r"tokens exceed\b[^.\n]{0,40} limit of \d",  # Azure
            r"\btoken limit exceeded",
            r"超[过出].{0,20}上下文|上下文.{0,20}超[过出]",  # "exceeds the context"
            r"(exceeds?|greater than|longer than) [^.\n]{0,40}\bmax(imum)?[ _](input|model|seq\w*|prompt|sequence)[ _]len",
            r"\bcontext shift (is disabled|cannot be used)",  # llama.cpp
            r"\bcontext (window )?is full\b",
            r"\bn_ctx\b[^.\n]{0,20} too small",
            r"\binput( \([^)\n]{0,40}\))? is too large to process",  # llama.cpp: longer than a batch of embeddings
        ),
        ContextLengthError,
    ),
    (
        AnyPattern(
            r"no models? (is |are |was )?(currently )?(loaded|selected)",
            r"\b(jit|just-in-time)\b.{0,40}\b(disabled|off|not enabled)\b",
            r"\bmodel\b(?! (?:runner|process|server))[^.\n]{0,60}\bnot (been |currently )?(loaded|running)\b",
        ),
        NoModelLoadedError,
    ),
    (AnyPattern(*GRAMMAR_ERRORS, *SCHEMA_REFUSED, INVALID_SCHEMA, r"\b(requires?|without) (the )?--\w"), InvalidRequestError),
    (
        AnyPattern(
            r"model is not embedding",
            r"does not support embeddings?",
            r"is not an? (embedding|chat|completion|instruct|language|reranking)[ -]model",
        ),
        InvalidRequestError,
    ),
    (
        AnyPattern(
            rf"\b({COULD_NOT}) to parse (the |your )?(messages|tools|tool call arguments|request|body)\b",
            r"(?<!returned )(?<!produced )(?<!generated )\binvalid (json|tool[ _]call arguments)\b|\bnot valid json\b",
            rf"{PREDICTING}\b.{{0,300}}?\bnot (currently )?supported\b",
            r"^\[json\.exception\.type_error",  # llama.cpp
            r"\bassistant response prefill is\b|\bassistant messages at the end of the list",  # llama.cpp, with status 500
            r"\bexpected '\w+' to be an?\b",
            rf"\b[a-z\d]+(_[a-z\d]+)+\W? (must|has to|should) be {LIMITED}",
        ),
        InvalidRequestError,
    ),
    (
        AnyPattern(
            rf"\b(during|while|in|error) (the )?(generat|predict|decod|infer|iterat|sampl)\w+.{{0,200}}?(?:{OUT_OF_MEMORY})",
        ),
        ModelCrashedError,
    ),
    (
        AnyPattern(
            in_order(rf"({COULD_NOT}|not enough memory)( to)? load(ing)?", MODEL),
            in_order(rf"({COULD_NOT}) to (start|initiali[sz]e|create|fit)", rf"{MODEL}|context|process"),
            in_order(MODEL, r"failed to (load|start|initiali[sz]e)", within=200),
            r"\bloading (the )?model\b.{0,40}\b(failed|aborted|cancell?ed)|\berror loading\b|\bload[- ]error\b",
            r"\bmodel load(ing)? (was |has been )?(aborted|cancell?ed)",
            in_order("no|missing", "runtime|engine|backend", "found"),
            in_order("runtime|engine|backend", NOT_USABLE, within=20),
            r"\bhealth check timed out",  # llama-swap
            in_order(TIMED_OUT, rf"{MODEL}|server", STARTS, within=80),
            in_order(rf"{MODEL}|server", STARTS, TIMED_OUT),
            in_order(TIMED_OUT, r"(?:while |when )?load(?:ing)?"),
            rf"\bwaiting for (the )?(\w+ )?({MODEL}|server) to start",
            r"\bmodel type \S+ (is )?not supported",
            r"\bmodel( architecture)? (is )?not supported( by (your|this) version)?\W*($|\n|by )",
            r"(failed|unable) to allocate\b[^\n]{0,60}\bbuffers?\b",  # llama.cpp
            r"requires more system memory",  # Ollama
            OUT_OF_MEMORY,
            r"snapshot of system resources",
            r"before becoming healthy",
            r"operation canceled",
            *DAMAGED_FILE,
            r"\b(unknown|unsupported) (model |pre-)?(architecture|tokenizer)\b",
            r"\binvalid vector subscript\b",  # C++ on Windows: the engine is older than the model
        ),
        ModelLoadError,
    ),
    (
        AnyPattern(
            r"(?<!')\bcrashed\b(?!')",
            in_order("model", "(is|was|has been|got) (unloaded|evicted|ejected)", within=120),
            r"model (un|re)loaded",
            r"model is shut ?down",
            r"channel error",
            r"lost connection to (the )?(model|engine|worker)",
            r"unexpectedly (exited|stopped|terminated|died)",
            r"(exited|stopped|terminated|died) unexpectedly",
            r"engine(core|deaderror)\b",  # vLLM
            r"\bsegmentation fault\b",
            r"\bcore dumped\b|\bexit code:? \(?-?\d",
            rf"\b{PROCESS} (is |was |has |has been )?(killed|terminated|died|exited|no longer running|stopped (by|with))\b",
        ),
        ModelCrashedError,
    ),
    (AnyPattern(r"\bjinja", r"^template: ", r"\b(rendering|render the) prompt\b", r"(prompt|chat) template"), TemplateError),
    (
        AnyPattern(
            *ENGINE_FAILED,
            r"output that does not match the expected",
            r"\bfind (a |free )?(memory|kv)( cache)? (slot|space)\b",  # llama.cpp
            r"unexpected empty grammar stack",  # llama.cpp: the model wrote what the grammar excludes
            r"\[broadcast_shapes\]",
            r"(cannot|could not) be broadcast",
            *UNPARSED_CALL,
            r"\b_0x[0-9a-f]{4,}\b",  # an obfuscated name in LM Studio's code
            r"cannot read propert(y|ies) of (undefined|null)",
            UNREACHABLE,
            r"\btimed out\b",
        ),
        ServerError,
    ),
    (
        AnyPattern(
            r"unable to generate parser for this template",
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
        AnyPattern(
            r"invalid discriminator value",
            r"\b(does not|doesn't|do not) support\b",
            r"\bmultiple models are loaded",
        ),
        InvalidRequestError,
    ),
    (AnyPattern(*FORGOTTEN, r"download job\b", r"\bjob\b.{0,60} not found"), InvalidRequestError),
    (AnyPattern(r"\bmodel( instance)?( \S+)? not found", r"model_not_found", r"\bno such model",
            r"\bno (model|instance)s?( was)? found(?! for endpoint)", r"\binvalid model (name|id|identifier)\b",
            r"^model: \S+$",  # Anthropic
            r"\bunknown model\b(?! (architecture|type))", r"\bmodel\b.{0,200}\bis not (downloaded|installed|available)\b",
            r"no router for requested model", r"could not find real modelid",  # llama-swap
            r"\bmodel\b.{0,200}\b(still|being|currently) download(ed|ing)",
            r"\brepository not found\b",  # mlx_lm.server, which loads from Hugging Face
            r"(cannot|can't|could not|couldn't|unable to) find (the |an? |any )?model\b", r"\bmodel does(n't| not) exist",
            r"model .{0,200} (does not exist|was not found)"), ModelNotFoundError),
]  # fmt: skip
BROAD: list[tuple[AnyPattern, type[APIError]]] = [
    (
        AnyPattern(
            r"\brate[ -]?limit",
            r"\bqueue (is )?full\b",
            CONCURRENT,
            r"\btoo many (\w+ )?requests",
            r"\b(tokens?|requests?) per (min|minute|hour|day)\b",
        ),
        RateLimitError,
    ),
    (AnyPattern(r"\bis (?:currently |too )?(?:busy|overloaded)\b"), ServerError),
    (
        AnyPattern(
            about(
                r"api[ _-]?(?:key|token)s?|access token|bearer|credentials|authorization|authenticat\w+",
                r"invalid|incorrect|wrong|malformed|missing|expired|revoked|required|no |failed"
                r"|not (?:valid|provided|accepted|set)",
            )
        ),
        AuthenticationError,
    ),
    (
        AnyPattern(about(OUTPUT_LIMIT, rf"{EXCEEDED}|must|at least|invalid|between|cannot|positive")),
        InvalidRequestError,
    ),
    (
        AnyPattern(
            about(LENGTH, EXCEEDED),
            r"\b(reduce|shorten) (the |your )?((length|size) of )?(the |your )?(messages|prompts?|inputs?|conversation)\b",
        ),
        ContextLengthError,
    ),
    (AnyPattern(*REFUSED), InvalidRequestError),
    (
        AnyPattern(
            r"\bno (\w+ ){0,2}(deployment|router|server|peer|channel|provider|worker|backend|instance)s?\b.{0,60}\bmodel",
            r"\bno model (id|name|with|named|matching|matches|for|could)\b",
            r"\bonly .{1,60} allowed\b.{0,40}\bmodel\b",  # FastChat
            about(r"(?:models?|deployments?|checkpoints?|adapters?|loras?)\b", MISSING, within=80),
        ),
        ModelNotFoundError,
    ),
    (AnyPattern(about(LOADS, FAILED)), ModelLoadError),
    (
        AnyPattern(
            about(
                rf"{PROCESS}\b",
                r"crash\w*|died|dead\b|exited|terminated|killed|stopped|shut(?:ting)? ?down|not (?:running|alive|responding)"
                r"|unresponsive|hung\b|disconnected|lost\b",
            )
        ),
        ModelCrashedError,
    ),
    (
        AnyPattern(r"\btemplate[ _]?error", about(r"templates?\b", rf"{FAILED}|invalid|undefined|missing")),
        TemplateError,
    ),
    (
        AnyPattern(
            r"\b(no|unknown|invalid|unsupported) (such )?(api )?(route|endpoint|path|url)\b",
            r"\bno route matched",
            in_order("endpoint|route", "is not (supported|implemented|available)"),
        ),
        EndpointNotFoundError,
    ),
]
# LM Studio's messages about its engine: the engine failed, unless the message names another status.
ENGINE = AnyPattern(
    r"\bengine protocol\b",
    r"\bllama-server\b",
    r"internal (server )?error",
    r"\b(cuda|metal|vulkan|rocm|hip|sycl|opencl|ggml|mlx|gpu)\w*\b.{0,80}\b(error|failed|failure|lost|assert|timeout)",
    r"\b(ggml|llama)_\w+|\bvk::|\bGGML_ASSERT\b",
    r"\btraceback \(most recent",
    r"\bassertion\b.{0,80}\bfailed|\bassertion failed\b",
    r"(?<!json )\b[A-Z]?[a-z]*exception\b(?! -)",  # "OpenAIException - …" names LiteLLM's provider
    r"\b(?!json)[a-z]{3,40}(error|exception)(?=[:(])",
    r"\b(Type|Value|Index|Key|Attribute|Runtime|Reference|Range|Assertion|Memory|OS|NotImplemented)Error\b",
    r"\bis not (iterable|a function|defined)\b",
    r"\bobject (is not|has no|does not|cannot)\b|\bindex out of (range|bounds)\b|\bunsupported operand\b",
    r"\[(metal|cuda|\w+::\w+)\]",
    r"\bcompute (function|graph|kernel|pipeline)\b",
)
# The validation of the request failed, in responses with a success status.
VALIDATION = AnyPattern(
    r"^invalid\b",
    r"\bis required\b",
    r"^required\b",
    r"\bmust be (a|an|one of|of type)\b",
    r"^expected\b",
    r"^unrecognized key",
    r"\bnot supported\b|\bunsupported\b|\bonly\b.{0,60}\b(is|are) supported\b",
)
# A message about a path, though its status is 404.
PATH = AnyPattern(r"\b(endpoint|route|path|url|method|resource)\b")
