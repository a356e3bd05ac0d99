"""The public names: exactly these, each where it says, and the async ones like the sync ones."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import lmdeck
import lmdeck.events
from lmdeck import AsyncChat, AsyncChatStream, AsyncLMStudio, Chat, ChatStream, LMStudio
from lmdeck._client.conversation import AsyncConversation, Conversation
from lmdeck._client.endpoints import AsyncMessages, AsyncResponses, Messages, Responses
from lmdeck._client.models import AsyncModels, Models

PUBLIC = """
APIError AsyncChat AsyncChatRun AsyncChatStream AsyncConversation AsyncLMStudio AsyncMessages AsyncModels
AsyncParseStream AsyncResponses AuthenticationError CacheMissError Chat ChatRun ChatStream
Chunk Completion ConfigurationError
ConnectionLostError ContentReceived ContextLengthError Conversation DecisionAnswer Decisions DownloadJob DraftTokens
Embeddings EmptyReplyError EndpointNotFoundError EventBus FileWriteError Health History Image IncompleteStreamError
InvalidRequestError LMStudio LMStudioError LoadedModel MCPTools MalformedStreamError MaxRoundsError Measured Message
Messages ModelCrashedError ModelDetails ModelEvicted ModelInfo ModelInstance ModelLoadError ModelLoadProgress ModelNotFoundError
Models NoModelLoadedError PAUSE ParseStream ParsedMessage PausedRun Problem Question RateLimitError ReasoningReceived Reply
RequestAbandoned RequestFailed RequestFinished RequestQueued RequestRetried RequestStarted RequestTimeoutError
Responses RetryPolicy Round RoundFinished RunEnded RunPaused RunStarted Runtime ServerCall ServerError ServerEvent
ServerUnreachableError Settings Stats StreamEnded
StreamError StreamParser StreamStarted StructuredOutputError Subscription TemplateError TokenCount TokenLogprob Tool
ToolArgumentsError ToolCall ToolCallDelta ToolCallFinished ToolCallInvalid ToolCallMissingError ToolCallParseError
ToolCallStarted ToolError ToolExecutionError ToolExecutionFailed ToolFailed ToolFinished ToolRegistry ToolResult
ToolServerLost ToolStarted TransportError UnknownToolError Usage __version__ chat complete configure conversation
decide default_client dialects embed fetch_image health models parse register_tool render reset rules tool
""".split()  # noqa: SIM905  # one name a line would be a page


def test_the_public_names_are_these() -> None:
    """A name that comes or goes is a decision."""
    assert sorted(lmdeck.__all__) == sorted(PUBLIC)
    assert list(lmdeck.__all__) == sorted(lmdeck.__all__)
    assert dir(lmdeck) == lmdeck.__all__


def test_every_public_name_is_there(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """`from lmdeck import …` finds it, and finds the same again."""
    monkeypatch.chdir(tmp_path)
    for name in PUBLIC:
        value = getattr(lmdeck, name)
        if name != "models":  # which is a view of the default client, made anew
            assert getattr(lmdeck, name) is value, name


def test_public_modules_are_there_without_an_import_of_their_own(tmp_path: Path) -> None:
    """`import lmdeck` is enough for `lmdeck.events`, in a new process as well."""
    names = ["events", "errors", "observe", "testing", "tools", "contrib", "stats"]
    code = f"import lmdeck\nassert all(getattr(lmdeck, name).__name__ == 'lmdeck.' + name for name in {names})"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_every_public_class_and_function_says_what_it_is() -> None:
    """Its public methods, properties and base classes have docstrings as well."""
    bare = []
    for name in PUBLIC:
        value = getattr(lmdeck, name)
        if name not in {"__version__", "models"} and not (value.__doc__ and inspect.getdoc(value)):
            bare.append(name)
        for method, member in inspect.getmembers(value) if inspect.isclass(value) else ():
            if (
                not method.startswith("_")
                and (callable(member) or isinstance(member, property))
                and "lmdeck" in str(getattr(member, "__module__", "lmdeck"))
                and not inspect.getdoc(member)
            ):
                bare.append(f"{name}.{method}")
    assert bare == []


def test_an_unknown_name_is_an_attribute_error() -> None:
    """`hasattr` works, since it is not an import error."""
    with pytest.raises(AttributeError, match="'lmdeck' has no attribute 'nothing'"):
        lmdeck.nothing  # noqa: B018
    assert not hasattr(lmdeck, "_nothing")


def test_the_version_is_one() -> None:
    """A version has three numbers."""
    assert re.fullmatch(r"\d+\.\d+(\.\d+)?(\.?[a-z]+\d+)?", lmdeck.__version__)


def test_every_module_exports_what_it_has() -> None:
    """`__all__` is sorted and true; of the core, which needs no extra."""
    for package in ("_parsing", "_streaming", "_requests", "_responses", "_pipeline", "_client", "_transport"):
        home = importlib.import_module(f"lmdeck.{package}")
        for found in pkgutil.iter_modules(home.__path__, f"lmdeck.{package}."):
            module = importlib.import_module(found.name)
            assert all(hasattr(module, name) for name in getattr(module, "__all__", [])), found.name
            assert len(set(getattr(module, "__all__", []))) == len(getattr(module, "__all__", [])), found.name


# --- sync and async -------------------------------------------------------------------------------------------------------

PAIRS: list[tuple[type, type]] = [
    (LMStudio, AsyncLMStudio), (Chat, AsyncChat), (Models, AsyncModels), (ChatStream, AsyncChatStream),
    (Conversation, AsyncConversation), (Responses, AsyncResponses), (Messages, AsyncMessages),
]  # fmt: skip
RENAMED = {
    "aclose": "close",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
}
COMPARED = {*RENAMED.values(), "__init__"}


def methods(kind: type) -> dict[str, Any]:
    """Return what a class offers, under the names of the sync one."""
    found = {RENAMED.get(name, name): member for name, member in inspect.getmembers(kind)}
    return {name: member for name, member in found.items() if not name.startswith("_") or name in COMPARED}


def plain(annotation: object) -> str:
    """Take out of an annotation what makes it async."""
    text = re.sub(r"\bAsync(?=[A-Z])", "", str(annotation))
    return re.sub(r"\bAwaitable\[(\w+)\]", r"\1", text)


@pytest.mark.parametrize(("sync", "async_"), PAIRS)
def test_sync_and_async_offer_the_same(sync: type, async_: type) -> None:
    """Name by name, parameter by parameter, result by result."""
    here, there = methods(sync), methods(async_)
    assert here.keys() == there.keys()
    for name, member in here.items():
        other = there[name]
        assert isinstance(other, property) == isinstance(member, property), name
        if isinstance(member, property):
            member, other = member.fget, other.fget
        if not inspect.isfunction(member):
            continue
        mine, theirs = inspect.signature(member), inspect.signature(other)
        assert [(each.name, each.kind, each.default, plain(each.annotation)) for each in mine.parameters.values()] == [
            (each.name, each.kind, each.default, plain(each.annotation)) for each in theirs.parameters.values()
        ], name
        assert plain(mine.return_annotation) == plain(theirs.return_annotation), name


@pytest.mark.parametrize(("sync", "async_"), PAIRS)
def test_what_does_io_is_awaited_and_nothing_else(sync: type, async_: type) -> None:
    """A builder's verbs are the same in both worlds."""
    awaited = {
        name for name, member in methods(async_).items()
        if inspect.iscoroutinefunction(member) or inspect.isasyncgenfunction(member)
    }  # fmt: skip
    assert (
        awaited
        == {
            LMStudio: {"count_tokens", "decide", "embed", "fetch_image", "health", "close", "__enter__", "__exit__"},
            Chat: {"send", "run", "resume", "parse"},
            Conversation: {"send"},
            Responses: {"create"},
            Messages: {"create"},
            Models: {
                "list",
                "loaded",
                "get",
                "load",
                "unload",
                "ensure_loaded",
                "download",
                "download_status",
                "wait_for_download",
            },
            ChatStream: {"close", "until_done", "text", "__enter__", "__exit__", "__next__"},
        }[sync]
    )


