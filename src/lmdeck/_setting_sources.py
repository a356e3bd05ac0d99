"""Where settings are found, and how far each place is trusted.

Keywords and the environment are the user's own words. A file of a project came with the project, which may be a stranger's: it
may name a server, but neither take the user's token there nor have a say in the way to a server that was named elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from lmdeck._secret import redact_url
from lmdeck._setting_checks import CHECKS
from lmdeck.errors import ConfigurationError

__all__ = [
    "Found",
    "check_trust",
    "from_environment",
    "from_files",
    "from_keywords",
    "misspelt",
    "without_foreign_ways",
]

CONFIG_FILE_BYTES = 1 << 20
PREFIX = "LMDECK_"
TOKEN_VARIABLE = "LM_API_TOKEN"  # noqa: S105  # the name that LM Studio's own documentation uses (core/authentication)
OTHER_VARIABLES = ("LMDECK_CACHE_DIR", "LMDECK_LIVE_URL", "LMDECK_SERVER_TOKEN")
REPOSITORIES = (".git", ".hg", ".jj", ".svn")
WAYS = ("proxy", "tls_verify", "tls_ca_file", "tls_client_cert", "tls_client_key")
ALIKE = 0.7

# What other clients call the same thing: openai, httpx, requests, litellm.
ELSEWHERE = {
    "api_base": "base_url",
    "api_key": "api_token",
    "hostname": "host",
    "max_retries": "retry_attempts",
    "retries": "retry_attempts",
    "token": "api_token",
    "url": "base_url",
    "verify": "tls_verify",
}


class Found(Struct, frozen=True):
    """A setting's raw value and where it was found."""

    name: str
    value: Any
    origin: str
    is_of_a_file: bool = False


# --- the places -------------------------------------------------------------------------------------------------------------


def from_keywords(given: Mapping[str, Any]) -> list[Found]:
    """Return the keywords that are not None."""
    return [Found(name, value, f"the keyword argument {name}=") for name, value in given.items() if value is not None]


def from_environment(environ: Mapping[str, str]) -> list[Found]:
    """Return the variables that are settings and not empty."""
    names = {TOKEN_VARIABLE: "api_token"} | {f"{PREFIX}{name.upper()}": name for name in CHECKS}
    found = {
        name: Found(name, environ[variable], f"the environment variable {variable}")
        for variable, name in names.items()
        if environ.get(variable)
    }
    return list(found.values())


def from_files(folder: Path) -> list[Found]:
    """Read the nearest `lmdeck.toml` or `[tool.lmdeck]` of a `pyproject.toml`, from a folder up to its project's root."""
    for place in _up_to_root(folder):
        own, project = place / "lmdeck.toml", place / "pyproject.toml"
        if own.is_file():
            return _settings_of(_read_toml(own), str(own.absolute()))
        if project.is_file():
            tool = _read_toml(project).get("tool")
            if isinstance(tool, Mapping) and "lmdeck" in tool:
                return _settings_of(tool["lmdeck"], f"[tool.lmdeck] in {project.absolute()}")
    return []


def _up_to_root(folder: Path) -> list[Path]:
    """Return a folder and those above it, up to the one that is a repository, or else the first that has a `pyproject.toml`."""
    try:
        places = [folder, *folder.absolute().parents]
    except OSError:  # the working directory is gone
        return [folder]
    for markers in (REPOSITORIES, ("pyproject.toml",)):
        for number, place in enumerate(places, 1):
            if any((place / marker).exists() for marker in markers):
                return places[:number]
    return [folder]


def _settings_of(table: object, origin: str) -> list[Found]:
    if not isinstance(table, Mapping):
        raise ConfigurationError(f"{origin} is not a table.", hint="Write one `name = value` a line below it.")
    return [Found(name, value, origin, is_of_a_file=True) for name, value in table.items()]


