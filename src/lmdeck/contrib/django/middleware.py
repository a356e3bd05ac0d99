"""The middleware that answers a request whose view raised an `LMStudioError`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase

from lmdeck.errors import LMStudioError
from lmdeck.web.error_reports import error_answer

GetResponse = Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]


class LMStudioErrorMiddleware:
    """Answer with a fitting status, from sync and async views; other errors are Django's.

    With `DEBUG`, the answer has the error's message and hint; otherwise a neutral sentence and the number of the log entry. It
    is JSON, or a page for a browser that opens the address.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        self._get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Pass the request on."""
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Return the answer for an `LMStudioError`, None for other exceptions."""
        if not isinstance(error, LMStudioError):
            return None
        answer = error_answer(error, accept=request.headers.get("Accept", ""), with_details=settings.DEBUG)
        return HttpResponse(answer.body, status=answer.status, headers=dict(answer.headers))
