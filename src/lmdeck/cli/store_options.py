"""The options that name a store of keys and usage, and how commands open it."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmdeck._usage_store import DEFAULT_URL, POSTGRES, open_store, sqlite_path
from lmdeck.errors import ConfigurationError
from lmdeck.gateway.durations import seconds_of

if TYPE_CHECKING:
    from lmdeck._usage_store import GatewayStore

StoreURL = Annotated[
    str | None,
    typer.Option(
        "--store", metavar="URL", help="The store: sqlite:///gateway.db (the default), a file, or postgresql://…"
    ),
]
ConfigPath = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="The gateway's configuration file (TOML)."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def chosen_store(store: str | None, config: Path | None, *, must_exist: bool) -> GatewayStore:
    """Open the store that the options name; with `must_exist`, a SQLite file is not created.

    Raises:
        ConfigurationError: It cannot be used, or it does not exist.
        StoreError: It does not answer.
    """
    url = store or _configured(config) or DEFAULT_URL
    if must_exist and not url.startswith(POSTGRES) and not Path(sqlite_path(url)).exists():
        raise ConfigurationError(f"There is no store {sqlite_path(url)}.", hint="Name it with --store or --config.")
    return open_store(url)


def _configured(config: Path | None) -> str:
    if config is None:
        return ""
    from lmdeck.gateway.config import StoreConfig

    return StoreConfig.load(config).url


def duration(text: str) -> float:
    """Return the seconds of an option such as `90d`.

    Raises:
        BadParameter: It is not a duration.
    """
    try:
        return seconds_of(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not {error}.") from None


def day(text: str) -> str:
    """Return the day of an option: itself, or the day that long ago, in UTC.

    Raises:
        BadParameter: It is neither a day such as 2026-11-25 nor a duration.
    """
    with suppress(ValueError):
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date().isoformat()
    try:
        ago = timedelta(seconds=seconds_of(text))
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is neither a day such as 2026-11-25 nor {error}.") from None
    return (datetime.now(UTC) - ago).date().isoformat()


def moment(at: float | None) -> str:
    """Return a time in seconds since 1970 as `2026-11-25 14:05`, in local time; `""` for None."""
    return "" if at is None else datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M")
