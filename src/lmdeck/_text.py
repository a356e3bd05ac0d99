"""What every text must be before it leaves the process: whole characters."""

from __future__ import annotations

__all__ = ["replace_lone_surrogates"]


def replace_lone_surrogates(text: str) -> str:
    """Replace each half of a surrogate pair by U+FFFD, since no file and no database can hold it; join whole pairs."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
