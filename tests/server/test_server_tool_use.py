"""The tool prompt, and the grammar that forces the model to call a tool."""

from __future__ import annotations

import json

from lmdeck.server.jobs import CalledTool, ChatMessage, ChatTool
from lmdeck.server.text_model import Turn
from lmdeck.server.tool_use import call_grammar, render_history

TOOL = ChatTool(name="f", parameters={"type": "object", "properties": {"a": {"type": "string"}}}, description="Does f")


def test_tools_go_into_a_system_prompt_of_their_own() -> None:
    system, user = render_history([ChatMessage(role="user", text="Hi")], [TOOL])
    assert system.role == "system"
    assert '[TOOL_REQUEST]{"name": "tool_name", "arguments": {"param1": "value1"}}[END_TOOL_REQUEST]' in system.text
    assert '"description": "Does f"' in system.text
    assert user == Turn("user", "Hi")


def test_tools_go_behind_the_system_prompt_that_is_there() -> None:
    history = [ChatMessage(role="developer", text="Be brief."), ChatMessage(role="user", text="Hi")]
    system, _ = render_history(history, [TOOL])
    assert system.text.startswith("Be brief.\n\nYou are a tool-calling AI.")


def test_calls_and_results_become_text_of_roles_that_every_template_knows() -> None:
    calls = (CalledTool(id="1", name="f", arguments='{"a": 1}'), CalledTool(id="2", name="g", arguments="{}"))
    history = [
        ChatMessage(role="user", text="Go"),
        ChatMessage(role="assistant", text="Going.", tool_calls=calls),
        ChatMessage(role="tool", text="one", tool_call_id="1"),
        ChatMessage(role="tool", text="two", tool_call_id="2"),
    ]
    assert list(render_history(history)) == [
        Turn("user", "Go"),
        Turn(
            "assistant",
            'Going.\n[TOOL_REQUEST]{"name": "f", "arguments": {"a": 1}}[END_TOOL_REQUEST]\n'
            '[TOOL_REQUEST]{"name": "g", "arguments": {}}[END_TOOL_REQUEST]',
        ),
        Turn("user", "[TOOL_RESULT]one[END_TOOL_RESULT]\n[TOOL_RESULT]two[END_TOOL_RESULT]"),
    ]


def test_a_history_without_tools_is_left_alone() -> None:
    history = [ChatMessage(role="user", text="a"), ChatMessage(role="user", text="b"), ChatMessage(role="assistant")]
    assert list(render_history(history)) == [Turn("user", "a"), Turn("user", "b"), Turn("assistant", "")]


def test_the_grammar_sets_limits_where_the_schema_has_none() -> None:
    schema = {
        "type": "object",
        "properties": {
            "text": {"type": "string"},
            "short": {"type": "string", "maxLength": 3},
            "word": {"type": "string", "enum": ["a"]},
            "list": {"type": "array", "items": {"type": "string"}, "minItems": 20},
            "count": {"type": "integer"},
            "age": {"type": "integer", "minimum": 0},
        },
    }
    line = call_grammar([ChatTool(name='q"', parameters=schema)]).splitlines()[-1]
    properties = json.loads(line.removeprefix("arguments_0: %json "))["properties"]
    assert properties["text"]["maxLength"] == 256
    assert properties["short"] == schema["properties"]["short"]
    assert properties["word"] == schema["properties"]["word"]
    assert properties["list"]["maxItems"] == 20
    assert properties["list"]["items"]["maxLength"] == 256
    assert properties["count"]["maximum"] == 10**12
    assert properties["age"] == {"type": "integer", "minimum": 0}
