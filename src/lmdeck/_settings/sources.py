"""The sources of settings, and how far each is trusted.

Keyword arguments and the environment belong to the user. A file belongs to the project, which may be a stranger's: it may name
a server, but it must not send the user's token there, nor change the route to a server that another source names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from lmdeck._secret import redact_url
from lmdeck._settings.checks import CHECKS
from lmdeck.errors import ConfigurationError

CONFIG_FILE_BYTES = 1 << 20
PREFIX = "LMDECK_"
TOKEN_VARIABLE = "LM_API_TOKEN"  # the name in LM Studio's documentation (core/authentication)
OTHER_VARIABLES = ("LMDECK_CACHE_DIR", "LMDECK_CHATS_DIR", "LMDECK_LIVE_URL", "LMDECK_SERVER_TOKEN")
REPOSITORIES = (".git", ".hg", ".jj", ".svn")
ROUTE_SETTINGS = ("proxy", "tls_verify", "tls_ca_file", "tls_client_cert", "tls_client_key")
SIMILARITY = 0.7
API_PORTS = (41343, 52993, 16141, 39414, 22931)  # lmstudio-js, `lms-common/src/apiServerPorts.ts`

# Names of the same settings in other clients: openai, httpx, requests, litellm.
FOREIGN_NAMES = {
    "api_base": "base_url",
    "api_key": "api_token",
    "hostname": "host",
    "max_retries": "retry_attempts",
    "retries": "retry_attempts",
    "token": "api_token",
    "url": "base_url",
    "verify": "tls_verify",
}


class FoundSetting(Struct, frozen=True):
    """The raw value of a setting and where it was found."""

    name: str
    value: Any
    origin: str
    is_from_file: bool = False


# --- sources -------------------------------------------------------------------------------------------------------------


def from_keywords(keywords: Mapping[str, Any]) -> list[FoundSetting]:
    """Return the keyword arguments that are not None."""
    return [
        FoundSetting(name, value, f"the keyword argument {name}=")
        for name, value in keywords.items()
        if value is not None
    ]


def from_environment(environ: Mapping[str, str]) -> list[FoundSetting]:
    """Return the settings in environment variables that are not empty."""
    names = {TOKEN_VARIABLE: "api_token"} | {f"{PREFIX}{name.upper()}": name for name in CHECKS}
    found = {
        name: FoundSetting(name, environ[variable], f"the environment variable {variable}")
        for variable, name in names.items()
        if environ.get(variable)
    }
    return list(found.values())


def from_files(folder: Path) -> list[FoundSetting]:
    """Return the settings of the nearest `lmdeck.toml` or `[tool.lmdeck]`.

    The search goes from a folder up to its project's root.
    """
    for place in _up_to_root(folder):
        own, project = place / "lmdeck.toml", place / "pyproject.toml"
        if own.is_file():
            return _settings_of(_read_toml(own), str(own.absolute()))
        if project.is_file():
            tool = _read_toml(project).get("tool")
            if isinstance(tool, Mapping) and "lmdeck" in tool:
                return _settings_of(tool["lmdeck"], f"[tool.lmdeck] in {project.absolute()}")
    return []


def from_lm_studio(home: Path) -> list[FoundSetting]:
    """Return LM Studio's port as a setting, from its own file; nothing if it is not installed."""
    path = lm_studio_folder(home) / ".internal" / "http-server-config.json"
    port = _port_in(path)
    return [] if port is None else [FoundSetting("port", port, f"LM Studio's file {path}")]


def lm_studio_folder(home: Path) -> Path:
    """Return LM Studio's folder.

    It is the folder named in `.lmstudio-home-pointer`, else that of older versions, else `.lmstudio`.

    Source: lmstudio-js, `findLMStudioHome.ts`.
    """
    try:
        pointer = home / ".lmstudio-home-pointer"
        named = pointer.read_text(encoding="utf-8").strip() if pointer.is_file() else ""
        older = home / ".cache" / "lm-studio"
        return Path(named) if named else older if older.is_dir() else home / ".lmstudio"
    except (OSError, ValueError):  # the file is LM Studio's and may hold anything
        return home / ".lmstudio"


def lm_studio_api_ports(home: Path, environ: Mapping[str, str]) -> Sequence[int]:
    """Return the ports on which LM Studio's API for its SDKs may listen.

    The port in its own file comes first.

    `LMS_API_SERVER_INFO_PATH` names the file of one instance, and then there is no other port (`lms/src/localAPIServer.ts`).
    """
    named = environ.get("LMS_API_SERVER_INFO_PATH")
    port = _port_in(Path(named) if named else lm_studio_folder(home) / ".internal" / "http-server.json")
    found = [] if port is None else [port]
    return found if named else [*found, *(each for each in API_PORTS if each != port)]


