"""The other clients, each with the one line that its guide in `docs/clients/` shows: how it calls, answers and embeds."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

MODEL = "qwen2.5-7b-instruct"
EMBEDDER = "text-embedding-nomic-embed-text-v1.5"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION = {"name": "get_weather", "description": "Tell the weather.", "parameters": SCHEMA}
TOOL: Any = {"type": "function", "function": FUNCTION}
HELLO: Any = [{"role": "user", "content": "Weather in Paris?"}]
JAVASCRIPT = Path(__file__).with_name("javascript")
Calls = list[tuple[str, dict[str, Any]]]


class Client:
    """What a framework does with an LM Studio at `url`; what it has no word for raises `NotImplementedError`.

    With `is_plain`, it uses nothing of lmdeck, since what answers at `url` repairs.
    """

    package = ""
    kind = "chat"  # its wire format

    def __init__(self, url: str, *, is_plain: bool = False) -> None:
        self.url = url
        self.is_plain = is_plain

    def _http_client(self) -> Any:
        """Return what OpenAI's client sends by; None is its own."""
        if self.is_plain:
            return None
        from lmdeck.contrib.openai import http_client

        return http_client()

    def _openai(self) -> Any:
        if not self.is_plain:
            from lmdeck.contrib.openai import OpenAI

            return OpenAI(base_url=self.url)
        import openai

        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none")

    def _async_openai(self) -> Any:
        if not self.is_plain:
            from lmdeck.contrib.openai import AsyncOpenAI

            return AsyncOpenAI(base_url=self.url)
        import openai

        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key="none")

    @classmethod
    def is_installed(cls) -> bool:
        return find_spec(cls.package) is not None

    @contextmanager
    def _proxy(self) -> Iterator[str]:
        """Repair in a proxy, as `lmdeck run` starts one, for clients that take no transport."""
        if self.is_plain:
            yield self.url
            return
        from lmdeck.contrib.asgi import RepairProxy
        from lmdeck.server.serve import BackgroundServer
        from lmdeck.server.sockets import listen

        with BackgroundServer(RepairProxy(base_url=self.url), listen(), lifespan=True) as proxy:
            yield proxy.base_url

    def calls(self, *, stream: bool, named: bool = False) -> Calls:
        """Return the calls of one answer; with `named`, the tool must be called."""
        raise NotImplementedError

    def text(self, *, stream: bool) -> str:
        """Return the text of one answer without tools."""
        raise NotImplementedError

    def answer_after_tools(self, *, stream: bool) -> str:
        """Run the tool and return the final answer: the second round sends the first one's calls back."""
        raise NotImplementedError

    def json(self) -> dict[str, Any]:
        """Ask for any JSON object."""
        raise NotImplementedError

    def embed(self, text: str) -> list[float]:
        """Embed a text with the client's defaults."""
        raise NotImplementedError


class OpenAIClient(Client):
    package = "openai"

    @contextmanager
    def _client(self) -> Iterator[Any]:
        import openai

        options = {"base_url": f"{self.url}/v1", "api_key": "lm-studio", "http_client": self._http_client()}
        with openai.OpenAI(**options) as client:
            yield client

    def _answer(self, messages: Any, *, stream: bool, **options: Any) -> Any:
        with self._client() as client:
            if not stream:
                return client.chat.completions.create(model=MODEL, messages=messages, **options).choices[0].message
            with client.chat.completions.stream(model=MODEL, messages=messages, **options) as events:
                return events.get_final_completion().choices[0].message

    def calls(self, *, stream: bool, named: bool = False) -> Calls:
        choice = {"type": "function", "function": {"name": "get_weather"}} if named else "auto"
        message = self._answer(HELLO, stream=stream, tools=[TOOL], tool_choice=choice)
        return [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls or ()]

    def text(self, *, stream: bool) -> str:
        if not stream:
            return str(self._answer(HELLO, stream=False).content)
        with self._client() as client:  # as most programs read a stream
            chunks = client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
            return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)

    def answer_after_tools(self, *, stream: bool) -> str:
        first = self._answer(HELLO, stream=stream, tools=[TOOL])
        call = first.tool_calls[0]
        said = {
            "role": "assistant",
            "content": None,
            "tool_calls": [call.model_dump(exclude={"function": {"parsed_arguments"}})],
        }
        result = {"role": "tool", "tool_call_id": call.id, "content": "21"}
        return str(self._answer([*HELLO, said, result], stream=stream, tools=[TOOL]).content)

    def json(self) -> dict[str, Any]:
        answer = self._answer(HELLO, stream=False, response_format={"type": "json_object"})
        found: dict[str, Any] = json.loads(answer.content)
        return found

    def embed(self, text: str) -> list[float]:
        with self._client() as client:
            return list(client.embeddings.create(model=EMBEDDER, input=text).data[0].embedding)


