"""The assembler: what a chunk means, when an answer is whole, and that streaming does not matter."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmdeck._limits import Limits
from lmdeck._parsing.call_ids import new_call_id
from lmdeck._parsing.offered_tools import OfferedTools
from lmdeck._parsing.parser import StreamParser
from lmdeck._parsing.text_buffer import TextBuffer
from lmdeck._streaming.assembler import ChatAssembler
from lmdeck._streaming.wire_chunks import WireCompletion
from lmdeck.errors import (
    EmptyReplyError,
    IncompleteStreamError,
    MalformedStreamError,
    ToolCallMissingError,
    ToolCallParseError,
)
from lmdeck.events import Chunk, ToolCallDelta
from lmdeck.messages import ModelDetails, Problem, Reply, Runtime, ToolCall
from lmdeck.stats import DraftTokens, Stats, Usage

USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}


def assembler(**options: Any) -> ChatAssembler:
    """Make an assembler whose new ids can be foretold."""
    numbers = count(1)
    return ChatAssembler(**{"new_id": lambda: f"new{next(numbers)}", **options})


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, index: int | None = 0, **more: Any) -> bytes:
    """Write a wire chunk with one choice."""
    choice = {"index": index, "delta": delta or {}, "logprobs": None, "finish_reason": finish}
    return json.dumps(
        {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m", "choices": [choice], **more}
    ).encode()


def body(message: dict[str, Any], finish: str | None = "stop", **more: Any) -> bytes:
    """Write a whole answer."""
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return json.dumps(
        {"id": "chatcmpl-1", "object": "chat.completion", "model": "m", "choices": [choice], **more}
    ).encode()


def feed(target: ChatAssembler, *wire: bytes) -> list[Chunk]:
    """Feed wire chunks."""
    chunks: list[Chunk] = []
    for data in wire:
        target.feed(msgspec.json.decode(data, type=WireCompletion), chunks)
    return chunks


def assemble(*wire: bytes, done: bool = False, **options: Any) -> tuple[Reply, list[Chunk]]:
    """Put an answer together, to its end."""
    target = assembler(**options)
    chunks = feed(target, *wire)
    if done:
        target.end()
    return target.close(chunks), chunks


def call_delta(index: int, id: str | None, name: str | None, arguments: str) -> dict[str, Any]:
    """Write a delta of a call."""
    return {"tool_calls": [{"index": index, "id": id, "function": {"name": name, "arguments": arguments}}]}


# --- what a chunk means -----------------------------------------------------------------------------------------------


def test_text_comes_as_it_is_written() -> None:
    """One chunk of ours for each piece of theirs, and the finish reason at the end."""
    reply, chunks = assemble(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": " Hi"}),
        chunk({"content": "! "}),
        chunk({}, "stop"),
    )
    assert chunks == [Chunk(" Hi"), Chunk("! "), Chunk(finish_reason="stop")]
    assert reply == Reply(content="Hi!", finish_reason="stop", model="m", id="chatcmpl-1")


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_has_two_names(field: str) -> None:
    """LM Studio changed the field's name between versions."""
    reply, chunks = assemble(chunk({field: "\nLet me"}), chunk({field: " think."}), chunk({"content": "42"}, "stop"))
    assert chunks == [Chunk(reasoning="\nLet me"), Chunk(reasoning=" think."), Chunk("42"), Chunk(finish_reason="stop")]
    assert (reply.reasoning, reply.content) == ("Let me think.", "42")


def test_reasoning_under_both_names_counts_once() -> None:
    """A server that sends both does not think twice."""
    assert assemble(chunk({"reasoning_content": "a", "reasoning": "a", "content": "b"}, "stop"))[0].reasoning == "a"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"),
        ([{"type": "image_url", "image_url": {}}, {"type": "text", "text": "b"}, {"text": 5}], "b"),
        ([], ""),
        (None, ""),
        ("a\r\nb\u2028c\x00", "a\r\nb\u2028c\x00"),
    ],
)
def test_content_is_text_or_parts(content: object, text: str) -> None:
    """The text of parts is joined, line ends stay as they are."""
    assert assemble(chunk({"content": content}), chunk({"content": "."}, "stop"))[0].content == f"{text}."


