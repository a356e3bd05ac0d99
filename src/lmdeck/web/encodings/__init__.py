"""Encodings of an answer as server-sent events: lmdeck's own, AG-UI and the Vercel AI SDK."""

from lmdeck.errors import ConfigurationError
from lmdeck.web.encodings.ag_ui import AG_UI, ag_ui
from lmdeck.web.encodings.base import HEARTBEAT_FRAME, Encoding
from lmdeck.web.encodings.page import PAGE
from lmdeck.web.encodings.vercel import VERCEL

__all__ = ["ENCODINGS", "HEARTBEAT_FRAME", "PAGE", "Encoding", "ag_ui", "find_encoding"]

ENCODINGS = {encoding.name: encoding for encoding in (PAGE, VERCEL, AG_UI)}


def find_encoding(name: str | Encoding) -> Encoding:
    """Return an encoding by its name: "lmdeck", "vercel" or "ag-ui".

    Raises:
        ConfigurationError: There is no encoding of that name.
    """
    if isinstance(name, Encoding):
        return name
    if name not in ENCODINGS:
        raise ConfigurationError(f"There is no encoding {name!r}.", hint=f"Choose one of {', '.join(ENCODINGS)}.")
    return ENCODINGS[name]