def _read_toml(path: Path) -> dict[str, Any]:
    import tomllib  # here, because most programs have no such file

    try:
        with path.open("rb") as file:
            text = file.read(CONFIG_FILE_BYTES + 1)
        if len(text) > CONFIG_FILE_BYTES:
            raise ValueError(f"it is larger than {CONFIG_FILE_BYTES} bytes")
        return tomllib.loads(text.decode())
    except (OSError, ValueError, RecursionError) as error:  # TOML and UTF-8 errors are values' errors
        raise ConfigurationError(f"{path} cannot be read: {error}.", hint="Correct the file, or remove it.") from error


def misspelt(environ: Mapping[str, str]) -> Iterator[str]:
    """Return a sentence for each variable that is not read, though its name is like that of one that is."""
    known = {f"{PREFIX}{name.upper()}" for name in CHECKS}.union(OTHER_VARIABLES)
    for variable in environ:
        name = variable.upper()
        if not name.startswith(PREFIX) or variable in known:
            continue
        meant = _nearest(name.removeprefix(PREFIX).lower())
        if name in known or meant is not None:
            right = name if name in known else f"{PREFIX}{str(meant).upper()}"
            yield f"The environment variable {variable} is not read. Did you mean {right}?"


def _nearest(name: str) -> str | None:
    """Return the setting that a name is like, whatever its underscores."""
    from difflib import get_close_matches  # here, because most variables are right

    if name in ELSEWHERE:
        return ELSEWHERE[name]
    plain = {each.replace("_", ""): each for each in CHECKS}
    others = {each.removeprefix(PREFIX).lower().replace("_", ""): None for each in OTHER_VARIABLES}
    nearest = get_close_matches(name.replace("_", ""), [*plain, *others], n=1, cutoff=ALIKE)
    return plain.get(nearest[0]) if nearest else None


# --- how far they are trusted -----------------------------------------------------------------------------------------------


def _address(chosen: Mapping[str, Found]) -> Found | None:
    """Return what says where the server is."""
    return chosen.get("base_url") or chosen.get("host") or chosen.get("port")


def without_foreign_ways(chosen: Mapping[str, Found]) -> tuple[dict[str, Found], list[str]]:
    """Leave out what a file says of the way to a server that it does not name; return the rest, and a sentence for each.

    A proxy would read what goes there, and `tls_verify = false` would let anyone do so.
    """
    address = _address(chosen)
    if address is not None and address.is_of_a_file:
        return dict(chosen), []
    foreign = {name: found for name, found in chosen.items() if name in WAYS and found.is_of_a_file}
    whence = "it is the default" if address is None else f"it comes from {address.origin}"
    notes = [
        f"{found.origin}: {name} is not used, because it is not this file that names the server's address ({whence})."
        for name, found in foreign.items()
    ]
    return {name: found for name, found in chosen.items() if name not in foreign}, notes


def check_trust(chosen: Mapping[str, Found]) -> None:
    """Refuse to send the user's token to an address that a project's file names, unless that is this machine.

    Raises:
        ConfigurationError: It would go there, or through such a proxy.
    """
    token, address = chosen.get("api_token"), _address(chosen)
    if token is None or token.is_of_a_file:
        return
    for found in (address, chosen.get("proxy")):
        if found is not None and found.is_of_a_file and not _is_loopback(found):
            raise ConfigurationError(
                f"The token of {token.origin} is not sent to {redact_url(str(found.value))!r}, which {found.origin} names "
                f"as {found.name}: whoever wrote that file would have it.",
                hint=f"If you trust it, say so yourself: {found.name}=…, or the variable {PREFIX}{found.name.upper()}.",
            )


def _is_loopback(found: Found) -> bool:
    """Whether an address, as it was found, is of this machine."""
    if found.name == "port":
        return True
    text = str(found.value)
    try:
        host = urlsplit(text if "://" in text else f"//{text}").hostname if found.name != "host" else text.strip("[]")
    except ValueError:
        return False
    if host == "localhost":
        return True
    try:
        return ip_address(host or "").is_loopback
    except ValueError:
        return False
