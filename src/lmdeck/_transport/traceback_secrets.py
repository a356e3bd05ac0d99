"""Remove secrets from tracebacks.

The frames of the HTTP libraries contain the headers with the token.
"""

from __future__ import annotations

from contextlib import suppress


def clear_locals(error: BaseException, handled: BaseException | None) -> None:
    """Clear the local variables of the frames that an exception has left.

    pytest's `-l`, `cgitb` and error trackers would print them; the lines of the traceback stay. `handled` is the exception that
    was being handled before `error` was raised; it is not changed.
    """
    seen = {id(handled)}
    pending: list[BaseException | None] = [error]
    while pending:
        each = pending.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        trace = each.__traceback__
        while trace is not None:
            with suppress(RuntimeError):  # the frame is still running: it is one of ours
                trace.tb_frame.clear()
            trace = trace.tb_next
        pending += [each.__cause__, each.__context__]
