"""How fast the engine answers: seconds of a prompt of about 400 tokens that it has not seen, and of each generated token.

These are times, not CPU: the engine uses all cores.
"""

from __future__ import annotations

import importlib.util
import time

import stub
from lmdeck import LMStudio
from results import Figures

PROMPT_TOKENS, TOKENS = 400, 100
CHARS_PER_TOKEN = 2.9  # of the stub's text


def why_not() -> str | None:
    """Return why the engine cannot be measured here, or None."""
    if importlib.util.find_spec("xllamacpp") is None:
        return "xllamacpp is not installed"
    from lmdeck.engine import EngineError, pull

    try:
        pull()
    except EngineError as error:
        return f"there is no model ({error})"
    return None


def measured(rounds: int) -> list[Figures]:
    """Return the time of a prompt of 400 tokens, and of a generated token."""
    if why_not():
        return []
    from lmdeck.engine import EngineServer

    prompts = Figures("engine prompt", f"The engine: a prompt of {PROMPT_TOKENS} tokens", "s to the first token", ())
    written = Figures("engine token", "The engine: an answer", "ms a generated token", ())
    text = stub.TEXT * (1 + int(PROMPT_TOKENS * CHARS_PER_TOKEN) // len(stub.TEXT))
    with EngineServer.start() as server, LMStudio(base_url=server.base_url) as client:
        for number in range(rounds + 1):  # the first one warms up
            question = f"Text {number}{number}{number}: {text[: int(PROMPT_TOKENS * CHARS_PER_TOKEN)]}"
            began = time.perf_counter()
            first = None
            with client.chat().user(question).with_options(max_tokens=TOKENS, temperature=0).stream() as stream:
                for _ in stream:
                    first = first or time.perf_counter()
                ended, usage = time.perf_counter(), stream.reply.usage
            if first is None or usage is None:
                raise ValueError("the engine answered without text or without its token counts")
            if number:
                scale = PROMPT_TOKENS / usage.prompt_tokens
                prompts.rounds.setdefault("lmdeck's engine", []).append((first - began) * scale)
                written.rounds.setdefault("lmdeck's engine", []).append(
                    (ended - first) / max(1, usage.completion_tokens - 1) * 1000
                )
    return [prompts, written]
