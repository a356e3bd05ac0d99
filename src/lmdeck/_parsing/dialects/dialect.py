"""The declaration of a dialect: the markers that begin its calls, and their readers."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from lmdeck._parsing.sink import Sink
from lmdeck._parsing.source import Reader, Source
from lmdeck._parsing.writers import Writer

BodyReader = Callable[[Source, Sink], Reader[None]]


class Marker(Struct, frozen=True):
    """Text that begins a call, and the reader of what follows it.

    With `keeps`, the reader sees the marker itself too. With `at_start`, it counts only at the start of the answer or of a
    line: it is not a special token, and prose may contain it. A `channel` marker begins a message that may also be content or
    reasoning, and is read whether tools were offered or not; an `inline` one also inside reasoning.
    A `loose` one acts without a call or a header that proves it, so only where its dialect is known to be spoken.
    """

    text: str
    read: BodyReader
    keeps: bool = False
    at_start: bool = False
    channel: bool = False
    inline: bool = False
    loose: bool = False

    @property
    def opens(self) -> bool:
        """Whether a template may have written the marker and part of the text after it."""
        return self.channel and self.keeps and not self.at_start


class ReasoningTags(Struct, frozen=True):
    """The tags around reasoning, `anywhere` or only at the start of the answer.
    Special tokens count anywhere.

    A `label` may follow the opening tag; the `content` openings are those of the answer itself, and are dropped.
    """

    open: str
    close: str
    anywhere: bool = False
    also_closes: tuple[str, ...] = ()
    label: str = ""
    content: tuple[str, ...] = ()


class Dialect(Struct, frozen=True, kw_only=True):
    """One syntax in which models call tools, and the models that use it.

    The `own` markers are too common to be looked for in every text: they count only where the dialect is asked for by name.
    So it is with `byte_level`: text in which the tokenizer's letters for a space and a line end, `Ġ` and `Ċ`, were left.
    `writes` is the other direction: calls as these models write them (None: they call no tools). `content_frame` and
    `thought_frame` are what they write before and after content and reasoning; reasoning between tags needs no frame.
    """

    name: str
    models: str
    markers: tuple[Marker, ...] = ()
    own: tuple[Marker, ...] = ()
    byte_level: bool = False
    reasoning: tuple[ReasoningTags, ...] = ()
    drops: tuple[str, ...] = ()
    bare: str = ""
    pythonic: bool = False
    shown: str = ""
    architectures: tuple[str, ...] = ()
    writes: Writer | None = None
    content_frame: tuple[str, str] = ("", "")
    thought_frame: tuple[str, str] | None = None
    example: str = ""

    @property
    def reasoning_frame(self) -> tuple[str, str] | None:
        """The text before and after reasoning; None if the dialect has no reasoning."""
        if self.thought_frame is not None or not self.reasoning:
            return self.thought_frame
        tags = self.reasoning[0]
        return f"{tags.open}{tags.label}\n", f"\n{tags.close}\n\n"
