"""What an application makes of each fault: its program is run against a fake that fails in that way, and watched.

First it is run without a fault, which shows what it says when all is well. Then, for each fault: *survived* (it said the
same), *said so* (it ended with an error of its own), *wrong answer* (it ended well and said something else), *crashed* (a
traceback or a signal) or *hung* (it did not end in time).
"""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import closing
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from lmdeck.errors import ConfigurationError
from lmdeck.testing.faults import FAULTS
from lmdeck.testing.isolation import point_to
from lmdeck.testing.scenario import Scenario

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lmdeck.testing.fake import FakeLMStudio

__all__ = ["Outcome", "Trial", "baseline", "try_faults"]

Outcome = Literal["survived", "said so", "wrong answer", "crashed", "hung"]
SHOWN = 2000


class Trial(Struct, frozen=True, kw_only=True):
    """One run of the program: `is_right` tells whether the outcome is one to be content with."""

    fault: str
    outcome: Outcome
    seconds: float
    output: str
    is_right: bool


class _Run(Struct, frozen=True, kw_only=True):
    code: int | None
    output: str
    errors: str
    seconds: float


def baseline(command: Sequence[str], scenario: Scenario, timeout: float) -> str:
    """Run the program without a fault, and give what it says.

    Raises:
        ConfigurationError: It cannot be run, fails, or does not end.
    """
    run = _run(command, scenario, None, timeout)
    if run.code is None:
        raise ConfigurationError(
            f"The program did not end within {timeout:g} s, without any fault.", hint="Give it longer with --timeout."
        )
    if run.code:
        raise ConfigurationError(
            f"The program fails without any fault (exit code {run.code}): {run.errors.strip()[-SHOWN:]}",
            hint="It finds the fake by LMDECK_BASE_URL or OPENAI_BASE_URL; script its answers with --scenario.",
        )
    return run.output


def try_faults(
    command: Sequence[str], scenario: Scenario, expected: str, *, timeout: float, faults: Sequence[str] | None = None
) -> Iterator[Trial]:
    """Run the program once under each fault; every one of its answers fails in that way."""
    for name in faults or FAULTS:
        run = _run(command, scenario, name, timeout)
        outcome = _outcome(run, expected)
        yield Trial(
            fault=name,
            outcome=outcome,
            seconds=run.seconds,
            output=(run.output + run.errors)[-SHOWN:],
            is_right=outcome == "survived" or (outcome == "said so" and FAULTS[name].expect == "error"),
        )


def _outcome(run: _Run, expected: str) -> Outcome:
    if run.code is None:
        return "hung"
    if run.code == 0:
        return "survived" if run.output == expected else "wrong answer"
    return "crashed" if run.code < 0 or "Traceback (most recent call last)" in run.errors else "said so"


def _run(command: Sequence[str], scenario: Scenario, fault: str | None, timeout: float) -> _Run:
    began = time.monotonic()
    with closing(scenario.fake().start()) as fake:
        _arm(fake, fault)
        environment = {**os.environ, **point_to(fake.base_url)}
        try:
            done = subprocess.run(  # noqa: S603  # the user's own program is the point
                list(command), env=environment, capture_output=True, text=True, timeout=timeout, check=False,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return _Run(code=None, output="", errors="", seconds=time.monotonic() - began)
        except OSError as error:
            raise ConfigurationError(
                f"The program {command[0]} cannot be run: {error.strerror}.", hint="Check its name."
            ) from error
    return _Run(code=done.returncode, output=done.stdout, errors=done.stderr, seconds=time.monotonic() - began)


def _arm(fake: FakeLMStudio, fault: str | None) -> None:
    """Let every answer fail; a port that is closed stays so for as long as the program runs."""
    if fault == "refuse":
        fake.close_port()
    else:
        fake.fail_always(fault)
