"""What the prompt template had written before the model began, and the forms that depend on it."""

from __future__ import annotations

from typing import Any

import pytest

from lmdeck import StreamParser, parse

TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": properties}}}
    for name, properties in (
        ("look_up", {"place": {"type": "string"}}),
        ("python", {"code": {"type": "string"}}),
        ("web_search", {"query": {"type": "string"}}),
    )
]
ROME = ("look_up", {"place": "Rome"})
IM = "<|im_start|>assistant\n"
LLAMA = "<|start_header_id|>assistant<|end_header_id|>\n\n"

NAMED = ("inkling", "apriel-1.5", "granite")

# dialect, prefix, text, content, reasoning, calls
CASES: list[tuple[str, str, str, str, str, list[tuple[str, dict[str, Any]]]]] = [
    ("functionary-v3.2", f"{LLAMA}>>>", "all\nIt rains.\nTake a coat.", "It rains.\nTake a coat.", "", []),
    ("functionary-v3.2", f"{LLAMA}>>>", 'look_up\n{"place": "Rome"}', "", "", [ROME]),
    ("functionary-v3.2", ">>>", 'all\nA moment.>>>look_up\n{"place": "Rome"}', "A moment.", "", [ROME]),
    ("functionary-v3.2", ">>>", "python\nprint('a')\nprint(2)", "", "", [("python", {"code": "print('a')\nprint(2)"})]),
    ("functionary-v3.2", ">>>", 'look_up\n{"place": "Rome"}>>>look_up\n{"place": "Rome"}', "", "", [ROME, ROME]),
    ("functionary-v3.1", LLAMA, '<function=look_up>{"place": "Rome"}</function>', "", "", [ROME]),
    ("functionary-v3.1", LLAMA, "<|python_tag|>x = 1", "", "", [("python", {"code": "x = 1"})]),
    ("llama3-python-tag", LLAMA, '<|python_tag|>web_search.call(query="a b")<|eom_id|>', "", "",
     [("web_search", {"query": "a b"})]),
    ("llama3-json", LLAMA, '{"name": "look_up", "parameters": {"place": "Rome"}}', "", "", [ROME]),
    ("firefunction", "", ' functools[{"name": "look_up", "arguments": {"place": "Rome"}}]', "", "", [ROME]),
    ("hermes-json", f"{IM}<think>\n\n</think>\n\n", "It rains.", "It rains.", "", []),
    ("hermes-json", f"{IM}<think>\n", "Hm.\n</think>\n\nIt rains.", "It rains.", "Hm.", []),
    ("apriel-1.6", "<|begin_assistant|>\nHere are my reasoning steps:\n",
     "Hm.\n[BEGIN FINAL RESPONSE]\nIt rains.\n<|end|>", "It rains.", "Hm.", []),
    ("apriel-1.5", "", "Here are my reasoning steps:\nHm.\n[BEGIN FINAL RESPONSE]\nIt rains.\n[END FINAL RESPONSE]",
     "It rains.", "Hm.", []),
    ("granite", "<|start_of_role|>assistant<|end_of_role|>", "<think>Hm.</think><response>It rains.</response>",
     "It rains.", "Hm.", []),
    ("command-r7b", "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
     "<|START_THINKING|>Hm.<|END_THINKING|><|START_RESPONSE|>It rains.<|END_RESPONSE|>", "It rains.", "Hm.", []),
    ("seed-oss", "<seed:bos>assistant\n<seed:think>", "Hm.</seed:think>It rains.", "It rains.", "Hm.", []),
    ("kimi-k3", '<|open|>message role="assistant"<|sep|><|open|>think<|sep|>',
     "Hm.<|close|>think<|sep|><|open|>response<|sep|>It rains.<|close|>response<|sep|>", "It rains.", "Hm.", []),
    ("gpt-oss-harmony", "<|start|>user<|message|>Rain?<|end|><|start|>assistant",
     ('<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.look_up '
     '<|constrain|>json<|message|>{"place": "Rome"}<|call|>'), "", "Hm.", [ROME]),
    ("gpt-oss-harmony", "<|start|>assistant<|channel|>analysis<|message|>",
     "Hm.<|end|><|start|>assistant<|channel|>final<|message|>It rains.", "It rains.", "Hm.", []),
    ("inkling", "<|message_model|>", ('<|content_text|>One moment.<|end_message|>'
     '<|message_model|>look_up<|content_invoke_tool_json|>{"name": "look_up", "args": {"place": "Rome"}}<|end_message|>'),
     "One moment.", "", [ROME]),
    ("inkling", "", 'look_up<|content_invoke_tool_json|>{"name": "look_up", "args": {"place": "Rome"}}', "", "", [ROME]),
    ("solar-open", "<|begin|>assistant",
     ("<|think|>Hm.<|end|><|begin|>assistant<|tool_calls|><|tool_call:begin|>x1<|tool_call:name|>look_up"
     '<|tool_call:args|>{"place": "Rome"}<|tool_call:end|><|calls|>'), "", "Hm.", [ROME]),
    ("solar-open", "<|begin|>assistant", "<|think|>Hm.<|end|><|begin|>assistant<|content|>It rains.<|end|>",
     "It rains.", "Hm.", []),
    ("gemma3-tool-code", "<start_of_turn>model\n", '```tool_code\nlook_up(place="Rome")\n```', "", "", [ROME]),
    ("gemma3-tool-code", "", '```tool_code\nprint(look_up(place="Rome"))\n```', "", "", [ROME]),
    ("gemma3-tool-code", "", "```tool_code\nx = 1\n```", "```tool_code\nx = 1\n```", "", []),
    ("hermes-json", f"{IM}<tool_call>\n", '{"name": "look_up", "arguments": {"place": "Rome"}}\n</tool_call>', "", "",
     [ROME]),
]  # fmt: skip


@pytest.mark.parametrize("name", ["its own name", "auto"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[2][:20]!r}")
def test_a_prompt_may_have_opened_the_answer(
    case: tuple[str, str, str, str, str, list[tuple[str, dict[str, Any]]]], name: str
) -> None:
    dialect, prefix, text, content, reasoning, calls = case
    if name == "auto" and dialect in NAMED:
        pytest.skip("this dialect's words count only where it is named")
    parser = StreamParser(TOOLS, dialect if name != "auto" else "auto", prefix)
    for char in text:
        parser.feed(char)
    parser.finish()
    for parsed in (parser.result, parse(text, TOOLS, dialect if name != "auto" else "auto", prefix)):
        assert (parsed.content, parsed.reasoning) == (content, reasoning)
        assert [(call.name, call.arguments) for call in parsed.tool_calls] == calls


def test_letters_that_the_tokenizer_left_are_read() -> None:
    parsed = parse("ĊIt rainsĠnow.", TOOLS, "minicpm5-xml")
    assert parsed.content == "It rains now."
    assert parse("Ġ stays Ġ elsewhere", TOOLS).content == "Ġ stays Ġ elsewhere"


def test_strings_that_spell_numbers_fit_the_schema_where_the_model_writes_them_so() -> None:
    tools = [{"name": "count", "parameters": {"properties": {"to": {"type": "integer"}, "label": {"type": "string"}}}}]
    text = '<ifm|tool_call>{"name": "count", "arguments": {"to": "3", "label": "3"}}</ifm|tool_call>'
    parsed = parse(text, tools)
    assert parsed.tool_calls[0].arguments == {"to": 3, "label": "3"}
    assert [problem.code for problem in parsed.problems] == ["repaired"]
