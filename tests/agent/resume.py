"""Resume a paused run in a process of its own: `python resume.py URL FILE DECISIONS`; prints the reply, or the error."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import lmdeck


@lmdeck.tool
def pay(amount: int) -> str:
    """Pay an amount."""
    with Path(sys.argv[2]).with_suffix(".paid").open("a") as ledger:
        ledger.write(f"{amount}\n")
    return f"paid {amount}"


def main() -> None:
    url, path, decisions = sys.argv[1:]
    paused = lmdeck.PausedRun.from_json(Path(path).read_bytes())
    with lmdeck.LMStudio(base_url=url) as client:
        outcome = client.chat().with_tools([pay]).resume(paused, json.loads(decisions))
    assert isinstance(outcome, lmdeck.Reply)
    print(outcome.content)


if __name__ == "__main__":
    main()
