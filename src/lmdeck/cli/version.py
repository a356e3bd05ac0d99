"""The output of `lmdeck --version`, which is printed before anything else is loaded."""

from lmdeck._version import __version__

VERSION_LINE = f"lmdeck {__version__}"
