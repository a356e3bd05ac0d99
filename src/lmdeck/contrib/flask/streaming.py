"""`stream_response`: stream an answer to the browser under any WSGI server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flask import Response, current_app

from lmdeck.contrib.flask.extension import extension
from lmdeck.web.answer import OnEnd, ResumedRun, StreamedAnswer
from lmdeck.web.background_loop import iterate
from lmdeck.web.encodings import Encoding, find_encoding

if TYPE_CHECKING:
    from lmdeck._client.approve_callback import AnyApprove
    from lmdeck._client.chat import AsyncChat, Chat

HEARTBEAT = 0.4
"""Short, because a WSGI server detects that the browser disconnected only when it writes."""


def stream_response(
    chat: Chat | AsyncChat,
    *,
    encoding: str | Encoding = "lmdeck",
    max_rounds: int = 8,
    approve: AnyApprove = None,
    heartbeat: float = HEARTBEAT,
    on_end: OnEnd | None = None,
    resumed: ResumedRun | None = None,
) -> Response:
    """Stream the answer to a chat as server-sent events.

    The chat is built with `LMDeck.client` and runs on a background event loop, so that it can be stopped at any time.
    `encoding` is "lmdeck" for lmdeck's page, "vercel" for the AI SDK's `useChat`, "ag-ui" for AG-UI (with the
    ids of the client's run: `lmdeck.web.encodings.ag_ui(thread_id, run_id)`). Tools with handlers are
    run, in at most `max_rounds` rounds; `approve` is called before each tool call, or pauses the run (see `Chat.run`), and
    `resumed` is a paused run to resume. After `heartbeat` seconds of silence a comment is sent, which detects a browser that
    has disconnected. `on_end` is called once with the reply, or the `PausedRun`. If the browser disconnected or the answer
    failed, it is partial: `finish_reason` is `""`, and a problem `stopped`, `cut` or `failed` says how it ended. Errors, also
    those of `on_end`, are sent as events: in debug mode with details, otherwise as a neutral sentence with the number of the
    log entry.

    Raises:
        ConfigurationError: The encoding is unknown, or the application has no `LMDeck` extension.
    """
    chosen = find_encoding(encoding)
    bound = extension().streaming_client.adopt(chat)
    answer = StreamedAnswer(lambda: bound, max_rounds=max_rounds, approve=approve, encoding=chosen, resumed=resumed)
    answer.with_details = current_app.debug

    def pieces() -> Iterator[bytes]:
        try:
            for frame in iterate(answer.frames(heartbeat)):
                if answer.is_finished:
                    answer.end(on_end)
                if frame:
                    yield frame
        finally:
            answer.end(on_end)

    response = Response(pieces(), direct_passthrough=True)
    response.headers.update(chosen.headers)
    return response