def test_a_refusal_is_content_and_reported() -> None:
    """The model's own words are shown, and that it declined is said once."""
    reply, _ = assemble(chunk({"refusal": "I "}), chunk({"refusal": "won't."}, "stop"))
    assert reply.content == "I won't."
    assert [problem.code for problem in reply.problems] == ["refusal"]


def test_a_call_comes_in_pieces_and_then_whole() -> None:
    """The whole call is given once, with the finish reason, which becomes that of calls."""
    reply, chunks = assemble(
        chunk(call_delta(0, "a", "f", "")),
        chunk(call_delta(0, None, "", '{"x":')),
        chunk(call_delta(0, None, "", "1}")),
        chunk({}, "stop"),
    )
    call = ToolCall(id="a", name="f", arguments={"x": 1}, raw_arguments='{"x":1}')
    assert chunks == [
        Chunk(tool_call_delta=ToolCallDelta(0, "a", "f", "")),
        Chunk(tool_call_delta=ToolCallDelta(0, "a", "", '{"x":')),
        Chunk(tool_call_delta=ToolCallDelta(0, "a", "", "1}")),
        Chunk(tool_call=call),
        Chunk(finish_reason="tool_calls"),
    ]
    assert (reply.tool_calls, reply.finish_reason) == ([call], "tool_calls")


def test_one_delta_may_hold_everything() -> None:
    """Reasoning, content and calls of one chunk are read in this order."""
    delta = {"reasoning_content": "hm", "content": "Look:", **call_delta(0, "a", "f", "{}")}
    kinds = [
        (
            bool(each.reasoning),
            bool(each.content),
            each.tool_call_delta is not None,
            each.has_tool_call,
            each.finish_reason,
        )
        for each in assemble(chunk(delta, "tool_calls"))[1]
    ]
    assert kinds == [
        (True, False, False, False, None),
        (False, True, False, False, None),
        (False, False, True, False, None),
        (False, False, False, True, None),
        (False, False, False, False, "tool_calls"),
    ]


def test_a_call_after_the_finish_reason_counts() -> None:
    """Late, but not lost; the reply's finish reason says so."""
    reply, _ = assemble(chunk({"content": "Hi"}, "stop"), chunk(call_delta(0, "a", "f", "{}")), done=True)
    assert [call.name for call in reply.tool_calls] == ["f"]
    assert reply.finish_reason == "tool_calls"


def test_text_after_the_finish_reason_is_kept_and_reported() -> None:
    """Some servers send the reason too early."""
    reply, chunks = assemble(chunk({"content": "On"}), chunk(finish="stop"), chunk({"content": "e"}))
    assert reply.content == "One"
    assert "".join(each.content for each in chunks) == "One"
    assert [problem.code for problem in reply.problems] == ["text_late"]


def test_a_finish_reason_that_is_no_reason_is_ignored() -> None:
    """SGLang wrote None as text into every chunk (vercel/ai #2548)."""
    reply, chunks = assemble(chunk({"content": "On"}, finish="None"), chunk({"content": "e"}, finish="stop"))
    assert (reply.content, reply.finish_reason, reply.problems) == ("One", "stop", [])
    assert [each.finish_reason for each in chunks if each.finish_reason] == ["stop"]


@pytest.mark.parametrize("reason", ["tool_calls", "function_call"])
def test_an_announced_call_that_never_came_is_reported(reason: str) -> None:
    """LM Studio leaves a call out that it could not read."""
    reply, _ = assemble(chunk({"content": "One"}), chunk(finish=reason))
    assert reply.content == "One"
    assert [problem.code for problem in reply.problems] == ["tool_call_missing"]
    with pytest.raises(ToolCallMissingError):
        assemble(chunk({"content": "One"}), chunk(finish=reason), strict=True)


