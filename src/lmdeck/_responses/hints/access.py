"""Hints about keys, permissions, budgets, accounts and filters of content."""

from __future__ import annotations

from lmdeck._responses.any_pattern import AnyPattern, about

HOST = (
    AnyPattern(
        r"\bhost header\b",
        r"\b(invalid|disallowed|untrusted|blocked|unknown) (host|origin)\b",
        r"\b(host|origin)\b.{0,60}\bnot allowed",
    ),
    "The server refuses the host of `base_url`: use a name that it accepts, or add this one to its trusted hosts.",
)
PERMISSION = (
    AnyPattern(r"\b(token|key)\b.{0,80}\b(permission|scope|not allowed)", r"\bpermission\b.{0,80}\b(token|key)\b"),
    "Give the API token this permission in the server's settings, or use a token that has it.",
)
BUDGET = (
    AnyPattern(about(r"\w*budget", r"exceeded\w*|over\b|max\b|used up", within=60)),
    "Increase the budget of the key in the server's key management, or use another key.",
)
ACCOUNT = (
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
)
# Why a key or an address is not accepted.
REFUSED = (
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
)
CONTENT_FILTER = (
    AnyPattern(
        about(
            r"guardrails?|content|polic(?:y|ies)|moderation|safety",
            r"block\w*|violat\w*|flagged|filtered|reject\w*",
        )
    ),
    "A filter of the server blocked the content: change the text, or the rules of the filter.",
)
