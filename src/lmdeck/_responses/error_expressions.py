"""Expressions that the patterns of errors and those of hints share.

Sources: as in `error_patterns`.
"""

from __future__ import annotations

from lmdeck._responses.any_pattern import AnyPattern, in_order

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
# The server is not ready yet; only with status 503, or llama.cpp's type for it.
LOADING = AnyPattern(
    r"\bloading (the )?model\b",
    rf"\b({MODEL})\b.{{0,200}}\b(is|are) (currently |still )*(being loaded|loading|starting|initiali[sz]ing|warming)\b",
    rf"\b({MODEL}|process|server)\b.{{0,80}}\bnot ready yet\b",
)
PLUGIN = AnyPattern(
    r"\bplugin process\b",
    r"(load|start|connect to|find|unknown) (the )?plugin\b",
    r"\bplugin\b.{0,60}\b(not (found|installed|running|available)|failed|disabled|timed out)\b",
)
MCP = AnyPattern(r"\bmcp (error|bridge|server url)\b")
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
