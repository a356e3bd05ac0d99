"""DeepSeek V3.2 and later: elements whose names carry the token `｜DSML｜`.

A parameter says itself whether it is text (`string="true"`) or JSON. V4.1 writes a space behind the token.

Sources: DeepSeek's encoding scripts beside the models on Hugging Face; vLLM, SGLang, llama.cpp.
"""

from __future__ import annotations

from lmdeck._parsing.dialects.dialect import Dialect, Marker
from lmdeck._parsing.dialects.xml_tags import THINK, tagged
from lmdeck._parsing.writers import Writer, elements, wrapped
from lmdeck._parsing.xml_calls import Elements

__all__ = ["DIALECTS"]

BLOCKS = ("function_calls", "tool_calls", "toolcalls", "tool_call", "calls", "tool")


def _markers(space: str) -> tuple[Marker, ...]:
    """Make the markers of one spelling: a block, or an invoke without one."""
    open_, close = f"<｜DSML｜{space}", f"</｜DSML｜{space}"
    ends = tuple(f"{close}{block}>" for block in BLOCKS)
    elements = Elements(
        function=(f"{open_}invoke name=",), function_end=(f"{close}invoke>",),
        parameter=(f"{open_}parameter name=",), parameter_end=(f"{close}parameter>",), ends=ends, trims=False,
    )  # fmt: skip
    read = tagged(*ends, elements=elements)
    return (
        *(Marker(f"{open_}{block}>", read) for block in BLOCKS),
        Marker(f"{open_}invoke name=", read, keeps=True),
    )


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
        models="DeepSeek-V3.2", markers=_markers(""), reasoning=(THINK,),
        example=_example("function_calls"),
    ),
    Dialect(
        name="deepseek-v4", writes=_writer("tool_calls"),
        models="DeepSeek-V4", markers=_markers(""), reasoning=(THINK,), example=_example("tool_calls")
    ),
    Dialect(
        name="deepseek-v4.1", writes=_writer(" calls", " "),
        models="DeepSeek-V4.1", markers=_markers(" "), reasoning=(THINK,),
        example=_example("calls", " "),
    ),
)  # fmt: skip
