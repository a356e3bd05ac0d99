"""What a traceback must not show: the libraries' frames hold the request's headers, and with them the token."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["without_locals"]


@contextmanager
def without_locals() -> Iterator[None]:
    """Clear the local variables of the frames that an exception has left, so that reports with locals do not show them.

    pytest's `-l`, `cgitb` and error trackers print them; the lines of the traceback stay.
    """
    before = sys.exc_info()[1]  # what is being handled where the request is made: that one is the caller's
    try:
        yield
    except BaseException as error:
        _clear(error, before)
        raise


def _clear(error: BaseException, before: BaseException | None) -> None:
    seen = {id(before)}
    pending: list[BaseException | None] = [error]
    while pending:
        found = pending.pop()
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        trace = found.__traceback__
        while trace is not None:
            with suppress(RuntimeError):  # it still runs: one of ours
                trace.tb_frame.clear()
            trace = trace.tb_next
        pending += [found.__cause__, found.__context__]
