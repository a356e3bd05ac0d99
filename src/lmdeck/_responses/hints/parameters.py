"""Hints about parameters of a request, and options of the server that they need."""

from __future__ import annotations

from lmdeck._responses.any_pattern import AnyPattern
from lmdeck._responses.error_expressions import OUTPUT_LIMIT
from lmdeck.errors import ContextLengthError

WITHOUT_OPTION = (
    AnyPattern(r"\b(start|run) (it|the server) without\b"),
    "Start the server without the option that the message names, or use another server.",
)
WITH_OPTION = (
    AnyPattern(
        r"(?<![\w-])--[a-z]+(-[a-z]+)+",
        r"\brequires? (the )?--\w",
        r"\b(start|launch|run) (it|the server|server) with\b",
        r"\bserver\b.{0,30}\b(started|launched|run) with(out)?\b",
    ),
    "Start the server with the options that the message names, or leave out the tools and parameters that need them.",
)
NOT_OF_PROVIDER = (
    AnyPattern(
        r"\bdrop_params\b",
        r"\bunsupported ?param",
        r"not support (the )?(parameter|param|argument|field|option)s?\b",
    ),
    "Leave out the parameters that the message names: the model or the server behind the proxy does not have them.",
)
REASONING = (
    AnyPattern(
        r"not (support|expose|have) (thinking|reasoning)",
        r"(think\w*|reasoning)\b[^.\n]{0,40}\b(not supported|cannot be|only supported)",
    ),
    "Omit `reasoning`, use a level that the model has, or choose a reasoning model.",
)
DRAFT_MODEL = (
    AnyPattern(r"(?<![\w.])speculative(?![\w.])", r"draft[ _]model", r"\bdraft\b.{0,60}\bmodel"),
    "Remove `draft_model` (speculative decoding), or choose a draft model of the same family and vocabulary.",
)
TOKENS_TO_KEEP = (
    AnyPattern(r"cannot truncate prompt with n_keep"),
    str(ContextLengthError.default_hint),
)
CONFLICT = (
    AnyPattern(
        r"\bnot supported with\b",
        r"\bcannot (use|specify|set|combine|pass) [^.\n]{1,60}\b(with|and)\b",
        r"\b(cannot|can't|may not|must not) be (combined|used together|set together|both)\b",
        r"\bincompatible with\b|\bmutually exclusive\b",
    ),
    "Send only one of the two options that the message names.",
)
OUTPUT_TOKENS = (
    AnyPattern(rf"\b(?:{OUTPUT_LIMIT})\b"),
    "Set `max_tokens` within the limits that the message names.",
)
UNSUPPORTED = (
    AnyPattern(r"\bnot (supported|enabled|available|implemented)\b", r"\b(does not|doesn't|do not) (support|have)\b"),
    "Leave out what the message names, or use a model or server that supports it.",
)