class AnthropicClient(Client):
    package = "anthropic"
    kind = "messages"

    def _answer(self, messages: Any, *, stream: bool, **options: Any) -> Any:
        import anthropic
        import httpx2

        from lmdeck.contrib.httpx2 import RepairTransport

        http = None if self.is_plain else httpx2.Client(transport=RepairTransport(), timeout=None)
        asked: Any = {"model": MODEL, "max_tokens": 500, "messages": messages, **options}
        with anthropic.Anthropic(base_url=self.url, api_key="lm-studio", http_client=http) as client:
            if not stream:
                return client.messages.create(**asked)
            with client.messages.stream(**asked) as events:
                return events.get_final_message()

    def _offer(self) -> list[Any]:
        return [{"name": "get_weather", "input_schema": SCHEMA}]

    def calls(self, *, stream: bool, named: bool = False) -> Calls:
        choice = {"type": "tool", "name": "get_weather"} if named else {"type": "auto"}
        answer = self._answer(HELLO, stream=stream, tools=self._offer(), tool_choice=choice)
        return [(block.name, block.input) for block in answer.content if block.type == "tool_use"]

    def text(self, *, stream: bool) -> str:
        return "".join(block.text for block in self._answer(HELLO, stream=stream).content if block.type == "text")

    def answer_after_tools(self, *, stream: bool) -> str:
        first = self._answer(HELLO, stream=stream, tools=self._offer())
        [call] = [block for block in first.content if block.type == "tool_use"]
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "21"}
        history = [*HELLO, {"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
        return "".join(block.text for block in self._answer(history, stream=stream, tools=self._offer()).content)


class PydanticAI(Client):
    package = "pydantic_ai"

    def _agent(self, **options: Any) -> Any:
        from pydantic_ai import Agent
        from pydantic_ai.models.openai import OpenAIChatModel
        from pydantic_ai.providers.openai import OpenAIProvider

        provider = OpenAIProvider(openai_client=self._async_openai())
        return Agent(OpenAIChatModel(MODEL, provider=provider), **options)

    def _ran(self, *, stream: bool, agent: Any) -> str:
        if not stream:
            return str(agent.run_sync("Weather in Paris?").output)
        return str(agent.run_stream_sync("Weather in Paris?").get_output())

    def _with_tool(self, calls: Calls) -> Any:
        agent = self._agent()

        @agent.tool_plain
        def get_weather(city: str) -> str:
            calls.append(("get_weather", {"city": city}))
            return "21"

        return agent

    def calls(self, *, stream: bool, named: bool = False) -> Calls:
        if named:  # a typed output is a tool that has to be called
            from pydantic import create_model

            output = create_model("City", city=(str, ...))
            made = self._agent(output_type=output).run_sync("Weather in Paris?").output
            return [("get_weather", made.model_dump())]
        calls: Calls = []
        self._ran(stream=stream, agent=self._with_tool(calls))
        return calls

    def text(self, *, stream: bool) -> str:
        return self._ran(stream=stream, agent=self._agent())

    def answer_after_tools(self, *, stream: bool) -> str:
        return self._ran(stream=stream, agent=self._with_tool([]))

    def json(self) -> dict[str, Any]:
        from pydantic import create_model
        from pydantic_ai import PromptedOutput

        output = create_model("City", city=(str, ...))
        made = self._agent(output_type=PromptedOutput(output)).run_sync("Weather in Paris?").output
        found: dict[str, Any] = made.model_dump()
        return found


class LangChain(Client):
    package = "langchain_openai"

    def _model(self) -> Any:
        from langchain_openai import ChatOpenAI

        return ChatOpenAI(model=MODEL, base_url=f"{self.url}/v1", api_key="lm-studio", http_client=self._http_client())

    def _message(self, model: Any, messages: Any, *, stream: bool) -> Any:
        if not stream:
            return model.invoke(messages)
        whole: Any = None
        for piece in model.stream(messages):
            whole = piece if whole is None else whole + piece
        return whole

    def calls(self, *, stream: bool, named: bool = False) -> Calls:
        model = self._model().bind_tools([TOOL], **({"tool_choice": "get_weather"} if named else {}))
        return [(call["name"], call["args"]) for call in self._message(model, HELLO, stream=stream).tool_calls]

    def text(self, *, stream: bool) -> str:
        return str(self._message(self._model(), HELLO, stream=stream).content)

    def answer_after_tools(self, *, stream: bool) -> str:
        from langchain_core.messages import HumanMessage, ToolMessage

        model = self._model().bind_tools([TOOL])
        asked = HumanMessage("Weather in Paris?")
        first = self._message(model, [asked], stream=stream)
        result = ToolMessage("21", tool_call_id=first.tool_calls[0]["id"])
        return str(self._message(model, [asked, first, result], stream=stream).content)

    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = (
            self._model().with_structured_output(SCHEMA | {"title": "City"}, method="json_mode").invoke(HELLO)
        )
        return found

    def embed(self, text: str) -> list[float]:
        from langchain_openai import OpenAIEmbeddings

        embeddings = OpenAIEmbeddings(
            model=EMBEDDER,
            base_url=f"{self.url}/v1",
            api_key="lm-studio",
            http_client=self._http_client(),
            check_embedding_ctx_length=False,
        )
        return list(embeddings.embed_query(text))


class Instructor(Client):
    package = "instructor"

    def _create(self, mode: str) -> dict[str, Any]:
        import instructor
        from pydantic import create_model

        kind = create_model("City", city=(str, ...))
        client = instructor.from_openai(self._openai(), mode=getattr(instructor.Mode, mode))
        made = client.chat.completions.create(model=MODEL, messages=HELLO, response_model=kind, max_retries=0)
        found: dict[str, Any] = made.model_dump()
        return found

    def calls(self, *, stream: bool, named: bool = False) -> Calls:
        if stream or not named:
            raise NotImplementedError  # it always names the one tool, and reads no streams of calls
        return [("get_weather", self._create("TOOLS"))]

    def json(self) -> dict[str, Any]:
        return self._create("JSON")


class OpenAIAgents(Client):
    package = "agents"

    def _run(self, tools: list[Any], *, stream: bool, **settings: Any) -> Any:
        import asyncio

        from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, Runner, set_tracing_disabled

        set_tracing_disabled(True)

        async def work() -> Any:
            async with self._async_openai() as client:
                model = OpenAIChatCompletionsModel(MODEL, client)
                agent = Agent("weather", model=model, tools=tools, model_settings=ModelSettings(**settings))
                if not stream:
                    return await Runner.run(agent, "Weather in Paris?")
                result = Runner.run_streamed(agent, "Weather in Paris?")
                async for _ in result.stream_events():
                    continue
                return result

        return asyncio.run(work()).final_output

    def _tool(self, calls: Calls) -> Any:
        from agents import function_tool

        @function_tool
        def get_weather(city: str) -> str:
            """Tell the weather."""
            calls.append(("get_weather", {"city": city}))
            return "21"

        return get_weather

    def calls(self, *, stream: bool, named: bool = False) -> Calls:
        calls: Calls = []
        self._run([self._tool(calls)], stream=stream, **({"tool_choice": "get_weather"} if named else {}))
        return calls

    def text(self, *, stream: bool) -> str:
        return str(self._run([], stream=stream))

    def answer_after_tools(self, *, stream: bool) -> str:
        return str(self._run([self._tool([])], stream=stream))


class LiteLLM(Client):
    package = "litellm"

    def _answer(self, messages: Any, *, stream: bool, **options: Any) -> Any:
        import litellm

        with self._openai() as client:
            asked = {"model": f"openai/{MODEL}", "messages": messages, "client": client, "stream": stream, **options}
            answer = litellm.completion(**asked)
            if stream:
                answer = litellm.stream_chunk_builder(list(answer), messages=messages)
            return answer.choices[0].message

    def calls(self, *, stream: bool, named: bool = False) -> Calls:
        choice = {"type": "function", "function": {"name": "get_weather"}} if named else "auto"
        message = self._answer(HELLO, stream=stream, tools=[TOOL], tool_choice=choice)
        return [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls or ()]

    def text(self, *, stream: bool) -> str:
        return str(self._answer(HELLO, stream=stream).content)

    def answer_after_tools(self, *, stream: bool) -> str:
        first = self._answer(HELLO, stream=stream, tools=[TOOL])
        result = {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "21"}
        return str(self._answer([*HELLO, first, result], stream=stream, tools=[TOOL]).content)

    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            self._answer(HELLO, stream=False, response_format={"type": "json_object"}).content
        )
        return found

    def embed(self, text: str) -> list[float]:
        import litellm

        with self._openai() as client:
            answer = litellm.embedding(model=f"openai/{EMBEDDER}", input=[text], client=client)
            return list(answer.data[0]["embedding"])


class DSPy(Client):
    """It makes its clients itself, so that it needs a proxy."""

    package = "dspy"

    @contextmanager
    def _lm(self) -> Iterator[Any]:
        import dspy

        with self._proxy() as url:
            lm = dspy.LM(f"openai/{MODEL}", api_base=f"{url}/v1", api_key="lm-studio", cache=False, num_retries=0)
            with dspy.context(lm=lm):
                yield dspy

    def text(self, *, stream: bool) -> str:
        if stream:
            raise NotImplementedError
        with self._lm() as dspy:
            return str(dspy.settings.lm("Weather in Paris?")[0])

    def answer_after_tools(self, *, stream: bool) -> str:
        raise NotImplementedError

    def json(self) -> dict[str, Any]:
        with self._lm() as dspy:
            adapter = dspy.JSONAdapter()
            with dspy.context(adapter=adapter):
                made = dspy.Predict("question -> city")(question="Weather in Paris?")
            return {"city": made.city}


class LLM(Client):
    """Simon Willison's `llm`, by the plugin that lmdeck brings."""

    package = "llm"

    @contextmanager
    def _model(self) -> Iterator[Any]:
        import os

        import llm

        before = os.environ.get("LMDECK_BASE_URL")
        os.environ["LMDECK_BASE_URL"] = self.url
        try:
            yield llm.get_model(f"lmdeck/{MODEL}")
        finally:
            if before is None:
                del os.environ["LMDECK_BASE_URL"]
            else:
                os.environ["LMDECK_BASE_URL"] = before

    def _chain(self, calls: Calls, *, stream: bool) -> str:
        import llm

        def get_weather(city: str) -> str:
            """Tell the weather."""
            calls.append(("get_weather", {"city": city}))
            return "21"

        with self._model() as model:
            return str(model.chain("Weather in Paris?", tools=[llm.Tool.function(get_weather)], stream=stream).text())

    def calls(self, *, stream: bool, named: bool = False) -> Calls:
        if named:
            raise NotImplementedError
        calls: Calls = []
        self._chain(calls, stream=stream)
        return calls

    def text(self, *, stream: bool) -> str:
        with self._model() as model:
            return str(model.prompt("Weather in Paris?", stream=stream).text())

    def answer_after_tools(self, *, stream: bool) -> str:
        return self._chain([], stream=stream).strip()

    def json(self) -> dict[str, Any]:
        with self._model() as model:
            found: dict[str, Any] = json.loads(model.prompt("Weather in Paris?", schema=SCHEMA, stream=False).text())
            return found


class NodeClient(Client):
    """A client in JavaScript: each call is a process of `javascript/client.mjs`."""

    package = "javascript"
    can_json = can_embed = True

    @classmethod
    def is_installed(cls) -> bool:
        return shutil.which("node") is not None and (JAVASCRIPT / "node_modules").is_dir()

    def _call(self, name: str, **options: Any) -> Any:
        with self._proxy() as url:
            asked = {"client": type(self).__name__, "call": name, "url": url, "model": MODEL, "embedder": EMBEDDER}
            command = ["node", str(JAVASCRIPT / "client.mjs"), json.dumps({**asked, "schema": SCHEMA, **options})]
            done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
        answer = json.loads(done.stdout.splitlines()[-1])
        if "error" not in answer:
            return answer["value"]
        kind = TypeError if answer["error"] in {"TypeError", "ReferenceError", "SyntaxError"} else RuntimeError
        raise kind(f"{answer['error']}: {answer['message']}")

    def calls(self, *, stream: bool, named: bool = False) -> Calls:
        return [(name, given) for name, given in self._call("calls", stream=stream, named=named)]

    def text(self, *, stream: bool) -> str:
        return str(self._call("text", stream=stream))

    def answer_after_tools(self, *, stream: bool) -> str:
        return str(self._call("answer_after_tools", stream=stream))

    def json(self) -> dict[str, Any]:
        if not self.can_json:
            raise NotImplementedError
        found: dict[str, Any] = self._call("json")
        return found

    def embed(self, text: str) -> list[float]:
        if not self.can_embed:
            raise NotImplementedError
        return list(self._call("embed", text=text))


class AISDK(NodeClient):
    """Vercel's AI SDK by `@ai-sdk/openai-compatible`."""


class AISDKResponses(NodeClient):
    """The AI SDK by `@ai-sdk/openai`, which asks `/v1/responses`."""

    kind = "responses"


class AISDKAnthropic(NodeClient):
    """The AI SDK by `@ai-sdk/anthropic`; it asks for JSON by a tool."""

    kind = "messages"
    can_json = can_embed = False


class OpenAINode(NodeClient):
    """The package `openai` of npm."""


class AnthropicNode(NodeClient):
    """The package `@anthropic-ai/sdk` of npm."""

    kind = "messages"
    can_json = can_embed = False


CLIENTS = [
    OpenAIClient,
    AnthropicClient,
    PydanticAI,
    LangChain,
    Instructor,
    OpenAIAgents,
    LiteLLM,
    DSPy,
    LLM,
    AISDK,
    AISDKResponses,
    AISDKAnthropic,
    OpenAINode,
    AnthropicNode,
]
