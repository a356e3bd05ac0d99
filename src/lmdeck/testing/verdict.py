"""How an application handles each fault: its program runs against a failing fake.

It first runs without a fault, which shows its normal output. Then it runs with each fault, once directly and once
through lmdeck's repair (as in `lmdeck run`). The outcomes are *survived* (the same output), *reported* (it ended with
its own error), *wrong answer* (it ended normally with another output), *crashed* (a traceback or a signal) and
*hung* (it did not end in time).
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from lmdeck.errors import ConfigurationError
from lmdeck.relay.proxy import RepairProxy
from lmdeck.server.serve import BackgroundServer
from lmdeck.server.sockets import listen
from lmdeck.testing.faults import FAULTS
from lmdeck.testing.isolation import environment_for
from lmdeck.testing.scenario import Scenario

if TYPE_CHECKING:
    from lmdeck.testing.fake import FakeLMStudio

Outcome = Literal["survived", "reported", "wrong answer", "crashed", "hung"]
SHOWN = 2000


class Trial(Struct, frozen=True, kw_only=True):
    """One run of the program; `is_right` is whether the outcome is acceptable."""

    fault: str
    outcome: Outcome
    seconds: float
    output: str
    is_right: bool
    repaired: Repaired | None = None


class Repaired(Struct, frozen=True, kw_only=True):
    """A run with the same fault and repaired answers."""

    outcome: Outcome
    seconds: float
    output: str
    is_right: bool


class _ProgramRun(Struct, frozen=True, kw_only=True):
    code: int | None
    output: str
    errors: str
    seconds: float

    @property
    def shown(self) -> str:
        """The end of its output."""
        return (self.output + self.errors)[-SHOWN:]


def baseline(command: Sequence[str], scenario: Scenario, timeout: float, *, repaired: bool = False) -> str:
    """Run the program without a fault, with repaired answers or directly, and return its output.

    Raises:
        ConfigurationError: It cannot be run, fails, or does not end.
    """
    run = _run(command, scenario, None, timeout, repaired=repaired)
    if run.code is None:
        raise ConfigurationError(
            f"The program did not end within {timeout:g} s, without any fault.",
            hint="Increase the limit with --timeout.",
        )
    if run.code:
        raise ConfigurationError(
            f"The program fails without any fault (exit code {run.code}): {run.errors.strip()[-SHOWN:]}",
            hint="It finds the fake by LMDECK_BASE_URL or OPENAI_BASE_URL; script its answers with --scenario.",
        )
    return run.output


def try_faults(
    command: Sequence[str],
    scenario: Scenario,
    expected: str,
    *,
    timeout: float,
    faults: Sequence[str] | None = None,
    repaired: str | None = None,
) -> Iterator[Trial]:
    """Run the program once with each fault; every one of its answers fails in that way.

    `repaired` is the normal output with repaired answers; if it is given, the program runs with them, too.
    """
    for name in faults or FAULTS:
        run = _run(command, scenario, name, timeout)
        outcome = _outcome(run, expected)
        yield Trial(
            fault=name,
            outcome=outcome,
            seconds=run.seconds,
            output=run.shown,
            is_right=_is_right(outcome, name),
            repaired=None if repaired is None else _try_repaired(command, scenario, repaired, timeout, name),
        )


def _try_repaired(command: Sequence[str], scenario: Scenario, expected: str, timeout: float, fault: str) -> Repaired:
    run = _run(command, scenario, fault, timeout, repaired=True)
    outcome = _outcome(run, expected)
    return Repaired(outcome=outcome, seconds=run.seconds, output=run.shown, is_right=_is_right(outcome, fault))


def _is_right(outcome: Outcome, fault: str) -> bool:
    return outcome == "survived" or (outcome == "reported" and FAULTS[fault].expect == "error")


def _outcome(run: _ProgramRun, expected: str) -> Outcome:
    if run.code is None:
        return "hung"
    if run.code == 0:
        return "survived" if run.output == expected else "wrong answer"
    return "crashed" if run.code < 0 or "Traceback (most recent call last)" in run.errors else "reported"


def _run(
    command: Sequence[str], scenario: Scenario, fault: str | None, timeout: float, *, repaired: bool = False
) -> _ProgramRun:
    started = time.monotonic()
    with closing(scenario.fake().start()) as fake, _server(fake, timeout, repaired=repaired) as url:
        _inject(fake, fault)
        environment = {**os.environ, **environment_for(url)}
        try:
            done = subprocess.run(  # running the user's own program is the purpose
                list(command), env=environment, capture_output=True, text=True, timeout=timeout, check=False,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return _ProgramRun(code=None, output="", errors="", seconds=time.monotonic() - started)
        except OSError as error:
            raise ConfigurationError(
                f"The program {command[0]} cannot be run: {error.strerror}.", hint="Check its name."
            ) from error
    return _ProgramRun(code=done.returncode, output=done.stdout, errors=done.stderr, seconds=time.monotonic() - started)


@contextmanager
def _server(fake: FakeLMStudio, timeout: float, *, repaired: bool) -> Iterator[str]:
    """Yield the base URL for the program.

    The repair's limits on silence expire before the program counts as hung.
    """
    if not repaired:
        yield fake.base_url
        return
    limits: Any = {"timeout": timeout / 3, "first_token_timeout": timeout / 3}
    proxy = RepairProxy(base_url=fake.base_url, **limits)
    with BackgroundServer(proxy, listen(), lifespan=True) as server:
        yield server.base_url


def _inject(fake: FakeLMStudio, fault: str | None) -> None:
    """Make every answer fail; a port that the fault closes stays closed for the whole run."""
    if fault is not None and FAULTS[fault].closes_port:
        fake.close_port()
    else:
        fake.fail_always(fault)
