"""Native tool calls, as servers really send them: each oddity ends in the right calls, with ids of their own."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmdeck._limits import Limits
from lmdeck._parsing.offered_tools import OfferedTools
from lmdeck._streaming.tool_call_slots import ToolCallSlots
from lmdeck._streaming.wire_chunks import ToolDelta
from lmdeck.errors import MalformedStreamError
from lmdeck.events import ToolCallDelta
from lmdeck.messages import ToolCall

Delta = dict[str, Any]


def d(
    index: int | None = None,
    id: Any = None,
    name: Any = None,
    arguments: Any = None,
    **more: Any,
) -> Delta:
    """Write a delta; what is None is left out, `...` stands for null."""
    function = {"name": name, "arguments": arguments}
    given = {
        "index": index,
        "id": id,
        "type": "function",
        "function": {k: v for k, v in function.items() if v is not None},
    }
    shown = {k: v for k, v in given.items() if v is not None} | more
    return json.loads(json.dumps(shown, default=lambda _: None))


def slots_of(*deltas: Delta, **limits: int) -> tuple[ToolCallSlots, list[ToolCallDelta]]:
    """Feed the deltas."""
    numbers = count(1)
    slots = ToolCallSlots(Limits(**limits), lambda: f"new{next(numbers)}")
    fed = [slots.feed(msgspec.json.decode(msgspec.json.encode(delta), type=ToolDelta)) for delta in deltas]
    return slots, [delta for delta in fed if delta is not None]


PARIS, ROME = '{"city": "Paris"}', '{"city": "Rome"}'
W_PARIS, W_ROME, NOW = ("weather", {"city": "Paris"}), ("weather", {"city": "Rome"}), ("now", {})
T_ROME = ("time", {"city": "Rome"})

ODDITIES: dict[str, tuple[list[Delta], list[tuple[str, dict[str, Any]]]]] = {
    # --- as LM Studio sends them ---
    "lm studio: empty name on every continuation": (
        [d(0, "633167655", "weather", ""), d(0, name="", arguments='{"'), d(0, name="", arguments='city": "Paris"}')],
        [W_PARIS],
    ),
    "lm studio: no name on continuations": (
        [d(0, "a", "weather", ""), d(0, arguments='{"city": '), d(0, arguments='"Paris"}')],
        [W_PARIS],
    ),
    "lm studio: two calls one after the other": (
        [d(0, "1", "weather", ""), d(0, name="", arguments=PARIS), d(1, "2", "time", ""), d(1, name="", arguments=ROME)],
        [W_PARIS, T_ROME],
    ),
    "lm studio: empty ids (#830)": ([d(0, "", "weather", PARIS), d(1, "", "weather", ROME)], [W_PARIS, W_ROME]),
    "whole call in one delta": ([d(0, "a", "weather", PARIS)], [W_PARIS]),
    "nothing but a name": ([d(0, "a", "now")], [NOW]),
    # --- index ---
    "no index, one call": ([d(id="a", name="weather", arguments=""), d(arguments=PARIS)], [W_PARIS]),
    "no index, two calls": (
        [d(id="a", name="weather"), d(arguments=PARIS), d(id="b", name="time"), d(arguments=ROME)],
        [W_PARIS, T_ROME],
    ),
    "no index, several whole calls": (
        [d(name="weather", arguments=PARIS), d(name="weather", arguments=ROME), d(name="now"), d(name="time", arguments=ROME)],
        [W_PARIS, W_ROME, NOW, T_ROME],
    ),
    "no index, several calls without arguments": ([d(name="now"), d(name="then"), d(name="now")], [NOW, ("then", {}), NOW]),
    "null index and null id": ([d(id=..., name="weather", arguments=PARIS, index=...)], [W_PARIS]),
    "an index for every fragment": (
        [d(0, "a", "weather", ""), d(1, arguments='{"city": '), d(2, arguments='"Paris"}')],
        [W_PARIS],
    ),
    "a used index for the second call, and another for its arguments": (
        [d(0, "a", "weather", PARIS), d(0, "b", "time", ""), d(1, arguments=ROME)],
        [W_PARIS, T_ROME],
    ),
    "first index 1": ([d(1, "a", "weather", ""), d(1, arguments=PARIS)], [W_PARIS]),
    "indices with gaps, in falling order": (
        [d(7, "a", "weather", PARIS), d(3, "b", "time", ROME)],
        [W_PARIS, T_ROME],
    ),
    "index 0 for every call, told by ids (ollama)": (
        [d(0, "a", "weather", PARIS), d(0, "b", "weather", ROME), d(0, "c", "now", "{}")],
        [W_PARIS, W_ROME, NOW],
    ),
    "index 0 for every call, told by names": (
        [d(0, name="weather", arguments=PARIS), d(0, name="time", arguments=ROME)],
        [W_PARIS, T_ROME],
    ),
    "index 0 for every call, same name, no ids": (
        [d(0, name="weather", arguments=PARIS), d(0, name="weather", arguments=ROME)],
        [W_PARIS, W_ROME],
    ),
    "index 0 for every call, in pieces": (
        [d(0, "a", "weather"), d(0, arguments=PARIS), d(0, "b", "weather"), d(0, arguments=ROME)],
        [W_PARIS, W_ROME],
    ),
    "index 0 for every call, in pieces, no ids": (
        [d(0, name="weather"), d(0, arguments=PARIS), d(0, name="weather"), d(0, arguments=ROME)],
        [W_PARIS, W_ROME],
    ),
    "index appears late": ([d(id="a", name="weather"), d(0, "a", arguments=PARIS)], [W_PARIS]),
    # --- id ---
    "no id at all": ([d(0, name="weather"), d(0, arguments=PARIS)], [W_PARIS]),
    "id late": ([d(0, name="weather"), d(0, "a", arguments=PARIS)], [W_PARIS]),
    "id late, no index": ([d(name="weather"), d(id="a", arguments=PARIS)], [W_PARIS]),
    "id before the name": ([d(0, "a"), d(0, name="weather"), d(0, arguments=PARIS)], [W_PARIS]),
    "id on every delta": ([d(0, "a", "weather"), d(0, "a", arguments='{"city":'), d(0, "a", arguments='"Paris"}')], [W_PARIS]),
    "id on every delta, no index": ([d(id="a", name="weather"), d(id="a", arguments=PARIS)], [W_PARIS]),
    "another id on every delta (old vllm)": (
        [d(0, "a", "weather"), d(0, "b", arguments='{"city":'), d(0, "c", arguments='"Paris"}')],
        [W_PARIS],
    ),
    "numeric id": ([d(0, 238667999, "weather", PARIS)], [W_PARIS]),
    "one id for all calls": ([d(0, "x", "weather", PARIS), d(1, "x", "weather", ROME)], [W_PARIS, W_ROME]),
    "one id and one index for all calls": ([d(0, "x", "weather", PARIS), d(0, "x", "weather", ROME)], [W_PARIS, W_ROME]),
    "one id for all calls, interleaved by index": (
        [d(0, "x", "weather"), d(1, "x", "time"), d(0, "x", arguments=PARIS), d(1, "x", arguments=ROME)],
        [W_PARIS, T_ROME],
    ),
    # --- name ---
    "name in pieces": ([d(0, "a", "wea"), d(0, name="ther"), d(0, arguments=PARIS)], [W_PARIS]),
    "name on every delta": (
        [d(0, "a", "weather", ""), d(0, "a", "weather", '{"city":'), d(0, "a", "weather", '"Paris"}')],
        [W_PARIS],
    ),
    "name on every delta, a last one empty": (
        [d(0, "a", "weather", '{"city":'), d(0, "a", "weather", '"Paris"}'), d(0, "a", "weather", "")],
        [W_PARIS],
    ),
    "name on every delta, a last one empty, no ids": (
        [d(0, name="weather", arguments='{"city":'), d(0, name="weather", arguments='"Paris"}'), d(0, name="weather")],
        [W_PARIS],
    ),
    "name on every delta, neither index nor id": (
        [d(name="weather", arguments='{"city":'), d(name="weather", arguments='"Paris"}')],
        [W_PARIS],
    ),
    "name on every delta, two calls": (
        [d(0, name="weather", arguments='{"city":'), d(0, name="weather", arguments='"Paris"}'),
         d(1, name="weather", arguments=""), d(1, name="weather", arguments=ROME)],
        [W_PARIS, W_ROME],
    ),
    "null name on continuations": ([d(0, "a", "weather"), d(0, function={"name": None, "arguments": PARIS})], [W_PARIS]),
    "a stray blank after the arguments": ([d(0, "a", "weather", PARIS), d(0, "a", "weather", "\n")], [W_PARIS]),
    # --- arguments ---
    "arguments as an object (ollama)": ([d(0, "a", "weather", {"city": "Paris"})], [W_PARIS]),
    "arguments as an empty object": ([d(0, "a", "now", {})], [NOW]),
    "arguments as JSON inside a string": ([d(0, "a", "weather", json.dumps(PARIS))], [W_PARIS]),
    "arguments empty": ([d(0, "a", "now", "")], [NOW]),
    "arguments blank": ([d(0, "a", "now", " \n")], [NOW]),
    "arguments null": ([d(0, "a", "now", ...)], [NOW]),
    "arguments null as text": ([d(0, "a", "now", "null")], [NOW]),
    "arguments with blanks around": ([d(0, "a", "weather", f"\n {PARIS}\n")], [W_PARIS]),
    "a character a delta": ([d(0, "a", "weather"), *(d(0, arguments=letter) for letter in PARIS)], [W_PARIS]),
    "no function at all": (
        [d(0, "a", "weather"), {"index": 0}, {"index": 0, "function": None}, d(0, arguments=PARIS)],
        [W_PARIS],
    ),
    # --- parallel ---
    "interleaved by index": (
        [d(0, "a", "weather"), d(1, "b", "time"), d(0, arguments='{"city":'), d(1, arguments=ROME), d(0, arguments='"Paris"}')],
        [W_PARIS, T_ROME],
    ),
    "interleaved by id": (
        [d(id="a", name="weather"), d(id="b", name="time"), d(id="a", arguments=PARIS), d(id="b", arguments=ROME)],
        [W_PARIS, T_ROME],
    ),
    "interleaved by id with one index": (
        [d(0, "a", "weather"), d(0, "b", "time"), d(0, "a", arguments=PARIS), d(0, "b", arguments=ROME)],
        [W_PARIS, T_ROME],
    ),
    "second call seen before the first": (
        [d(1, "b", "time"), d(0, "a", "weather"), d(1, arguments=ROME), d(0, arguments=PARIS)],
        [T_ROME, W_PARIS],
    ),
    "the same call twice": ([d(0, "a", "weather", PARIS), d(1, "b", "weather", PARIS)], [W_PARIS, W_PARIS]),
}  # fmt: skip


@pytest.mark.parametrize(("deltas", "expected"), ODDITIES.values(), ids=ODDITIES.keys())
def test_an_oddity_ends_in_the_right_calls(deltas: list[Delta], expected: list[tuple[str, dict[str, Any]]]) -> None:
    """Right names, right arguments, in the order of first sight; ids that are there and unique; no problem."""
    slots, _ = slots_of(*deltas)
    calls, problems = slots.finish()
    assert [(call.name, call.arguments) for call in calls] == expected
    assert problems == []
    ids = [call.id for call in calls]
    assert all(ids)
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("name", [name for name in ODDITIES if "a last one empty" not in name])
def test_the_pieces_add_up_to_the_calls(name: str) -> None:
    """A user interface that adds fragments up by index has exactly the calls, under their ids."""
    slots, pieces = slots_of(*ODDITIES[name][0])
    calls, _ = slots.finish()
    for index, call in enumerate(calls):
        mine = [piece for piece in pieces if piece.index == index]
        assert {piece.id for piece in mine} == {call.id}
        assert "".join(piece.name for piece in mine) == call.name
        assert ("".join(piece.arguments for piece in mine) or "{}") == call.raw_arguments
    assert {piece.index for piece in pieces} == set(range(len(calls)))


def test_given_ids_are_kept() -> None:
    """An id that is there and free is the server's own; digits stay text."""
    calls, _ = slots_of(d(0, "a", "f"), d(1, "a", "g"), d(2, 7, "h"), d(3, "", "i"))[0].finish()
    assert [call.id for call in calls] == ["a", "new1", "7", "new2"]


