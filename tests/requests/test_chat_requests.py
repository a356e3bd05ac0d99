"""Requests: what is made acceptable to LM Studio, what is refused, and that nothing of the caller's is changed."""

from __future__ import annotations

import base64
import copy
import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from lmdeck._compatibility import RULES, CompatibilityFixes
from lmdeck._requests import images
from lmdeck._requests.chat import ChatSpec, build_chat, checked_options, checked_tool, encode, tool_name
from lmdeck._requests.history import normal_messages
from lmdeck._requests.images import checked_url, image_part
from lmdeck.errors import ConfigurationError, InvalidRequestError, UnknownToolError
from lmdeck.messages import Message, ToolCall

HI = {"role": "user", "content": "Hi"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "get_weather", "description": "Look.", "parameters": SCHEMA}}
NOW = {"type": "function", "function": {"name": "now"}}
PNG = b"\x89PNG\r\n\x1a\n" + b"rest of a picture"
JPEG = b"\xff\xd8\xff\xe0" + b"rest of a picture"


def build(
    *messages: Any, stream: bool = False, model: str | None = "m", **spec: Any
) -> tuple[dict[str, Any], list[str]]:
    """Build a body, and give it with the details of what was adjusted."""
    fixes = CompatibilityFixes()
    body = build_chat(ChatSpec(messages=messages or (HI,), **spec), model, fixes, stream=stream)
    assert {problem.code for problem in fixes.problems} <= {"adjusted"}
    assert {problem.rule for problem in fixes.problems} <= set(RULES)
    return body, [problem.detail for problem in fixes.problems]


def normal(*messages: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """Return normal messages, with predictable ids."""
    fixes = CompatibilityFixes()
    numbers = count(1)
    made = normal_messages(messages, fixes, lambda: f"new{next(numbers)}")
    return made, [problem.detail for problem in fixes.problems]


def call(id: str | None = "a", name: str = "f", arguments: Any = "{}") -> dict[str, Any]:
    """Write a call of a history."""
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def assistant(*calls: Any, content: Any = "") -> dict[str, Any]:
    """Write an assistant message."""
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


def result(id: Any, content: Any = "ok") -> dict[str, Any]:
    """Write a tool's result."""
    return {"role": "tool", "tool_call_id": id, "content": content}


# --- the body -----------------------------------------------------------------------------------------------------------


def test_a_plain_chat_goes_as_it_is() -> None:
    """Nothing is added that was not asked for."""
    assert build(options={"temperature": 0.2}) == (
        {"model": "m", "messages": [HI], "temperature": 0.2, "stream": False},
        [],
    )
    assert "model" not in build(model=None)[0]


def test_a_stream_asks_for_usage() -> None:
    """The caller's own stream options are sent as well."""
    assert build(stream=True)[0]["stream_options"] == {"include_usage": True}
    given = {"stream_options": {"other": 1}}
    assert build(stream=True, options=given)[0]["stream_options"] == {"other": 1, "include_usage": True}
    assert given == {"stream_options": {"other": 1}}


def test_a_chat_needs_a_message() -> None:
    """It is told before anything is sent."""
    with pytest.raises(ConfigurationError, match="no message"):
        build_chat(ChatSpec(), "m", CompatibilityFixes(), stream=False)


def test_options_are_the_server_s_business() -> None:
    """All but the names that the builder has verbs for; None is left out, a stop sequence becomes a list."""
    body, adjusted = build(options={"seed": 1, "ttl": None, "stop": ("a", "b"), "response_format": {"type": "text"}})
    assert (body["seed"], body["stop"], body["response_format"], adjusted) == (1, ["a", "b"], {"type": "text"}, [])
    assert "ttl" not in body
    assert build(options={"stop": "a"})[0]["stop"] == "a"
    assert checked_options({"seed": 1}) == {"seed": 1}


@pytest.mark.parametrize(
    ("name", "verb"),
    [
        ("messages", "with_messages"),
        ("model", "lm.chat"),
        ("tools", "with_tools"),
        ("stream", "stream()"),
        ("tool_choice", "with_tool_choice"),
    ],
)
def test_an_option_with_a_verb_of_its_own_is_refused(name: str, verb: str) -> None:
    """The hint names the verb."""
    with pytest.raises(ConfigurationError) as caught:
        checked_options({name: 1})
    assert verb in caught.value.hint


def test_json_object_becomes_a_schema_for_any_object() -> None:
    """LM Studio knows `text` and `json_schema` only."""
    body, adjusted = build(options={"response_format": {"type": "json_object"}})
    assert body["response_format"]["type"] == "json_schema"
    assert body["response_format"]["json_schema"]["schema"]["type"] == "object"
    assert len(adjusted) == 1
    assert "json_object" in adjusted[0]


# --- tools --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "sent"),
    [
        (SCHEMA, SCHEMA),
        (None, {"type": "object", "properties": {}}),
        ({}, {"type": "object", "properties": {}}),
        ({"type": "object"}, {"type": "object", "properties": {}}),
        ({"properties": {"a": {}}}, {"type": "object", "properties": {"a": {}}}),
        (
            {"type": "object", "properties": None, "additionalProperties": False},
            {"type": "object", "properties": {}, "additionalProperties": False},
        ),
        ("none", {"type": "object", "properties": {}}),
    ],
)
def test_every_tool_gets_the_schema_that_lm_studio_asks_for(parameters: Any, sent: dict[str, Any]) -> None:
    """The reply reports what was added."""
    body, adjusted = build(tools=(checked_tool({"name": "f", "parameters": parameters}),))
    assert body["tools"] == [{"type": "function", "function": {"name": "f", "parameters": sent}}]
    assert len(adjusted) == (parameters != sent)


