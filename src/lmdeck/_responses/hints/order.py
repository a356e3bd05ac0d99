"""The order in which hints are tried, and the choice of one.

The first pattern found determines the hint: a special case stands before a general one, whatever their subjects.
"""

from __future__ import annotations

from lmdeck._responses.any_pattern import AnyPattern
from lmdeck._responses.hints import (
    access,
    embeddings,
    history,
    mcp,
    media,
    models,
    parameters,
    schemas,
    server,
    tools,
)
from lmdeck.errors import (
    AuthenticationError,
    InvalidRequestError,
    LMStudioError,
    ModelCrashedError,
    ModelLoadError,
    ServerError,
)

__all__ = ["hint_for_message", "hint_for_topic"]

# By what the message says, for errors of every class.
HINTS: list[tuple[AnyPattern, str]] = [
    *media.REFUSED,
    parameters.WITHOUT_OPTION,
    *embeddings.REFUSED,
    *tools.REFUSED,
    access.HOST,
    history.CALL_IDS,
    *mcp.REFUSED,
    access.PERMISSION,
    models.SEVERAL_LOADED,
    models.OTHER_DEVICE,
    access.BUDGET,
    parameters.WITH_OPTION,
    media.UNREADABLE,
    *server.FILES,
    *access.ACCOUNT,
    parameters.NOT_OF_PROVIDER,
    server.NETWORK,
    models.PROVIDER,
    models.VERSION,
    server.DATABASE,
    models.HUGGING_FACE,
    parameters.REASONING,
    parameters.DRAFT_MODEL,
    history.DAMAGED_STORE,
    schemas.LIST_OF_TYPES,
    parameters.TOKENS_TO_KEEP,
    tools.UNTRAINED,
    *history.ORDER,
    parameters.CONFLICT,
    *history.REASONING,
    models.ALREADY_LOADED,
    tools.CHOICE,
    schemas.RESPONSE_FORMAT,
    embeddings.TOKENS,
    history.INPUT_TYPE,
    schemas.TOO_COMPLEX,
    *history.STORED_ANSWERS,
    tools.NO_PARAMETERS,
]
# By the error class, where none of `HINTS` fits: what failed, or the subject of the message.
TOPICS: dict[type[LMStudioError], list[tuple[AnyPattern, str]]] = {
    AuthenticationError: [mcp.OTHER, *access.REFUSED],
    ServerError: [mcp.OTHER, *server.FAILED],
    ModelCrashedError: [mcp.OTHER, *server.FAILED],
    ModelLoadError: [*models.LOAD_FAILED],
    InvalidRequestError: [
        server.NO_EXPLANATION,
        access.CONTENT_FILTER,
        models.UNLOAD,
        mcp.OTHER,
        server.BODY_TOO_LARGE,
        media.OTHER,
        tools.ARGUMENTS,
        schemas.OTHER,
        tools.OTHER,
        history.OTHER,
        parameters.OUTPUT_TOKENS,
        server.BODY_CHANGED,
        parameters.UNSUPPORTED,
    ],
}


def hint_for_topic(message: str, kind: type[LMStudioError]) -> str | None:
    """Return the hint for the subject of an error's message, or None if there is none."""
    return next((hint for topic, hint in TOPICS.get(kind, ()) if topic.search(message)), None)


def hint_for_message(message: str) -> str | None:
    """Return the hint for an error message, or None if the hint of the error class fits."""
    return next((hint for phrase, hint in HINTS if phrase.search(message)), None)
