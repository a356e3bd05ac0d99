"""The command line in the process of the tests: as a program it would take half a second of CPU to start."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from collections.abc import Mapping

import pytest

import lmdeck.cli


def run_here(
    *arguments: str, environment: Mapping[str, str] = os.environ, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run `lmdeck ARGUMENTS` in an environment, with `stdin` as what is piped in."""
    streams = {"stdin": io.BytesIO(stdin.encode()), "stdout": io.BytesIO(), "stderr": io.BytesIO()}
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ.keys() - environment.keys():
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        for name, stream in streams.items():
            patch.setattr(sys, name, io.TextIOWrapper(stream, "utf-8", write_through=True))
        logger = logging.getLogger("lmdeck")
        level, handlers = logger.level, list(logger.handlers)
        try:
            code = lmdeck.cli.run(arguments)
        finally:
            logger.setLevel(level)
            logger.handlers[:] = handlers
        return subprocess.CompletedProcess(
            arguments, code, streams["stdout"].getvalue().decode(), streams["stderr"].getvalue().decode()
        )
