"""Replay recorded answers of LM Studio through OpenAI's and Anthropic's own clients, as they are and with lmdeck's transport.

    python scripts/client_replays.py replays.jsonl [--write PAGE] [--only ID] [--async] [--min-right 0.95]

Each line of the file is a scenario: what the client is asked to do (`call`, `request`, `client`), what the server answers
(`server`: status, body or `sse` frames, how the stream ends) and the expected outcome (`expect`). The server
refuses what LM Studio refuses. A scenario that the two clients have no call for (loading, downloads, the native chat) is
skipped. *Right*: the expected result, or an error of the client's own classes where an error is expected. *Reported*: such an
error where a result was possible. *Silently wrong*: a result that is not the expected one. *Crashed*: any other exception.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import inspect
import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import anthropic
import httpx2
import openai
import pydantic

from lmdeck.contrib.httpx2 import AsyncRepairTransport, RepairTransport
from lmdeck.server.errors import Refusal, unexpected_endpoint
from lmdeck.server.jobs import ModelDescription
from lmdeck.server.requests.chat import chat_job, completion_job
from lmdeck.server.requests.embeddings import embedding_job
from lmdeck.server.requests.messages import messages_request
from lmdeck.server.requests.responses import response_request

Scenario = Mapping[str, Any]
TIME_LIMIT = 30.0
OWN_ERRORS = (openai.OpenAIError, anthropic.AnthropicError, pydantic.ValidationError)  # the last is what `parse` raises
VERDICTS = ("right", "reported", "silently wrong", "crashed", "hung")
MARKED = re.compile(r"(<!-- replays -->\n).*?(\n<!-- /replays -->)", re.DOTALL)
RULES: dict[str, Callable[..., object]] = {
    "/v1/chat/completions": chat_job,
    "/v1/completions": completion_job,
    "/v1/embeddings": embedding_job,
    "/v1/responses": response_request,
    "/v1/messages": messages_request,
}


class Server:
    """One scenario's answers on a free loopback port."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._used: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.paths: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                server.serve(self)

            def do_POST(self) -> None:
                server.serve(self)

            def do_DELETE(self) -> None:
                server.serve(self)

            def log_message(self, *_: object) -> None:
                return

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._http.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that disconnect are expected
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        data = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        path = handler.path.partition("?")[0]
        answer = self._refusal(handler, path, data) or self._next(path, handler.command)
        if handler.command == "POST":
            self.paths.append(path)
        time.sleep(answer.get("delay", 0))
        if answer.get("end") == "hangup":
            _hang_up(handler)
            return
        _send(handler, answer)

    def _next(self, path: str, method: str) -> dict[str, Any]:
        with self._lock:
            for key in (path, ""):
                queue = [answer for answer in self._scenario["server"] if answer.get("path", "") == key]
                if queue and (key or method == "POST" or self._scenario["call"] == "models.list"):
                    self._used[key] += 1
                    return dict(queue[min(self._used[key], len(queue)) - 1])
        return {"status": 200, "body": json.dumps({"data": [], "models": [], "object": "list"})}

    def _refusal(self, handler: BaseHTTPRequestHandler, path: str, data: bytes) -> dict[str, Any] | None:
        token = self._scenario.get("require_token")
        sent = handler.headers.get("Authorization", "").removeprefix("Bearer "), handler.headers.get("x-api-key")
        if token and token not in sent:
            return {"status": 401, "body": json.dumps({"error": {"code": "invalid_api_key", "message": "no token"}})}
        known = path in RULES if handler.command == "POST" else path.startswith(("/v1/models", "/api/v"))
        if not known:
            return _refused(unexpected_endpoint(handler.command, path), path)
        if handler.command != "POST":
            return None
        body = json.loads(data)
        try:
            kind: Any = "embeddings" if path == "/v1/embeddings" else "llm"
            RULES[path](body, [ModelDescription(key=str(body.get("model") or "m"), display_name="m", type=kind)])
        except Refusal as refusal:
            return _refused(refusal, path)
        return None


