"""The declaration of a fault: a decorated function.

It takes the connection and the planned response.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from lmdeck.errors import ConfigurationError
from lmdeck.testing.scripted_answers import Answer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lmdeck.testing.fake_connection import PlannedResponse, Wire

Expectation = Literal["right", "error"]
Run = Callable[..., Awaitable[None]]
ChangeAnswer = Callable[[Answer], Answer]
FAULTS: dict[str, Fault] = {}


def _unchanged(answer: Answer) -> Answer:
    return answer


class Fault(Struct, frozen=True, kw_only=True):
    """One injected fault.

    `expect` is what a good client does: return the right answer ("right") or raise an error ("error"). `options` are its
    keywords with their defaults. With `closes_port`, the fake closes its port instead of answering. `change_answer` changes
    the scripted answer before it is generated.
    """

    name: str
    summary: str
    expect: Expectation
    run: Run
    options: dict[str, Any]
    closes_port: bool = False
    change_answer: ChangeAnswer = _unchanged

    def check(self, options: Mapping[str, Any]) -> None:
        """Raise for options that the fault does not have.

        Raises:
            ConfigurationError: An option is unknown.
        """
        unknown = [name for name in options if name not in self.options]
        if unknown:
            known = ", ".join(self.options) or "none"
            raise ConfigurationError(
                f"The fault {self.name!r} has no option {unknown[0]!r}.", hint=f"Its options are: {known}."
            )

    def bound(self, options: Mapping[str, Any]) -> Callable[[Wire, PlannedResponse], Awaitable[None]]:
        """Return the fault as a function of only the connection and the planned response."""
        return partial(self.run, **options)


def fault(
    expect: Expectation, *, closes_port: bool = False, change_answer: ChangeAnswer = _unchanged
) -> Callable[[Run], Run]:
    """Return a decorator that registers a fault under its function's name."""

    def register(run: Run) -> Run:
        options = {
            name: parameter.default
            for name, parameter in inspect.signature(run).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY
        }
        summary = (run.__doc__ or "").strip()
        FAULTS[run.__name__] = Fault(
            name=run.__name__,
            summary=summary,
            expect=expect,
            run=run,
            options=options,
            closes_port=closes_port,
            change_answer=change_answer,
        )
        return run

    return register


async def send_first_chunks(wire: Wire, response: PlannedResponse, count: int) -> None:
    """Send the head and the first chunks of an answer; of one in one piece, its first half."""
    if not response.is_stream:
        body = await response.read()
        await wire.start(response.status, response.headers)
        await wire.send(body[: len(body) // 2])
        return
    await wire.start(response.status, response.headers)
    pieces = aiter(response)
    for _ in range(count):
        if (data := await anext(pieces, None)) is not None:
            await wire.send(data)


async def send_changed(wire: Wire, response: PlannedResponse, change: Callable[[bytes], bytes]) -> None:
    """Send the whole response, each piece changed by `change`."""
    await wire.start(response.status, response.without_length())
    async for data in response:
        await wire.send(change(data))
    await wire.end()
