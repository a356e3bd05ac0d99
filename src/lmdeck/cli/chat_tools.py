"""The tools of a Python file, for `lmdeck chat --tools`."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from lmdeck.errors import ConfigurationError
from lmdeck.tools.tool import Tool


def load_tools(name: str) -> list[Tool[..., Any]]:
    """Run a Python file and return the `@lmdeck.tool` functions that it defines or imports.

    Raises:
        ConfigurationError: The file is missing, fails, or has no tools.
    """
    path = Path(name).expanduser()
    if not path.is_file():
        raise ConfigurationError(f"There is no file {name}.", hint="Pass a Python file with `@lmdeck.tool` functions.")
    spec = spec_from_file_location(f"lmdeck_chat_{path.stem}", path) if path.suffix == ".py" else None
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"{name} is not a Python file.", hint="Pass a file with `@lmdeck.tool` functions.")
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigurationError(
            f"{name} raised {type(error).__name__}: {error}", hint=f"Run `python {name}` to see the traceback."
        ) from error
    tools = [value for value in vars(module).values() if isinstance(value, Tool)]
    if not tools:
        raise ConfigurationError(f"{name} defines no tools.", hint="Decorate its functions with `@lmdeck.tool`.")
    return tools
