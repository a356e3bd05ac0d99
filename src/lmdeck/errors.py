"""The one error tree: every failure of lmdeck is an `LMStudioError` with a hint.

    LMStudioError
    ├── ConfigurationError
    ├── TransportError
    │   ├── ServerUnreachableError
    │   ├── RequestTimeoutError
    │   └── ConnectionLostError
    ├── APIError
    │   ├── AuthenticationError
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
    │   ├── UnknownToolError
    │   ├── ToolArgumentsError
    │   └── ToolExecutionError
    ├── StructuredOutputError
    ├── MaxRoundsError
    └── FileWriteError

Where a caller would guess a builtin (`ConnectionError`, `TimeoutError`, `ValueError`, `LookupError`, `OSError`), the class is
one too.
Classes are pickled with all they carry, so they cross process borders (multiprocessing, task queues).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lmdeck.messages import Reply

__all__ = [
    "APIError",
    "AuthenticationError",
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
    "ToolCallParseError",
    "ToolError",
    "ToolExecutionError",
    "TransportError",
    "UnknownToolError",
]

TimeoutPhase = Literal["connect", "first_token", "idle", "total"]


class LMStudioError(Exception):
    """Base of every error that lmdeck raises.

    `message` says what happened and where; `hint` says in one sentence what to do next; `str(error)` is both.
    Where a request was made, `url` is its address, `request_id` the id it was sent and logged under, and `attempts` how
    many times it was sent, the first one included. `partial` is the reply as far as it had come, if it had begun.
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

    default_hint = "Correct the setting; the README lists them all."


class TransportError(LMStudioError):
    """No whole answer came back over the network."""

    default_hint = "Check that LM Studio's server is running and reachable."


class ServerUnreachableError(TransportError, ConnectionError):
    """Nothing answers at the address: connection refused, no route, or a name that does not resolve."""

    default_hint = (
        "Start the server with `lms server start` or in LM Studio's Developer tab, or set LMDECK_HOST and LMDECK_PORT."
    )
    retryable = True


