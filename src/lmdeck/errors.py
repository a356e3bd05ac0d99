"""The error tree: every failure that lmdeck raises is an `LMStudioError` with a hint.

    LMStudioError
    ├── ConfigurationError
    ├── TransportError
    │   ├── ServerUnreachableError
    │   ├── RequestTimeoutError
    │   └── ConnectionLostError
    ├── APIError
    │   ├── AuthenticationError
    │   ├── CacheMissError
    │   ├── EndpointNotFoundError
    │   ├── InvalidRequestError
    │   ├── ContextLengthError
    │   ├── ModelNotFoundError
    │   ├── NoModelLoadedError
    │   ├── ModelLoadError
    │   ├── ModelCrashedError
    │   ├── TemplateError
    │   ├── RateLimitError
    │   └── ServerError
    ├── StreamError
    │   ├── IncompleteStreamError
    │   └── MalformedStreamError
    ├── EmptyReplyError
    ├── ToolError
    │   ├── ToolCallParseError
    │   ├── ToolCallMissingError
    │   ├── UnknownToolError
    │   ├── ToolArgumentsError
    │   └── ToolExecutionError
    ├── StructuredOutputError
    ├── MaxRoundsError
    └── FileWriteError

Where a caller would expect a builtin (`ConnectionError`, `TimeoutError`, `ValueError`, `LookupError`, `OSError`), the class
inherits from it as well. Errors are pickled with all their attributes, so they cross process borders (multiprocessing, task
queues).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from lmdeck._late_patterns import late_pattern

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lmdeck.messages import Reply

__all__ = [
    "APIError",
    "AuthenticationError",
    "CacheMissError",
    "ConfigurationError",
    "ConnectionLostError",
    "ContextLengthError",
    "EmptyReplyError",
    "EndpointNotFoundError",
    "FileWriteError",
    "IncompleteStreamError",
    "InvalidRequestError",
    "LMStudioError",
    "MalformedStreamError",
    "MaxRoundsError",
    "ModelCrashedError",
    "ModelLoadError",
    "ModelNotFoundError",
    "NoModelLoadedError",
    "RateLimitError",
    "RequestTimeoutError",
    "ServerError",
    "ServerUnreachableError",
    "StreamError",
    "StructuredOutputError",
    "TemplateError",
    "TimeoutPhase",
    "ToolArgumentsError",
    "ToolCallMissingError",
    "ToolCallParseError",
    "ToolError",
    "ToolExecutionError",
    "TransportError",
    "UnknownToolError",
]
_BUDGET_USED = frozenset({"budget_exceeded", "insufficient_quota"})

TimeoutPhase = Literal["connect", "first_token", "idle", "total"]


class LMStudioError(Exception):
    """The base class of every error that lmdeck raises.

    `message` says what happened and where; `hint` says in one sentence what to do next; `str(error)` is both.
    If a request was made, `url` is its URL, `request_id` the id that was sent and logged, and `attempts` the number of
    times it was sent, including the first. `partial` is the partial reply, if the answer had started.
    """

    default_hint: ClassVar[str] = "Run `lmdeck doctor` to see what is wrong."
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str | None = None, partial: Reply | None = None) -> None:
        message = printable(message)
        super().__init__(message)
        self.message = message
        self.hint = printable(hint) if hint else self.default_hint
        self.partial = partial
        self.request_id: str | None = None
        self.url: str | None = None
        self.attempts: int = 0

    def __str__(self) -> str:
        return f"{self.message} {self.hint}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message), self.__dict__


def _rebuild(cls: type[LMStudioError], message: str) -> LMStudioError:
    error = cls.__new__(cls, message)
    Exception.__init__(error, message)
    return error


class ConfigurationError(LMStudioError, ValueError):
    """A setting or argument is wrong; the message names it, its value and where it came from."""

    default_hint = "Correct the setting; docs/settings.md lists all settings."


class TransportError(LMStudioError):
    """The network did not deliver a complete answer."""

    default_hint = "Check that LM Studio's server is running and reachable."


class ServerUnreachableError(TransportError, ConnectionError):
    """Nothing answers at the address.

    The connection is refused, there is no route, or the host name does not resolve.
    """

    default_hint = (
        "Start the server with `lms server start` or in LM Studio's Developer tab, or set LMDECK_HOST and LMDECK_PORT."
    )
    retryable = True


class RequestTimeoutError(TransportError, TimeoutError):
    """The server was silent for longer than allowed.

    `phase` is the limit that was exceeded, `seconds` its value.
    """

    default_hint = "Increase the timeout, or ask for a shorter answer."
    _hints: ClassVar[dict[TimeoutPhase, str]] = {
        "connect": "Check host and port, or increase `connect_timeout`.",
        "first_token": "The model may still be loading, or the prompt is long: increase `first_token_timeout`.",
        "idle": "The model stopped in the middle of its answer: look at LM Studio's log, or increase `timeout`.",
        "total": "The answer took longer than `total_timeout`: increase it, or limit the answer with `max_tokens`.",
    }

    def __init__(
        self,
        message: str,
        *,
        phase: TimeoutPhase,
        seconds: float,
        hint: str | None = None,
        partial: Reply | None = None,
    ) -> None:
        super().__init__(message, hint=hint or self._hints[phase], partial=partial)
        self.phase: TimeoutPhase = phase
        self.seconds = seconds

    @property
    def retryable(self) -> bool:  # type: ignore[override]
        """Whether to retry: only if no connection was made, since a slow model would be slow again."""
        return self.phase == "connect"


class ConnectionLostError(TransportError, ConnectionError):
    """The connection broke before the answer was complete; `partial` is the reply so far."""

    default_hint = "The server closed the connection: look at LM Studio's log, then ask again."
    retryable = True


class APIError(LMStudioError):
    """The server refused the request or reported an error.

    `status` is the HTTP status (200 if the error came inside a stream or in the body of a 200 response). `type`, `code` and
    `param` are the server's own values, None if it sent none. `body` is the response body, decoded if it was JSON.
    `retry_after` is the delay in seconds that the server asked for, or None.
    """

    default_hint = "Look at LM Studio's server log for the reason."

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        type: str | None = None,  # the server's name for it
        code: str | None = None,
        param: str | None = None,
        body: object = None,
        retry_after: float | None = None,
        hint: str | None = None,
        partial: Reply | None = None,
    ) -> None:
        super().__init__(message, hint=hint, partial=partial)
        self.status = status
        self.retry_after = retry_after
        self.type = type
        self.code = code
        self.param = param
        self.body = body


class AuthenticationError(APIError):
    """The API token is missing or invalid."""

    default_hint = "Create a token in LM Studio's Developer tab and set LM_API_TOKEN, or pass `api_token=`."


class CacheMissError(APIError):
    """The request asked for a cached answer only (`only-if-cached`), and there is none.

    The status is 504 (RFC 9111).
    """

    default_hint = "Ask without `only-if-cached`, so that the model answers."


class EndpointNotFoundError(APIError):
    """The server does not know this path; LM Studio reports that with status 200."""

    default_hint = "Check `base_url`: only scheme, host, port and a proxy's prefix belong there. Or update LM Studio."


class InvalidRequestError(APIError):
    """The server refused the content of the request.

    It may be a field, a tool schema, a grammar or an image.

    `tools` names the tools that may be the cause; it is empty if that is unknown.
    """

    default_hint = "Correct the field that the message names and send again."

    def __init__(self, message: str, *, tools: Sequence[str] = (), **details: Any) -> None:
        super().__init__(message, **details)
        self.tools = list(tools)


class ContextLengthError(APIError):
    """The prompt, or the prompt plus the answer, does not fit in the model's context.

    `prompt_tokens` is the length of the prompt and `context_length` that of the context, in tokens; None if the server did
    not report it.
    """

    default_hint = "Shorten the messages, or load the model with a larger `context_length`."

    def __init__(
        self,
        message: str,
        *,
        prompt_tokens: int | None = None,
        context_length: int | None = None,
        **details: Any,
    ) -> None:
        super().__init__(message, **details)
        self.prompt_tokens = prompt_tokens
        self.context_length = context_length


class ModelNotFoundError(APIError):
    """The server has no model of that name; `available` lists the ids that it reported."""

    default_hint = "Choose a model from `lmdeck models`, or download it with `lms get`."

    def __init__(self, message: str, *, available: Sequence[str] = (), **details: Any) -> None:
        super().__init__(message, **details)
        self.available = list(available)


class NoModelLoadedError(APIError):
    """No model is loaded, and none could be selected."""

    default_hint = "Load one in LM Studio or with `lms load`, or name one: `lm.chat('qwen2.5-7b-instruct')`."


class ModelLoadError(APIError):
    """The model could not be loaded: the server refused, cancelled, or ran out of memory."""

    default_hint = "Free memory (`lms unload --all`), choose a smaller model or a smaller context length."


class ModelCrashedError(APIError):
    """The model crashed or was unloaded during the request."""

    default_hint = "Load the model again; if it happens often, lower its context length or GPU offload."
    retryable = True


class TemplateError(APIError):
    """The model's prompt template could not render these messages."""

    default_hint = "Update the model, or change its prompt template in LM Studio's model settings."