def test_a_new_id_is_never_one_that_was_given() -> None:
    """The id is new even if the generator draws one that is taken."""
    calls, _ = slots_of(d(0, "new1", "f"), d(1, "", "g"))[0].finish()
    assert [call.id for call in calls] == ["new1", "new2"]


@pytest.mark.parametrize(
    ("deltas", "code", "detail"),
    [
        ([d(0, "a", "f", '{"x": ')], "tool_call_unparsed", "call of 'f' are not a JSON object: {\"x\": "),
        ([d(0, "a", "f", "[1]")], "tool_call_unparsed", "[1]"),
        ([d(0, "a", "f", "5")], "tool_call_unparsed", "5"),
        ([d(0, "a", "f", ["x"])], "tool_call_unparsed", '["x"]'),
        ([d(0, "a", "f", "<parameter=x>")], "tool_call_unparsed", "<parameter=x>"),
        ([d(0, "a", None, "{}")], "tool_call_unnamed", "arguments: {}"),
        ([d(0, "a", "f", "[" * 5000)], "tool_call_unparsed", "[" * 2000),
    ],
    ids=["cut", "list", "number", "list-itself", "xml", "nameless", "deep"],
)
def test_what_is_no_call_is_a_problem(deltas: list[Delta], code: str, detail: str) -> None:
    """Never silent, and the calls beside it stay."""
    calls, problems = slots_of(*deltas, d(5, "z", "now"))[0].finish()
    assert [call.name for call in calls] == ["now"]
    assert [problem.code for problem in problems] == [code]
    assert problems[0].detail.endswith(detail)
    assert len(problems[0].detail) < 2200