def test_the_name_of_a_call_may_come_in_pieces() -> None:
    """The pieces are joined if they are not tools themselves and the whole is one."""
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}]
    reply, _ = assemble(
        chunk(call_delta(0, "a", "get_", "")),
        chunk(call_delta(0, None, "weather", "{}")),
        chunk(finish="stop"),
        tools=OfferedTools(tools),
    )
    assert [call.name for call in reply.tool_calls] == ["get_weather"]
    assert reply.problems == []


def test_only_the_first_choice_is_read() -> None:
    """Others are told once; the first to come is the first, whatever its number."""
    reply, _ = assemble(
        chunk({"content": "a"}, index=1),
        *[chunk({"content": "x"}, "stop", index=0)] * 2,
        chunk({"content": "b"}, "stop", index=1),
    )
    assert reply.content == "ab"
    assert [problem.code for problem in reply.problems] == ["extra_choice"]


def test_unknown_fields_are_passed_over() -> None:
    """A server may say more than we know."""
    delta = {"content": "a", "role": 5, "audio": {"x": [1]}, "annotations": None}
    assert assemble(chunk(delta, "stop", service_tier="x", system_fingerprint=None, timings={"a": 1}))[0].content == "a"


def test_id_and_model_are_the_first_that_are_named() -> None:
    """A first chunk without them does not hide those that follow; the asked model stands in."""
    empty = json.dumps({"id": None, "model": "", "choices": []}).encode()
    reply, _ = assemble(empty, chunk({"content": "a"}), chunk({}, "stop", id="other", model="other"))
    assert (reply.id, reply.model) == ("chatcmpl-1", "m")
    assert assemble(chunk({"content": "a"}, "stop", model=None), model="asked")[0].model == "asked"


def test_a_choice_may_say_nothing() -> None:
    """A choice has neither delta nor message, or null for both."""
    nothing = [b'{"choices":[{}]}', b'{"choices":[{"index":0,"delta":null,"message":null}]}']
    assert assemble(*nothing, chunk({"content": "a"}, "stop"))[0].content == "a"


# --- figures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wire",
    [
        [chunk({"content": "a"}), chunk({}, "stop", usage=USAGE)],
        [chunk({"content": "a"}), chunk({}, "stop"), json.dumps({"id": "x", "choices": [], "usage": USAGE}).encode()],
        [chunk({"content": "a"}), chunk({}, "stop"), json.dumps({"id": "x", "choices": None, "usage": USAGE}).encode()],
        [chunk({"content": "a"}), chunk({}, "stop"), chunk({}, None, usage=USAGE)],
        [chunk({"content": "a"}), chunk({}, "stop"), chunk({"content": ""}, "stop", usage=USAGE)],
        [json.dumps({"choices": [], "usage": None}).encode(), chunk({"content": "a"}, "stop", usage=USAGE)],
        [body({"content": "a"}, usage=USAGE | {"completion_tokens_details": {"accepted": 1}})],
    ],
)
def test_usage_is_found_wherever_it_is_sent(wire: list[bytes]) -> None:
    """Usage may come with the finish reason or after it, beside no choice or an empty one."""
    assert assemble(*wire)[0].usage == Usage(prompt_tokens=5, completion_tokens=3, total_tokens=8)


@pytest.mark.parametrize(
    "later",
    [
        {"prompt_tokens": None, "completion_tokens": None, "total_tokens": None},
        {"completion_tokens": 3, "prompt_tokens": None, "prompt_tokens_details": None},
        {"total_tokens": 8, "completion_tokens": "many"},
    ],
)
def test_counts_that_a_later_chunk_does_not_know_stay(later: dict[str, Any]) -> None:
    """Null is unknown, not 0 (co-l/openfox#236)."""
    usage = USAGE | {"prompt_tokens_details": {"cached_tokens": 4}}
    reply, _ = assemble(chunk({"content": "a"}), chunk({}, "stop", usage=usage), chunk({}, None, usage=later))
    assert reply.usage == Usage(prompt_tokens=5, completion_tokens=3, total_tokens=8, cached_tokens=4)


