"""How a fault is declared: a function of the connection and of the answer as it would have been."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from lmdeck.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lmdeck.testing.connection import Parts, Wire

Expect = Literal["right", "error"]
Run = Callable[..., Awaitable[None]]
FAULTS: dict[str, Fault] = {}


class Fault(Struct, frozen=True, kw_only=True):
    """One way to go wrong. `options` are the keywords that it takes, with their defaults."""

    name: str
    summary: str
    expect: Expect
    run: Run
    options: dict[str, Any]

    def check(self, options: Mapping[str, Any]) -> None:
        """Refuse options that it does not have.

        Raises:
            ConfigurationError: There is one.
        """
        unknown = [name for name in options if name not in self.options]
        if unknown:
            known = ", ".join(self.options) or "none"
            raise ConfigurationError(
                f"The fault {self.name!r} has no option {unknown[0]!r}.", hint=f"Its options are: {known}."
            )

    def bound(self, options: Mapping[str, Any]) -> Callable[[Wire, Parts], Awaitable[None]]:
        """Give the fault as a function of connection and answer alone."""
        return partial(self.run, **options)


def fault(expect: Expect) -> Callable[[Run], Run]:
    """Register a fault under its function's name."""

    def register(run: Run) -> Run:
        options = {
            name: parameter.default
            for name, parameter in inspect.signature(run).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY
        }
        summary = (run.__doc__ or "").strip()
        FAULTS[run.__name__] = Fault(name=run.__name__, summary=summary, expect=expect, run=run, options=options)
        return run

    return register


async def pass_some(wire: Wire, answer: Parts, count: int) -> None:
    """Send the head and the first chunks of an answer; of one in one piece, its first half."""
    if not answer.is_stream:
        body = await answer.all()
        await wire.head(answer.status, answer.headers)
        await wire.body(body[: len(body) // 2])
        return
    await wire.head(answer.status, answer.headers)
    pieces = aiter(answer)
    for _ in range(count):
        if (data := await anext(pieces, None)) is not None:
            await wire.body(data)


async def pass_on(wire: Wire, answer: Parts, change: Callable[[bytes], bytes]) -> None:
    """Send the whole answer, each of its pieces changed."""
    await wire.head(answer.status, answer.without_length())
    async for data in answer:
        await wire.body(change(data))
    await wire.end()
