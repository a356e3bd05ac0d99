"""The security headers of the chat page."""

from __future__ import annotations

from collections.abc import Mapping

PAGE_HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""The headers of every response of the page's routes, in all frameworks."""


def content_security_policy(static_origin: str = "", *, framed: bool = False) -> str:
    """Return the policy of the chat page: own scripts and styles only, and no framing.

    Its origin and `static_origin` are allowed sources.

    With `framed`, pages of the same origin may frame it.
    """
    own = f"'self' {static_origin}".strip()
    return (
        f"default-src 'none'; script-src {own}; style-src {own}; connect-src 'self'; img-src 'self' data:; "
        f"base-uri 'none'; form-action 'self'; frame-ancestors '{'self' if framed else 'none'}'"
    )