@pytest.mark.parametrize("cut", ['{"city": "Par', "", None])
def test_a_call_that_was_cut_is_reported_as_such(cut: str | None) -> None:
    """A call whose arguments had not come is no call without arguments."""
    slots, _ = slots_of(d(0, "a", "weather", PARIS), d(1, "b", "weather", cut))
    calls, problems = slots.read(truncated=True)
    assert [(call.name, call.arguments) for call in calls] == [W_PARIS]
    assert [problem.code for problem in problems] == ["tool_call_incomplete"]


def test_calls_are_given_once() -> None:
    """A call that comes after the finish reason is given by itself."""
    slots, _ = slots_of(d(0, "a", "weather", PARIS))
    assert bool(slots)
    assert [call.id for call in slots.read()[0]] == [call.id for call in slots.finish()[0]] == ["a"]
    slots.feed(msgspec.convert(d(0, "b", "time", ROME), ToolDelta))
    assert slots.finish() == ([ToolCall(id="b", name="time", arguments={"city": "Rome"}, raw_arguments=ROME)], [])
    assert slots.finish() == ([], [])


def test_arguments_that_come_after_their_call_was_complete_are_reported() -> None:
    """They are too late for the call, but not lost in silence."""
    slots, _ = slots_of(d(0, "a", "weather"))
    slots.finish()
    assert slots.feed(msgspec.convert(d(0, arguments=PARIS), ToolDelta)) is None
    calls, problems = slots.finish()
    assert calls == []
    assert [problem.code for problem in problems] == ["tool_call_late"]
    assert PARIS in problems[0].detail
    assert slots.finish() == ([], [])