def test_what_was_cached_or_reasoning_is_known_where_the_server_says() -> None:
    """It is unknown, not 0, if the server does not report it."""
    details = {"prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 0}}
    usage = assemble(chunk({"content": "a"}), chunk({}, "stop", usage=USAGE | details))[0].usage
    assert usage is not None
    assert (usage.cached_tokens, usage.reasoning_tokens) == (4, 0)
    odd = assemble(chunk({"content": "a"}, "stop", usage={"prompt_tokens": "many"} | details))[0].usage
    assert odd == Usage(cached_tokens=4, reasoning_tokens=0)
    assert (usage + usage).to_dict() == {
        "prompt_tokens": 10, "completion_tokens": 6, "total_tokens": 16, "cached_tokens": 8, "reasoning_tokens": 0,
    }  # fmt: skip
    silent = assemble(chunk({"content": "a"}), chunk({}, "stop", usage=USAGE))[0].usage
    assert silent is not None
    assert (silent.cached_tokens, silent.reasoning_tokens) == (None, None)
    assert (silent + usage).cached_tokens == 4


TWO_CALLS = {"tool_calls": [call_delta(number, f"c{number}", "f", "{}")["tool_calls"][0] for number in range(2)]}


@pytest.mark.parametrize(
    ("delta", "options", "problem"),
    [
        ({"content": "a"}, {"expects_call": True}, ("tool_call_missing", "`tool_choice` demanded a tool call")),
        (call_delta(0, "c", "f", "{}"), {"expects_call": True}, None),
        (TWO_CALLS, {"expects_one_call": True}, ("parallel_calls", "has 2 calls, but only one was allowed")),
        (call_delta(0, "c", "f", "{}"), {"expects_one_call": True}, None),
        ({"content": "a"}, {"expects_logprobs": True}, ("logprobs_missing", "the server did not send any")),
    ],
)
def test_what_was_asked_for_and_did_not_come_is_reported(
    delta: dict[str, Any], options: dict[str, bool], problem: tuple[str, str] | None
) -> None:
    """The answer itself is kept; a demanded call is an error only where the caller wants it so."""
    reply, _ = assemble(chunk(delta, "stop"), **options)
    assert [each.code for each in reply.problems] == ([] if problem is None else [problem[0]])
    assert problem is None or problem[1] in reply.problems[0].detail
    assert reply.content or reply.tool_calls
    if problem is not None and problem[0] == "tool_call_missing":
        with pytest.raises(ToolCallMissingError, match="demanded a tool call"):
            assemble(chunk(delta, "stop"), strict=True, **options)


@pytest.mark.parametrize(
    ("requested", "answered", "differs"),
    [
        ("google/gemma-3-4b", "gemma-3-4b", False),
        ("gemma-3-4b", "gemma-3-4b:2", False),
        ("gemma-3-4b@q4_k_m", "Gemma-3-4B", False),
        ("gemma-3-4b", "C:\\models\\gemma-3-4b.gguf", False),
        ("gemma-3-4b", "/models/gemma-3-4b.gguf", False),
        ("gemma-3-4b", None, False),
        ("", "gemma-3-4b", False),
        ("alias", "known", False),
        ("gemma-3-4b", "gemma-3-12b", True),
        ("gemma-3-4b", "gemma-3-4b-it", True),
    ],
)
def test_another_model_than_the_requested_one_is_reported(requested: str, answered: str | None, differs: bool) -> None:
    """Instances, variants, publishers and files of one model are the same model, and so are its known names."""
    reply, _ = assemble(chunk({"content": "a"}, "stop", model=answered), model=requested, model_names=["known"])
    assert [problem.code for problem in reply.problems] == (["model_differs"] if differs else [])
    assert reply.model == (answered or requested)


@pytest.mark.parametrize(
    ("delta", "finish", "is_reported"),
    [
        ({"reasoning_content": "Hm."}, "length", True),
        ({"content": "<think>Hm, and so on"}, "length", True),
        ({"reasoning_content": "Hm.", "content": " \n"}, "length", True),
        ({"reasoning_content": "Hm.", "content": "So"}, "length", False),
        ({"reasoning_content": "Hm."}, "stop", False),
        ({"content": "So"}, "length", False),
    ],
)
def test_reasoning_that_used_up_the_budget_is_reported(delta: dict[str, Any], finish: str, is_reported: bool) -> None:
    """An answer without a word, since all the tokens went into the reasoning."""
    reply = assemble(chunk(delta), chunk({}, finish), text_parser=StreamParser(()))[0]
    assert ("reasoning_used_budget" in {problem.code for problem in reply.problems}) is is_reported


@pytest.mark.parametrize(
    ("delta", "finish", "told"),
    [
        ({"reasoning_content": "Hm."}, "stop", ["reasoning_only"]),
        ({"reasoning_content": "Hm.", "content": " \n"}, "stop", ["reasoning_only"]),
        ({"reasoning_content": "Hm."}, "tool_calls", ["tool_call_missing"]),
        ({"content": "<think>Hm."}, "stop", ["reasoning_unclosed"]),
        ({"reasoning_content": "Hm.", "content": "So"}, "stop", []),
    ],
)
def test_an_answer_of_reasoning_alone_is_reported(delta: dict[str, Any], finish: str, told: list[str]) -> None:
    """LM Studio reports success for it (bug tracker #1602)."""
    reply = assemble(chunk(delta), chunk({}, finish), text_parser=StreamParser(()))[0]
    assert [problem.code for problem in reply.problems] == told


def test_lm_studio_s_own_mark_of_the_end_of_the_reasoning_is_read() -> None:
    """What a stream has returned as content cannot be withdrawn, but is told (mozilla-ai/any-llm #1167)."""
    mark = "__LM_STUDIO_INTERNAL_LSEP_SYNTHETIC_REASONING_END_f4e9a8d2__"
    whole, _ = assemble(body({"content": f"Hm.\n{mark}{{}}"}), text_parser=StreamParser(()))
    assert (whole.reasoning, whole.content) == ("Hm.", "{}")
    assert [problem.code for problem in whole.problems] == ["token_dropped"]
    streamed, _ = assemble(chunk({"content": "Hm.\n"}), chunk({"content": mark}), chunk({"content": "{}"}, "stop"))
    assert streamed.content == f"Hm.\n{mark}{{}}"
    assert [problem.code for problem in streamed.problems] == ["reasoning_unopened"]
    other, _ = assemble(body({"content": "__LM_STUDIO_INTERNAL_"}))
    assert (other.content, other.problems) == ("__LM_STUDIO_INTERNAL_", [])


@pytest.mark.parametrize("reason", ["failed", "modelUnloaded", "userStopped"])
def test_an_answer_that_lm_studio_ended_early_is_incomplete(reason: str) -> None:
    """Its finish reason is that of a whole one; the text is kept (bug tracker #1620)."""
    with pytest.raises(IncompleteStreamError, match="ended the answer early") as caught:
        assemble(body({"content": "One"}, stats={"stop_reason": reason}))
    assert caught.value.partial is not None
    assert caught.value.partial.content == "One"


def test_what_lm_studio_says_of_itself() -> None:
    """The reply has LM Studio's speed, its model and its engine."""
    reply, _ = assemble(
        body(
            {"content": "a"},
            stats={
                "tokens_per_second": 29.5,
                "time_to_first_token": 1,
                "generation_time": 1.25,
                "stop_reason": "eosFound",
            },
            model_info={"arch": "qwen2", "quant": "Q8_0", "format": "gguf", "context_length": 4096},
            runtime={"name": "llama.cpp", "version": "1.21.0", "supported_formats": ["gguf"]},
        )
    )
    assert reply.stats == Stats(
        tokens_per_second=29.5, time_to_first_token=1.0, generation_time=1.25, stop_reason="eosFound"
    )
    assert reply.model_info == ModelDetails(arch="qwen2", quant="Q8_0", format="gguf", context_length=4096)
    assert reply.runtime == Runtime(name="llama.cpp", version="1.21.0", supported_formats=["gguf"])


@pytest.mark.parametrize(
    ("stats", "draft_tokens"),
    [
        ({"total_draft_tokens_count": 5, "accepted_draft_tokens_count": 3, "rejected_draft_tokens_count": 2},
         DraftTokens(total=5, accepted=3, rejected=2)),
        ({"accepted_draft_tokens_count": 3}, DraftTokens(accepted=3)),
        ({"total_draft_tokens_count": "many"}, None),
        ({"tokens_per_second": 9.5}, None),
    ],
)  # fmt: skip
def test_the_tokens_of_a_draft_model_are_counted(stats: dict[str, Any], draft_tokens: DraftTokens | None) -> None:
    """LM Studio sends them beside its other statistics."""
    assert assemble(body({"content": "a"}, stats=stats))[0].stats.draft_tokens == draft_tokens


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({"usage": {"prompt_tokens": "5", "completion_tokens": None}}, Usage(prompt_tokens=5)),
        (
            {"usage": {"prompt_tokens": -1, "completion_tokens": {}, "total_tokens": 2}},
            Usage(prompt_tokens=-1, total_tokens=2),
        ),
        ({"usage": None}, None),
        ({"usage": []}, None),
        ({"usage": "none"}, None),
        ({"usage": {}}, None),
        ({"stats": {}}, None),
        ({"stats": 5, "model_info": [], "runtime": "x"}, None),
        ({"stats": {"tokens_per_second": "fast", "stop_reason": 5}, "model_info": {"context_length": "4k"}}, None),
        ({"runtime": {"supported_formats": "gguf", "version": 1}}, None),
    ],
)
def test_odd_figures_lose_no_answer(figures: dict[str, Any], expected: Usage | None) -> None:
    """A wrong figure is left out, the right ones beside it stay."""
    reply, _ = assemble(chunk({"content": "a"}), chunk({}, "stop", **figures))
    assert reply.content == "a"
    assert reply.usage == expected
    assert reply.stats.tokens_per_second is None