def _port_in(path: Path) -> int | None:
    """Return the `port` in one of LM Studio's files, which may hold anything.

    None if there is none.
    """
    try:
        with path.open("rb") as file:
            config = json.loads(file.read(CONFIG_FILE_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    port = config.get("port") if isinstance(config, Mapping) else None
    return port if isinstance(port, int) and not isinstance(port, bool) and 0 < port < 1 << 16 else None


def _up_to_root(folder: Path) -> list[Path]:
    """Return a folder and its parents up to the project's root.

    The root is the folder of the repository; without one, the nearest folder with a `pyproject.toml`.
    """
    try:
        places = [folder, *folder.absolute().parents]
    except OSError:  # the working directory was deleted
        return [folder]
    for markers in (REPOSITORIES, ("pyproject.toml",)):
        for number, place in enumerate(places, 1):
            if any((place / marker).exists() for marker in markers):
                return places[:number]
    return [folder]


def _settings_of(table: object, origin: str) -> list[FoundSetting]:
    if not isinstance(table, Mapping):
        raise ConfigurationError(f"{origin} is not a table.", hint="Write a table: one `name = value` per line.")
    return [FoundSetting(name, value, origin, is_from_file=True) for name, value in table.items()]


def _read_toml(path: Path) -> dict[str, Any]:
    import tomllib  # imported late: most programs have no such file

    try:
        with path.open("rb") as file:
            text = file.read(CONFIG_FILE_BYTES + 1)
        if len(text) > CONFIG_FILE_BYTES:
            raise ValueError(f"it is larger than {CONFIG_FILE_BYTES} bytes")
        return tomllib.loads(text.decode())
    except (OSError, ValueError, RecursionError) as error:  # errors of TOML and UTF-8 are ValueErrors
        raise ConfigurationError(f"{path} cannot be read: {error}.", hint="Correct the file, or remove it.") from error


def misspelled_variables(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for each unknown variable whose name is similar to a known one."""
    known = {f"{PREFIX}{name.upper()}" for name in CHECKS}.union(OTHER_VARIABLES)
    for variable in environ:
        name = variable.upper()
        if not name.startswith(PREFIX) or variable in known:
            continue
        nearest = _nearest_setting(name.removeprefix(PREFIX).lower())
        if name in known or nearest is not None:
            suggestion = name if name in known else f"{PREFIX}{str(nearest).upper()}"
            yield f"The environment variable {variable} is not read. Did you mean {suggestion}?"


def _nearest_setting(name: str) -> str | None:
    """Return the setting with the most similar name, ignoring underscores.

    None if none is similar.
    """
    from difflib import get_close_matches  # imported late: needed for misspelled variables only

    if name in FOREIGN_NAMES:
        return FOREIGN_NAMES[name]
    plain = {each.replace("_", ""): each for each in CHECKS}
    others = {each.removeprefix(PREFIX).lower().replace("_", ""): None for each in OTHER_VARIABLES}
    nearest = get_close_matches(name.replace("_", ""), [*plain, *others], n=1, cutoff=SIMILARITY)
    return plain.get(nearest[0]) if nearest else None


# --- trust -----------------------------------------------------------------------------------------------


def _server_address(chosen: Mapping[str, FoundSetting]) -> FoundSetting | None:
    """Return the setting that names the server's address; None for the default."""
    return chosen.get("base_url") or chosen.get("host") or chosen.get("port")


def without_untrusted_routes(chosen: Mapping[str, FoundSetting]) -> tuple[dict[str, FoundSetting], list[str]]:
    """Return settings without untrusted routes, and a note for each.

    These are a file's proxy and TLS settings for a server that the file does not name, and its port on another machine.

    Such a proxy could read all traffic, `tls_verify = false` would let anyone do so, and another program may have that port.
    """
    address = _server_address(chosen)
    if address is not None and address.is_from_file:
        return dict(chosen), []
    names = ROUTE_SETTINGS if address is None or _is_loopback(address) else (*ROUTE_SETTINGS, "port")
    untrusted = {name: found for name, found in chosen.items() if name in names and found.is_from_file}
    address_origin = "it is the default" if address is None else f"it comes from {address.origin}"
    notes = [
        f"{found.origin}: {name} is not used, because this file does not name the server's address ({address_origin})."
        for name, found in untrusted.items()
    ]
    return {name: found for name, found in chosen.items() if name not in untrusted}, notes


def untrusted_address(chosen: Mapping[str, FoundSetting]) -> FoundSetting | None:
    """Return the setting of a file that names a server elsewhere, or None."""
    address = _server_address(chosen)
    return address if address is not None and address.is_from_file and not _is_loopback(address) else None


def check_trust(chosen: Mapping[str, FoundSetting]) -> None:
    """Refuse to send the user's token to an address or proxy from a project's file.

    Addresses of this machine are allowed.

    Raises:
        ConfigurationError: The token would be sent to such an address.
    """
    token, proxy = chosen.get("api_token"), chosen.get("proxy")
    if token is None or token.is_from_file:
        return
    is_proxy_trusted = proxy is None or not proxy.is_from_file or _is_loopback(proxy)
    for found in (untrusted_address(chosen), None if is_proxy_trusted else proxy):
        if found is not None:
            raise ConfigurationError(
                f"The token of {token.origin} is not sent to {redact_url(str(found.value))!r}, which {found.origin} names "
                f"as {found.name}: the author of that file could read it.",
                hint=f"If you trust the address, set it yourself: {found.name}=… or the variable {PREFIX}{found.name.upper()}.",
            )


def _is_loopback(found: FoundSetting) -> bool:
    """Whether an address belongs to this machine."""
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
