"""Reading of a configuration, TOML or JSON; errors name the setting and the line."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
from msgspec import Struct

from lmdeck.errors import ConfigurationError

__all__ = ["decode_configuration", "named_errors", "read_configuration"]


def read_configuration(path: str | Path) -> str:
    """Return the text of a configuration file.

    Raises:
        ConfigurationError: It cannot be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(
            f"The configuration {path} cannot be read: {reason}.", hint="Pass another file as `--config`."
        ) from error


def decode_configuration(text: str, origin: str) -> dict[str, Any]:
    """Decode TOML, or JSON, which starts with a brace.

    Raises:
        ConfigurationError: The text is neither.
    """
    try:
        values: dict[str, Any] = msgspec.json.decode(text) if text.lstrip().startswith("{") else tomllib.loads(text)
    except msgspec.DecodeError as error:
        raise ConfigurationError(f"{origin} is not JSON: {error}.", hint=_CORRECT) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{origin} is not TOML: {error}.", hint=_CORRECT) from error
    return values


@contextmanager
def named_errors(text: str, origin: str, kind: type[Struct]) -> Iterator[None]:
    """Report an invalid setting of a configuration with its name and line.

    The configuration is converted to `kind`.

    Raises:
        ConfigurationError: The conversion failed.
    """
    try:
        yield
    except msgspec.ValidationError as error:
        raise _located(str(error), text, origin, kind) from None


_CORRECT = "Correct the configuration; docs/gateway.md lists all settings."
_PATH = re.compile(r"(?P<reason>.*?)(?: - at `\$\.?(?P<path>[^`]*)`)?", re.DOTALL)
_FIELD = re.compile(r"unknown field `(?P<name>[^`]*)`|missing required field `(?P<missing>[^`]*)`")
_NAMED = re.compile(r"(?P<name>[a-z_]+(?:\..*?)?): (?P<reason>.*)", re.DOTALL)


def _located(message: str, text: str, origin: str, kind: type[Struct]) -> ConfigurationError:
    """Return the error for a message of msgspec, with the name of the setting and its line."""
    found = _PATH.fullmatch(message)
    reason, path = (found["reason"], found["path"] or "") if found else (message, "")
    unknown, named = _FIELD.search(reason), _NAMED.fullmatch(reason)
    hint = _CORRECT
    if unknown is not None:
        name = unknown["name"] or unknown["missing"]
        if unknown["name"]:
            reason = "there is no such setting"
            near = get_close_matches(name, _known_names(kind, path), n=1)
            hint = f"Did you mean `{near[0]}`? {hint}" if near else hint
        else:
            reason = "it is required"
        setting = f"{path}.{name}" if path else name
    elif named is not None:
        setting, reason = (f"{path}.{named['name']}" if path else named["name"]), named["reason"]
    else:
        setting = path or "the file"
    line = _line_of(text, setting)
    where = origin if line is None else f"{origin}, line {line}"
    return ConfigurationError(f"{where}: {setting}: {reason[:1].lower()}{reason[1:].rstrip('.')}.", hint=hint)


def _known_names(kind: type[Struct], path: str) -> Sequence[str]:
    """Return the names of the settings in the table at `path`."""
    section: Any = kind
    for part in re.sub(r"\[[^\]]*\]", "", path).split("."):
        if not part:
            continue
        hint = get_type_hints(section).get(part)
        section = next(
            (each for each in (hint, *get_args(hint)) if isinstance(each, type) and issubclass(each, Struct)), None
        )
        if section is None:
            return ()
    names: Sequence[str] = section.__struct_fields__
    return names


_HEADER = re.compile(r"\s*(\[{1,2})\s*([^\]]+?)\s*\]{1,2}\s*(?:#.*)?")
_KEY = re.compile(r"""\s*(?:"([^"]+)"|'([^']+)'|([A-Za-z0-9_-]+))\s*[=.]""")


def _line_of(text: str, setting: str) -> int | None:
    """Return the line of a setting such as `hosts[1].weight`, or of the table that lacks it.

    None if it is not found.
    """
    table, _, key = setting.rpartition(".")
    fallback: int | None = None
    counts: dict[str, int] = {}
    current = ""
    for number, line in enumerate(text.splitlines(), 1):
        if (header := _HEADER.fullmatch(line)) is not None:
            name = re.sub(r"[\"']", "", header[2])
            is_list = header[1] == "[["
            counts[name] = counts.get(name, -1) + 1
            current = f"{name}[{counts[name]}]" if is_list else name
            if current in (table, setting) or name == setting:
                fallback = number if fallback is None else fallback
            if current == setting:
                return number
        elif (found := _KEY.match(line)) is not None and current == table and (found[1] or found[2] or found[3]) == key:
            return number
    return fallback
