"""`make demo-batch`: fifty prompts for a small real model in this process; the batch is killed once, and resumed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lmdeck.batch.job import ledger_of, progress_of
from lmdeck.cli.engine import pull_with_progress
from lmdeck.engine import EngineServer
from lmdeck.errors import LMStudioError

PROMPTS = [f"A {adjective}, {other} thing?" for adjective in (
    "red", "small", "old", "loud", "soft", "fast", "cold", "round", "sweet", "heavy",
) for other in ("expensive", "common", "useful", "dangerous", "forgotten")]  # fmt: skip
KILLED_AFTER = 15


def main() -> int:
    begun = time.monotonic()
    weights = pull_with_progress()
    with EngineServer.start(weights) as server, tempfile.TemporaryDirectory() as name:
        source, out = Path(name) / "prompts.jsonl", Path(name) / "answers.jsonl"
        source.write_text("".join(f"{json.dumps({'prompt': prompt})}\n" for prompt in PROMPTS))
        command = [
            sys.executable, "-m", "lmdeck", "batch", "run", str(source), "--out", str(out), "--host", server.base_url,
            "--model", server.model, "--max-tokens", "6", "--temperature", "0",
        ]  # fmt: skip
        print(f"$ lmdeck batch run prompts.jsonl --out answers.jsonl --model {server.model}", flush=True)
        with subprocess.Popen(command) as process:
            while answered(out) < KILLED_AFTER and process.poll() is None:
                time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
        print(f"killed with -9 after {answered(out)} rows; the same command again:", flush=True)
        done = subprocess.run(command, check=False)
        rows = [json.loads(line) for line in out.read_bytes().split(b"\n") if line]
        for row in rows[:3]:
            print(f"{row['custom_id']}: {row['response']['body']['choices'][0]['message']['content']!r}")
    print(f"{len(rows)} answers in {time.monotonic() - begun:.0f} s")
    return done.returncode


def answered(out: Path) -> int:
    """Return how many rows have an answer so far."""
    try:
        return progress_of(ledger_of(out)).answered
    except LMStudioError:  # there is no ledger yet
        return 0


if __name__ == "__main__":
    sys.exit(main())
