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

    With `keeps`, the marker itself is left for the reader. With `at_start`, it counts only at the start of the answer or of a
    line: it is not a special token, and prose may contain it. A `channel` marker begins a message that may also be content or
    reasoning, and is read whether tools were offered or not; an `inline` one also inside reasoning.
    A `loose` one has an effect without a call or a header as proof, so it counts only if the model is known to use its dialect.
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

    Special tokens count anywhere. A `label` may follow the opening tag. The `content` openings begin the answer itself, and
    are dropped.
    """

    open: str
    close: str
    anywhere: bool = False
    also_closes: tuple[str, ...] = ()
    label: str = ""
    content: tuple[str, ...] = ()


class Dialect(Struct, frozen=True, kw_only=True):
    """One syntax in which models call tools, and the models that use it.

    The `only_if_known` markers are too common to be looked for in every text: they count only if the dialect is selected by
    name or by the model's architecture. So does `byte_level`: spaces and line ends are the tokenizer's letters `Ġ` and `Ċ`.
    `drops` are tokens that are removed. A call without markers may begin with one of the characters of `bare` or, with
    `pythonic`, as a list of Python calls. `writes` writes calls as these models do (None: they do not call tools).
    `content_frame` and `thought_frame` are the texts before and after content and reasoning; reasoning between tags needs no
    frame. `example` is a call; the documentation shows it, or `shown`.
    """

    name: str
    models: str
    markers: tuple[Marker, ...] = ()
    only_if_known: tuple[Marker, ...] = ()
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