def _refused(refusal: Refusal, path: str) -> dict[str, Any]:
    return {"status": refusal.status, "body": json.dumps(refusal.body(path))}


def _send(handler: BaseHTTPRequestHandler, answer: Mapping[str, Any]) -> None:
    is_stream = "sse" in answer
    kind = answer.get("content_type", "text/event-stream" if is_stream else "application/json; charset=utf-8")
    handler.send_response(answer.get("status", 200))
    handler.send_header("Content-Type", kind)
    for name, value in answer.get("headers", {}).items():
        handler.send_header(name, value)
    if not is_stream:
        body = answer.get("body", "").encode()
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        cut = len(body) // 2 if answer.get("end") == "abrupt" else len(body)
        handler.wfile.write(body[:cut])
    else:
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for number, frame in enumerate(_frames(answer)):
            time.sleep(answer.get("pauses", {}).get(str(number), 0))
            data = frame.encode()
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        if answer.get("end") != "abrupt":
            handler.wfile.write(b"0\r\n\r\n")
    if answer.get("end") == "abrupt" or answer.get("close_after"):
        _hang_up(handler)


def _frames(answer: Mapping[str, Any]) -> list[str]:
    return [*answer["sse"], *(["data: [DONE]\n\n"] if answer.get("end", "done") == "done" else [])]


def _hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    with contextlib.suppress(OSError):
        handler.connection.shutdown(socket.SHUT_RDWR)


@dataclass
class Outcome:
    """What a client returned, or the error that it raised."""

    content: str = ""
    reasoning: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    finish_reason: str | None = None
    usage_total: int | None = None
    model: str = ""
    id: str = ""
    ids: list[str] = field(default_factory=list)
    vectors: list[list[float]] = field(default_factory=list)
    value: Any = None
    error: BaseException | None = None


# --- the calls: written with `await`, so that one function serves sync and async clients -------------------------------------


