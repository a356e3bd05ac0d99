"""Who may ask: the login and the rate limit of the pages. CSRF is Django's own, and stays on."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, RequestDataTooBig
from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.views import View

from lmdeck.contrib.django.conf import configuration
from lmdeck.contrib.django.limits import seconds_to_wait
from lmdeck.web.requests import MAX_BODY_BYTES
from lmdeck.web.trust import PAGE_HEADERS

__all__ = ["GuardedView", "body_of", "is_known", "rate_limited", "refusal"]

V = TypeVar("V", bound=Callable[..., Any])


def body_of(request: HttpRequest) -> bytes | None:
    """Return the body of a request; None where it is larger than a question can be, or than Django's own limit."""
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


def refusal(status: int, message: str, hint: str, **headers: str) -> JsonResponse:
    """Say no to the page's script, with what to do."""
    return JsonResponse({"error": {"message": message, "hint": hint}}, status=status, headers=headers)


class GuardedView(View):
    """A view for users that have logged in.

    It is open to all only where `LMDECK["LOGIN_REQUIRED"]` or `as_view(login_required=…)` says False. `is_counted` views
    keep the rate limit. `is_page` ones lead to the login page, where the others answer 401.
    """

    login_required: bool | None = None
    is_counted = False
    is_page = False

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:  # noqa: ANN401  # Django's form
        """Let the request through, or refuse it; every answer has the headers of a page."""
        response = self._answer(request, *args, **kwargs)
        for name, value in self.get_headers().items():
            response.headers.setdefault(name, value)
        return response

    def get_headers(self) -> dict[str, str]:
        """Return the headers that every answer has, unless the view set them: the project's `X_FRAME_OPTIONS` counts."""
        return {**PAGE_HEADERS, "X-Frame-Options": settings.X_FRAME_OPTIONS}

    def _answer(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:  # noqa: ANN401  # as above
        if not self.is_open() and not is_known(request):
            if not hasattr(request, "user"):
                raise ImproperlyConfigured(
                    "lmdeck's pages want a login: add Django's AuthenticationMiddleware, "
                    'or open them with LMDECK = {"LOGIN_REQUIRED": False}.'
                )
            if self.is_page:
                from django.contrib.auth.views import redirect_to_login  # late: a site may do without its tables

                return redirect_to_login(request.get_full_path())
            return refusal(401, "You are not logged in.", "Log in and ask again.")
        too_often = _refused(request) if self.is_counted else None
        return too_often or super().dispatch(request, *args, **kwargs)

    def is_open(self) -> bool:
        """Tell whether anybody may ask."""
        required = configuration().login_required if self.login_required is None else self.login_required
        return not required


def rate_limited(view: V) -> V:
    """Keep the rate limit of `LMDECK` in a view of your own, sync or async; put Django's `login_required` above it."""
    if iscoroutinefunction(view):

        @wraps(view)
        async def limited_async(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:  # noqa: ANN401
            refused = await sync_to_async(_refused)(request)
            return refused or cast("HttpResponseBase", await view(request, *args, **kwargs))

        return cast("V", limited_async)

    @wraps(view)
    def limited(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:  # noqa: ANN401
        return _refused(request) or cast("HttpResponseBase", view(request, *args, **kwargs))

    return cast("V", limited)


def _refused(request: HttpRequest) -> JsonResponse | None:
    """Count the request; refuse it where it came too early."""
    wait = seconds_to_wait(request)
    if not wait:
        return None
    said = f"Wait {wait} seconds and ask again."
    return refusal(429, "You have asked too often.", said, **{"Retry-After": str(wait)})


def is_known(request: HttpRequest) -> bool:
    """Tell whether a user has logged in."""
    user = getattr(request, "user", None)
    return user is not None and user.is_authenticated
