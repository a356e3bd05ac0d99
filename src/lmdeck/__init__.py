"""The robust Python integration for LM Studio's local server.

    import lmdeck

    reply = lmdeck.chat().user("Why is the sky blue?").send()
    print(reply.content)

An answer is complete, clean and typed, or it is a typed error that says what to do; never anything in between.

Importing is cheap: each name is imported when it is first used, and the HTTP libraries with the first request.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from lmdeck._version import __version__ as __version__

if TYPE_CHECKING:
    from lmdeck._agent.approvals import PAUSE as PAUSE
    from lmdeck._client.chat import AsyncChat as AsyncChat
    from lmdeck._client.chat import Chat as Chat
    from lmdeck._client.clients import AsyncLMStudio as AsyncLMStudio
    from lmdeck._client.clients import LMStudio as LMStudio
    from lmdeck._client.conversation import AsyncConversation as AsyncConversation
    from lmdeck._client.conversation import Conversation as Conversation
    from lmdeck._client.endpoints import AsyncMessages as AsyncMessages
    from lmdeck._client.endpoints import AsyncResponses as AsyncResponses
    from lmdeck._client.endpoints import Messages as Messages
    from lmdeck._client.endpoints import Responses as Responses
    from lmdeck._client.mcp import MCPTools as MCPTools
    from lmdeck._client.models import AsyncModels as AsyncModels
    from lmdeck._client.models import Models as Models
    from lmdeck._client.parse_stream import AsyncParseStream as AsyncParseStream
    from lmdeck._client.parse_stream import ParseStream as ParseStream
    from lmdeck._client.paused_run import PausedRun as PausedRun
    from lmdeck._client.run import AsyncChatRun as AsyncChatRun
    from lmdeck._client.run import ChatRun as ChatRun
    from lmdeck._client.stream import AsyncChatStream as AsyncChatStream
    from lmdeck._client.stream import ChatStream as ChatStream
    from lmdeck._compatibility import rules as rules
    from lmdeck._event_bus import EventBus as EventBus
    from lmdeck._event_bus import Subscription as Subscription
    from lmdeck._facade import chat as chat
    from lmdeck._facade import complete as complete
    from lmdeck._facade import configure as configure
    from lmdeck._facade import conversation as conversation
    from lmdeck._facade import decide as decide
    from lmdeck._facade import default_client as default_client
    from lmdeck._facade import embed as embed
    from lmdeck._facade import fetch_image as fetch_image
    from lmdeck._facade import health as health
    from lmdeck._facade import register_tool as register_tool
    from lmdeck._facade import reset as reset
    from lmdeck._parsing.dialects import dialects as dialects
    from lmdeck._parsing.parser import StreamParser as StreamParser
    from lmdeck._parsing.parser import parse as parse
    from lmdeck._parsing.rendering import render as render
    from lmdeck._pipeline.retry import RetryPolicy as RetryPolicy
    from lmdeck._plans.history import History as History
    from lmdeck.config import Settings as Settings
    from lmdeck.decisions import DecisionAnswer as DecisionAnswer
    from lmdeck.decisions import Decisions as Decisions
    from lmdeck.decisions import Question as Question
    from lmdeck.errors import APIError as APIError
    from lmdeck.errors import AuthenticationError as AuthenticationError
    from lmdeck.errors import CacheMissError as CacheMissError
    from lmdeck.errors import ConfigurationError as ConfigurationError
    from lmdeck.errors import ConnectionLostError as ConnectionLostError
    from lmdeck.errors import ContextLengthError as ContextLengthError
    from lmdeck.errors import EmptyReplyError as EmptyReplyError
    from lmdeck.errors import EndpointNotFoundError as EndpointNotFoundError
    from lmdeck.errors import FileWriteError as FileWriteError
    from lmdeck.errors import IncompleteStreamError as IncompleteStreamError
    from lmdeck.errors import InvalidRequestError as InvalidRequestError
    from lmdeck.errors import LMStudioError as LMStudioError
    from lmdeck.errors import MalformedStreamError as MalformedStreamError
    from lmdeck.errors import MaxRoundsError as MaxRoundsError
    from lmdeck.errors import ModelCrashedError as ModelCrashedError
    from lmdeck.errors import ModelLoadError as ModelLoadError
    from lmdeck.errors import ModelNotFoundError as ModelNotFoundError
    from lmdeck.errors import NoModelLoadedError as NoModelLoadedError
    from lmdeck.errors import RateLimitError as RateLimitError
    from lmdeck.errors import RequestTimeoutError as RequestTimeoutError
    from lmdeck.errors import ServerError as ServerError
    from lmdeck.errors import ServerUnreachableError as ServerUnreachableError
    from lmdeck.errors import StreamError as StreamError
    from lmdeck.errors import StructuredOutputError as StructuredOutputError
    from lmdeck.errors import TemplateError as TemplateError
    from lmdeck.errors import ToolArgumentsError as ToolArgumentsError
    from lmdeck.errors import ToolCallMissingError as ToolCallMissingError
    from lmdeck.errors import ToolCallParseError as ToolCallParseError
    from lmdeck.errors import ToolError as ToolError
    from lmdeck.errors import ToolExecutionError as ToolExecutionError
    from lmdeck.errors import TransportError as TransportError
    from lmdeck.errors import UnknownToolError as UnknownToolError
    from lmdeck.events import *  # noqa: F403  # every event in its `__all__`
    from lmdeck.images import Image as Image
    from lmdeck.messages import Message as Message
    from lmdeck.messages import ModelDetails as ModelDetails
    from lmdeck.messages import ParsedMessage as ParsedMessage
    from lmdeck.messages import Problem as Problem
    from lmdeck.messages import Reply as Reply
    from lmdeck.messages import Round as Round
    from lmdeck.messages import Runtime as Runtime
    from lmdeck.messages import ServerCall as ServerCall
    from lmdeck.messages import TokenLogprob as TokenLogprob
    from lmdeck.messages import ToolCall as ToolCall
    from lmdeck.messages import ToolResult as ToolResult
    from lmdeck.model_info import DownloadJob as DownloadJob
    from lmdeck.model_info import Health as Health
    from lmdeck.model_info import LoadedModel as LoadedModel
    from lmdeck.model_info import ModelInfo as ModelInfo
    from lmdeck.model_info import ModelInstance as ModelInstance
    from lmdeck.native_events import ServerEvent as ServerEvent
    from lmdeck.outputs import Completion as Completion
    from lmdeck.outputs import Embeddings as Embeddings
    from lmdeck.outputs import TokenCount as TokenCount
    from lmdeck.stats import DraftTokens as DraftTokens
    from lmdeck.stats import Measured as Measured
    from lmdeck.stats import Stats as Stats
    from lmdeck.stats import Usage as Usage
    from lmdeck.tools.registry import ToolRegistry as ToolRegistry
    from lmdeck.tools.tool import Tool as Tool
    from lmdeck.tools.tool import ToolFailed as ToolFailed
    from lmdeck.tools.tool import tool as tool

    models: Models

_MODULES = {
    "_facade": (
        "chat",
        "complete",
        "configure",
        "conversation",
        "decide",
        "default_client",
        "embed",
        "fetch_image",
        "health",
        "register_tool",
        "reset",
    ),
    "_compatibility": ("rules",),
    "_event_bus": ("EventBus", "Subscription"),
    "_agent.approvals": ("PAUSE",),
    "_client.paused_run": ("PausedRun",),
    "_client.run": ("AsyncChatRun", "ChatRun"),
    "_client.chat": ("AsyncChat", "Chat"),
    "_client.clients": ("AsyncLMStudio", "LMStudio"),
    "_client.endpoints": ("AsyncMessages", "AsyncResponses", "Messages", "Responses"),
    "_client.models": ("AsyncModels", "Models"),
    "_client.parse_stream": ("AsyncParseStream", "ParseStream"),
    "_client.mcp": ("MCPTools",),
    "_client.conversation": ("AsyncConversation", "Conversation"),
    "_client.stream": ("AsyncChatStream", "ChatStream"),
    "_plans.history": ("History",),
    "_pipeline.retry": ("RetryPolicy",),
    "config": ("Settings",),
    "decisions": ("DecisionAnswer", "Decisions", "Question"),
    "errors": (
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
        "ToolArgumentsError",
        "ToolCallMissingError",
        "ToolCallParseError",
        "ToolError",
        "ToolExecutionError",
        "TransportError",
        "UnknownToolError",
    ),
    "messages": (
        "Message",
        "ModelDetails",
        "ParsedMessage",
        "Problem",
        "Reply",
        "Round",
        "Runtime",
        "ServerCall",
        "TokenLogprob",
        "ToolCall",
        "ToolResult",
    ),
    "model_info": (
        "DownloadJob",
        "Health",
        "LoadedModel",
        "ModelInfo",
        "ModelInstance",
    ),
    "native_events": ("ServerEvent",),
    "outputs": (
        "Completion",
        "Embeddings",
        "TokenCount",
    ),
    "images": ("Image",),
    "_parsing.dialects": ("dialects",),
    "_parsing.parser": ("StreamParser", "parse"),
    "_parsing.rendering": ("render",),
    "stats": ("DraftTokens", "Measured", "Stats", "Usage"),
    "tools.registry": ("ToolRegistry",),
    "tools.tool": ("Tool", "ToolFailed", "tool"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}
_NOT_EXPORTED = {"EVENTS", "AgentEvent", "Event"}
_SUBMODULES = frozenset(
    [
        "batch",
        "cache",
        "config",
        "contrib",
        "decisions",
        "engine",
        "errors",
        "events",
        "gateway",
        "handlers",
        "images",
        "messages",
        "model_info",
        "native_events",
        "observe",
        "outputs",
        "relay",
        "server",
        "stats",
        "testing",
        "tools",
        "web",
    ]
)
"""The public modules, which `import lmdeck` alone makes available."""


def __getattr__(name: str) -> object:
    if name == "models":
        from lmdeck import _facade

        return _facade.models()
    if name == "__all__":
        events = set(import_module("lmdeck.events").__all__) - _NOT_EXPORTED
        return sorted([*_MODULE_OF, *events, "__version__", "models"])
    if name in _SUBMODULES:
        return import_module(f"lmdeck.{name}")
    module = _MODULE_OF.get(name)
    if module is None:
        return _event_type(name)
    value = getattr(import_module(f"lmdeck.{module}"), name)
    globals()[name] = value
    return value


def _event_type(name: str) -> object:
    events = import_module("lmdeck.events") if name[:1].isupper() and name not in _NOT_EXPORTED else None
    if events is not None and name in events.__all__:
        globals()[name] = getattr(events, name)
        return globals()[name]
    renamed = None if events is None else events.renamed(name, stacklevel=3)
    if renamed is None:
        raise AttributeError(f"module 'lmdeck' has no attribute {name!r}")
    return renamed


def __dir__() -> list[str]:
    return __getattr__("__all__")  # type: ignore[return-value]
