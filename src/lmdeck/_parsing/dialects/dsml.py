"""DeepSeek V3.2 and later: elements whose names carry the token `｜DSML｜`.

A parameter says itself whether it is text (`string="true"`) or JSON. V4.1 writes a space after the token.

Sources: DeepSeek's encoding scripts beside the models on Hugging Face; vLLM, SGLang, llama.cpp.
"""

from __future__ import annotations

from lmdeck._parsing.dialects.dialect import Dialect, Marker
from lmdeck._parsing.dialects.xml_tags import THINK, tag_block
from lmdeck._parsing.writers import Writer, elements, wrapped
from lmdeck._parsing.xml_calls import Elements

BLOCKS = ("function_calls", "tool_calls", "toolcalls", "tool_call", "calls", "tool")


BARS = ("｜DSML｜", "｜｜DSML｜｜", "|DSML|", "||DSML||", "‖DSML‖")
OPEN = tuple(f"<{bars}{space}" for bars in BARS for space in ("", " "))
CLOSE = tuple(f"</{bars}{space}" for bars in BARS for space in ("", " "))
ENDS = tuple(f"{close}{block}>" for close in CLOSE for block in BLOCKS)
DSML = tag_block(
    *ENDS,
    elements=Elements(
        function=tuple(f"{open_}invoke" for open_ in OPEN), function_end=tuple(f"{close}invoke>" for close in CLOSE),
        parameter=tuple(f"{open_}parameter" for open_ in OPEN), ends=ENDS,
        parameter_end=tuple(f"{close}parameter>" for close in CLOSE), trims=False,
    ),
)  # fmt: skip
MARKERS = (
    *(Marker(f"{open_}{block}>", DSML) for open_ in OPEN for block in BLOCKS),
    *(Marker(f"{open_}invoke", DSML, keeps=True) for open_ in OPEN),
)
"""A block, or an invoke without one. Models write the bars of the token in several ways."""


def _example(block: str, space: str = "") -> str:
    return (
        f'<｜DSML｜{space}{block}>\n<｜DSML｜{space}invoke name="f">\n<｜DSML｜{space}parameter name="a" string="false">1'
        f"</｜DSML｜{space}parameter>\n</｜DSML｜{space}invoke>\n</｜DSML｜{space}{block}>"
    )


def _writer(block: str, space: str = "") -> Writer:
    return wrapped(
        f"<｜DSML｜{block}>\n",
        elements(
            f'<｜DSML｜{space}invoke name="$NAME">',
            f"</｜DSML｜{space}invoke>\n",
            f'<｜DSML｜{space}parameter name="$KEY" string="$IS_TEXT">',
            f"</｜DSML｜{space}parameter>",
        ),
        f"</｜DSML｜{block}>",
    )


DIALECTS = (
    Dialect(
        name="deepseek-v3.2", writes=_writer("function_calls"),
        models="DeepSeek-V3.2", markers=MARKERS, reasoning=(THINK,),
        example=_example("function_calls"),
    ),
    Dialect(
        name="deepseek-v4", writes=_writer("tool_calls"),
        models="DeepSeek-V4", markers=MARKERS, reasoning=(THINK,), example=_example("tool_calls")
    ),
    Dialect(
        name="deepseek-v4.1", writes=_writer(" calls", " "),
        models="DeepSeek-V4.1", markers=MARKERS, reasoning=(THINK,),
        example=_example("calls", " "),
    ),
)  # fmt: skip
