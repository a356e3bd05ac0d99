"""Access control of the pages: login and rate limit. CSRF protection is Django's own."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.conf import settings
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured, RequestDataTooBig
from django.db import OperationalError
from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.views import View

from lmdeck._incoming.trust import RefusedRequest
from lmdeck.contrib.django.conf import configuration
from lmdeck.web.error_reports import report
from lmdeck.web.page_headers import PAGE_HEADERS
from lmdeck.web.requests import MAX_BODY_BYTES
from lmdeck.web.store_errors import ConversationsError

V = TypeVar("V", bound=Callable[..., Any])


def body_of(request: HttpRequest) -> bytes | None:
    """Return the body of a request; None if it exceeds `MAX_BODY_BYTES` or Django's limit."""
    try:
        length = int(request.META.get("CONTENT_LENGTH") or 0)
    except ValueError:
        length = 0
    if length > MAX_BODY_BYTES:
        return None
    try:
        body = request.body
    except RequestDataTooBig:
        return None
    return body if len(body) <= MAX_BODY_BYTES else None


def error_response(status: int, message: str, hint: str, **headers: str) -> JsonResponse:
    """Return an error response for the page's script."""
    return JsonResponse({"error": {"message": message, "hint": hint}}, status=status, headers=headers)


def refusal_response(refusal: RefusedRequest) -> JsonResponse:
    """Return the response of a refused request."""
    return error_response(refusal.status, refusal.message, refusal.hint)


class GuardedView(View):
    """A view for logged-in users.

    It is open to all only if `LMDECK["LOGIN_REQUIRED"]` or `as_view(login_required=…)` is False. Views with `is_counted`
    are subject to the rate limit. Views with `is_page` redirect to the login page; the others answer with status 401.
    """

    login_required: bool | None = None
    is_counted = False
    is_page = False

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:  # Django's form
        """Handle or refuse the request, and add the page's headers to the response."""
        try:
            response = self._answer(request, *args, **kwargs)
        except OperationalError as error:
            response = _database_failure(error)
        for name, value in self.get_headers().items():
            response.headers.setdefault(name, value)
        return response

    def get_headers(self) -> dict[str, str]:
        """Return the default headers of every response, with the project's `X_FRAME_OPTIONS`."""
        return {**PAGE_HEADERS, "X-Frame-Options": settings.X_FRAME_OPTIONS}

    def _answer(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:  # as above
        if not self.is_open() and not is_known(request):
            if not hasattr(request, "user"):
                raise ImproperlyConfigured(
                    "lmdeck's pages require a login: add Django's AuthenticationMiddleware, "
                    'or open them with LMDECK = {"LOGIN_REQUIRED": False}.'
                )
            if self.is_page:
                from django.contrib.auth.views import redirect_to_login  # imported late: needs auth's models

                return redirect_to_login(request.get_full_path())
            return error_response(401, "You are not logged in.", "Log in and ask again.")
        refusal = _rate_limit_refusal(request) if self.is_counted else None
        return refusal or super().dispatch(request, *args, **kwargs)

    def is_open(self) -> bool:
        """Whether no login is required."""
        required = configuration().login_required if self.login_required is None else self.login_required
        return not required


def _database_failure(error: OperationalError) -> JsonResponse:
    """Return the response for a database that is locked, full or unreachable."""
    failure = ConversationsError(f"The database is not available: {error}.", hint="Check the database, and try again.")
    shown = report(failure, "Conversations are not available right now.", with_details=settings.DEBUG)
    return error_response(503, shown.message, shown.hint)


def rate_limited(view: V) -> V:
    """Apply the rate limit of `LMDECK` to a sync or async view.

    Put Django's `login_required` above this decorator.
    """
    if iscoroutinefunction(view):

        @wraps(view)
        async def limited_async(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            refusal = await sync_to_async(_rate_limit_refusal)(request)
            return refusal or cast("HttpResponseBase", await view(request, *args, **kwargs))

        return cast("V", limited_async)

    @wraps(view)
    def limited(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        return _rate_limit_refusal(request) or cast("HttpResponseBase", view(request, *args, **kwargs))

    return cast("V", limited)


def _rate_limit_refusal(request: HttpRequest) -> JsonResponse | None:
    """Count the request; return a refusal if it exceeds the rate limit."""
    wait = seconds_to_wait(request)
    if not wait:
        return None
    hint = f"Wait {wait} seconds and ask again."
    return error_response(429, "You have sent too many questions.", hint, **{"Retry-After": str(wait)})


def is_known(request: HttpRequest) -> bool:
    """Whether the request is from a logged-in user."""
    user = getattr(request, "user", None)
    return user is not None and user.is_authenticated


def seconds_to_wait(request: HttpRequest, now: float | None = None) -> int:
    """Count a request of its user in a window of fixed length.

    Return the seconds to wait if the limit is exceeded, else 0.

    A user who is not logged in is identified by `REMOTE_ADDR`; behind a proxy, the proxy or a middleware must set it.
    """
    configured = configuration()
    limit = configured.rate_limit
    if limit is None:
        return 0
    moment = time.time() if now is None else now
    window = int(moment // limit.seconds)
    key = f"lmdeck:rate:{_rate_limit_key(request)}:{window}"
    cache = caches[configured.cache]
    cache.add(key, 0, limit.seconds + 1)
    try:
        count = cache.incr(key)
    except ValueError:  # the cache has evicted the key meanwhile
        cache.set(key, count := 1, limit.seconds + 1)
    return 0 if count <= limit.requests else max(1, int((window + 1) * limit.seconds - moment) + 1)


def _rate_limit_key(request: HttpRequest) -> str:
    user = getattr(request, "user", None)
    if user is not None and user.is_authenticated:
        return f"user:{user.pk}"
    return f"address:{request.META.get('REMOTE_ADDR', '')}"
