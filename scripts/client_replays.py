"""Replay recorded answers of LM Studio through OpenAI's and Anthropic's own clients, as they are and with lmdeck's transport.

    python scripts/client_replays.py replays.jsonl [--write PAGE] [--only ID] [--async] [--min-right 0.95]

Each line of the file is a scenario: what the client is asked to do (`call`, `request`, `client`), what the server answers
(`server`: status, body or `sse` frames, how the stream ends) and what a robust client makes of it (`expect`). The server
refuses what LM Studio refuses. A scenario that the two clients have no call for (loading, downloads, the native chat) is
skipped. *Right*: the expected result, or an error of the client's own classes where an error is expected. *Said so*: such an
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
VERDICTS = ("right", "said so", "silently wrong", "crashed", "hung")
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
        self._http.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients go away, that is the point
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
        given = handler.headers.get("Authorization", "").removeprefix("Bearer "), handler.headers.get("x-api-key")
        if token and token not in given:
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
class Seen:
    """What a client made of the answer."""

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


# --- the calls: written with `await`, so that one text serves both kinds of client -------------------------------------


async def _now(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


async def _each(stream: Any) -> Any:
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


def _read_message(seen: Seen, message: Any) -> None:
    seen.content = (message.content or "").strip()
    extra = message.model_extra or {}
    seen.reasoning = (extra.get("reasoning_content") or extra.get("reasoning") or "").strip()
    seen.calls = [
        {"id": call.id, "name": call.function.name, "arguments": json.loads(call.function.arguments or "{}")}
        for call in message.tool_calls or ()
    ]


async def send(client: Any, scenario: Scenario, seen: Seen) -> None:
    """Ask for a whole answer."""
    answer = await _now(client.chat.completions.create(**chat_arguments(scenario)))
    choice = answer.choices[0]
    _read_message(seen, choice.message)
    seen.finish_reason, seen.model, seen.id = choice.finish_reason, answer.model, answer.id
    seen.usage_total = answer.usage.total_tokens if answer.usage else None


async def stream(client: Any, scenario: Scenario, seen: Seen) -> None:
    """Ask for a stream and add its pieces up."""
    options = {"stream": True, "stream_options": {"include_usage": True}}
    calls: dict[int, dict[str, str]] = {}
    async for chunk in _each(await _now(client.chat.completions.create(**chat_arguments(scenario), **options))):
        seen.model, seen.id = chunk.model or seen.model, chunk.id or seen.id
        seen.usage_total = chunk.usage.total_tokens if chunk.usage else seen.usage_total
        for choice in chunk.choices or ():
            delta = choice.delta
            extra = delta.model_extra or {}
            seen.content += delta.content or ""
            seen.reasoning += extra.get("reasoning_content") or extra.get("reasoning") or ""
            for piece in delta.tool_calls or ():
                call = calls.setdefault(piece.index, {"id": "", "name": "", "arguments": ""})
                call["id"] = piece.id or call["id"]
                call["name"] += piece.function.name or ""
                call["arguments"] += piece.function.arguments or ""
            seen.finish_reason = choice.finish_reason or seen.finish_reason
    seen.content, seen.reasoning = seen.content.strip(), seen.reasoning.strip()
    seen.calls = [{**call, "arguments": json.loads(call["arguments"] or "{}")} for call in calls.values()]


async def parse(client: Any, scenario: Scenario, seen: Seen) -> None:
    """Ask for an object of a type."""
    kind = _model_of(scenario["request"]["schema"])
    arguments = chat_arguments(scenario)
    answer = await _now(client.chat.completions.parse(**{**arguments, "response_format": kind}))
    parsed = answer.choices[0].message.parsed
    seen.value = None if parsed is None else parsed.model_dump()


def _model_of(schema: Mapping[str, Any]) -> type[pydantic.BaseModel]:
    kinds = {"string": str, "integer": int, "number": float, "boolean": bool, "object": dict, "array": list}
    fields: dict[str, Any] = {name: (kinds[each["type"]], ...) for name, each in schema["properties"].items()}
    return pydantic.create_model("Answer", **fields)


async def run(client: Any, scenario: Scenario, seen: Seen) -> None:
    """Run the tools until the model answers."""
    arguments = chat_arguments(scenario)
    for _ in range(4):
        answer = await _now(client.chat.completions.create(**arguments))
        message = answer.choices[0].message
        _read_message(seen, message)
        seen.finish_reason = answer.choices[0].finish_reason
        if not seen.calls:
            return
        arguments["messages"].append(message.model_dump(exclude_unset=True))
        for call in seen.calls:
            result = json.dumps(scenario["request"]["tool_results"][call["name"]])
            arguments["messages"].append({"role": "tool", "tool_call_id": call["id"], "content": result})


def _flat(request: Mapping[str, Any]) -> dict[str, Any]:
    more = {name: value for name, value in request.items() if name != "options"}
    return {**more, **request.get("options", {})}


async def embed(client: Any, scenario: Scenario, seen: Seen) -> None:
    """Ask for vectors."""
    answer = await _now(client.embeddings.create(**_flat(scenario["request"])))
    seen.vectors = [list(entry.embedding) for entry in answer.data]


async def complete(client: Any, scenario: Scenario, seen: Seen) -> None:
    """Ask for a text to go on."""
    answer = await _now(client.completions.create(**_flat(scenario["request"])))
    seen.content, seen.finish_reason = answer.choices[0].text.strip(), answer.choices[0].finish_reason


async def list_models(client: Any, scenario: Scenario, seen: Seen) -> None:  # noqa: ARG001  # as the others
    """Ask for the models."""
    seen.ids = [model.id for model in (await _now(client.models.list())).data]


async def create_response(client: Any, scenario: Scenario, seen: Seen) -> None:
    """Ask `/v1/responses`."""
    _read_response(seen, await _now(client.responses.create(**scenario["request"])))


async def stream_response(client: Any, scenario: Scenario, seen: Seen) -> None:
    """Ask `/v1/responses` for a stream; the text is that of the deltas, as a page would show it."""
    shown = ""
    async for event in _each(await _now(client.responses.create(**scenario["request"], stream=True))):
        if event.type == "response.output_text.delta":
            shown += event.delta
        if event.type in {"response.completed", "response.incomplete"}:
            _read_response(seen, event.response)
    seen.content = shown.strip()


def _read_response(seen: Seen, response: Any) -> None:
    seen.content, seen.model, seen.id = response.output_text.strip(), response.model, response.id
    for item in response.output:
        if item.type == "function_call":
            arguments = json.loads(item.arguments or "{}")
            seen.calls.append({"id": item.call_id, "name": item.name, "arguments": arguments})
        elif item.type == "reasoning":
            seen.reasoning += "".join(part.text for part in item.content or item.summary or ()).strip()
    cut = response.status == "incomplete"
    seen.finish_reason = "tool_calls" if seen.calls else "length" if cut else "stop"
    seen.usage_total = response.usage.total_tokens if response.usage else None


async def create_message(client: Any, scenario: Scenario, seen: Seen) -> None:
    """Ask `/v1/messages`."""
    _read_blocks(seen, await _now(client.messages.create(**{"max_tokens": 1000, **scenario["request"]})))


async def stream_message(client: Any, scenario: Scenario, seen: Seen) -> None:
    """Ask `/v1/messages` for a stream."""
    manager = client.messages.stream(**{"max_tokens": 1000, **scenario["request"]})
    if hasattr(manager, "__aenter__"):
        async with manager as opened:
            _read_blocks(seen, await opened.get_final_message())
    else:
        with manager as opened:
            _read_blocks(seen, opened.get_final_message())


def _read_blocks(seen: Seen, message: Any) -> None:
    seen.model, seen.id = message.model, message.id
    for block in message.content:
        if block.type == "text":
            seen.content = (seen.content + block.text).strip()
        elif block.type == "thinking":
            seen.reasoning += block.thinking.strip()
        elif block.type == "tool_use":
            seen.calls.append({"id": block.id, "name": block.name, "arguments": block.input})
    reasons = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls"}
    seen.finish_reason = reasons.get(message.stop_reason or "", message.stop_reason)


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
    """Return OpenAI's client, or Anthropic's, on the server; both kinds wait for as long."""
    given = dict(scenario.get("client", {}))
    suffix, token = given.pop("base_url_suffix", ""), given.pop("api_token", "lm-studio")
    limits = {"timeout": 5.0, "first_token_timeout": 8.0, "connect_timeout": 2.0, **given}
    options: dict[str, Any] = {"api_key": token}
    if repaired:
        settings = {"retry_delay": 0.01, **limits}
        transport: Any = (AsyncRepairTransport if is_async else RepairTransport)(**settings)
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
    seen = Seen()
    done = threading.Event()

    def work() -> None:
        try:
            with Server(scenario) as server:
                asyncio.run(_call(scenario, server.url, seen, repaired=repaired, is_async=is_async))
        except BaseException as error:  # every failure is an observation here
            seen.error = error
        done.set()

    threading.Thread(target=work, daemon=True).start()
    if not done.wait(TIME_LIMIT):
        return "hung", "no outcome in time"
    return judge(scenario, seen)


async def _call(scenario: Scenario, url: str, seen: Seen, *, repaired: bool, is_async: bool) -> None:
    client = make_client(scenario, url, repaired=repaired, is_async=is_async)
    try:
        for _ in range(scenario.get("repeat", 1)):
            seen.__init__()  # type: ignore[misc]  # only the last one counts
            await CALLS[scenario["call"]](client, scenario, seen)
    finally:
        await _now(client.close())


def judge(scenario: Scenario, seen: Seen) -> tuple[str, str]:
    """Compare what was seen with what is expected."""
    options = scenario["expect"].get("any", [scenario["expect"]])
    wrongs = [list(_wrongs(expected, seen)) for expected in options]
    if any(not wrong for wrong in wrongs):
        return "right", ""
    wrong = "; ".join(wrongs[0])
    if seen.error is None:
        return "silently wrong", wrong
    return ("said so" if isinstance(seen.error, OWN_ERRORS) else "crashed"), wrong


def _wrongs(expected: Mapping[str, Any], seen: Seen) -> Iterator[str]:
    if "error" in expected:
        yield from _wrong_error(expected, seen)
        return
    if seen.error is not None:
        yield f"{type(seen.error).__name__}: {seen.error}"
        return
    for name in ("content", "reasoning", "finish_reason", "usage_total", "model", "id", "ids", "value"):
        if name in expected and getattr(seen, name) != expected[name]:
            yield f"{name}: {getattr(seen, name)!r}, expected {expected[name]!r}"
    calls = [{"name": call["name"], "arguments": call["arguments"]} for call in seen.calls]
    if "calls" in expected and calls != expected["calls"]:
        yield f"calls: {calls!r}, expected {expected['calls']!r}"
    ids = [call["id"] for call in seen.calls]
    if not all(ids) or len(set(ids)) != len(ids):
        yield f"call ids: {ids!r}"
    missing = [part for part in expected.get("content_includes", ()) if part not in seen.content]
    missing += [name for name in expected.get("ids_include", ()) if name not in seen.ids]
    if missing:
        yield f"lacks {missing!r}"
    if "vectors" in expected and not _are_close(expected["vectors"], seen.vectors):
        yield "the vectors differ"


def _wrong_error(expected: Mapping[str, Any], seen: Seen) -> Iterator[str]:
    if seen.error is None:
        yield f"no error, but {seen.content[:80]!r}; expected {expected['error']}"
    elif not isinstance(seen.error, OWN_ERRORS):
        yield f"{type(seen.error).__name__}: {seen.error}"
    elif getattr(seen.error, "status_code", 400) < 400 and "chunks_content" not in expected:
        yield f"an error with status {getattr(seen.error, 'status_code', None)}"
    for part in expected.get("text_excludes", ()):
        if part in str(seen.error):
            yield f"the error shows {part!r}"


def _are_close(expected: list[list[float]], seen: list[list[float]]) -> bool:
    same = [len(one) for one in expected] == [len(one) for one in seen]
    return same and all(
        abs(a - b) < 1e-5 for one, other in zip(expected, seen, strict=True) for a, b in zip(one, other, strict=True)
    )


def main() -> int:
    """Run all scenarios and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", help="scenarios, one JSON object a line")
    parser.add_argument("--only", metavar="ID", help="run the scenarios whose id contains this")
    parser.add_argument("--async", dest="is_async", action="store_true", help="with the clients for asyncio")
    parser.add_argument("--repaired-only", action="store_true", help="leave the column of the bare clients out")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table between the marks of this page")
    parser.add_argument("--min-right", type=float, default=0.95, help="share that must be right with lmdeck")
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
    print(f"\n{len(known)} scenarios; {len(scenarios) - len(known)} are of calls that these clients do not have.")
    good = Counter(found[each["id"], True][0] for each in known)
    is_good = good["right"] >= arguments.min_right * len(known) and not good["silently wrong"]
    return 0 if is_good else 1


def _has_call(scenario: Scenario) -> bool:
    """Whether OpenAI's or Anthropic's client has the call; of the model lists they ask for `/v1/models` alone."""
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
