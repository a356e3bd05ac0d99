"""Hints for the errors of a proxy.

nginx, Cloudflare and load balancers answer with a web page instead of JSON.
"""

from __future__ import annotations

from lmdeck.errors import LMStudioError, ServerError

NO_UPSTREAM = "The proxy or server that answered could not reach its server or engine: check that this one runs."
TIMED_OUT = (
    "A proxy timed out waiting for the answer: stream it, so that it starts early, or increase the proxy's timeout "
    "(nginx: proxy_read_timeout; Cloudflare's is about 100 s)."
)
PAGES: dict[int, str] = {
    401: "The proxy requires its own login: ask its administrator for access without a browser.",
    403: "The proxy refused the request: check its access rules, or bypass it.",
    404: "Check `base_url` and the proxy: this path leads to a web site, not to an API.",
    407: "The proxy requires a login of its own: set `proxy` with user name and password, or bypass it.",
    408: TIMED_OUT,
    413: "The request is too large for the proxy: increase its limit (nginx: client_max_body_size), or send less.",
    429: "The proxy limits the rate of requests: send fewer at once, or increase its limit.",
    502: NO_UPSTREAM,
    503: NO_UPSTREAM,
    504: TIMED_OUT,
    524: TIMED_OUT,
    598: TIMED_OUT,
    599: TIMED_OUT,
}
FIRST_OWN_STATUS = 520  # Cloudflare, load balancers and tunnels use those from here on, servers none
PROXY_STATUSES = {407, 413}  # with any body
GATEWAY_STATUSES = PAGES.keys() - {401, 403, 404, 429, 503}  # statuses that the servers themselves do not send
OTHER_PAGE = "The response is a web page, not an API answer: check `base_url` and the proxy."


def proxy_hint(status: int, *, is_page: bool, is_bare: bool) -> str | None:
    """Return the hint for a proxy's error, or None.

    Such an error is a web page, or a gateway status without JSON.
    """
    if status >= FIRST_OWN_STATUS and (is_page or is_bare):
        return PAGES.get(status, NO_UPSTREAM)
    if is_page or status in PROXY_STATUSES:
        return PAGES.get(status, OTHER_PAGE)
    return PAGES[status] if is_bare and status in GATEWAY_STATUSES else None


def gateway_hint(status: int, kind: type[LMStudioError]) -> str | None:
    """Return the hint for a gateway's status whose message says nothing, or None."""
    return PAGES[status] if kind is ServerError and status in {502, 504} else None