async def _awaited(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


async def _iterate(stream: Any) -> Any:
    if hasattr(stream, "__aiter__"):
        async for item in stream:
            yield item
    else:
        for item in stream:
            yield item


def chat_arguments(scenario: Scenario) -> dict[str, Any]:
    """Return the arguments of `chat.completions.create`, as a user of OpenAI's client would write them."""
    request = scenario["request"]
    messages = [{"role": "system", "content": request["system"]}] if "system" in request else []
    messages += request.get("messages", [])
    if "user" in request:
        parts = [
            {"type": "image_url", "image_url": {"url": f"data:image/{_kind(image['name'])};base64,{image['base64']}"}}
            for image in request.get("images", [])
        ]
        content = [{"type": "text", "text": request["user"]}, *parts] if parts else request["user"]
        messages.append({"role": "user", "content": content})
    more: dict[str, Any] = dict(request.get("options", {}))
    if "tools" in request:
        more["tools"] = request["tools"]
    if "tool_choice" in request:
        more["tool_choice"] = request["tool_choice"]
    if "schema" in request:
        schema = {"name": "answer", "schema": request["schema"]}
        more["response_format"] = {"type": "json_schema", "json_schema": schema}
    known = {name: value for name, value in more.items() if name not in {"ttl", "draft_model"}}
    extra = {name: value for name, value in more.items() if name not in known}
    return {"model": request.get("model", "m"), "messages": messages, **known, "extra_body": extra}


def _kind(name: str) -> str:
    suffix = name.rpartition(".")[2].lower()
    return {"jpg": "jpeg"}.get(suffix, suffix)


def _read_message(outcome: Outcome, message: Any) -> None:
    outcome.content = (message.content or "").strip()
    extra = message.model_extra or {}
    outcome.reasoning = (extra.get("reasoning_content") or extra.get("reasoning") or "").strip()
    outcome.calls = [
        {"id": call.id, "name": call.function.name, "arguments": json.loads(call.function.arguments or "{}")}
        for call in message.tool_calls or ()
    ]


async def send(client: Any, scenario: Scenario, outcome: Outcome) -> None:
    """Ask for a complete answer."""
    answer = await _awaited(client.chat.completions.create(**chat_arguments(scenario)))
    choice = answer.choices[0]
    _read_message(outcome, choice.message)
    outcome.finish_reason, outcome.model, outcome.id = choice.finish_reason, answer.model, answer.id
    outcome.usage_total = answer.usage.total_tokens if answer.usage else None


async def stream(client: Any, scenario: Scenario, outcome: Outcome) -> None:
    """Ask for a stream and add its pieces up."""
    options = {"stream": True, "stream_options": {"include_usage": True}}
    calls: dict[int, dict[str, str]] = {}
    async for chunk in _iterate(await _awaited(client.chat.completions.create(**chat_arguments(scenario), **options))):
        outcome.model, outcome.id = chunk.model or outcome.model, chunk.id or outcome.id
        outcome.usage_total = chunk.usage.total_tokens if chunk.usage else outcome.usage_total
        for choice in chunk.choices or ():
            delta = choice.delta
            extra = delta.model_extra or {}
            outcome.content += delta.content or ""
            outcome.reasoning += extra.get("reasoning_content") or extra.get("reasoning") or ""
            for piece in delta.tool_calls or ():
                call = calls.setdefault(piece.index, {"id": "", "name": "", "arguments": ""})
                call["id"] = piece.id or call["id"]
                call["name"] += piece.function.name or ""
                call["arguments"] += piece.function.arguments or ""
            outcome.finish_reason = choice.finish_reason or outcome.finish_reason
    outcome.content, outcome.reasoning = outcome.content.strip(), outcome.reasoning.strip()
    outcome.calls = [{**call, "arguments": json.loads(call["arguments"] or "{}")} for call in calls.values()]


async def parse(client: Any, scenario: Scenario, outcome: Outcome) -> None:
    """Ask for an object of a type."""
    kind = _model_of(scenario["request"]["schema"])
    arguments = chat_arguments(scenario)
    answer = await _awaited(client.chat.completions.parse(**{**arguments, "response_format": kind}))
    parsed = answer.choices[0].message.parsed
    outcome.value = None if parsed is None else parsed.model_dump()


def _model_of(schema: Mapping[str, Any]) -> type[pydantic.BaseModel]:
    kinds = {"string": str, "integer": int, "number": float, "boolean": bool, "object": dict, "array": list}
    fields: dict[str, Any] = {name: (kinds[each["type"]], ...) for name, each in schema["properties"].items()}
    return pydantic.create_model("Answer", **fields)


async def run(client: Any, scenario: Scenario, outcome: Outcome) -> None:
    """Run the tools until the model answers."""
    arguments = chat_arguments(scenario)
    for _ in range(4):
        answer = await _awaited(client.chat.completions.create(**arguments))
        message = answer.choices[0].message
        _read_message(outcome, message)
        outcome.finish_reason = answer.choices[0].finish_reason
        if not outcome.calls:
            return
        arguments["messages"].append(message.model_dump(exclude_unset=True))
        for call in outcome.calls:
            result = json.dumps(scenario["request"]["tool_results"][call["name"]])
            arguments["messages"].append({"role": "tool", "tool_call_id": call["id"], "content": result})


def _flat(request: Mapping[str, Any]) -> dict[str, Any]:
    more = {name: value for name, value in request.items() if name != "options"}
    return {**more, **request.get("options", {})}


async def embed(client: Any, scenario: Scenario, outcome: Outcome) -> None:
    """Ask for vectors."""
    answer = await _awaited(client.embeddings.create(**_flat(scenario["request"])))
    outcome.vectors = [list(entry.embedding) for entry in answer.data]


async def complete(client: Any, scenario: Scenario, outcome: Outcome) -> None:
    """Ask for the continuation of a text."""
    answer = await _awaited(client.completions.create(**_flat(scenario["request"])))
    outcome.content, outcome.finish_reason = answer.choices[0].text.strip(), answer.choices[0].finish_reason


async def list_models(client: Any, scenario: Scenario, outcome: Outcome) -> None:  # noqa: ARG001  # as the others
    """Ask for the models."""
    outcome.ids = [model.id for model in (await _awaited(client.models.list())).data]


async def create_response(client: Any, scenario: Scenario, outcome: Outcome) -> None:
    """Ask `/v1/responses`."""
    _read_response(outcome, await _awaited(client.responses.create(**scenario["request"])))


async def stream_response(client: Any, scenario: Scenario, outcome: Outcome) -> None:
    """Ask `/v1/responses` for a stream; the text is that of the deltas, as a page would show it."""
    shown = ""
    async for event in _iterate(await _awaited(client.responses.create(**scenario["request"], stream=True))):
        if event.type == "response.output_text.delta":
            shown += event.delta
        if event.type in {"response.completed", "response.incomplete"}:
            _read_response(outcome, event.response)
    outcome.content = shown.strip()


def _read_response(outcome: Outcome, response: Any) -> None:
    outcome.content, outcome.model, outcome.id = response.output_text.strip(), response.model, response.id
    for item in response.output:
        if item.type == "function_call":
            arguments = json.loads(item.arguments or "{}")
            outcome.calls.append({"id": item.call_id, "name": item.name, "arguments": arguments})
        elif item.type == "reasoning":
            outcome.reasoning += "".join(part.text for part in item.content or item.summary or ()).strip()
    cut = response.status == "incomplete"
    outcome.finish_reason = "tool_calls" if outcome.calls else "length" if cut else "stop"
    outcome.usage_total = response.usage.total_tokens if response.usage else None


async def create_message(client: Any, scenario: Scenario, outcome: Outcome) -> None:
    """Ask `/v1/messages`."""
    _read_blocks(outcome, await _awaited(client.messages.create(**{"max_tokens": 1000, **scenario["request"]})))


async def stream_message(client: Any, scenario: Scenario, outcome: Outcome) -> None:
    """Ask `/v1/messages` for a stream."""
    manager = client.messages.stream(**{"max_tokens": 1000, **scenario["request"]})
    if hasattr(manager, "__aenter__"):
        async with manager as opened:
            _read_blocks(outcome, await opened.get_final_message())
    else:
        with manager as opened:
            _read_blocks(outcome, opened.get_final_message())


def _read_blocks(outcome: Outcome, message: Any) -> None:
    outcome.model, outcome.id = message.model, message.id
    for block in message.content:
        if block.type == "text":
            outcome.content = (outcome.content + block.text).strip()
        elif block.type == "thinking":
            outcome.reasoning += block.thinking.strip()
        elif block.type == "tool_use":
            outcome.calls.append({"id": block.id, "name": block.name, "arguments": block.input})
    reasons = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls"}
    outcome.finish_reason = reasons.get(message.stop_reason or "", message.stop_reason)


CALLS: dict[str, Callable[..., Any]] = {
    "send": send,
    "stream": stream,
    "parse": parse,
    "run": run,
    "embed": embed,
    "complete": complete,
    "models.list": list_models,
    "responses.create": create_response,
    "responses.stream": stream_response,
    "messages.create": create_message,
    "messages.stream": stream_message,
}


def make_client(scenario: Scenario, url: str, *, repaired: bool, is_async: bool) -> Any:
    """Return OpenAI's or Anthropic's client of the server, with the same time limits for both."""
    settings = dict(scenario.get("client", {}))
    suffix, token = settings.pop("base_url_suffix", ""), settings.pop("api_token", "lm-studio")
    limits = {"timeout": 5.0, "first_token_timeout": 8.0, "connect_timeout": 2.0, **settings}
    options: dict[str, Any] = {"api_key": token}
    if repaired:
        make_transport: Any = AsyncRepairTransport if is_async else RepairTransport
        transport = make_transport(retry_delay=0.01, **limits)
        kind = httpx2.AsyncClient if is_async else httpx2.Client
        options["http_client"] = kind(transport=transport, timeout=None, trust_env=False)
    else:
        options["timeout"] = max(limits["timeout"], limits["first_token_timeout"])
    if scenario["call"].startswith("messages."):
        maker: Any = anthropic.AsyncAnthropic if is_async else anthropic.Anthropic
        return maker(base_url=url + suffix, **options)
    maker = openai.AsyncOpenAI if is_async else openai.OpenAI
    return maker(base_url=url + (suffix or "/v1"), **options)


def perform(scenario: Scenario, *, repaired: bool, is_async: bool) -> tuple[str, str]:
    """Run one scenario; return the verdict and what was wrong."""
    outcome = Outcome()
    done = threading.Event()

    def work() -> None:
        try:
            with Server(scenario) as server:
                asyncio.run(_call(scenario, server.url, outcome, repaired=repaired, is_async=is_async))
        except BaseException as error:  # every failure is an observation here
            outcome.error = error
        done.set()

    threading.Thread(target=work, daemon=True).start()
    if not done.wait(TIME_LIMIT):
        return "hung", "no outcome in time"
    return judge(scenario, outcome)


async def _call(scenario: Scenario, url: str, outcome: Outcome, *, repaired: bool, is_async: bool) -> None:
    client = make_client(scenario, url, repaired=repaired, is_async=is_async)
    try:
        for _ in range(scenario.get("repeat", 1)):
            outcome.__init__()  # type: ignore[misc]  # only the last one counts
            await CALLS[scenario["call"]](client, scenario, outcome)
    finally:
        await _awaited(client.close())


def judge(scenario: Scenario, outcome: Outcome) -> tuple[str, str]:
    """Compare what was outcome with what is expected."""
    options = scenario["expect"].get("any", [scenario["expect"]])
    wrongs = [list(_wrongs(expected, outcome)) for expected in options]
    if any(not wrong for wrong in wrongs):
        return "right", ""
    wrong = "; ".join(wrongs[0])
    if outcome.error is None:
        return "silently wrong", wrong
    return ("reported" if isinstance(outcome.error, OWN_ERRORS) else "crashed"), wrong


def _wrongs(expected: Mapping[str, Any], outcome: Outcome) -> Iterator[str]:
    if "error" in expected:
        yield from _wrong_error(expected, outcome)
        return
    if outcome.error is not None:
        yield f"{type(outcome.error).__name__}: {outcome.error}"
        return
    for name in ("content", "reasoning", "finish_reason", "usage_total", "model", "id", "ids", "value"):
        if name in expected and getattr(outcome, name) != expected[name]:
            yield f"{name}: {getattr(outcome, name)!r}, expected {expected[name]!r}"
    calls = [{"name": call["name"], "arguments": call["arguments"]} for call in outcome.calls]
    if "calls" in expected and calls != expected["calls"]:
        yield f"calls: {calls!r}, expected {expected['calls']!r}"
    ids = [call["id"] for call in outcome.calls]
    if not all(ids) or len(set(ids)) != len(ids):
        yield f"call ids: {ids!r}"
    missing = [part for part in expected.get("content_includes", ()) if part not in outcome.content]
    missing += [name for name in expected.get("ids_include", ()) if name not in outcome.ids]
    if missing:
        yield f"lacks {missing!r}"
    if "vectors" in expected and not _are_close(expected["vectors"], outcome.vectors):
        yield "the vectors differ"


def _wrong_error(expected: Mapping[str, Any], outcome: Outcome) -> Iterator[str]:
    if outcome.error is None:
        yield f"no error, but {outcome.content[:80]!r}; expected {expected['error']}"
    elif not isinstance(outcome.error, OWN_ERRORS):
        yield f"{type(outcome.error).__name__}: {outcome.error}"
    elif getattr(outcome.error, "status_code", 400) < 400 and "chunks_content" not in expected:
        yield f"an error with status {getattr(outcome.error, 'status_code', None)}"
    for part in expected.get("text_excludes", ()):
        if part in str(outcome.error):
            yield f"the error shows {part!r}"


def _are_close(expected: list[list[float]], outcome: list[list[float]]) -> bool:
    same = [len(one) for one in expected] == [len(one) for one in outcome]
    return same and all(
        abs(a - b) < 1e-5 for one, other in zip(expected, outcome, strict=True) for a, b in zip(one, other, strict=True)
    )


def main() -> int:
    """Run all scenarios and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", help="scenarios, one JSON object a line")
    parser.add_argument("--only", metavar="ID", help="run the scenarios whose id contains this")
    parser.add_argument("--async", dest="is_async", action="store_true", help="use the async clients")
    parser.add_argument("--repaired-only", action="store_true", help="run only the clients with lmdeck's transport")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the table between the markers of this page")
    parser.add_argument(
        "--min-right", type=float, default=0.95, help="share of right outcomes that is required with lmdeck"
    )
    arguments = parser.parse_args()
    lines = [line for file in arguments.files for line in file.read_text(encoding="utf-8").splitlines()]
    scenarios = [json.loads(line) for line in lines if line.strip()]
    scenarios = [each for each in scenarios if arguments.only is None or arguments.only in each["id"]]
    known = [each for each in scenarios if _has_call(each)]
    ways = [True] if arguments.repaired_only else [False, True]
    found = {
        (each["id"], repaired): perform(each, repaired=repaired, is_async=arguments.is_async)
        for each in known
        for repaired in ways
    }
    for each in known:
        verdict, why = found[each["id"], True]
        if verdict != "right":
            print(f"{verdict.upper()} {each['id']}: {why}".replace("\n", "\\n")[:600])
    table = "\n".join(_table(known, found, ways))
    print(f"\n{table}")
    if arguments.write:
        page = arguments.write.read_text(encoding="utf-8")
        arguments.write.write_text(MARKED.sub(lambda marks: f"{marks[1]}{table}{marks[2]}", page), encoding="utf-8")
    print(
        f"\n{len(known)} scenarios; {len(scenarios) - len(known)} more were skipped: these clients have no such call."
    )
    good = Counter(found[each["id"], True][0] for each in known)
    is_good = good["right"] >= arguments.min_right * len(known) and not good["silently wrong"]
    return 0 if is_good else 1


def _has_call(scenario: Scenario) -> bool:
    """Whether OpenAI's or Anthropic's client has the call; the only model list they read is `/v1/models`."""
    is_native_list = scenario["call"] == "models.list" and not any(
        (answer.get("path", "/v1/models") == "/v1/models" and "data" in answer.get("body", "error"))
        or answer.get("status", 200) >= 400
        for answer in scenario["server"]
    )
    return scenario["call"] in CALLS and not is_native_list


def _table(known: list[Scenario], found: Mapping[tuple[str, bool], tuple[str, str]], ways: list[bool]) -> Iterator[str]:
    names = {False: "as it is", True: "with lmdeck"}
    heads = [f"{verdict} {names[way]}" for way in ways for verdict in ("right", "silently wrong", "other")]
    yield f"| theme | scenarios | {' | '.join(heads)} |"
    yield f"|---|---{'|---' * len(heads)}|"
    for theme in [*sorted({each["theme"] for each in known}), "all"]:
        chosen = [each for each in known if theme in (each["theme"], "all")]
        cells = []
        for way in ways:
            counts = Counter(found[each["id"], way][0] for each in chosen)
            other = len(chosen) - counts["right"] - counts["silently wrong"]
            cells += [str(counts["right"]), str(counts["silently wrong"]), str(other)]
        yield f"| {theme} | {len(chosen)} | {' | '.join(cells)} |"


if __name__ == "__main__":
    raise SystemExit(main())
