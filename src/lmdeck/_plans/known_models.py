"""The last model list of a client's server, and the model it chose recently."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from lmdeck.model_info import ModelInfo, ReasoningOptions

CHOICE_SECONDS = 30.0
VARIANT_SECONDS = 60.0


class ModelFacts(Struct, frozen=True):
    """The facts about a model in the server's list; the defaults are those of an unlisted model."""

    names: Collection[str] = ()
    architecture: str = ""
    reasoning: ReasoningOptions | None = None
    context_length: int | None = None
    variant: str = ""


NO_FACTS = ModelFacts()


class KnownModels:
    """The models of one server, as its last list described them, and the chosen one."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._facts: dict[str, ModelFacts] = {}
        self._chosen = ""
        self._chosen_until = 0.0
        self._variants_until = clock()

    def learn(self, models: Collection[ModelInfo]) -> None:
        """Replace the known facts with those of a list."""
        self._facts = {name: facts for model in models for name, facts in _facts_of(model)}
        self.expect_variants()

    def facts(self, model: str | None) -> ModelFacts:
        """Return the known facts about a model."""
        return self._facts.get(model or "", NO_FACTS)

    def knows(self, model: str) -> bool:
        """Whether a model has been looked up in the list."""
        return model in self._facts

    def note_unlisted(self, model: str) -> None:
        """Record that a model is not in the list, so that it is not looked up again."""
        self._facts.setdefault(model, NO_FACTS)

    @property
    def has_old_variants(self) -> bool:
        """Whether the last look-up of the models' variants was more than a minute ago."""
        return self._clock() >= self._variants_until

    def expect_variants(self) -> None:
        """Record that the variants are known or being looked up.

        Other requests then do not look them up.
        """
        self._variants_until = self._clock() + VARIANT_SECONDS

    @property
    def chosen(self) -> str | None:
        """The model that was chosen in the last half minute, or None."""
        return self._chosen if self._chosen and self._clock() <= self._chosen_until else None

    def choose(self, model: str) -> None:
        """Store the chosen model for half a minute, so that not every request fetches the list."""
        self._chosen, self._chosen_until = model, self._clock() + CHOICE_SECONDS

    def forget_choice(self) -> None:
        """Discard the chosen model, which the server no longer has."""
        self._chosen = ""


def _facts_of(model: ModelInfo) -> Iterator[tuple[str, ModelFacts]]:
    """Yield the names of a model (its key, the ids of its instances), each with its facts."""
    contexts = {one.id: one.context_length for one in model.instances}
    first = next((context for context in contexts.values() if context), None)
    names = {model.key, *contexts}
    for name in names:
        yield (
            name,
            ModelFacts(
                names=names,
                architecture=model.architecture or "",
                reasoning=model.reasoning,
                context_length=first if name == model.key else contexts[name] or None,
                variant=f"{model.selected_variant or ''} {model.quantization or ''}".strip(),
            ),
        )
