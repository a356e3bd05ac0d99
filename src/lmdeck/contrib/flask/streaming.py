"""`stream_response`: an answer to the browser while the model writes it, under any WSGI server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from flask import Response, current_app

from lmdeck.contrib.flask.extension import extension
from lmdeck.web.answer import Answer
from lmdeck.web.background_loop import iterate
from lmdeck.web.encodings import find_encoding

if TYPE_CHECKING:
    from lmdeck._client.chat import AsyncChat, Chat
    from lmdeck._client.tool_runs import Approve
    from lmdeck.messages import Reply

__all__ = ["stream_response"]

HEARTBEAT = 0.4
"""A WSGI server notices that the browser left only when it writes."""


def stream_response(
    chat: Chat | AsyncChat,
    *,
    encoding: str = "lmdeck",
    max_rounds: int = 8,
    approve: Approve | None = None,
    heartbeat: float = HEARTBEAT,
    on_end: Callable[[Reply], object] | None = None,
) -> Response:
    """Answer a request with a chat's answer, as server-sent events while it is written.

    The chat is built with `LMDeck.client`; it is asked on a loop beside the request, so that it can be stopped at any moment.
    `encoding` is "lmdeck" for lmdeck's page, "vercel" for the AI SDK's `useChat`, "ag-ui" for AG-UI. Tools with handlers are
    run, for at most `max_rounds`; `approve` is asked before each. A comment is sent where nothing else was for `heartbeat`
    seconds, by which a browser that left is noticed. `on_end` is called once, with the whole reply, or with what had come of it
    where the browser left or the answer failed: then `finish_reason` is `""`, and a problem `stopped`, `cut` or `failed` says
    how it ended. An error is sent as an event, one of `on_end` too; visitors see a neutral sentence and a number, an
    application in debug mode the error itself.

    Raises:
        ConfigurationError: There is no such encoding, or the application has no lmdeck.
    """
    chosen = find_encoding(encoding)
    asked = extension().streaming_client.adopt(chat)
    answer = Answer(lambda: asked, max_rounds=max_rounds, approve=approve, encoding=chosen)
    answer.with_details = current_app.debug

    def pieces() -> Iterator[bytes]:
        try:
            for frame in iterate(answer.frames(heartbeat)):
                if answer.is_over:
                    answer.end(on_end)
                if frame:
                    yield frame
        finally:
            answer.end(on_end)

    response = Response(pieces(), direct_passthrough=True)
    response.headers.update(chosen.headers)
    return response
