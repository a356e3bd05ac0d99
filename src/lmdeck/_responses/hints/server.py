"""Hints about the server itself: its files, network and database, its engine, and its load."""

from __future__ import annotations

from lmdeck._responses.any_pattern import AnyPattern, about
from lmdeck._responses.error_expressions import (
    CONCURRENT,
    ENGINE_FAILED,
    GPU_FAILED,
    LOADING,
    OUT_OF_MEMORY,
    UNPARSED_CALL,
    UNREACHABLE,
)
from lmdeck._responses.proxy_pages import NO_UPSTREAM

GPU = "The GPU or its driver failed: update the driver or the engine's runtime, or lower the model's GPU offload."
UNEXPLAINED = "The server does not say what is wrong: look at its log, and compare the request with one that worked."

FILES = (
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
)
NETWORK = (
    AnyPattern(r"\b(ENOTFOUND|EAI_AGAIN|ENETUNREACH)\b"),
    "The server cannot reach the internet: check its network and proxy settings.",
)
DATABASE = (
    AnyPattern(about(r"database|db|prisma|redis", r"no\b|not (?:connected|available|initiali[sz]ed)|failed|error")),
    "The server has no connection to its database: look at its configuration and its log.",
)
NO_EXPLANATION = (
    AnyPattern(
        r"^\W*(object object|bad request|unknown error|error|invalid request|something went wrong)\W*$",
        r"\bwithout a message\W*$",
    ),
    UNEXPLAINED,
)
BODY_TOO_LARGE = (
    AnyPattern(r"\b(body|payload|entity|request size)\b.{0,40}\b(too large|exceed|limit)"),
    "Send less at once: fewer or smaller images, a shorter history; or increase the server's limit.",
)
BODY_CHANGED = (
    AnyPattern(r"\b(invalid|malformed|not valid) json\b", r"\bjson (parse|parser|syntax|decod)"),
    "The body did not arrive as it was sent: look at what the proxy before the server changes.",
)
# What failed in the server or its engine.
FAILED = (
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
)