def test_parameters_of_another_type_are_refused() -> None:
    """There is nothing to guess."""
    with pytest.raises(ConfigurationError, match=r"'f' must be of type object, not 'array'"):
        build(tools=(checked_tool({"name": "f", "parameters": {"type": "array"}}),))


@pytest.mark.parametrize("tool", [WEATHER, WEATHER["function"]])
def test_a_tool_may_be_its_inner_part(tool: dict[str, Any]) -> None:
    """Both forms are in use."""
    assert checked_tool(tool) == WEATHER
    assert tool_name(checked_tool(tool)) == "get_weather"


def test_a_tool_may_be_an_object_that_knows_its_form() -> None:
    """Any object with `to_dict` is accepted as a tool."""

    class Tool:
        def to_dict(self) -> dict[str, Any]:
            return WEATHER

    assert checked_tool(Tool()) == WEATHER


@pytest.mark.parametrize(
    "tool", [{}, {"name": ""}, {"name": 5}, {"function": None}, {"function": {"description": "x"}}, "now", None, 5]
)
def test_a_tool_without_a_name_is_refused(tool: object) -> None:
    """Its beginning is shown."""
    with pytest.raises(ConfigurationError, match="needs a name"):
        checked_tool(tool)


@pytest.mark.parametrize("choice", ["auto", "none", "required"])
def test_a_choice_goes_as_it_is(choice: str) -> None:
    """The three strings that LM Studio knows."""
    body, adjusted = build(tools=(WEATHER,), tool_choice=choice)
    assert (body["tool_choice"], body["tools"], adjusted) == (choice, [WEATHER], [])


@pytest.mark.parametrize(
    "choice", ["get_weather", {"type": "function", "function": {"name": "get_weather"}}, {"name": "get_weather"}]
)
def test_a_named_choice_becomes_required_with_that_tool_alone(choice: Any) -> None:
    """LM Studio refuses the object form."""
    body, adjusted = build(tools=(NOW, WEATHER), tool_choice=choice)
    assert (body["tool_choice"], body["tools"]) == ("required", [WEATHER])
    assert "tool_choice 'get_weather' was sent as 'required' with only that tool." in adjusted


@pytest.mark.parametrize("choice", ["fly", {"type": "function", "function": {"name": "fly"}}, {}, {"function": None}])
def test_a_choice_of_a_tool_that_is_not_offered_is_refused(choice: Any) -> None:
    """The error has the names of the offered tools."""
    with pytest.raises(UnknownToolError, match="get_weather"):
        build(tools=(WEATHER,), tool_choice=choice)


def test_without_tools_there_is_no_choice() -> None:
    """`required` of nothing is a slip; `auto` and `none` are left out."""
    assert "tool_choice" not in build(tool_choice="auto")[0]
    assert "tool_choice" not in build(tool_choice="none")[0]
    with pytest.raises(ConfigurationError, match="no tool is offered"):
        build(tool_choice="required")


# --- the history ----------------------------------------------------------------------------------------------------------


