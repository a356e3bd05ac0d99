"""The items of a `/v1/responses` stream come once, however a server names them: by index, by id, by both, or by neither."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from loopback import CLOSE, Loopback
from wire_formats import FORMATS, run, stream_of

TEXT = {"type": "message", "id": "msg_1", "role": "assistant", "content": [{"type": "output_text", "text": "One two"}]}
THOUGHT = {"type": "reasoning", "id": "rs_1", "content": [{"type": "reasoning_text", "text": "Hm"}], "summary": []}


def call(number: int) -> dict[str, Any]:
    """Return a finished call of a payment tool."""
    return {
        "type": "function_call",
        "id": f"fc_{number}",
        "call_id": f"call_{number}",
        "name": "pay",
        "arguments": f'{{"to": {number}}}',
    }


ITEMS: list[dict[str, Any]] = [THOUGHT, TEXT, call(1), call(2)]


def deltas(item: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the events that write an item."""
    if item["type"] == "function_call":
        name, field, whole = "function_call_arguments", "arguments", item["arguments"]
    else:
        name = "output_text" if item is TEXT else "reasoning_text"
        field, whole = "text", item["content"][0]["text"]
    half = len(whole) // 2
    return [
        {"type": f"response.{name}.delta", "item_id": item["id"], "delta": whole[:half]},
        {"type": f"response.{name}.delta", "item_id": item["id"], "delta": whole[half:]},
        {"type": f"response.{name}.done", "item_id": item["id"], field: whole},
    ]


def events(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a whole stream as OpenAI documents it."""
    out: list[dict[str, Any]] = [{"type": "response.created", "response": {"id": "resp_1", "status": "in_progress"}}]
    for index, item in enumerate(items):
        empty = {**item, **({"arguments": ""} if "arguments" in item else {"content": []})}
        own = [
            {"type": "response.output_item.added", "item": empty},
            *deltas(item),
            {"type": "response.output_item.done", "item": item},
        ]
        out += [{**event, "output_index": index} for event in own]
    return [*out, {"type": "response.completed", "response": {"id": "resp_1", "status": "completed", "output": items}}]


def without(*names: str) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    """Leave fields out of every event."""
    return lambda given: [{name: value for name, value in event.items() if name not in names} for event in given]


def rotating(given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return every event another id, as GitHub Copilot's server does; the index stays."""
    out = []
    for number, event in enumerate(given):
        changed = {**event, "item_id": f"x{number}"} if "item_id" in event else dict(event)
        if "item" in event:
            changed["item"] = {**event["item"], "id": f"y{number}"}
        out.append(changed)
    return out


def by_call_id(given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Name a call by its `call_id` in deltas and otherwise when done, as llama.cpp does (ggml-org/llama.cpp#21174)."""
    out = []
    for event in given:
        changed = dict(event)
        if str(event.get("item_id")).startswith("fc_"):
            changed["item_id"] = event["item_id"].replace("fc_", "call_")
        if event.get("item", {}).get("type") == "function_call":
            changed["item"] = {
                **event["item"],
                "id": "" if event["type"].endswith("added") else f"w_{event['item']['id']}",
            }
        out.append(changed)
    return out


def opened_by_other_ids(given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Name a call only where it opens and ends; its arguments have an id of their own."""
    return [
        {**event, "item_id": f"v_{event['item_id']}"} if "function_call_arguments" in event["type"] else event
        for event in given
    ]


def unnamed(given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Name no item anywhere."""
    bare = without("output_index", "item_id")(given)
    out = [{**event, "item": {**event["item"], "id": None}} if "item" in event else event for event in bare]
    return other_ids_at_end(out)


def constant_index(given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Say index 0 of every item; the ids tell them apart."""
    return [{**event, "output_index": 0} if "output_index" in event else event for event in given]


def other_ids_at_end(given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Name the items otherwise in the whole answer."""
    response = given[-1]["response"]
    output = [{**item, "id": f"z{number}"} for number, item in enumerate(response["output"])]
    return [*given[:-1], {**given[-1], "response": {**response, "output": output}}]


def without_output(given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave the items out of the whole answer."""
    return [*given[:-1], {**given[-1], "response": {**given[-1]["response"], "output": []}}]


def only(*kinds: str) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    """Keep events of some kinds, and the whole answer."""
    return lambda given: [event for event in given if event["type"].rpartition(".")[2] in {"completed", *kinds}]


SHAPES: dict[str, Callable[[list[dict[str, Any]]], list[dict[str, Any]]]] = {
    "both": lambda given: given,
    "ids only, as llama.cpp": without("output_index"),
    "index only": without("item_id"),
    "rotating ids": rotating,
    "the same index everywhere": constant_index,
    "other ids at the end": other_ids_at_end,
    "call ids, as llama.cpp": lambda given: by_call_id(without("output_index")(given)),
    "other ids of arguments": lambda given: opened_by_other_ids(without("output_index")(given)),
    "ids only, other ids at the end": lambda given: other_ids_at_end(without("output_index")(given)),
    "no items at the end": without_output,
    "ids only, no items at the end": lambda given: without_output(without("output_index")(given)),
    "no ids and no index": unnamed,
    "items only, no ids and no index": lambda given: unnamed(
        [event for event in given if event["type"] in {"response.output_item.done", "response.completed"}]
    ),
    "done events only": only("added", "done"),
    "done events only, ids only": lambda given: without("output_index")(only("added", "done")(given)),
    "the whole answer only": only(),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_every_item_comes_once(shape: str, is_async: bool) -> None:
    """Text, reasoning and two calls: a payment tool must not run twice."""
    with Loopback([stream_of(*SHAPES[shape](events(ITEMS))), CLOSE]) as server:
        outcome = run(server.url, FORMATS["responses"], is_async=is_async, stream=True)
    reply = outcome.value
    assert outcome.error is None
    assert (reply.content, reply.reasoning) == ("One two", "Hm")
    assert [(each.id, each.name, each.arguments) for each in reply.tool_calls] == [
        ("call_1", "pay", {"to": 1}),
        ("call_2", "pay", {"to": 2}),
    ]
    assert reply.problems == []
    assert "".join(chunk.content for chunk in outcome.chunks) == "One two"


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_text_of_a_finished_part_counts(is_async: bool) -> None:
    """The text of a finished part is used if no event brought it before."""
    part = {"type": "response.content_part.done", "item_id": "msg_1", "part": TEXT["content"][0]}
    given = [part, *without_output(events([]))]
    with Loopback([stream_of(*given), CLOSE]) as server:
        outcome = run(server.url, FORMATS["responses"], is_async=is_async, stream=True)
    assert outcome.value.content == "One two"


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_text_that_names_no_item_comes_once(is_async: bool) -> None:
    """Deltas without id and index bring all of the text there is."""
    given = without("output_index", "item_id")(events([TEXT]))
    given = [event for event in given if "item" not in event]
    with Loopback([stream_of(*given), CLOSE]) as server:
        outcome = run(server.url, FORMATS["responses"], is_async=is_async, stream=True)
    assert outcome.value.content == "One two"