# --- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("finish", [None, ""])
def test_without_a_finish_reason_an_answer_is_cut(finish: str | None) -> None:
    """Half an answer never looks whole; what came is in the error."""
    target = assembler()
    feed(target, chunk({"reasoning_content": "hm"}), chunk({"content": "Hel"}, finish))
    assert not target.is_complete
    with pytest.raises(IncompleteStreamError) as caught:
        target.close([])
    assert caught.value.partial == Reply(content="Hel", reasoning="hm", model="m", id="chatcmpl-1")


def test_the_end_mark_is_as_good_as_a_finish_reason() -> None:
    """Some servers send only `[DONE]`; calls are whole then, too."""
    reply, chunks = assemble(chunk({"content": "a"}), chunk(call_delta(0, "a", "f", "{}")), done=True)
    assert reply.finish_reason == "tool_calls"
    assert chunks[-1] == Chunk(finish_reason="tool_calls")
    assert assemble(chunk({"content": "a"}), done=True)[0].finish_reason == "stop"


def test_the_server_s_own_word_is_kept() -> None:
    """The first one counts."""
    reply, chunks = assemble(chunk({"content": "a"}, "content_filter"), chunk({}, "stop"))
    assert reply.finish_reason == "content_filter"
    assert [each.finish_reason for each in chunks if each.finish_reason] == ["content_filter"]