def test_the_facade_is_the_client_s_own_surface() -> None:
    """`lmdeck.chat` and `LMStudio.chat` take the same."""
    for name in ("chat", "complete", "conversation", "embed", "fetch_image", "health", "register_tool"):
        facade = inspect.signature(getattr(lmdeck, name)).parameters
        client = dict(inspect.signature(getattr(LMStudio, name)).parameters)
        del client["self"]
        assert dict(facade) == client


@pytest.mark.parametrize(
    ("old", "new"),
    [("ToolRunning", "ToolStarted"), ("ToolDone", "ToolFinished"), ("ToolErrored", "ToolExecutionFailed")],
)
def test_a_renamed_event_is_found_by_its_old_name_with_a_warning(old: str, new: str) -> None:
    """`lmdeck` and `lmdeck.events` have it; the warning names the line that uses the old name."""
    for module in (lmdeck, lmdeck.events):
        with pytest.warns(DeprecationWarning, match=f"{old} is now called {new}") as caught:
            assert getattr(module, old) is getattr(lmdeck, new)
        assert caught[0].filename == __file__


@pytest.mark.parametrize(("sync", "async_"), PAIRS)
def test_an_async_twin_names_the_method_it_is_the_twin_of(sync: type, async_: type) -> None:
    """In one line, so that there is one place where a method is described."""
    for name, member in vars(async_).items():
        twin = RENAMED.get(name, name)
        if name.startswith("_") or twin not in vars(sync) or not inspect.getdoc(member):
            continue
        described = inspect.getdoc(member) or ""
        assert described.startswith(f"Async version of `{sync.__name__}.{twin}`"), name
        assert "\n" not in described, name
