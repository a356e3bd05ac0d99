"""Patterns of the error messages of LM Studio and similar servers, and the error of each.

Sources: LM Studio docs `2_rest`, and reports in lmstudio-bug-tracker; messages of other servers are marked.
"""

from __future__ import annotations

from lmdeck._responses.any_pattern import AnyPattern, about, in_order
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

# A parameter of a request is outside of its limits, in whichever layer that is found out.
LIMITED = (
    r"(?:less|greater|smaller|larger|between|at (?:least|most)|one of|in the range|an? |positive|non-|either|[<>]=?)"
)
FILE = r"models?|gguf|safetensors|weights|tensors?|vocab(?:ulary)?|tokenizer|hyperparameters|file"
DAMAGED = r"corrupt\w*|damaged|truncated|wrong shape|wrong number|not within the file|digest mismatch"
# A model's file cannot be read: it is damaged, incomplete, or newer than the engine.
DAMAGED_FILE = (
    in_order(FILE, rf"{DAMAGED}|incomplete", within=80),
    in_order(DAMAGED, FILE, within=20),
    r"\b(missing tensor|tensors expected but|must be downloaded again|in model file)\b",
    r"\b(missing|received) \d+ parameters\b",  # MLX
    in_order(FILE, r"unsupported (?:version|format|type|quantization)", within=80),
    r"\b(invalid|bad) (\w+ )?magic\b",
    in_order(
        "failed to (?:read|open|map|parse)",
        r"models?|gguf|safetensors|weights|tensors?|tokenizer|magic|metadata",
        within=20,
    ),
    r"\berror loading model (vocabulary|hyperparameters)",
    in_order("no|missing", r"safetensors|gguf|weights|tokenizer|config\.json", "found", within=20),
)
# The server has another one behind it, an engine or a proxied server, that it cannot reach.
UNREACHABLE = (
    r"\b(?:ECONN(?:REFUSED|RESET|ABORTED)|EHOSTUNREACH|EPIPE)\b|\bsocket hang up\b|\bproxy error\b|\bbad gateway\b"
    r"|\bconnection (?:error|refused|reset|failure|aborted)\b"
    r"|\b(?:failed|unable|could not|couldn't|cannot|can't)(?: to)?"
    r" (?:connect|reach|resolve(?! .{0,3}\$)|establish (?:a )?connection)\b"
    r"|\bconnection attempts? failed\b|\bupstream (?:connect|server|prematurely|unavailable|unreachable|failed)"
    r"|\bno (?:healthy |live |available )(?:upstream|server|backend)s?\b"
)
PREDICTING = r"error in (?:predict\w*|iterating prediction stream)"  # the MLX engine
# The engine failed during an answer.
ENGINE_FAILED = (
    PREDICTING,
    r"\breceived [\w-]+[- ]error\b",
    r"\bfetch failed\b",
    r"\b(prediction|generation|inference) (was |has been )?(cancell?ed|aborted|interrupted|stopped)\b",
    r"decode\(\) failed",
    r"\b(failed to (decode|eval\w*)|compute error)\b",  # llama.cpp
)
# The engine cannot compile the schema of a tool or of `response_format`: see `_plans.tool_schema_fallback`.
GRAMMAR_ERRORS = (
    r"failed to parse grammar",
    r"failed to initialize samplers?",
    r"failed to process regex",
    r"error parsing grammar",
    r"json schema conversion failed",
    r"repetitions? (exceeds?|or rule complexity)",
)
INVALID_SCHEMA = r"\binvalid (?:json[ _])?(?:schema|structured output|response_format)\b"
# An engine cannot use a schema or grammar of the request.
SCHEMA_REFUSED = (
    in_order(
        r"(?:fail\w*|unable|could not|cannot)(?: to)? (?:compile|convert|parse|build|process|translate|create)",
        r"(?:json[ _])?schemas?|grammars?|regex(?:es)?|response_format|structured outputs?",
        within=20,
    ),
    r"\bresolve .{0,3}\$ref\b",
    r"\b(unsupported|unimplemented) key(word)?s?\b|\bunrecogni[sz]ed schema\b",
    in_order(
        r"(?:json[ _])?schemas?|grammars?|regex(?:es)?", r"too complex|(?:is|are) (?:not supported|unsupported|invalid)"
    ),
)
# The server could not parse the call that the model wrote.
UNPARSED_CALL = (
    r"\b(failed to (parse|generate)|error parsing) (a |the )?tool call",
    r"\btool calls? (could not|cannot) be parsed",
    r"\b(returned|produced|generated|wrote) (an )?(invalid|malformed) (tool|function)[ _]call",
    r"failed to parse input at pos",  # llama.cpp
    r"peg-native",
    r"does not match the expected .{0,40}format",
)
# The server does not know the answer that a request continues.
FORGOTTEN = (
    r"\b(previous.?response\w*|stored response|resp_\w+)\b.{0,120}\b(not found|unknown|expired|deleted|(does )?not exist)",
    r"\b(find|no|unknown|invalid|expired)\b.{0,60}\b(previous.?response|stored response|resp_\w+)",
)
# A GPU, its driver, or the engine's build for it.
GPU_EVENT = r"errors?|failed|failure|lost|hang|not found|timeout|timed out|unavailable|not supported|could not"
GPU_FAILED = (
    r"device ?lost\b",
    r"\billegal (memory access|instruction)",
    in_order(r"cuda|rocm|hip|vulkan|sycl|opencl|metal|gpu|graphics", GPU_EVENT),
    r"\b(no|unsupported) (gpu|graphics card|compute capability)\b",
)
OUT_OF_MEMORY = (
    r"out ?of ?(?:\w+ ?)?memory|\b(?:free|find|reserve|allocate) enough (?:\w+ )?memory|\bbad_alloc\b|\bcudamalloc failed"
    r"|\binsufficient (?:system resources|\w*memory|vram)"
    r"|\bnot enough (?:free |available |system )*(?:gpu |video )?(?:memory|vram|ram|resources)\b"
)
# llama.cpp refuses the request itself, in older versions with status 500.
REFUSED = (
    r"\bunsupported (param\w*|content|multimodal|tool|message|role)\b",
    in_order(
        r"(?:cannot|can't) (?:use|combine|specify|have)", r"tools?|grammar|json_schema|stream\w*|assistant messages"
    ),
    r"\bbut not both\b|\bis not supported with (tools|stream)",
    r"\bonly (one|no) \w+( \w+)? is allowed\b",
    r"\b(top_)?logprobs requires\b",
    r"""^(missing|invalid) (['"]|tool|message)|^expected ['"]""",
    r"""^['"]{2}( \w+){0,2} (must|should|cannot|may not|is|are) (not )?(be|have|contain|match|required|empty)\b""",
    r"\bmust (not )?be (an? )?(non-empty )?(string|array|list|object|number|integer|boolean|empty|set|provided|given)\b",
    r"\binvalid (uri|url|base64|reasoning|encoding)\b|\bunknown reasoning\b",
    r"\bonly (no )?\w+ (is|are) (supported|allowed)\b",
    r"""\bmust contain (either )?['"]""",
    r"""\b(type|format) must be (one of|either)\b|'(type)?' (of \w+ )?must be '""",
    r"\binput content cannot be empty|\boutput of tool call should be\b",
)
MEDIA = r"(?:input_)?(?:image|vision|audio|video|multimodal)(?:_url| input| content| data)?s?"
UNREAD_MEDIA = (
    r"(?:failed|unable) to (?:get|find|load|decode|encode|process|preprocess|download|fetch) "
    r"(?:the |this |loaded )?(?:image|audio|video)"
    r"|\b(?:broken|corrupt\w*|truncated|incomplete)\b.{0,40}\b(?:image|audio|video)\b|\bcannot identify image"
)
MODEL = r"models?|(?:inference |llm |lm )?engine|runner|runtime|backend|llama-server|weights|mlx|llm"
PROCESS = (
    r"(?:engine|llama-server|model|server|runner|worker|runtime|backend|upstream|mlx)"
    r"(?:[ -](?:process|thread|command|runner))?"
)
NOT_USABLE = r"is (?:not (?:available|installed|compatible|supported)|incompatible)"
TIMED_OUT = r"time(?:d[ -]?)?[ -]?out"
STARTS = r"load\w*|start\w*|launch\w*|initiali\w*|ready|healthy|become available"
COULD_NOT = r"failed|unable|could not|couldn't|cannot|can't"
# The sides of an image are too short or too unequal for the model (mlx-engine #153).
UNFIT_IMAGE = (
    r"\bimage\b.{0,40}\b(too small|minimum)\b",
    r"\bheight:\d+ (and|or) width:\d+ must be\b",
    r"\baspect ratio must be\b",
)
PLUGIN = AnyPattern(
    r"\bplugin process\b",
    r"(load|start|connect to|find|unknown) (the )?plugin\b",
    r"\bplugin\b.{0,60}\b(not (found|installed|running|available)|failed|disabled|timed out)\b",
)
MCP = AnyPattern(r"\bmcp (error|bridge|server url)\b")

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
# What went wrong with what, in any words: where neither phrase nor code is known, before status and names decide.
LENGTH = (
    r"(?:input|prompt|sequence|context|conversation|messages?|request|model|total|token)s?'?s?"
    r"(?: (?:max\w*|text|tokens?|sequence|ids?|prompt|input|context)){0,2} (?:lengths?|window)\b"
    r"|(?:context|token|prompt|input|batch|kv) (?:size|count|limit)\b"
    r"|max(?:imum)?[ _](?:\w+[ _])?(?:length|len)\b|(?:number of )?(?:\w+ )?tokens\b(?! per)|prefill\b|\d+ pages\b"
)
EXCEEDED = (
    r"exceed\w*|(?:longer|larger|greater|more|bigger|higher)(?: \w+)? than|too (?:long|large|many|big)|beyond|reached"
    r"|over(?:flow\w*| the)|surpass\w*|(?:less|fewer|smaller) than|at most|should be|must be (?:less|<)"
    r"|(?:does|do|did|will)(?: not|n't) fit|would require|only \d+ (?:\w+ )?(?:available|left|free)"
)
OUTPUT_LIMIT = (
    r"max_(?!num_|input|total|prompt|context|batch|model|seq)\w*tokens|max_output\w*|n(?:um)?_predict|min_tokens"
    r"|(?:output|completion|generated|new) tokens"
)
LOADS = (
    rf"(?:load|start|initiali[sz]|launch|spawn|creat)\w* (?:the |an? |of )?(?:\w+ ){{0,2}}?(?:{MODEL}|process|server)"
    rf"|(?:{MODEL}|process|server)s? (?:\w+ )?(?:load|start|launch|initiali)\w*"
)
FAILED = rf"fail\w*|errors?\b|exception|{COULD_NOT}|timed? ?out|exited|abort\w*|cancell?ed"
MISSING = (
    r"not (?:found|exist\w*|available|recogni[sz]ed|known|registered|served|configured|deployed|installed|in the list)"
    r"|(?:doesn't|isn't|don't|aren't) (?:exist|available|found|known)"
    r"|could(?: not|n't) be (?:found|identified|resolved|located)|no longer (?:available|exists)"
)
CONCURRENT = r"\b(?:max|maximum|too many|limit of)\b[^.\n]{0,30}\b(?:concurrent|parallel|simultaneous|pending|queued)\b"
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
# The server is not ready yet; only with status 503, or llama.cpp's type for it.
LOADING = AnyPattern(
    r"\bloading (the )?model\b",
    rf"\b({MODEL})\b.{{0,200}}\b(is|are) (currently |still )*(being loaded|loading|starting|initiali[sz]ing|warming)\b",
    rf"\b({MODEL}|process|server)\b.{{0,80}}\bnot ready yet\b",
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