class RequestTimeoutError(TransportError, TimeoutError):
    """The server was silent for longer than allowed; `phase` says which limit ran out and `seconds` how long it was."""

    default_hint = "Raise the timeout, or ask for a shorter answer."
    _hints: ClassVar[dict[TimeoutPhase, str]] = {
        "connect": "Check host and port, or raise `connect_timeout`.",
        "first_token": "The model may still be loading or the prompt is long: raise `first_token_timeout`.",
        "idle": "The model stopped in the middle of its answer: look at LM Studio's log, or raise `timeout`.",
        "total": "The answer took longer than `total_timeout`: raise it, or limit the answer with `max_tokens`.",
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
        """Only a connection that was never made is tried again: waiting twice for a slow model helps nobody."""
        return self.phase == "connect"


class ConnectionLostError(TransportError, ConnectionError):
    """The connection broke before the answer was whole; `partial` is the reply as far as it had come."""

    default_hint = "The server closed the connection: look at LM Studio's log, then ask again."
    retryable = True


class APIError(LMStudioError):
    """The server said no.

    `status` is the HTTP status (200 when the refusal came inside a stream or in a 200 body), `type`, `code` and `param` are
    the server's own words where it gave them, `body` is what it sent, decoded where it was JSON. `retry_after` is the wait
    in seconds that it asked for, if it did.
    """

    default_hint = "Look at LM Studio's server log for the reason."

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        type: str | None = None,  # noqa: A002  # the server's own word for it
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
    """The server wants an API token, and none or a wrong one was sent."""

    default_hint = "Make a token in LM Studio's Developer tab and set LM_API_TOKEN, or pass `api_token=`."


class EndpointNotFoundError(APIError):
    """The server does not know this path, also when LM Studio says so with status 200."""

    default_hint = "Check `base_url`: only scheme, host, port and a proxy's prefix belong there. Or update LM Studio."


class InvalidRequestError(APIError):
    """The server refused the request's content: a field, a tool's schema, a grammar or an image.

    `tools` names the tools that were refused, as far as that can be known: more than one where it is one of several.
    """

    default_hint = "Correct the field that the message names and send again."

    def __init__(self, message: str, *, tools: Sequence[str] = (), **details: Any) -> None:  # noqa: ANN401
        super().__init__(message, **details)
        self.tools = list(tools)


class ContextLengthError(APIError):
    """The prompt, or the prompt with the answer, does not fit the model's context.

    `prompt_tokens` is what was sent and `context_length` what the model holds, in tokens; None where the server does not say.
    """

    default_hint = "Shorten the messages, or load the model with a larger `context_length`."

    def __init__(
        self,
        message: str,
        *,
        prompt_tokens: int | None = None,
        context_length: int | None = None,
        **details: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(message, **details)
        self.prompt_tokens = prompt_tokens
        self.context_length = context_length


class ModelNotFoundError(APIError):
    """The server has no model of that name; `available` lists the ids it named."""

    default_hint = "Choose one of `lmdeck models`, or download it with `lms get`."

    def __init__(self, message: str, *, available: Sequence[str] = (), **details: Any) -> None:  # noqa: ANN401
        super().__init__(message, **details)
        self.available = list(available)


class NoModelLoadedError(APIError):
    """No model is loaded, and none could be chosen."""

    default_hint = "Load one in LM Studio or with `lms load`, or name one: `lm.chat('qwen2.5-7b-instruct')`."


class ModelLoadError(APIError):
    """The model could not be loaded: refused, cancelled or out of memory."""

    default_hint = "Free memory (`lms unload --all`), choose a smaller model or a smaller context length."


class ModelCrashedError(APIError):
    """The model crashed or was unloaded while it was needed."""

    default_hint = "Load the model again; if it happens often, lower its context length or GPU offload."
    retryable = True


class TemplateError(APIError):
    """The model's prompt template could not render these messages."""

    default_hint = "Update the model, or change its prompt template in LM Studio's model settings."


class RateLimitError(APIError):
    """Too many requests; `retry_after` is the wait in seconds that the server asked for, if it did."""

    default_hint = "Send fewer requests at once, or wait as long as `retry_after` says."
    retryable = True


class ServerError(APIError):
    """The server failed: a status of 500 or above, an engine that broke, or a failure in words that are not known."""

    default_hint = "Try again; if it stays, look at LM Studio's server log."
    retryable = True


class StreamError(LMStudioError):
    """The answer that arrived cannot be taken for a whole one."""

    default_hint = "Ask again; if it stays, look at LM Studio's server log."


class IncompleteStreamError(StreamError):
    """The stream ended without a finish reason or `[DONE]`; `partial` is the reply as far as it had come."""

    default_hint = "The answer was cut: use `error.partial` if half an answer helps, or ask again."


class MalformedStreamError(StreamError):
    """What came is not server-sent events, not JSON, or not an answer of this API."""

    default_hint = "Check that `base_url` leads to LM Studio and not to another server or a proxy's login page."


class EmptyReplyError(LMStudioError):
    """The server answered 200 with no content, no reasoning and no call, though tokens were asked for."""

    default_hint = "The prompt may have overflowed the context, or the call was dropped: shorten it or ask again."


class ToolError(LMStudioError):
    """Something is wrong with a tool or a call of one."""

    default_hint = "Check the tool's definition."


class ToolCallParseError(ToolError, ValueError):
    """The model's tool call could not be read; `raw` is its text."""

    default_hint = "Ask again, lower the temperature, or use a model trained for tool use."

    def __init__(self, message: str, *, raw: str = "", hint: str | None = None, partial: Reply | None = None) -> None:
        super().__init__(message, hint=hint, partial=partial)
        self.raw = raw


class UnknownToolError(ToolError, LookupError):
    """The named tool does not exist."""

    default_hint = "Offer the tool with `with_tools`, or register it."


class ToolArgumentsError(ToolError, ValueError):
    """A call's arguments do not fit the tool's schema; `errors` has one line for each fault."""

    default_hint = "Compare the arguments with the tool's schema."

    def __init__(self, message: str, *, errors: Sequence[str] = (), hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.errors = list(errors)


class ToolExecutionError(ToolError):
    """The tool's handler raised; `__cause__` is its exception."""

    default_hint = "Look at the cause above; it comes from the tool's own code."


class StructuredOutputError(LMStudioError, ValueError):
    """The answer does not fit the asked type; `raw` is the text that was read."""

    default_hint = "Ask again, simplify the type, or use a model that supports structured output."

    def __init__(self, message: str, *, raw: str = "", hint: str | None = None, partial: Reply | None = None) -> None:
        super().__init__(message, hint=hint, partial=partial)
        self.raw = raw


class MaxRoundsError(LMStudioError):
    """The agent loop did not finish within its rounds; `reply` is the last one."""

    default_hint = "Raise `max_rounds`, or tell the model to stop calling tools."

    def __init__(self, message: str, *, reply: Reply | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint, partial=reply)
        self.reply = reply


class FileWriteError(LMStudioError, OSError):
    """A file could not be written, and is as it was before; `path` is its name, `errno` the system's number."""

    default_hint = "Check that the folder exists, that you may write to it, and that the disk has room."

    def __init__(self, message: str, *, path: str = "", errno: int | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.path = path
        self.errno = errno

    def __reduce__(self) -> tuple[Any, ...]:
        rebuild, arguments, state = super().__reduce__()
        return rebuild, arguments, {**state, "errno": self.errno}  # which is no attribute of Python's own making


def describe(body: Mapping[str, object] | str | None, limit: int = 200) -> str:
    """Shorten a server's body for a message: at most `limit` characters, on one line, nothing in it obeyed by a terminal."""
    text = printable(" ".join(str(body).split()))
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


# Control characters (C0, DEL, C1), marks that reverse the direction of text, and halves of surrogate pairs: what is shown
# must neither forge a line of a log nor be obeyed by a terminal (CWE-117, CWE-150; Unicode TR 36, section 3.2).
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_LINE_ENDS = re.compile(r"[ \t]*[\r\n][\r\n\t ]*")


def printable(text: str) -> str:
    """Return a text on one line: line ends as a space, other control characters and direction marks as escapes."""
    if text.isprintable():
        return text
    return _UNPRINTABLE.sub(_escape, _LINE_ENDS.sub(" ", text))


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
