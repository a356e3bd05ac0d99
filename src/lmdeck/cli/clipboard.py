"""Copying text: with the platform's program if there is one, else through the terminal."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys

from lmdeck.cli.plain_output import write

PROGRAMS = (
    (["pbcopy"], "darwin", None),
    (["clip.exe"], "win32", None),
    (["wl-copy"], "linux", "WAYLAND_DISPLAY"),
    (["xclip", "-selection", "clipboard"], "linux", "DISPLAY"),
    (["xsel", "--clipboard", "--input"], "linux", "DISPLAY"),
)
SECONDS = 5


def copy_to_clipboard(text: str) -> str:
    """Copy text, and return how it was copied, for a message.

    Without a program, the terminal is asked with OSC 52 (xterm's control sequences), which works over SSH; some terminals
    ignore it.
    """
    for command, platform, display in PROGRAMS:
        if sys.platform == platform and shutil.which(command[0]) and (display is None or os.environ.get(display)):
            encoded = text.encode("utf-16" if platform == "win32" else "utf-8")
            try:
                subprocess.run(command, input=encoded, check=True, timeout=SECONDS, stdout=subprocess.DEVNULL)
            except (OSError, subprocess.SubprocessError):
                continue
            return f"with {command[0]}"
    write(f"\x1b]52;c;{base64.b64encode(text.encode(errors='replace')).decode()}\x07")
    return "through the terminal, if it allows that"
