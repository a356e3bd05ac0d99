"""Remove secrets from tracebacks.

The frames of the HTTP libraries hold the headers with the token.
"""

from __future__ import annotations

import sys
from contextlib import suppress


class without_locals:  # noqa: N801  # used like a function
    """Clear the local variables of the frames that an exception has left.

    Reports with locals then do not show them.

    pytest's `-l`, `cgitb` and error trackers print them; the lines of the traceback stay.
    """

    def __enter__(self) -> None:
        self._before = sys.exc_info()[1]  # an exception that the caller is handling: not ours to change

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None:
            _clear(error, self._before)


def _clear(error: BaseException, before: BaseException | None) -> None:
    seen = {id(before)}
    pending: list[BaseException | None] = [error]
    while pending:
        each = pending.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        trace = each.__traceback__
        while trace is not None:
            with suppress(RuntimeError):  # the frame still runs: it is one of ours
                trace.tb_frame.clear()
            trace = trace.tb_next
        pending += [each.__cause__, each.__context__]