def test_a_good_history_goes_as_it_is() -> None:
    """No word is changed, unknown fields included."""
    history = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": "Really."},
        {**HI, "name": "Ann", "metadata": {"x": 1}},
        assistant(call("123456789", "get_weather", '{"city": "Paris"}'), content="Let me see."),
        result("123456789", "sunny"),
        {"role": "assistant", "content": "Sunny.", "reasoning_content": "hm"},
    ]
    assert normal(*history) == (history, [])


def test_values_and_dicts_may_be_mixed() -> None:
    """A reply's message beside the caller's own, and calls as values inside a dict."""
    made = ToolCall(id="a", name="f", arguments={"x": 1}, raw_arguments='{"x": 1}')
    sent = assistant(call("a", "f", '{"x":1}'))
    assert normal(HI, Message(role="assistant", tool_calls=[made]), result("a")) == ([HI, sent, result("a")], [])
    assert normal(assistant(made))[0] == [sent]


def test_null_content_becomes_an_empty_text() -> None:
    """LM Studio refuses null; a missing content is not worth a word."""
    assert normal(assistant(call(), content=None)) == (
        [assistant(call())],
        ["Message 0: null content was sent as an empty string."],
    )
    assert normal({"role": "assistant", "tool_calls": [call()]}) == ([assistant(call())], [])
    assert normal({"role": "assistant", "content": "x", "tool_calls": None}) == (
        [{"role": "assistant", "content": "x"}],
        [],
    )


@pytest.mark.parametrize("id_", ["", None])
def test_a_missing_call_id_is_made_up_and_the_result_tied_to_it(id_: str | None) -> None:
    """LM Studio needs an id, and the same one in both places."""
    messages, adjusted = normal(assistant(call(id_)), result(id_))
    assert messages == [assistant(call("new1")), result("new1")]
    assert adjusted == ["Message 0: a missing call id was replaced by 'new1'."]


def test_a_result_without_id_belongs_to_the_call_that_waits() -> None:
    """Results are matched in the order of the calls."""
    messages, adjusted = normal(assistant(call("a"), call("b")), result(None, "1"), result("", "2"))
    assert messages[1:] == [result("a", "1"), result("b", "2")]
    assert len(adjusted) == 2


def test_repeated_ids_are_told_apart() -> None:
    """Each result goes to its own call, in one message and over several."""
    messages, adjusted = normal(
        assistant(call("a"), call("a")), result("a", "1"), result("a", "2"), assistant(call("a")), result("a", "3")
    )
    assert [each["id"] for message in messages for each in message.get("tool_calls", ())] == ["a", "new1", "new2"]
    assert [message["tool_call_id"] for message in messages if message["role"] == "tool"] == ["a", "new1", "new2"]
    assert adjusted == [
        "Message 0: the repeated call id 'a' was replaced by 'new1'.",
        "Message 3: the repeated call id 'a' was replaced by 'new2'.",
    ]


def test_a_made_up_id_is_never_one_that_was_given() -> None:
    """The id is new even if the generator draws one that is taken."""
    assert [each["id"] for each in normal(assistant(call("new1"), call("")))[0][0]["tool_calls"]] == ["new1", "new2"]


def test_results_may_come_in_any_order() -> None:
    """The id decides."""
    messages, _ = normal(assistant(call("a"), call("b")), result("b"), result("a"))
    assert [message.get("tool_call_id") for message in messages] == [None, "b", "a"]


def test_a_result_that_nobody_waits_for_is_refused() -> None:
    """It has no call to belong to."""
    with pytest.raises(ConfigurationError, match="Message 1 is a tool's result, but every call before it has a result"):
        normal(HI, result(None))
    assert normal(HI, result("elsewhere"))[0][1]["tool_call_id"] == "elsewhere"


@pytest.mark.parametrize(
    ("arguments", "sent", "is_reported"),
    [
        ('{"x": 1}', '{"x": 1}', False),
        ({"x": 1}, '{"x":1}', True),
        (None, "{}", False),
        ("", "{}", False),
        (" ", "{}", False),
        ({}, "{}", False),
    ],
)
def test_arguments_are_sent_as_text(arguments: Any, sent: str, is_reported: bool) -> None:
    """Objects become JSON, and nothing becomes an empty object."""
    messages, adjusted = normal(assistant(call("a", "f", arguments)))
    assert messages[0]["tool_calls"][0]["function"]["arguments"] == sent
    assert bool(adjusted) is is_reported


