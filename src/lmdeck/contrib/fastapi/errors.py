"""The answer to a request whose view raised an `LMStudioError`."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from lmdeck.errors import LMStudioError
from lmdeck.web.error_reports import error_answer


async def error_handler(request: Request, error: Exception) -> Response:
    """Answer with a fitting status: `app.add_exception_handler(LMStudioError, error_handler)`.

    If the application is in debug mode, the answer has the error's message and hint; otherwise a neutral sentence and the
    number of the log entry. It is JSON, or a page for a browser that opens the address. Other errors are raised again.
    """
    if not isinstance(error, LMStudioError):
        raise error
    answer = error_answer(error, accept=request.headers.get("accept", ""), with_details=bool(request.app.debug))
    return Response(answer.body, answer.status, dict(answer.headers))
