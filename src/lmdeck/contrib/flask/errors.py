"""The answer to a request whose view raised an `LMStudioError`."""

from __future__ import annotations

from flask import Response, current_app, request

from lmdeck.errors import LMStudioError
from lmdeck.web.error_reports import error_answer


def error_handler(error: LMStudioError) -> Response:
    """Answer with a fitting status: `app.register_error_handler(LMStudioError, error_handler)`.

    If the application is in debug mode, the answer has the error's message and hint; otherwise a neutral sentence and the
    number of the log entry. It is JSON, or a page for a browser that opens the address.
    """
    answer = error_answer(error, accept=request.headers.get("Accept", ""), with_details=current_app.debug)
    return Response(answer.body, answer.status, dict(answer.headers))