class RateLimitError(APIError):
    """The server received too many requests, or the budget of the key is used up.

    `retry_after` is the delay in seconds that it asked for, or None.
    """

    default_hint = "Send fewer requests at once, or wait for `retry_after` seconds."

    @property
    def retryable(self) -> bool:  # type: ignore[override]
        """Whether to retry: a used budget of OpenAI or LiteLLM outlasts any wait."""
        return _BUDGET_USED.isdisjoint((self.code, self.type))


class ServerError(APIError):
    """The server failed.

    It sent a status of 500 or above, its engine failed, or the error message is unknown.
    """

    default_hint = "Try again; if the error persists, look at LM Studio's server log."
    retryable = True


class StreamError(LMStudioError):
    """The answer that arrived is incomplete or invalid."""

    default_hint = "Ask again; if the error persists, look at LM Studio's server log."


class IncompleteStreamError(StreamError):
    """The stream ended without a finish reason or `[DONE]`; `partial` is the reply so far."""

    default_hint = "The answer was cut off: use `error.partial` if a partial answer helps, or ask again."


class MalformedStreamError(StreamError):
    """The data is not a stream of server-sent events, not JSON, or not an answer of this API."""

    default_hint = "Check that `base_url` points to LM Studio, not to another server or a proxy's login page."