@pytest.mark.parametrize(
    ("content", "sent"),
    [
        ("sunny", "sunny"),
        ({"sky": "blue"}, '{"sky":"blue"}'),
        ([{"sky": "blue"}], '[{"sky":"blue"}]'),
        ([], "[]"),
        ([1, 2], "[1,2]"),
        (5, "5"),
        (True, "true"),
        ([{"type": "text", "text": "sunny"}, {"type": "text", "text": "warm"}], "sunny\nwarm"),
        ([{"type": "text", "text": "sunny"}, {"type": "file"}], [{"type": "text", "text": "sunny"}, {"type": "file"}]),
    ],
)
def test_a_tool_s_result_may_be_any_data(content: Any, sent: Any) -> None:
    """It is sent as text, and the reply says so; parts that are not all text stay parts."""
    messages, adjusted = normal(assistant(call()), result("a", content))
    assert messages[1]["content"] == sent
    assert len(adjusted) == (sent != content)


@pytest.mark.parametrize(
    ("message", "word"),
    [
        ({"role": "robot", "content": "x"}, "Message 1 has the role 'robot'"),
        ({"content": "x"}, "role None"),
        ({"role": "user", "content": 5}, "not int"),
        ({"role": "user", "content": {"a": 1}}, "not dict"),
        ({"role": "user", "content": ["text"]}, "not list"),
        (assistant("f"), "without a function name"),
        (assistant({"function": {"name": ""}}), "without a function name"),
        (assistant(call("a", "f", {"x": object()})), "cannot be written as JSON"),
        (result("a", {"x": object()}), "cannot be written as JSON"),
    ],
)
def test_a_message_that_cannot_be_sent_is_named(message: dict[str, Any], word: str) -> None:
    """The error names the message by its place in the list."""
    with pytest.raises(ConfigurationError, match=word):
        normal(HI, message)


def test_nothing_of_the_caller_s_is_changed() -> None:
    """Messages, tools and options are theirs, however deep."""
    history = [
        {"role": "system", "content": "x"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "x"},
                {"type": "image_url", "image_url": image_part(PNG)["image_url"]},
            ],
        },
        assistant(call("", "f", {"x": 1}), call("a"), call("a"), content=None),
        result(None, {"y": [2]}),
    ]
    tools = ({"type": "function", "function": {"name": "f", "parameters": {"properties": {"x": {}}}}}, WEATHER)
    options = {"response_format": {"type": "json_object"}, "stop": ["a"], "stream_options": {}}
    spec = ChatSpec(messages=tuple(history), tools=tools, tool_choice={"function": {"name": "f"}}, options=options)
    before = copy.deepcopy((history, tools, options))
    body = build_chat(spec, "m", CompatibilityFixes(), stream=True)
    assert (history, tools, options) == before
    body["messages"][1]["content"][0]["text"] = "changed"
    body["messages"][2]["tool_calls"].clear()
    body["tools"][0]["function"]["name"] = "changed"
    body["stop"].append("changed")
    assert (history, tools, options) == before


@pytest.mark.parametrize("value", [object(), {1j: 1}, {"x": {"y": object()}}, "\ud800"])
def test_what_has_no_form_in_json_is_reported(value: object) -> None:
    """The error is raised before anything is sent."""
    with pytest.raises(ConfigurationError, match="cannot be written as JSON"):
        encode({"x": value})


def test_a_circle_is_reported_too() -> None:
    """A list that holds itself has no end."""
    circle: list[object] = []
    circle.append(circle)
    with pytest.raises(ConfigurationError, match="cannot be written as JSON"):
        encode({"x": circle})
    assert json.loads(encode({"x": "ü😀\u2028", "y": [1, None, 1.5]})) == {"x": "ü😀\u2028", "y": [1, None, 1.5]}


# --- images ---------------------------------------------------------------------------------------------------------------


