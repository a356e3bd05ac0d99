"""`lmdeck gateway keys`: create, list and revoke the keys of the gateway's users."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmdeck._usage_store import KeyLimits, day_of
from lmdeck.cli.plain_output import echo_json, safe
from lmdeck.cli.store_options import ConfigPath, Json, StoreURL, chosen_store, duration, moment
from lmdeck.cli.terminal import BAD, GOOD, console, errors, show_line, show_table
from lmdeck.gateway.keys import new_key

if TYPE_CHECKING:
    from lmdeck._usage_store import Key

commands = typer.Typer(
    help="Create, list and revoke the keys of users.", no_args_is_help=True, subcommand_metavar="COMMAND"
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="The name of the user or program.")]


def _limit(help_text: str) -> Any:
    return typer.Option(metavar="COUNT", min=1, max=2**53, help=help_text)


@commands.command("create")
def create(
    name: Name,
    models: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help='Models that it may use, such as "qwen*"; repeatable.')
    ] = None,
    rpm: Annotated[int | None, _limit("Requests per minute.")] = None,
    tokens_per_minute: Annotated[int | None, _limit("Tokens per minute, prompts and answers.")] = None,
    tokens_per_day: Annotated[int | None, _limit("Tokens per day (UTC).")] = None,
    parallel: Annotated[int | None, _limit("Requests at the same time.")] = None,
    expires: Annotated[
        str | None, typer.Option(metavar="DURATION", help="How long it is valid: 12h, 90d; default: forever.")
    ] = None,
    store: StoreURL = None,
    config: ConfigPath = None,
    as_json: Json = False,
) -> None:
    """Create a key, and print it once.

    Only its digest is stored. Without options, it has no limits. Only the key is written to standard output,
    so that a script can read it.
    """
    secret, key = new_key(
        name,
        models=tuple(models or ()),
        limits=KeyLimits(
            requests_per_minute=rpm,
            tokens_per_minute=tokens_per_minute,
            tokens_per_day=tokens_per_day,
            parallel=parallel,
        ),
        expires_in=None if expires is None else duration(expires),
    )
    with chosen_store(store, config, must_exist=False) as opened:
        opened.add_key(key)
    if as_json:
        echo_json({"key": secret, **_for_programs(key)})
        return
    typer.echo(secret)
    show_line(GOOD, f"This is the key of {safe(name)}. It cannot be shown again.", on=errors)


@commands.command("list")
def list_keys(
    every: Annotated[bool, typer.Option("--all", help="List revoked keys as well.")] = False,
    store: StoreURL = None,
    config: ConfigPath = None,
    as_json: Json = False,
) -> None:
    """List the keys with their limits.

    The column of tokens counts those of today (UTC).
    """
    with chosen_store(store, config, must_exist=True) as opened:
        keys = [key for key in opened.list_keys() if every or key.revoked_at is None]
        spent = opened.tokens_of_day(day_of(time.time()))
    if as_json:
        echo_json([{**_for_programs(key), "tokens_today": spent.get(key.name, 0)} for key in keys])
        return
    if not keys:
        console.print("There are no keys; `lmdeck gateway keys create NAME` creates one.")
        return
    rows = [
        (
            key.name,
            f"{key.start}…",
            ", ".join(key.models) or "all",
            _limits(key) or "none",
            f"{spent.get(key.name, 0):,}",
            _validity(key),
        )
        for key in keys
    ]
    show_table(
        ("name", "key", "models", "limits", "tokens today", "valid"), rows, right=("tokens today",), unnamed=("key",)
    )


@commands.command("revoke")
def revoke(name: Name, store: StoreURL = None, config: ConfigPath = None, as_json: Json = False) -> None:
    """Revoke a key by its name.

    Running gateways refuse it within a few seconds. Its usage stays, and its name is free for a new key.
    """
    with chosen_store(store, config, must_exist=True) as opened:
        was_valid = opened.revoke_key(name)
    if as_json:
        echo_json({"name": name, "revoked": was_valid})
    elif was_valid:
        show_line(GOOD, f"The key of {safe(name)} is revoked.")
    else:
        show_line(BAD, f"There is no key named {safe(name)}; `lmdeck gateway keys list` shows them.", on=errors)
    if not was_valid:
        raise typer.Exit(1)


def _for_programs(key: Key) -> dict[str, object]:
    """Return a key as JSON shows it, without its digest."""
    limits = key.limits
    return {
        "name": key.name,
        "start": key.start,
        "models": list(key.models),
        "requests_per_minute": limits.requests_per_minute,
        "tokens_per_minute": limits.tokens_per_minute,
        "tokens_per_day": limits.tokens_per_day,
        "parallel": limits.parallel,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
    }


def _limits(key: Key) -> str:
    limits = key.limits
    values = {
        "requests/min": limits.requests_per_minute,
        "tokens/min": limits.tokens_per_minute,
        "tokens/day": limits.tokens_per_day,
        "at once": limits.parallel,
    }
    return ", ".join(f"{value:,} {unit}" for unit, value in values.items() if value is not None)


def _validity(key: Key) -> str:
    if key.revoked_at is not None:
        return f"revoked {_date(key.revoked_at)}"
    if key.expires_at is None:
        return "forever"
    return f"{'until' if key.is_valid(time.time()) else 'expired'} {_date(key.expires_at)}"


def _date(at: float) -> str:
    return moment(at)[:10]