def test_a_partial_reply_has_whole_calls_only() -> None:
    """A call that is still being written is told as a problem, not given."""
    target = assembler()
    feed(target, chunk(call_delta(0, "a", "f", '{"x":1}')), chunk(call_delta(1, "b", "g", '{"y":')))
    for _ in range(2):
        partial = target.partial()
        assert [call.name for call in partial.tool_calls] == ["f"]
        assert [problem.code for problem in partial.problems] == ["tool_call_incomplete"]
        assert partial.finish_reason == ""
    feed(target, chunk(call_delta(1, None, "", "2}")), chunk({}, "tool_calls"))
    target.close([])
    assert [call.name for call in target.reply().tool_calls] == ["f", "g"]
    assert target.reply().problems == []


def test_a_call_that_the_token_limit_cut_is_a_problem() -> None:
    """`length` with half a call: the text stays, the call is told, and `strict` raises."""
    wire = [chunk({"content": "Look:"}), chunk(call_delta(0, "a", "f", '{"x":')), chunk({}, "length")]
    reply, _ = assemble(*wire)
    assert (reply.content, reply.tool_calls, reply.finish_reason) == ("Look:", [], "length")
    assert [problem.code for problem in reply.problems] == ["tool_call_incomplete"]
    with pytest.raises(ToolCallParseError) as caught:
        assemble(*wire, strict=True)
    assert '{"x":' in caught.value.raw
    assert caught.value.partial == reply