def uri(data: bytes, kind: str = "png") -> str:
    """Write a data URI."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


@pytest.mark.parametrize(("data", "kind"), [(PNG, "png"), (JPEG, "jpeg")])
def test_an_image_is_a_file_bytes_or_a_data_uri(tmp_path: Path, data: bytes, kind: str) -> None:
    """All of them end as the data URI that LM Studio accepts, its type told by the bytes."""
    file = tmp_path / "photo"
    file.write_bytes(data)
    expected = {"type": "image_url", "image_url": {"url": uri(data, kind)}}
    for image in (
        file,
        str(file),
        data,
        bytearray(data),
        uri(data, "x-odd"),
        uri(data).replace("image/png", "IMAGE/PNG"),
    ):
        assert image_part(image) == expected


def test_a_data_uri_may_have_line_ends() -> None:
    """Line ends are removed, since encoders fold long lines."""
    folded = "data:image/png;base64,\n" + base64.encodebytes(PNG * 20).decode()
    assert checked_url(folded, CompatibilityFixes()) == uri(PNG * 20)


def test_a_data_uri_without_padding_is_padded() -> None:
    """Many encoders leave the padding out, which LM Studio's decoder also accepts."""
    assert checked_url(uri(PNG).rstrip("="), CompatibilityFixes()) == uri(PNG)
    assert uri(PNG).endswith("=")


@pytest.mark.parametrize(
    ("image", "word"),
    [
        (b"", "not a PNG, JPEG, WebP, GIF or BMP"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a PNG, JPEG, WebP, GIF or BMP"),
        (uri(b"II*\x00 a TIFF"), "not a PNG, JPEG, WebP, GIF or BMP"),
        ("data:image/png;base64,", "not base64"),
        ("data:image/png;base64,????", "not base64"),
        ("data:image/png;base64,iVBORw0KG", "not base64"),
        ("data:image/png;base64,=iVB", "not base64"),
        ("data:image/png,raw", "not base64"),
        ("data:text/plain;base64,aGk=", "not base64"),
        ("/no/such/Photo.png", "'/no/such/Photo.png' cannot be read: No such file"),
        ("null\x00byte", "cannot be read"),
    ],
)  # fmt: skip
def test_a_bad_image_is_reported(image: Any, word: str) -> None:
    """What it is, and what would be right."""
    with pytest.raises(ConfigurationError, match=word):
        image_part(image)


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    """The system's own words are kept."""
    with pytest.raises(ConfigurationError, match="cannot be read"):
        image_part(tmp_path)


def test_too_large_an_image_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name stays as it is written."""
    monkeypatch.setattr(images, "MAX_IMAGE_BYTES", 10)
    file = tmp_path / "Photo.PNG"
    file.write_bytes(PNG)
    with pytest.raises(ConfigurationError, match=r"The image '.*/Photo\.PNG' is larger than 10 bytes"):
        image_part(file)
    with pytest.raises(ConfigurationError, match="The image passed as bytes is larger than 10 bytes"):
        image_part(PNG)


@pytest.mark.parametrize("url", ["http://host/a.png", "https://me:S3cr3t@host/a.png?key=S3cr3t"])
def test_a_web_address_is_refused_without_asking_the_server(url: str) -> None:
    """The request is not sent, since LM Studio does not fetch images."""
    for refused in (
        lambda: image_part(url),
        lambda: normal({"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}),
    ):
        with pytest.raises(InvalidRequestError, match=r"host/a\.png") as caught:
            refused()
        assert "S3cr3t" not in str(caught.value)


@pytest.mark.parametrize("image_url", [{"url": uri(JPEG)}, uri(JPEG), {"url": uri(JPEG), "detail": "low"}])
def test_images_of_a_history_are_checked(image_url: Any) -> None:
    """Both forms in use are checked, and the bytes decide the type."""
    part = normal({"role": "user", "content": [{"type": "image_url", "image_url": image_url}]})[0][0]["content"][0]
    assert part["image_url"]["url"] == uri(JPEG, "jpeg")
    assert ("detail" in part["image_url"]) == (isinstance(image_url, dict) and "detail" in image_url)


@pytest.mark.parametrize("image_url", [None, {}, {"url": None}, {"url": ""}, 5])
def test_an_image_without_an_address_is_refused(image_url: Any) -> None:
    """A typed error, whatever it is instead."""
    with pytest.raises((ConfigurationError, InvalidRequestError)):
        normal({"role": "user", "content": [{"type": "image_url", "image_url": image_url}]})


def test_blanks_without_end_are_refused_soon() -> None:
    """The pattern looks at each character once, which the test's time limit would tell."""
    with pytest.raises(ConfigurationError, match="not base64"):
        checked_url("data:image/png;base64," + " " * 1_000_000 + "!", CompatibilityFixes())
