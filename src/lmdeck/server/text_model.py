"""The narrower protocol of a back end that only turns a prompt into text, possibly under a grammar.

`lmdeck.server.tool_use.DefaultToolUse` makes a whole `Backend` of it, so a model runner never sees a tool, a tool call or JSON.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from msgspec import Struct

from lmdeck.server.backend import BackendError
from lmdeck.server.events import Finished, LoadProgress
from lmdeck.server.jobs import Sampling

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from lmdeck.server.jobs import Decided, Embedded, EmbeddingJob, Loaded, LoadJob, ModelDescription, Runtime

__all__ = ["Constraint", "Generation", "LetterChoice", "Piece", "TextModel", "TextOnly", "Turn"]


class Turn(Struct, frozen=True):
    """One message for the chat template, which may know no other roles than system, user and assistant."""

    role: str
    text: str


class Constraint(Struct, frozen=True):
    """A grammar that every token must obey: a JSON Schema as JSON text, or a Lark grammar of llguidance's dialect."""

    kind: Literal["json_schema", "lark"]
    grammar: str


class LetterChoice(Struct, frozen=True):
    """A prompt that is answered with one of these letters."""

    prompt: str
    letters: str


class Generation(Struct, frozen=True, kw_only=True):
    """A text to make: `prompt` is a history for the chat template, or a raw text to continue."""

    model: str
    prompt: tuple[Turn, ...] | str
    sampling: Sampling = Sampling()
    constraint: Constraint | None = None


Piece: TypeAlias = str | LoadProgress | Finished


class TextModel(Protocol):
    """Something that generates text, with the rules of `Backend` for closing and for errors."""

    @property
    def runtime(self) -> Runtime:
        """The engine's name and version."""
        ...

    def models(self) -> Sequence[ModelDescription]:
        """List the models on hand, the default one first."""
        ...

    def generate(self, job: Generation) -> AsyncGenerator[Piece, None]:
        """Give the text in pieces as they come to be, stop strings excluded, then `Finished`.

        Raises:
            BackendError: By the call itself: refused. While iterating: failed.
        """
        ...

    async def embed(self, job: EmbeddingJob) -> Embedded:
        """Turn texts into vectors.

        Raises:
            BackendError: Refused or failed.
        """
        ...

    async def decide(self, model: str, choices: Sequence[LetterChoice]) -> Decided:
        """Give the probability of each letter, decoding under a grammar that allows these letters only.

        Raises:
            BackendError: Refused or failed.
        """
        ...

    async def load(self, job: LoadJob) -> Loaded:
        """Load a model.

        Raises:
            BackendError: It cannot be loaded.
        """
        ...

    async def unload(self, instance_id: str) -> None:
        """Take an instance out of memory.

        Raises:
            BackendError: There is none of that name.
        """
        ...


class TextOnly:
    """What a model answers that only generates text: it is there already, and does nothing else."""

    async def embed(self, job: EmbeddingJob) -> Embedded:
        """Refuse.

        Raises:
            BackendError: Always.
        """
        raise BackendError(f"The model {job.model} makes no embeddings.", type="not_implemented")

    async def decide(self, model: str, choices: Sequence[LetterChoice]) -> Decided:  # noqa: ARG002
        """Refuse.

        Raises:
            BackendError: Always.
        """
        raise BackendError(f"The model {model} answers no decisions.", type="not_implemented")

    async def load(self, job: LoadJob) -> Loaded:
        """Refuse.

        Raises:
            BackendError: Always.
        """
        raise BackendError(f"The model {job.model} cannot be loaded by request.", type="not_implemented")

    async def unload(self, instance_id: str) -> None:
        """Refuse.

        Raises:
            BackendError: Always.
        """
        raise BackendError(f"The model {instance_id} cannot be unloaded by request.", type="not_implemented")
