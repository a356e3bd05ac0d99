"""DeepSeek V3.2 and later: elements whose names begin with a token.

The token is `｜DSML｜`; GigaChat 3.5's is `｜GCML｜`. An attribute of a parameter says whether it is text
(`string="true"`) or JSON. V4.1 writes a space after the token.

Sources: DeepSeek's encoding scripts beside the models on Hugging Face; vLLM (also for GigaChat), SGLang, llama.cpp.
"""

from __future__ import annotations

from lmdeck._parsing.dialects.dialect import Dialect, Marker
from lmdeck._parsing.dialects.xml_tags import THINK, tag_block
from lmdeck._parsing.writers import Writer, elements, wrapped
from lmdeck._parsing.xml_calls import Elements

DSML, GCML = "｜DSML｜", "｜GCML｜"
BLOCKS = ("function_calls", "tool_calls", "toolcalls", "tool_call", "calls", "tool")


def family(*marks: str) -> tuple[Marker, ...]:
    """Return the markers of elements with these tokens: of a block, or of an invoke without one."""
    opens = tuple(f"<{mark}{space}" for mark in marks for space in ("", " "))
    closes = tuple(f"</{mark}{space}" for mark in marks for space in ("", " "))
    ends = tuple(f"{close}{block}>" for close in closes for block in BLOCKS)
    read = tag_block(
        *ends,
        elements=Elements(
            function=tuple(f"{open_}invoke" for open_ in opens), function_end=tuple(f"{close}invoke>" for close in closes),
            parameter=tuple(f"{open_}parameter" for open_ in opens), ends=ends,
            parameter_end=tuple(f"{close}parameter>" for close in closes), trims=False,
        ),
    )  # fmt: skip
    return (
        *(Marker(f"{open_}{block}>", read) for open_ in opens for block in BLOCKS),
        *(Marker(f"{open_}invoke", read, keeps=True) for open_ in opens),
    )


MARKERS = family(DSML, "｜｜DSML｜｜", "|DSML|", "||DSML||", "‖DSML‖")
"""Models write the bars of the token in several ways."""


def _example(block: str, space: str = "", mark: str = DSML) -> str:
    return (
        f'<{mark}{space}{block}>\n<{mark}{space}invoke name="f">\n<{mark}{space}parameter name="a" string="false">1'
        f"</{mark}{space}parameter>\n</{mark}{space}invoke>\n</{mark}{space}{block}>"
    )


def _writer(block: str, space: str = "", mark: str = DSML) -> Writer:
    return wrapped(
        f"<{mark}{block}>\n",
        elements(
            f'<{mark}{space}invoke name="$NAME">',
            f"</{mark}{space}invoke>\n",
            f'<{mark}{space}parameter name="$KEY" string="$IS_TEXT">',
            f"</{mark}{space}parameter>",
        ),
        f"</{mark}{block}>",
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
    Dialect(
        name="gigachat3.5", writes=_writer("tool_calls", mark=GCML),
        models="GigaChat 3.5", markers=family(GCML), reasoning=(THINK,),
        example=_example("tool_calls", mark=GCML),
    ),
)  # fmt: skip