def test_a_call_that_is_no_json_is_a_problem_or_with_strict_an_error() -> None:
    """Such a call is never dropped silently."""
    wire = [chunk(call_delta(0, "a", "f", "{x}")), chunk({}, "tool_calls")]
    reply, _ = assemble(*wire)
    assert [problem.code for problem in reply.problems] == ["tool_call_unparsed"]
    with pytest.raises(ToolCallParseError, match="'f'"):
        assemble(*wire, strict=True)


def test_strict_has_nothing_against_a_good_answer() -> None:
    """Strict mode accepts a good answer, and other problems."""
    given_problem = Problem("adjusted", "x")
    reply, _ = assemble(chunk(call_delta(0, "", "f", "{}"), "stop"), strict=True, problems=[given_problem])
    assert reply.problems == [given_problem]
    assert reply.tool_calls[0].id == "new1"


@pytest.mark.parametrize("delta", [{}, {"content": ""}, {"content": " \n"}, {"content": None, "tool_calls": []}])
def test_an_empty_answer_is_an_error(delta: dict[str, Any]) -> None:
    """200 and not a word: the usage that hints at the cause is in the message."""
    with pytest.raises(EmptyReplyError, match="finish reason 'stop', 5 prompt tokens, 3 completion tokens") as caught:
        assemble(chunk(delta), chunk({}, "stop", usage=USAGE))
    assert caught.value.partial is not None
    assert caught.value.partial.usage == Usage(**USAGE)
    assert "max_tokens" not in caught.value.hint
    with pytest.raises(EmptyReplyError) as caught:
        assemble(chunk(delta), chunk({}, "length", usage=USAGE))
    assert "raise `max_tokens`" in caught.value.hint


@pytest.mark.parametrize(
    ("wire", "options"),
    [
        ([chunk({}, "length")], {"expects_tokens": False}),
        ([chunk({"reasoning_content": "hm"}, "length")], {}),
        ([chunk(call_delta(0, "a", "f", "{}"), "stop")], {}),
        ([chunk(call_delta(0, "a", "f", "{"), "length")], {}),
    ],
    ids=["no tokens asked for", "only reasoning", "only a call", "only a lost call, told as a problem"],
)
def test_what_is_not_empty(wire: list[bytes], options: dict[str, Any]) -> None:
    """Reasoning, a call, or the report of a lost one is an answer; so is nothing where nothing was asked for."""
    assert assemble(*wire, **options)[0].finish_reason


def test_limits_hold_for_calls() -> None:
    """They reach the slots."""
    with pytest.raises(MalformedStreamError, match="more than 1 tool calls"):
        assemble(
            chunk(call_delta(0, "a", "f", "{}")), chunk(call_delta(1, "b", "g", "{}")), limits=Limits(tool_calls=1)
        )