class EmptyReplyError(LMStudioError):
    """The server answered 200 with an empty answer, although tokens were requested.

    There is no content, no reasoning and no tool call.
    """

    default_hint = "The prompt may have overflowed the context, or the call was dropped: shorten it or ask again."
    token_limit_hint: ClassVar[str] = (
        "The limit of tokens was reached before any text: raise `max_tokens`, or shorten the prompt if it fills the context."
    )


class ToolError(LMStudioError):
    """A tool or a tool call failed."""

    default_hint = "Check the tool's definition."


class ToolCallParseError(ToolError, ValueError):
    """The model's tool call could not be read; `raw` is its text."""

    default_hint = "Ask again, lower the temperature, or use a model trained for tool use."

    def __init__(self, message: str, *, raw: str = "", hint: str | None = None, partial: Reply | None = None) -> None:
        super().__init__(message, hint=hint, partial=partial)
        self.raw = raw


class ToolCallMissingError(ToolError):
    """`tool_choice` demanded a tool call, and the model made none; `partial` is its reply."""

    default_hint = "Raise `max_tokens`, ask again, or use a model trained for tool use."


class UnknownToolError(ToolError, LookupError):
    """The named tool does not exist."""

    default_hint = "Offer the tool with `with_tools`, or register it."


class ToolArgumentsError(ToolError, ValueError):
    """The arguments of a call do not match the tool's schema.

    `errors` has one line for each mismatch.
    """

    default_hint = "Compare the arguments with the tool's schema."

    def __init__(self, message: str, *, errors: Sequence[str] = (), hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.errors = list(errors)


class ToolExecutionError(ToolError):
    """The tool's handler raised an exception, which is `__cause__`."""

    default_hint = "Look at the cause above; it comes from the code of the tool."


class StructuredOutputError(LMStudioError, ValueError):
    """The answer does not match the requested type; `raw` is the text that was read."""

    default_hint = "Ask again, simplify the type, or use a model that supports structured output."

    def __init__(self, message: str, *, raw: str = "", hint: str | None = None, partial: Reply | None = None) -> None:
        super().__init__(message, hint=hint, partial=partial)
        self.raw = raw


class MaxRoundsError(LMStudioError):
    """The agent loop did not finish within `max_rounds`; `reply` is the last reply."""

    default_hint = "Increase `max_rounds`, or instruct the model to stop calling tools."

    def __init__(self, message: str, *, reply: Reply | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint, partial=reply)
        self.reply = reply


class FileWriteError(LMStudioError, OSError):
    """A file could not be written and is unchanged.

    `path` is its name, `errno` the system's error number.
    """

    default_hint = "Check that the folder exists, that you may write to it, and that the disk has room."

    def __init__(self, message: str, *, path: str = "", errno: int | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.path = path
        self.errno = errno

    def __reduce__(self) -> tuple[Any, ...]:
        rebuild, arguments, state = super().__reduce__()
        return rebuild, arguments, {**state, "errno": self.errno}  # OSError keeps it outside of __dict__


def summary(error: LMStudioError) -> str:
    """Return an error's message for stores and telemetry.

    It has no text of answers, arguments and results.

    Errors of streams, tools and structured output quote it after a colon.
    """
    if isinstance(error, StreamError | ToolError | StructuredOutputError):
        return f"{error.message.partition(': ')[0].rstrip('.')}."
    return error.message


def describe(body: Mapping[str, object] | str | None, limit: int = 200) -> str:
    """Return a response body as one printable line of at most `limit` characters, for a message."""
    text = printable(" ".join(str(body).split()))
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


# Control characters (C0, DEL, C1), marks that change the direction of text, and lone surrogates: displayed text must neither
# forge log lines nor control a terminal (CWE-117, CWE-150; Unicode TR 36, section 3.2).
_UNPRINTABLE = late_pattern("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_LINE_ENDS = late_pattern(r"[ \t]*[\r\n][\r\n\t ]*")


def printable(text: str) -> str:
    """Return a text as one line.

    Line ends become a space, control characters and direction marks escapes.
    """
    if text.isprintable():
        return text
    return _UNPRINTABLE.sub(_escape, _LINE_ENDS.sub(" ", text))


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
