"""Settings: what they are called, where they come from, and what is wrong with a bad one.

Each setting is found on its own, in this order: keyword argument, environment, `lmdeck.toml` or `[tool.lmdeck]` in
`pyproject.toml` of the working directory, default. Nothing is read at import, and nothing but these places is read at all.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from msgspec import Struct
from msgspec.structs import fields

from lmdeck._secret import Secret, redact_url
from lmdeck._setting_checks import CHECKS
from lmdeck.errors import ConfigurationError

__all__ = ["ClientSettings", "Secret", "Settings", "check_setting", "meant", "redact_url"]

CONFIG_FILE_BYTES = 1 << 20

# What other clients call the same thing: openai, httpx, requests, litellm.
ELSEWHERE = {
    "api_base": "base_url",
    "api_key": "api_token",
    "max_retries": "retry_attempts",
    "retries": "retry_attempts",
    "token": "api_token",
    "url": "base_url",
    "verify": "tls_verify",
}


class Settings(Struct, frozen=True, kw_only=True):
    """Everything a client can be told; times are seconds.

    `timeout` is the longest silence between two bytes of an answer, `first_token_timeout` the longest wait for its first
    byte, `total_timeout` the longest an answer may take as a whole (`None`: no limit). `proxy` is a URL; the environment's
    proxies are not used, since the server is local. `max_concurrency` is how many answers are asked for at once while the
    others wait in a fair queue (`None`: as many as the loaded model answers in parallel, else 4). `without_rules` names the
    rules of `lmdeck.rules()` by which requests are not changed. `tls_verify`,
    `tls_ca_file`, `tls_client_cert` and `tls_client_key` serve an LM Studio behind an HTTPS proxy.
    """

    host: str = "localhost"
    port: int = 1234
    base_url: str | None = None
    model: str | None = None
    api_token: Secret | None = None
    timeout: float = 60.0
    first_token_timeout: float = 600.0
    connect_timeout: float = 5.0
    total_timeout: float | None = None
    retry_attempts: int = 3
    retry_delay: float = 0.1
    max_concurrency: int | None = None
    without_rules: tuple[str, ...] = ()
    debug: bool = False
    proxy: str | None = None
    tls_verify: bool = True
    tls_ca_file: str | None = None
    tls_client_cert: str | None = None
    tls_client_key: str | None = None

    @classmethod
    def resolve(
        cls,
        given: Mapping[str, Any] | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> Settings:
        """Find every setting: in `given`, the environment, the configuration file of `folder`, or its default.

        Raises:
            ConfigurationError: A value is bad, a name unknown or a file unreadable; the message names setting, value, origin.
        """
        keywords = {name: value for name, value in (given or {}).items() if value is not None}
        sources = (
            [Found(name, value, f"the keyword argument {name}=") for name, value in keywords.items()],
            _from_environment(os.environ if environ is None else environ),
            _from_files(folder or Path()),
        )
        chosen: dict[str, Any] = {}
        for source in sources:
            values = {found.name: _checked(found) for found in source}
            if "base_url" in chosen or chosen.keys() & {"host", "port"}:
                # A host named nearer to the caller is not overruled by an address named further away, nor the reverse.
                values = {name: value for name, value in values.items() if not _names_an_address(name, chosen)}
            chosen = {**values, **chosen}
        return cls(**chosen)

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        values = [(name, getattr(self, name)) for name in self.__struct_fields__]
        return [
            (name, redact_url(value) if value and name in {"base_url", "proxy"} else value) for name, value in values
        ]

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    __str__ = __repr__


class ClientSettings(TypedDict, total=False):
    """The keywords of a client, for type checkers and editors; `None` means "look further"."""

    host: str | None
    port: int | None
    base_url: str | None
    model: str | None
    api_token: str | Secret | None
    timeout: float | None
    first_token_timeout: float | None
    connect_timeout: float | None
    total_timeout: float | None
    retry_attempts: int | None
    retry_delay: float | None
    max_concurrency: int | None
    without_rules: str | Sequence[str] | None
    debug: bool | None
    proxy: str | None
    tls_verify: bool | None
    tls_ca_file: str | os.PathLike[str] | None
    tls_client_cert: str | os.PathLike[str] | None
    tls_client_key: str | os.PathLike[str] | None


class Found(Struct, frozen=True):
    """A setting's raw value and where it was found."""

    name: str
    value: Any
    origin: str


def check_setting(name: str, value: object, origin: str) -> None:
    """Check one setting's value, which was found at `origin`.

    Raises:
        ConfigurationError: There is no such setting, or the value is bad; the message names setting, value and origin.
    """
    _checked(Found(name, value, origin))


def _names_an_address(name: str, chosen: Mapping[str, Any]) -> bool:
    return name == "base_url" or (name in {"host", "port"} and "base_url" in chosen)


def _from_environment(environ: Mapping[str, str]) -> list[Found]:
    names = {"LM_API_TOKEN": "api_token"}  # the name that LM Studio's own documentation uses (core/authentication)
    names |= {f"LMDECK_{name.upper()}": name for name in Settings.__struct_fields__}
    found = {
        name: Found(name, environ[variable], f"the environment variable {variable}")
        for variable, name in names.items()
        if environ.get(variable)
    }
    return list(found.values())


def _from_files(folder: Path) -> list[Found]:
    """Read `lmdeck.toml`, or else `[tool.lmdeck]` of `pyproject.toml`."""
    own, project = folder / "lmdeck.toml", folder / "pyproject.toml"
    if own.is_file():
        table, origin = _read_toml(own), str(own.absolute())
    elif project.is_file():
        tool = _read_toml(project).get("tool")
        table = tool.get("lmdeck", {}) if isinstance(tool, Mapping) else {}
        origin = f"[tool.lmdeck] in {project.absolute()}"
    else:
        return []
    if not isinstance(table, Mapping):
        raise ConfigurationError(f"{origin} is not a table.", hint="Write one `name = value` a line below it.")
    return [Found(name, value, origin) for name, value in table.items()]


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


def _checked(found: Found) -> Any:  # noqa: ANN401  # each setting has its own type
    check = CHECKS.get(found.name)
    if check is None:
        hint = meant(found.name, Settings.__struct_fields__)
        raise ConfigurationError(f"{found.origin}: there is no setting {found.name!r}.", hint=hint)
    try:
        return check(found.value)
    except ValueError as error:
        shown = repr(_harmless(found))
        raise ConfigurationError(
            f"The setting {found.name!r} must be {error}, not {shown} (from {found.origin}).",
            hint=f"Correct {found.origin}.",
        ) from None


def meant(name: str, known: Sequence[str]) -> str:
    """Ask after the one of the `known` names that a wrong one was meant to be, if there is one, and tell all of them."""
    from difflib import get_close_matches  # here, because most programs name nothing wrong

    names = {each.lower(): each for each in known}
    elsewhere = ELSEWHERE.get(name.lower())
    nearest = [elsewhere] if elsewhere in names else get_close_matches(name.lower(), names, n=1)
    asked = f"Did you mean {names[nearest[0]]!r}? " if nearest else ""
    return f"{asked}There are: {', '.join(known)}."


def _harmless(found: Found) -> object:
    if found.name == "api_token":
        return "***"
    is_address = found.name in {"host", "base_url", "proxy"} and isinstance(found.value, str)
    return redact_url(found.value) if is_address else found.value


assert CHECKS.keys() == {entry.name for entry in fields(Settings)}  # noqa: S101  # a setting without a check is a slip of ours
