"""The types that a user sees; read by a type checker and never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, TypedDict, assert_type

import lmdeck
from lmdeck import (
    AsyncChat,
    AsyncChatRun,
    AsyncChatStream,
    AsyncLMStudio,
    Chat,
    ChatRun,
    ChatStream,
    Chunk,
    Completion,
    Conversation,
    DownloadJob,
    Embeddings,
    Health,
    History,
    LMStudio,
    LoadedModel,
    Message,
    ModelInfo,
    PausedRun,
    Problem,
    Reply,
    Round,
    Stats,
    Subscription,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    ToolFinished,
    ToolResult,
    Usage,
)
from lmdeck._secret import Secret
from lmdeck.errors import (
    APIError,
    ConnectionLostError,
    LMStudioError,
    ModelNotFoundError,
    RateLimitError,
    RequestTimeoutError,
    TimeoutPhase,
)
from lmdeck.model_info import ModelInstance


def see(chunk: Chunk) -> None:
    """Take a chunk, as a callback does."""


async def see_later(chunk: Chunk) -> None:
    """Take a chunk, as an async callback does."""


def builder(lm: LMStudio) -> None:
    """Every verb gives a chat."""
    chat = lm.chat("m", strict=True)
    assert_type(chat, Chat)
    assert_type(
        chat.with_system("x")
        .with_messages([{"role": "user", "content": "x"}, Message(role="user", content="x")])
        .user("x", images=["a.png", b"..."])
        .assistant("x")
        .tool_result("id", "x")
        .with_tools([{"name": "f"}])
        .with_tool_choice("auto")
        .with_options(temperature=0.2)
        .with_model(None)
        .with_strict()
        .without_rules("schemas"),
        Chat,
    )
    assert_type(chat.messages, list[dict[str, Any]])
    assert_type(chat.model, str | None)


def sync(lm: LMStudio) -> None:
    """The sync client."""
    chat = lm.chat()
    assert_type(chat.send(), Reply)
    assert_type(chat.stream(), ChatStream)
    assert_type(chat.stream(see), Reply)
    assert_type(chat.stream(print), Reply)
    with chat.stream() as stream:
        assert_type(stream, ChatStream)
        for chunk in stream:
            assert_type(chunk, Chunk)
        assert_type(iter(stream), Iterator[Chunk])
        assert_type(stream.text(), Iterator[str])
        assert_type(stream.until_done(), Reply)
        assert_type(stream.reply, Reply)
        assert_type(stream.partial, Reply)
    assert_type(lm.models.list(), list[ModelInfo])
    assert_type(lm.models.loaded(), list[ModelInfo])
    assert_type(lm.models.get("m"), ModelInfo)
    assert_type(lm.models.load("m", context_length=4096), LoadedModel)
    assert_type(lm.models.ensure_loaded("m", on_progress=print), LoadedModel)
    assert_type(lm.models.unload("m"), str)
    assert_type(lm.models.download("m", on_progress=print), DownloadJob)
    assert_type(lm.models.download_status("j"), DownloadJob)
    assert_type(lm.embed(["x"]), Embeddings)
    assert_type(lm.embed("x").vectors, list[list[float]])
    assert_type(lm.complete("x"), Completion)
    assert_type(lm.conversation("m").branch(), Conversation)
    assert_type(lm.conversation("m").send("x"), Reply)
    assert_type(lm.conversation("m").stream("x"), ChatStream)
    assert_type(lm.responses.create(input="x"), Reply)
    assert_type(lm.messages.stream(messages=[{"role": "user", "content": "x"}]), ChatStream)
    assert_type(lm.fetch_image("https://example.com/cat.png"), bytes)
    assert_type(lm.health(), Health)
    assert_type(lm.settings.api_token, Secret | None)
    assert_type(lm.base_url, str)
    with LMStudio(host="localhost", port=1234, timeout=5, api_token="x") as client:
        assert_type(client, LMStudio)


async def async_(lm: AsyncLMStudio) -> None:
    """The async client."""
    chat = lm.chat()
    assert_type(chat, AsyncChat)
    assert_type(chat.user("x"), AsyncChat)
    assert_type(await chat.send(), Reply)
    assert_type(chat.stream(), AsyncChatStream)
    assert_type(await chat.stream(see), Reply)
    assert_type(await chat.stream(see_later), Reply)
    async with chat.stream() as stream:
        assert_type(stream, AsyncChatStream)
        async for chunk in stream:
            assert_type(chunk, Chunk)
        assert_type(aiter(stream), AsyncIterator[Chunk])
        assert_type(stream.text(), AsyncIterator[str])
        assert_type(await stream.until_done(), Reply)
        assert_type(stream.reply, Reply)
    assert_type(await lm.models.list(), list[ModelInfo])
    assert_type(await lm.models.loaded(), list[ModelInfo])
    assert_type(await lm.models.get("m"), ModelInfo)
    assert_type(await lm.models.load("m"), LoadedModel)
    assert_type(await lm.models.download("m"), DownloadJob)
    assert_type(await lm.embed("x"), Embeddings)
    assert_type(await lm.complete("x"), Completion)
    assert_type(await lm.conversation("m").send("x"), Reply)
    assert_type(lm.conversation("m").stream("x"), AsyncChatStream)
    assert_type(await lm.responses.create(input="x"), Reply)
    assert_type(await lm.fetch_image("https://example.com/cat.png"), bytes)
    assert_type(await lm.health(), Health)
    async with AsyncLMStudio(base_url="http://x") as client:
        assert_type(client, AsyncLMStudio)


def facade() -> None:
    """The module itself."""
    assert_type(lmdeck.chat("m").user("x").send(), Reply)
    assert_type(lmdeck.models.list(), list[ModelInfo])
    assert_type(lmdeck.health(), Health)
    assert_type(lmdeck.default_client(), LMStudio)
    assert_type(lmdeck.__version__, str)
    lmdeck.configure(port=5, model=None)


def values(chunk: Chunk, reply: Reply, model: ModelInfo, health: Health) -> None:
    """What is handed out."""
    assert_type(chunk.content, str)
    assert_type(chunk.reasoning, str)
    assert_type(chunk.tool_call, ToolCall | None)
    assert_type(chunk.has_tool_call, bool)
    assert_type(chunk.tool_call_delta, ToolCallDelta | None)
    assert_type(chunk.finish_reason, str | None)
    assert_type(reply.content, str)
    assert_type(reply.tool_calls, list[ToolCall])
    assert_type(reply.tool_calls[0].arguments, dict[str, Any])
    assert_type(reply.usage, Usage | None)
    assert_type(reply.stats, Stats)
    assert_type(reply.stats.tokens_per_second, float | None)
    assert_type(reply.problems, list[Problem])
    assert_type(reply.logprobs, list[TokenLogprob])
    assert_type(reply.message, Message)
    assert_type(reply.to_dict(), dict[str, Any])
    assert_type(model.instances, list[ModelInstance])
    assert_type(model.loaded, bool)
    assert_type(health.reachable, bool)
    assert_type(health.error, LMStudioError | None)


class Shape(TypedDict):
    """A type to ask for."""

    side: float


@lmdeck.tool
def area(side: float) -> float:
    """Return the area of a square."""
    return side * side


def allow(call: ToolCall) -> bool | str:
    """Decide on a call, as `approve` does."""
    return call.name == "look" or "not now"


def tools(lm: LMStudio) -> None:
    """What becomes of functions, and what a run gives."""
    assert_type(area(2.0), float)
    assert_type(area.name, str)
    chat = lm.chat().with_tools([area, "registered", {"name": "f"}])
    reply = chat.run(max_rounds=3, max_failures=2, tool_timeout=None)
    assert_type(reply.rounds, list[Round])
    assert_type(reply.rounds[0].results, list[ToolResult])
    assert_type(reply.messages, list[Message])
    assert_type(chat.run(), Reply)
    assert_type(chat.run(approve=allow), Reply)
    paused = chat.run(approve="pause")
    assert_type(paused, Reply | PausedRun)
    if isinstance(paused, PausedRun):
        assert_type(paused.calls, list[ToolCall])
        assert_type(chat.resume(paused, {paused.calls[0].id: "not now"}), Reply | PausedRun)
        assert_type(chat.resume_stream(PausedRun.from_json(paused.to_json()), True), ChatRun)
    with chat.run_stream() as run:
        assert_type(run, ChatRun)
        for event in run:
            if isinstance(event, ToolFinished):
                assert_type(event.result, ToolResult)
        assert_type(run.reply, Reply)
    assert_type(chat.parse(Shape), Shape)
    assert_type(chat.parse_stream(Shape).value, Shape)
    listening = lm.on(ToolFinished, lambda event: print(event.result))
    assert_type(listening, Subscription)
    assert_type(History().user("x").add(reply).trimmed(100), History)


async def tools_later(lm: AsyncLMStudio) -> None:
    """The same, awaited."""
    chat = lm.chat().with_tools([area])
    assert_type(await chat.run(), Reply)
    assert_type(await chat.parse(Shape), Shape)
    assert_type(chat.run_stream(), AsyncChatRun)


def errors(lm: LMStudio) -> None:
    """What is raised."""
    try:
        lm.chat().send()
    except ModelNotFoundError as error:
        assert_type(error.available, list[str])
    except RateLimitError as error:
        assert_type(error.retry_after, float | None)
    except APIError as error:
        assert_type(error.status, int)
        assert_type(error.body, object)
    except RequestTimeoutError as error:
        assert_type(error.phase, TimeoutPhase)
    except ConnectionLostError as error:
        assert_type(error.partial, Reply | None)
    except LMStudioError as error:
        assert_type(error.hint, str)
        assert_type(error.request_id, str | None)
        assert_type(error.url, str | None)
        assert_type(error.attempts, int)
