"""Hosts that answer wrongly: the client gets the right answer or a typed error in its format, and others are served."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import urllib3

from gateways import MODEL, Answer, GatewayProcess, config_of, gateway
from lmdeck.testing import FakeLMStudio
from loopback import CLOSE, HANG, Loopback, Request, Step, Steps, head, json_answer
from wire_faults import EITHER, ERROR, FAULTS, RIGHT, Fault, Whole

SETTINGS = """
[routing]
attempts = 1
faults = 1000
[timeouts]
connect = 30
first_token = 12
idle = 5
total = 8
"""
TEXT = "The answer is 42."
MAX_MESSAGE = 5000


def endless(whole: Whole) -> list[Step]:
    """Send events that say nothing, without end."""
    return [whole.chunked(), *[b"4000\r\n" + b": still here\n\n" * 1170 + b"\n" * 4 + b"\r\n"] * 40, CLOSE]


def huge_line(whole: Whole) -> list[Step]:
    """Send one line of 40 MB, in pieces."""
    return [
        head(200, content_type=whole.kind),
        b'data: {"choices":[{"delta":{"content":"',
        *[b"x" * (1 << 20)] * 40,
        CLOSE,
    ]


LIES = {
    **{name: fault for name, fault in FAULTS.items() if fault.first is None},
    "endless comments": Fault(endless, ERROR),
    "one huge line": Fault(huge_line, ERROR),
    "the other format": Fault(lambda w: [w.head.replace(b"event-stream", b"plain") + w.body], EITHER),
    "another model's list": Fault(lambda _: json_answer({"object": "list", "data": [{"id": "x"}]}), ERROR),
    "a redirect to itself": Fault(lambda _: [head(307, location="/v1/chat/completions", content_length=0)], ERROR),
}


class Format(NamedTuple):
    """A way to ask: the path, the body, and how to read text and error of an answer."""

    path: str
    streams: bool
    fields: dict[str, Any]


FORMATS = {
    f"{name}{' streamed' if streams else ''}": Format(path, streams, fields)
    for name, path, fields in (
        ("chat", "/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
        ("messages", "/v1/messages", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 99}),
        ("responses", "/v1/responses", {"input": "Hi"}),
    )
    for streams in (False, True)
}


def asked(form: Format, model: str) -> dict[str, Any]:
    return {"model": model, **form.fields, **({"stream": True} if form.streams else {})}


@pytest.fixture(scope="module")
def wholes() -> dict[str, Whole]:
    """What a right host answers in each format."""
    with FakeLMStudio(strict=False) as fake:
        fake.when(lambda _: True).reply(TEXT)
        found = {}
        for name, form in FORMATS.items():
            answer = urllib3.request("POST", f"{fake.base_url}{form.path}", json=asked(form, MODEL))
            found[name] = Whole(answer.status, answer.headers["content-type"], answer.data)
    return found


def listing(model: str) -> dict[str, Any]:
    return {"models": [{"type": "llm", "key": model, "max_context_length": 4096,
                        "loaded_instances": [{"id": model, "config": {"context_length": 4096, "parallel": 9}}]}]}  # fmt: skip


def host_of(model: str, fault: Fault, wholes: dict[str, Whole]) -> Callable[[Request], Steps]:
    """Return the answers of a host that lists a model as it should, and answers with a fault."""

    def answer(request: Request) -> Steps:
        if request.method == "GET":
            return json_answer(listing(model)) if request.path == "/api/v1/models" else json_answer({}, 404)
        streams = bool(request.json.get("stream"))
        form = next(name for name, form in FORMATS.items() if (form.path, form.streams) == (request.path, streams))
        return fault.steps(wholes[form])

    return answer


def ask(running: GatewayProcess, form: Format, model: str) -> Answer:
    return running.request("POST", form.path, asked(form, model))


def test_a_wrong_answer_is_repaired_or_a_typed_error(wholes: dict[str, Whole], tmp_path: Path) -> None:
    """Every fault in every format through one gateway at once, and the right host is served among them."""
    with ExitStack() as stack:
        good = stack.enter_context(FakeLMStudio(strict=False))
        good.when(lambda _: True).reply(TEXT)
        models = {name: f"m{number}" for number, name in enumerate(LIES)}
        hosts = {
            models[name]: stack.enter_context(Loopback(host_of(models[name], fault, wholes))).url
            for name, fault in LIES.items()
        }
        running = stack.enter_context(gateway(tmp_path, config_of({"good": good.base_url, **hosts}, SETTINGS)))
        pool = stack.enter_context(ThreadPoolExecutor(64))
        asking = {
            (name, kind): pool.submit(ask, running, form, models[name])
            for name in LIES
            for kind, form in FORMATS.items()
        }
        others = [pool.submit(ask, running, form, MODEL) for form in FORMATS.values() for _ in range(10)]
        answers = {which: future.result() for which, future in asking.items()}
        assert {future.result().status for future in others} == {200}
        assert ask(running, FORMATS["chat streamed"], MODEL).text == TEXT
    wrong = {which: reason for which, answer in answers.items() if (reason := what_is_wrong(*which, answer))}
    assert not wrong


def what_is_wrong(name: str, kind: str, answer: Answer) -> str:
    """Return why an answer to a fault is neither right nor a typed error; empty if it is."""
    form, verdict = FORMATS[kind], LIES[name].verdict
    error = error_of(answer, form)
    if verdict == RIGHT or (verdict == EITHER and not error):
        is_right = answer.status in {200, 201} and not error and text_of(answer, form) == TEXT
        return "" if is_right else f"not the answer: {answer.status} {answer.body[-500:]!r}"
    if not error:
        return f"not an error: {answer.status} {answer.body[-500:]!r}"
    message = error["message"]
    is_typed = message and error["type"] and "\x1b" not in message and len(message) < MAX_MESSAGE
    return "" if is_typed else f"not a typed error: {error}"


def error_of(answer: Answer, form: Format) -> dict[str, Any]:
    """Return the error of an answer, in the form of its endpoint; empty if there is none."""
    if answer.status >= 400:
        assert answer.headers["content-type"] == "application/json"
        body = answer.json
    elif not form.streams:
        return {}
    else:
        last = answer.events[-1]
        body = last if last.get("error") or last.get("type") == "error" else {}
    if not body:
        return {}
    if form.path == "/v1/messages":
        assert body["type"] == "error"
    error = body["error"] if "error" in body else {**body, "type": body["type"]}
    assert isinstance(error, dict)
    return error


def text_of(answer: Answer, form: Format) -> str:
    """Return the text of an answer."""
    if form.path == "/v1/chat/completions":
        return answer.text if form.streams else str(answer.json["choices"][0]["message"]["content"])
    if form.path == "/v1/messages":
        if not form.streams:
            return "".join(block["text"] for block in answer.json["content"])
        return "".join(
            event["delta"].get("text", "") for event in answer.events if event["type"] == "content_block_delta"
        )
    if not form.streams:
        return "".join(part["text"] for item in answer.json["output"] for part in item.get("content", ()))
    return "".join(event["delta"] for event in answer.events if event["type"] == "response.output_text.delta")


# --- hosts whose list is wrong ---


def test_hosts_with_wrong_lists_are_down_or_have_no_such_model(tmp_path: Path) -> None:
    """The gateway starts, serves what the others have, and believes no list that is broken."""
    whole = Whole(200, "application/json", json.dumps(listing("lied")).encode())
    lists = {
        **LIES,
        "slow": Fault(lambda w: [w.head[:9], HANG], ERROR),
        "no models": Fault(lambda _: json_answer({"models": []}), EITHER),
        "models that are no objects": Fault(lambda _: json_answer({"models": [1, None, "x", []]}), EITHER),
        "models without keys": Fault(lambda _: json_answer({"models": [{"type": "llm"}, {"key": None}, {"key": 7}]}), EITHER),
        "instances that are no list": Fault(
            lambda _: json_answer({"models": [{"key": "lied", "type": "llm", "loaded_instances": 7}]}), EITHER
        ),
        "numbers as text": Fault(
            lambda _: json_answer({"models": [{"key": "lied", "type": "llm", "max_context_length": "many"}]}), EITHER
        ),
    }  # fmt: skip
    with ExitStack() as stack:
        good = stack.enter_context(FakeLMStudio(strict=False))
        good.when(lambda _: True).reply(TEXT)
        hosts = {}
        for number, fault in enumerate(lists.values()):
            steps = fault.steps(whole)
            hosts[f"h{number}"] = stack.enter_context(
                Loopback(lambda request, steps=steps: steps if request.method == "GET" else json_answer({}, 500))
            ).url
        text = config_of({"good": good.base_url, **hosts}, "[routing]\npoll = 0.5\nprobe = 0.5\nattempts = 1\n")
        running = stack.enter_context(gateway(tmp_path, text))
        for _ in range(3):
            assert running.chat().json["choices"][0]["message"]["content"] == TEXT
        for name in ("lied", "nobody"):
            answer = running.chat(model=name)
            assert answer.status >= 400
            assert answer.json["error"]["message"]
        assert MODEL in {each["id"] for each in running.get("/v1/models").json["data"]}
        status = {host["name"]: host for host in running.status()["hosts"]}
        assert status["good"]["up"]
        for number, (name, fault) in enumerate(lists.items()):
            host = status[f"h{number}"]
            assert not (fault.verdict == ERROR and "lied" in host["models"]), name
            assert not (fault.verdict == RIGHT and host["error"]), name
