"""A queue that is fair by key: deficit round robin over estimated tokens of the requests.

Each key has its own line. In turn, each line gets a quantum of tokens, and sends requests while it has tokens left
(Shreedhar and Varghese, 1995). A key with many or long requests delays others by at most one of its requests.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

__all__ = ["FairQueue", "Queued"]

QUANTUM = 500  # about one usual request


class Queued(Protocol):
    """An entry: its key, its cost in tokens, and whether it is served after all others."""

    key: str
    cost: int
    is_background: bool


Q = TypeVar("Q", bound=Queued)


class _Line(Generic[Q]):
    def __init__(self, *, is_background: bool) -> None:
        self.is_background = is_background
        self.entries: dict[int, Q] = {}
        self.deficit = 0

    @property
    def head(self) -> Q:
        return next(iter(self.entries.values()))

    @property
    def rounds(self) -> int:
        """How many more quanta the first entry needs."""
        return max(0, -(-(self.head.cost - self.deficit) // QUANTUM))


class FairQueue(Generic[Q]):
    """The waiting requests of one model.

    Adding and removing take constant time, choosing is linear in the number of keys.

    Entries in the background have separate lines, which are served when all others are empty.
    """

    def __init__(self) -> None:
        self._lines: dict[tuple[bool, str], _Line[Q]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Q]:
        """Yield all entries, line by line."""
        for line in self._lines.values():
            yield from line.entries.values()

    def push(self, entry: Q) -> None:
        """Add an entry at the end of its key's line."""
        line = self._lines.get(_line_of(entry))
        if line is None:
            line = self._lines[_line_of(entry)] = _Line(is_background=entry.is_background)
        line.entries[id(entry)] = entry
        self._count += 1

    def heads(self) -> list[Q]:
        """Return the first entry of each line, in the order in which they are served."""
        return [line.head for line in sorted(self._lines.values(), key=lambda line: (line.is_background, line.rounds))]

    def take(self, entry: Q) -> None:
        """Serve an entry that `heads` returned."""
        name = _line_of(entry)
        line = self._lines[name]
        if rounds := line.rounds:
            for each in self._lines.values():
                if each.is_background == line.is_background:
                    each.deficit += rounds * QUANTUM
        line.deficit -= entry.cost
        self.remove(entry)
        if name in self._lines and line.deficit < line.head.cost:  # its turn is over
            self._lines[name] = self._lines.pop(name)

    def remove(self, entry: Q) -> bool:
        """Remove an entry; return whether it was in the queue."""
        line = self._lines.get(_line_of(entry))
        if line is None or line.entries.pop(id(entry), None) is None:
            return False
        self._count -= 1
        if not line.entries:  # an empty line keeps no tokens
            del self._lines[_line_of(entry)]
        return True

    def position(self, entry: Q) -> int:
        """Return how many entries are served before this one if the lines take turns."""
        own_line = _line_of(entry)
        own = list(self._lines[own_line].entries.values()).index(entry)
        before = 0
        is_ahead = True  # lines that have their turn before that of the entry
        for name, line in self._lines.items():
            is_ahead = is_ahead and name != own_line
            if line.is_background == entry.is_background:
                before += min(len(line.entries), own + is_ahead)
            elif entry.is_background:
                before += len(line.entries)
        return before


def _line_of(entry: Queued) -> tuple[bool, str]:
    return entry.is_background, entry.key
