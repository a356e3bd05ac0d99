"""Laws of any text whatever: it raises nothing, its cuts do not matter, and every character of it is accounted for."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from laws.examine import Sample, broken_law, random_sample
from laws.material import EXAMPLES

pytestmark = pytest.mark.no_cover  # the same lines on thousands of texts: measured, they would take three times as long

CHARACTERS = 250_000
FOUND = (
    Sample(
        '3Q\n<|action_start|>\n<|plugin|>[save(text=ere\', count=3), ping()][{"name": "save", "arguments": n>\n</tool_call>\n'
        "<tool_call>\n<function=ping>\n</function>\n</tool_call></arg_key><\uff5cGCML\uff5ctoolcalls><\uff5c\uff5cDS</co: "
        "<|channel|></ifm|arg_key></steptml:invoke><function_calls>save(text='hello there', count=3)\nping()</funct<0x0A>"
        "<\uff5cDSML\uff5ctool_call>\ud83d</ifm|tool_call>[TOOL_CALLS]<|plugin|>W31QW32QW33QW34",
        prefix="<|start|>assistant",
        seed=346330498,
    ),
    Sample("<|python_start|><invoke name=look\n<parameter name=\n<parameter name=days></invoke>", seed=862972673),
    Sample("10Q:[\r\n\\<|content_tool_error|>", seed=919038762),
    Sample(
        "<|message|>s<|eom|>assistant<|start|><|message|><atem:function_calls><atem:invoke name=save\n<atem:parameter name=\n"
        "</atem:invoke>",
        "muse-glimmer",
        seed=436751192,
    ),
    Sample('<|tool_call>call:look{s:}<call|>call:look{e:|<|"|>}', "gemma4", seed=789554355),
    Sample('<|tool_response|>call:save{Q::<|"|>n:}', seed=604982241),
    Sample('<function=save>{"":"""c":3},{}', seed=196410857),
    Sample('<|function_call|>{"name":"look","":{"":\u2028 """s":2}}', prefix=">>>", seed=96911944),
    Sample("<|start|><|message|><atem:function_calls><atem:invoke name=ping\n</atem:invoke>;", seed=724237733),
    Sample("[/THINK]<ML‖_[THINK] ", seed=1052085144),
    Sample("n<|content_thinking|><|START_ACTION|>n</think>", prefix="<think>", seed=568258644),
    Sample('[TOOL_REQUEST][{"name":"ping","":{}}]{}{', seed=119312027),
    Sample('<tool_call>{"name":{"name":"save""s":""}"":}', seed=853454327),
    Sample("<tool_call>l</arg_key>e\n<arg_value>", "poolside-v1", seed=340369742),
    Sample("t<reserved_14><|content_thinking|>}<|end_message|><", offers_tools=False, seed=351284302),
    Sample('call:save{"' + "[" * 420 + '<|tool_call>call:save{text:<|"|>', "gemma4", seed=1021460283),
    Sample("<|channel|><|message|><|call|>assistant<|", "gpt-oss-harmony", "<think>", seed=785087182),
    Sample('{""""""}{"\\\'\n', "xlam", seed=195690752),
    Sample("<|tool_call_start|>e(t='',s==", "lfm2", seed=761614814),
    Sample('<|tool_call>call:save{text:<|"|>a<|"|>' + " " * 300 + "}<tool_call|>", "gemma4", seed=5),
    Sample('<tool_call>{"name": "save", "arguments": {"text": "a"' + "\n" * 257 + "}}</tool_call>", seed=2),
    Sample("t<|open|>response<|close|>", "kimi-k3", seed=26260683),
    Sample("<|open|>message <<|sep|>", "kimi-k3", seed=852726668),
    Sample('>>>all\n>>>save\n{"text":"a"}H {', "functionary-v3.2", seed=1382),
    Sample("d<|python_tag|>[<|eom_id|>", seed=937832870),
    Sample("<</think>", prefix="<|content_text|>", seed=701498288),
)
TESTS = Path(__file__).parents[1]


def test_random_texts_break_no_law() -> None:
    """`make fuzz` tries a hundred million characters of them."""
    rng, done = random.Random(12), 0
    while done < CHARACTERS:
        sample = random_sample(rng)
        done += len(sample.text)
        assert broken_law(sample) is None, sample


@pytest.mark.parametrize("sample", FOUND, ids=repr)
def test_what_a_large_run_found_breaks_no_law(sample: Sample) -> None:
    assert broken_law(sample) is None


@pytest.mark.parametrize("dialect", EXAMPLES)
def test_calls_cut_off_anywhere_break_no_law(dialect: str) -> None:
    text = f"Before.\n{EXAMPLES[dialect]}\nAfter."
    for end in range(0, len(text), 3):
        for name in ("auto", dialect):
            sample = Sample(text[:end], name, seed=end)
            assert broken_law(sample) is None, sample


def test_the_large_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """It reports its figures, too."""
    state = tmp_path / "state.json"
    for characters, start in ((1, ""), (150_000, "Going on after 10")):
        command = [
            "-m",
            "laws.fuzz",
            "--characters",
            str(characters),
            "--jobs",
            "1",
            "--seed",
            "3",
            "--state",
            str(state),
        ]
        ran = subprocess.run(
            [sys.executable, *command], cwd=TESTS, capture_output=True, text=True, check=False, timeout=100
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert ran.stdout.startswith(start)
        assert "0 exceptions" in ran.stdout
    assert json.loads(state.read_text())["next_block"] == 2