def test_too_many_calls_are_refused() -> None:
    """A model can loop for ever; the limit is in the message."""
    with pytest.raises(MalformedStreamError, match="more than 3 tool calls"):
        slots_of(*(d(index, name="f") for index in range(4)), tool_calls=3)
    assert len(slots_of(*(d(index, name="f") for index in range(3)), tool_calls=3)[0].finish()[0]) == 3


def test_too_long_arguments_are_refused() -> None:
    """All fragments of one call are counted together, and those of each call separately."""
    with pytest.raises(MalformedStreamError, match=r"tool call 'f' are longer than 10 characters"):
        slots_of(d(0, name="f"), *[d(0, arguments="x")] * 11, tool_arguments_chars=10)
    slots_of(d(0, name="f", arguments="x" * 10), d(1, name="g", arguments="x" * 10), tool_arguments_chars=10)


call = st.tuples(
    st.sampled_from(["weather", "time", "now"]),
    st.dictionaries(st.text(max_size=5), st.text(max_size=9) | st.integers(0, 99), max_size=3),
)


@given(st.lists(call, min_size=1, max_size=5), st.data())
def test_any_parallel_calls_in_any_pieces(calls: list[tuple[str, dict]], data: st.DataObject) -> None:
    """With right indices, calls may be cut and interleaved at will."""
    queues = []
    for index, (name, arguments) in enumerate(calls):
        text = json.dumps(arguments)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
        pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        queues.append(
            [
                d(index, data.draw(st.sampled_from([None, "", f"id{index}"])), name, ""),
                *(d(index, arguments=piece) for piece in pieces),
            ]
        )
    deltas = []
    while any(queues):
        deltas.append(data.draw(st.sampled_from([queue for queue in queues if queue])).pop(0))
    slots, _ = slots_of(*deltas)
    read, problems = slots.finish()
    order = list(dict.fromkeys(delta["index"] for delta in deltas))
    assert [(call.name, call.arguments) for call in read] == [calls[index] for index in order]
    assert problems == []


