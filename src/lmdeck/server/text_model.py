"""The smaller protocol of a back end that only turns a prompt into text.

A grammar may constrain the text. `lmdeck.server.tool_use.DefaultToolUse` wraps it as a `Backend`, so a model runner never
handles tools, tool calls or JSON.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from msgspec import Struct

from lmdeck._encoders.backend_events import Finished, LoadProgress
from lmdeck.server.backend import BackendError
from lmdeck.server.jobs import Sampling

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from lmdeck.server.jobs import Decided, Embedded, EmbeddingJob, EngineRuntime, Loaded, LoadJob, ModelDescription


class Turn(Struct, frozen=True):
    """One message for the chat template.

    Templates may support only the roles system, user and assistant.
    """

    role: str
    text: str


class Constraint(Struct, frozen=True):
    """A grammar that constrains every token.

    It is a JSON Schema as JSON text, or a Lark grammar in llguidance's dialect.
    """

    kind: Literal["json_schema", "lark"]
    grammar: str


class LetterChoice(Struct, frozen=True):
    """A prompt to be answered with one of `letters`."""

    prompt: str
    letters: str


class Generation(Struct, frozen=True, kw_only=True):
    """A text to generate.

    `prompt` is a history for the chat template, or a raw text to continue.
    """

    model: str
    prompt: tuple[Turn, ...] | str
    sampling: Sampling = Sampling()
    constraint: Constraint | None = None


Piece: TypeAlias = str | LoadProgress | Finished


class TextModel(Protocol):
    """A text generator; closing and errors work as for `Backend`."""

    @property
    def runtime(self) -> EngineRuntime:
        """The name and version of the engine."""
        ...

    def models(self) -> Sequence[ModelDescription]:
        """Return the available models, the default one first."""
        ...

    def generate(self, job: Generation) -> AsyncGenerator[Piece, None]:
        """Yield the text in pieces as they are generated, without stop strings, then `Finished`.

        Raises:
            BackendError: Raised by the call if the request is refused; raised while iterating if the generation fails.
        """
        ...

    async def embed(self, job: EmbeddingJob) -> Embedded:
        """Return one vector for each text.

        Raises:
            BackendError: The request is refused, or it failed.
        """
        ...

    async def decide(self, model: str, choices: Sequence[LetterChoice]) -> Decided:
        """Return the probability of each letter.

        Decoding runs under a grammar that allows only these letters.

        Raises:
            BackendError: The request is refused, or it failed.
        """
        ...

    async def load(self, job: LoadJob) -> Loaded:
        """Load a model.

        Raises:
            BackendError: The model cannot be loaded.
        """
        ...

    async def unload(self, instance_id: str) -> None:
        """Unload an instance.

        Raises:
            BackendError: There is no such instance.
        """
        ...


class TextOnly:
    """A base class of models that only generate text: all other operations are refused."""

    async def embed(self, job: EmbeddingJob) -> Embedded:
        """Refuse the request.

        Raises:
            BackendError: Always.
        """
        raise BackendError(f"The model {job.model} does not create embeddings.", type="not_implemented")

    async def decide(self, model: str, choices: Sequence[LetterChoice]) -> Decided:
        """Refuse the request.

        Raises:
            BackendError: Always.
        """
        raise BackendError(f"The model {model} does not answer decisions.", type="not_implemented")

    async def load(self, job: LoadJob) -> Loaded:
        """Refuse the request.

        Raises:
            BackendError: Always.
        """
        raise BackendError(f"The model {job.model} cannot be loaded through the API.", type="not_implemented")

    async def unload(self, instance_id: str) -> None:
        """Refuse the request.

        Raises:
            BackendError: Always.
        """
        raise BackendError(f"The model {instance_id} cannot be unloaded through the API.", type="not_implemented")
