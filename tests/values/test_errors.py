"""The error tree: its shape, its words, and what survives a pickle."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import pytest

from lmdeck import errors
from lmdeck.errors import LMStudioError, describe
from lmdeck.messages import Problem, Reply, ToolCall
from lmdeck.stats import Usage

# name: parent, further builtin bases
TREE: dict[str, tuple[str, tuple[type, ...]]] = {
    "LMStudioError": ("Exception", ()),
    "ConfigurationError": ("LMStudioError", (ValueError,)),
    "TransportError": ("LMStudioError", ()),
    "ServerUnreachableError": ("TransportError", (ConnectionError, OSError)),
    "RequestTimeoutError": ("TransportError", (TimeoutError, OSError)),
    "ConnectionLostError": ("TransportError", (ConnectionError, OSError)),
    "APIError": ("LMStudioError", ()),
    "AuthenticationError": ("APIError", ()),
    "CacheMissError": ("APIError", ()),
    "EndpointNotFoundError": ("APIError", ()),
    "InvalidRequestError": ("APIError", ()),
    "ContextLengthError": ("APIError", ()),
    "ModelNotFoundError": ("APIError", ()),
    "NoModelLoadedError": ("APIError", ()),
    "ModelLoadError": ("APIError", ()),
    "ModelCrashedError": ("APIError", ()),
    "TemplateError": ("APIError", ()),
    "RateLimitError": ("APIError", ()),
    "ServerError": ("APIError", ()),
    "StreamError": ("LMStudioError", ()),
    "IncompleteStreamError": ("StreamError", ()),
    "MalformedStreamError": ("StreamError", ()),
    "EmptyReplyError": ("LMStudioError", ()),
    "ToolError": ("LMStudioError", ()),
    "ToolCallParseError": ("ToolError", (ValueError,)),
    "ToolCallMissingError": ("ToolError", ()),
    "UnknownToolError": ("ToolError", (LookupError,)),
    "ToolArgumentsError": ("ToolError", (ValueError,)),
    "ToolExecutionError": ("ToolError", ()),
    "StructuredOutputError": ("LMStudioError", (ValueError,)),
    "MaxRoundsError": ("LMStudioError", ()),
    "FileWriteError": ("LMStudioError", (OSError,)),
}
RETRYABLE = {"ServerUnreachableError", "ConnectionLostError", "ModelCrashedError", "RateLimitError", "ServerError"}

PARTIAL = Reply(
    content="Hel",
    reasoning="hm",
    tool_calls=[ToolCall(id="a", name="f", arguments={"x": [1]}, raw_arguments='{"x": [1]}')],
    usage=Usage(prompt_tokens=1),
    problems=[Problem("code", "detail")],
    raw=[b"{}"],
)
NEEDED = {"RequestTimeoutError": {"phase": "idle", "seconds": 1.5}}
DETAILS = {
    "status": 400, "type": "t", "code": "c", "param": "p", "body": {"error": ["x"]}, "retry_after": 2.5, "hint": "Do.",
}  # fmt: skip
FULL = {
    **{name: DETAILS for name, (parent, _) in TREE.items() if "APIError" in (name, parent)},
    "RequestTimeoutError": {"phase": "total", "seconds": 9.0, "hint": "Wait."},
    "ModelNotFoundError": {**DETAILS, "available": ("a", "b")},
    "ToolCallParseError": {"raw": "<tool_call>", "partial": PARTIAL},
    "ToolArgumentsError": {"errors": ["one", "two"]},
    "StructuredOutputError": {"raw": "{", "partial": PARTIAL},
    "MaxRoundsError": {"reply": PARTIAL},
    "FileWriteError": {"path": "a.json", "errno": 28},
}


def make(name: str, **details: object) -> LMStudioError:
    """Make an error with what its class cannot do without."""
    return getattr(errors, name)("It broke.", **{**NEEDED.get(name, {}), **details})


def test_the_tree_is_whole() -> None:
    """Every error that is promised is there, and no other."""
    defined = {
        name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, LMStudioError)
    }
    assert defined == set(TREE)
    assert set(errors.__all__) == {*TREE, "TimeoutPhase"}


@pytest.mark.parametrize("name", TREE)
def test_a_class_has_its_parent_and_the_builtin_a_caller_would_guess(name: str) -> None:
    """`except ConnectionError` also handles the errors that a caller expects of it."""
    parent, builtins = TREE[name]
    assert getattr(errors, name).__bases__[0].__name__ == parent
    assert all(issubclass(getattr(errors, name), builtin) for builtin in builtins)


def test_no_class_is_a_builtin_by_accident() -> None:
    """An `OSError` is a matter of the network, a `ValueError` one of the caller's or the model's values."""
    for name, (_, builtins) in TREE.items():
        for builtin in (OSError, ValueError, LookupError):
            assert issubclass(getattr(errors, name), builtin) == any(issubclass(base, builtin) for base in builtins)


def test_the_docstring_draws_the_true_tree() -> None:
    """The tree at the head of the module is read from the classes, level by level."""
    parents: list[str] = []
    drawn = {}
    for line in re.findall(r"^    ((?:[│├└─] *|  )*\w+)$", errors.__doc__ or "", re.MULTILINE):
        name = line.lstrip("│├└─ ")
        depth = (len(line) - len(name)) // 4
        parents[depth:] = [name]
        drawn[name] = parents[depth - 1] if depth else "Exception"
    assert drawn == {name: parent for name, (parent, _) in TREE.items()}


@pytest.mark.parametrize("name", TREE)
def test_an_error_says_what_happened_and_what_to_do(name: str) -> None:
    """The text is message and hint, and the hint is a sentence."""
    error = make(name)
    assert error.hint
    assert error.hint[0].isupper()
    assert error.hint.endswith(".") or error.hint.endswith("`.")
    assert str(error) == f"It broke. {error.hint}"
    assert str(make(name, hint="Do this.")) == "It broke. Do this."
    assert (error.url, error.request_id, error.attempts, error.partial) == (None, None, 0, None)


@pytest.mark.parametrize("name", TREE)
def test_only_what_may_help_is_tried_again(name: str) -> None:
    """Whether an error is retried belongs to its class."""
    assert make(name).retryable == (name in RETRYABLE)


@pytest.mark.parametrize("fields", [{"code": "insufficient_quota"}, {"type": "budget_exceeded"}])
def test_a_used_budget_is_not_asked_again(fields: dict[str, str]) -> None:
    """It lasts longer than any wait."""
    assert not make("RateLimitError", status=429, **fields).retryable


@pytest.mark.parametrize("phase", ["connect", "first_token", "idle", "total"])
def test_each_time_limit_has_its_own_hint(phase: str) -> None:
    """A timeout names the setting to raise, and only a connection that was never made is tried again."""
    error = make("RequestTimeoutError", phase=phase)
    assert {"connect": "connect_timeout", "first_token": "first_token_timeout", "idle": "`timeout`"}.get(
        phase, "total_timeout"
    ) in error.hint
    assert error.retryable == (phase == "connect")


@pytest.mark.parametrize("copied", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])
@pytest.mark.parametrize("name", TREE)
def test_an_error_crosses_a_process_border_whole(name: str, copied) -> None:
    """Everything an error carries is there after a pickle, the partial reply too."""
    error = make(name, **FULL.get(name, {"partial": PARTIAL}))
    error.request_id, error.url, error.attempts = "req_1", "http://host/v1", 3
    twin = copied(error)
    assert type(twin) is type(error)
    assert vars(twin) == vars(error)
    assert str(twin) == str(error)
    assert twin.retryable == error.retryable
    assert twin.args == error.args == ("It broke.",)


def test_every_attribute_of_the_api_is_there() -> None:
    """The attributes that are promised hold what was given."""
    refused = make("ModelNotFoundError", **FULL["ModelNotFoundError"])
    assert (refused.status, refused.type, refused.code, refused.param) == (400, "t", "c", "p")
    assert (refused.body, refused.retry_after, refused.available) == ({"error": ["x"]}, 2.5, ["a", "b"])
    assert (make("RequestTimeoutError").phase, make("RequestTimeoutError").seconds) == ("idle", 1.5)
    assert make("ToolCallParseError", raw="x").raw == "x"
    assert make("ToolArgumentsError", errors=("x",)).errors == ["x"]
    assert make("StructuredOutputError", raw="x").raw == "x"
    rounds = make("MaxRoundsError", reply=PARTIAL)
    assert rounds.reply is rounds.partial is PARTIAL


def test_a_tool_s_own_exception_is_the_cause() -> None:
    """The handler's exception stays reachable."""
    cause = KeyError("x")
    with pytest.raises(errors.ToolExecutionError) as caught:
        raise errors.ToolExecutionError("The tool 'f' raised KeyError.") from cause
    assert caught.value.__cause__ is cause


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ("a\n  b\tc", "a b c"),
        (None, "None"),
        ({"a": 1}, "{'a': 1}"),
        ("x" * 201, "x" * 199 + "…"),
        ("x" * 200, "x" * 200),
    ],
)
def test_a_body_is_shown_short_and_on_one_line(body, shown: str) -> None:
    """A message is no place for a whole page."""
    assert describe(body) == shown