delta = st.builds(
    d,
    st.none() | st.integers(0, 2),
    st.sampled_from([None, "", "a", "b", 7]),
    st.sampled_from([None, "", "f", "g"]),
    st.sampled_from([None, "", "{}", '{"x":', "1}", {"x": 1}]),
)


@given(st.lists(delta, max_size=12))
def test_no_deltas_whatever_give_a_bad_call(deltas: list[Delta]) -> None:
    """Nonsense in, at worst problems out: names and ids are never empty, ids never twice."""
    calls, _ = slots_of(*deltas)[0].finish()
    assert all(call.name and call.id for call in calls)
    assert len({call.id for call in calls}) == len(calls)


def test_a_special_token_in_a_name_is_removed_and_reported() -> None:
    slots, announced = slots_of(d(0, "a", "weather<|channel|>commentary", PARIS))
    calls, problems = slots.finish()
    assert [(call.name, call.arguments) for call in calls] == [W_PARIS]
    assert [delta.name for delta in announced] == ["weather"]
    assert [problem.code for problem in problems] == ["repaired"]


@pytest.mark.parametrize(
    "arguments", ['{"city": "Oslo", "city": "Rome"}', '"{\\"city\\": \\"Oslo\\", \\"city\\": \\"Rome\\"}"']
)
def test_of_two_values_the_last_one_counts(arguments: str) -> None:
    """A problem has the other value, also for arguments inside a string."""
    calls, problems = slots_of(d(0, "a", "weather", arguments))[0].finish()
    assert [call.arguments for call in calls] == [{"city": "Rome"}]
    assert [problem.code for problem in problems] == ["repaired"]
    assert "'Oslo'" in problems[0].detail


def test_arguments_as_elements_are_an_object() -> None:
    """Engines have passed Qwen3-Coder's elements through (opencode #1585)."""
    for around in ("{}", "<function=f>{}</function>"):
        raw = around.format("<parameter=x>\n1\n</parameter>")
        calls, problems = slots_of(d(0, "a", "f", raw))[0].finish()
        assert [(call.arguments, call.raw_arguments) for call in calls] == [({"x": 1}, raw)]
        assert [problem.code for problem in problems] == ["repaired"]


def test_a_native_name_in_snake_case_means_the_tool() -> None:
    """LM Studio gives models such names (API changelog 0.3.23)."""
    offered = OfferedTools(
        [{"type": "function", "function": {"name": "get-weather", "parameters": {"type": "object"}}}]
    )
    slots = ToolCallSlots(Limits(), lambda: "new", offered)
    slots.feed(msgspec.json.decode(msgspec.json.encode(d(0, "a", "get_weather", PARIS)), type=ToolDelta))
    calls, problems = slots.finish()
    assert [(call.name, call.arguments) for call in calls] == [("get-weather", {"city": "Paris"})]
    assert [problem.code for problem in problems] == ["repaired"]
