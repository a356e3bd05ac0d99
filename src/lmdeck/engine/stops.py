"""A filter that ends a text at its first stop string, which may arrive in pieces.

mistralrs has `stop_seqs`, but turns a stop string that is one token of the vocabulary into that token id, so `"capital"` does
not stop at the token `" capital"`. Stop strings are strings here.
"""

from __future__ import annotations


class StopFilter:
    """A filter that returns text up to the first stop string."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._pending = ""
        self._longest = max((len(stop) for stop in stops), default=1) - 1
        self.found = False

    def feed(self, text: str) -> str:
        """Read a piece and return the text that cannot be the beginning of a stop string."""
        text = self._pending + text
        cuts = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if cuts:
            self.found, self._pending = True, ""
            return text[: min(cuts)]
        keep = self._partial_stop_length(text)
        self._pending = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """Return the pending text, which did not become a stop string."""
        rest, self._pending = self._pending, ""
        return rest

    def _partial_stop_length(self, text: str) -> int:
        for length in range(min(self._longest, len(text)), 0, -1):
            tail = text[-length:]
            if any(stop.startswith(tail) for stop in self._stops):
                return length
        return 0
