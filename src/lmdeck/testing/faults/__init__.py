"""Injected faults by name: failures that networks, proxies and LM Studio produce.

Each fault is a function of the connection and the planned response; its docstring is what `lmdeck fake --faults` shows. The
messages of LM Studio are from its bug tracker. Each fault declares what a good client does: return the right answer ("right")
or raise an error ("error").
"""

from __future__ import annotations

from lmdeck.errors import ConfigurationError
from lmdeck.testing.faults import connection, lmstudio, refusals, stream
from lmdeck.testing.faults.declaration import FAULTS, Fault

__all__ = ["FAMILIES", "FAULTS", "Fault", "find_fault"]

FAMILIES = (connection, stream, refusals, lmstudio)


def find_fault(name: str) -> Fault:
    """Return a fault by its name.

    Raises:
        ConfigurationError: There is no such fault.
    """
    if name not in FAULTS:
        raise ConfigurationError(
            f"There is no fault {name!r}.",
            hint="`FakeLMStudio.faults()` lists them, `lmdeck fake --faults` explains them.",
        )
    return FAULTS[name]
