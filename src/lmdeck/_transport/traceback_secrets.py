"""Remove secrets from tracebacks.

The frames of the HTTP libraries contain the headers with the token, those of lmdeck other headers, bodies and answers.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


def clear_locals(error: BaseException, handled: BaseException | None) -> None:
    """Clear the local variables of the frames that an exception has left.

    pytest's `-l`, `cgitb` and error trackers would print them; the lines of the traceback stay. `handled` is the exception that
    was being handled before `error` was raised; it is not changed.
    """
    for frame in _frames(error, handled):
        with suppress(RuntimeError):  # the frame is still running: it belongs to lmdeck
            frame.clear()


def clear_own_locals(error: BaseException) -> None:
    """Clear the local variables of lmdeck's frames that an exception has left.

    They hold headers, bodies and answers. Frames of the program and of its tools keep theirs.
    """
    for frame in _frames(error):
        if frame.f_globals.get("__name__", "").startswith("lmdeck."):
            with suppress(RuntimeError):
                frame.clear()


def _frames(error: BaseException, handled: BaseException | None = None) -> Iterator[FrameType]:
    """Yield the frames of an exception and of those behind it, up to `handled`."""
    seen = {id(handled)}
    pending: list[BaseException | None] = [error]
    while pending:
        each = pending.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        trace = each.__traceback__
        while trace is not None:
            yield trace.tb_frame
            trace = trace.tb_next
        pending += [each.__cause__, each.__context__]
