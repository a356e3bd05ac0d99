"""The ways in which an answer goes wrong, by name: what networks, proxies and LM Studio were seen to do.

Each is a function of the connection and the answer as it would have been; its docstring is what `lmdeck fake --faults` shows.
LM Studio's own words are from its bug tracker. What a good client makes of it is said beside each: the right answer all the
same ("right"), or an error ("error").
"""

from __future__ import annotations

from lmdeck.errors import ConfigurationError
from lmdeck.testing.faults import connection, lmstudio, refusals, stream
from lmdeck.testing.faults.declaration import FAULTS, Fault

__all__ = ["FAMILIES", "FAULTS", "Fault", "find_fault"]

FAMILIES = (connection, stream, refusals, lmstudio)


def find_fault(name: str) -> Fault:
    """Give a fault by its name.

    Raises:
        ConfigurationError: There is none.
    """
    if name not in FAULTS:
        raise ConfigurationError(
            f"There is no fault {name!r}.",
            hint="`FakeLMStudio.faults()` lists them, `lmdeck fake --faults` explains them.",
        )
    return FAULTS[name]