def test_a_new_id_pleases_every_template() -> None:
    """A new id has nine letters and digits."""
    ids = {new_call_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(len(id_) == 9 and id_.isascii() and id_.isalnum() for id_ in ids)


# --- the seam for text ------------------------------------------------------------------------------------------------


class Shouting:
    """A text parser that holds one letter back, calls a tool at `!`, and reports what it saw."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.content = TextBuffer()
        self.reasoning = TextBuffer()
        self._held = ""

    def feed_whole(self, text: str, chunks: list[Chunk]) -> None:
        chunks += self._said(text)

    def feed_into(self, text: str, chunks: list[Chunk]) -> None:
        text = self._held + text
        self._held = text[-1:]
        chunks += self._said(text[:-1])

    def feed_texts(self, texts: list[str], chunks: list[Chunk]) -> None:
        for text in texts:
            self.feed_into(text, chunks)

    def feed_reasoning(self, text: str, chunks: list[Chunk]) -> None:
        self.reasoning.write(text)
        chunks.append(Chunk(reasoning=text))

    def finish(self, *, answered: bool = False) -> list[Chunk]:
        self.problems.append(Problem("shouted", "x"))
        if self._held != "!":
            return self._said(self._held)
        self.reasoning.write("(louder)")
        return [Chunk(reasoning="(louder)"), Chunk(tool_call=ToolCall(id="t", name="shout"))]

    def _said(self, text: str) -> list[Chunk]:
        self.content.write(text.upper())
        return [Chunk(text.upper())] if text else []


def test_a_text_parser_sees_content_first() -> None:
    """What it gives is what the user sees, its calls and problems are the reply's."""
    reply, chunks = assemble(
        chunk({"content": "he"}), chunk({"content": "y!"}), chunk({}, "stop"), text_parser=Shouting()
    )
    assert [each.content for each in chunks if each.content] == ["H", "EY"]
    assert (reply.content, reply.reasoning, reply.finish_reason) == ("HEY", "(louder)", "tool_calls")
    assert [call.name for call in reply.tool_calls] == ["shout"]
    assert reply.problems == [Problem("shouted", "x")]


# --- streamed and not -------------------------------------------------------------------------------------------------

arguments = st.dictionaries(st.text(max_size=5), st.text(max_size=9) | st.integers(0, 99) | st.none(), max_size=3)
calls = st.lists(st.tuples(st.sampled_from(["f", "get_weather"]), arguments), max_size=3)


@given(
    st.text(),
    st.text(),
    calls,
    st.sampled_from(["stop", "length", "tool_calls", "odd"]),
    st.none() | st.just(USAGE),
    st.data(),
)
def test_a_streamed_answer_is_the_answer(
    content: str, reasoning: str, made: list, finish: str, usage: Any, data: st.DataObject
) -> None:
    """The same answer as one body and as chunks with random cuts gives the same reply."""

    def pieces(text: str) -> list[str]:
        cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
        return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]

    tool_calls = [
        {"id": f"id{number}", "type": "function", "function": {"name": name, "arguments": json.dumps(given_arguments)}}
        for number, (name, given_arguments) in enumerate(made)
    ]
    message = {"content": content, "reasoning_content": reasoning, "tool_calls": tool_calls}
    deltas = [{"reasoning_content": piece} for piece in pieces(reasoning)] + [
        {"content": piece} for piece in pieces(content)
    ]
    for number, call in enumerate(tool_calls):
        deltas.append(call_delta(number, call["id"], call["function"]["name"], ""))
        deltas += [call_delta(number, None, "", piece) for piece in pieces(call["function"]["arguments"])]
    whole, whole_chunks = assemble(body(message, finish, usage=usage), expects_tokens=False)
    streamed, chunks = assemble(*map(chunk, deltas), chunk({}, finish, usage=usage), expects_tokens=False)
    assert streamed == whole
    for each in (whole_chunks, chunks):
        assert "".join(piece.content for piece in each).strip() == whole.content
        assert "".join(piece.reasoning for piece in each).strip() == whole.reasoning
        assert [piece.tool_call for piece in each if piece.has_tool_call] == whole.tool_calls
        assert each[-1].finish_reason == whole.finish_reason
