"""The checks of settings: each returns the converted value.

A bad value raises ValueError, which says what the value must be.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address

from lmdeck._compatibility import ALL, RULES, check_rules
from lmdeck._late_patterns import late_pattern
from lmdeck._secret import Secret
from lmdeck.errors import ConfigurationError

# What is copied together with a token from a curl command, a `.env` file or a page of documentation.
_PASTED = late_pattern(
    r"\A((-H\s*|--header[\s=])?[\"']?(authorization\s*:\s*)?bearer(:|\s|$)\s*"
    r"|x-api-key\s*:\s*|(?-i:(export\s+)?[A-Z_]{4,}(TOKEN|KEY)=))+",
    re.IGNORECASE,
)
TRUE, FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError("a non-empty text")
    return value.strip()


def _host(value: object) -> str:
    text = _text(value)
    is_name_with_port = ":" in text and not _is_ipv6(text)
    if is_name_with_port or any(mark in text for mark in "/?#@, \\"):
        raise ValueError("a host name or address without scheme, port, path or user (use base_url for more)")
    return text


def _is_ipv6(text: str) -> bool:
    try:
        ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _path(value: object) -> str:
    return _text(os.fspath(value) if isinstance(value, os.PathLike) else value)


def _url(value: object) -> str:
    text = _text(value)
    if "://" in text and not text.lower().startswith(("http://", "https://")):
        raise ValueError("an http:// or https:// address")
    if " " in text or re.match(r"https?//", text, re.IGNORECASE):
        raise ValueError("an address without spaces, such as http://localhost:1234")
    return text


def _secret(value: object) -> Secret:
    text = value.reveal() if isinstance(value, Secret) else value
    if text == "":
        raise ValueError("None where the server demands no token, or else a token that is not empty")
    if not isinstance(text, str) or not text.strip() or not text.isascii() or not text.strip().isprintable():
        raise ValueError("a token of printable ASCII characters on one line")
    token = _PASTED.sub("", text.strip().strip("\"'")).strip().strip("\"'")
    if not token or " " in token or token.startswith("$"):
        raise ValueError("a token of printable ASCII characters without spaces, not the name of a variable")
    return Secret(token)


def _number(value: object, wanted: str) -> float:
    if isinstance(value, bool):
        raise ValueError(wanted)
    try:
        number = float(value)  # type: ignore[arg-type]  # what float rejects is handled below
    except (TypeError, ValueError, OverflowError):
        raise ValueError(wanted) from None
    if not math.isfinite(number):
        raise ValueError(wanted)
    return number


def _seconds(value: object) -> float:
    number = _number(value, "a number of seconds above 0")
    if number <= 0:
        raise ValueError("a number of seconds above 0")
    return number


def _delay(value: object) -> float:
    number = _number(value, "a number of seconds, 0 or above")
    if number < 0:
        raise ValueError("a number of seconds, 0 or above")
    return number


def _integer(least: int, most: int) -> Callable[[object], int]:
    wanted = f"a whole number from {least} to {most}"

    def check(value: object) -> int:
        number = _number(value, wanted)
        if number != int(number) or not least <= number <= most:
            raise ValueError(wanted)
        return int(number)

    return check


def _boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in TRUE + FALSE:
        return value.strip().lower() in TRUE
    raise ValueError("true or false")


def _rules(value: object) -> tuple[str, ...]:
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
    wanted = f"names of request rules: {', '.join(RULES)}; or {ALL!r}"
    if not isinstance(names, (list, tuple, set, frozenset)) or not all(isinstance(name, str) for name in names):
        raise ValueError(wanted)
    try:
        return check_rules(name for name in names if name)
    except ConfigurationError:
        raise ValueError(wanted) from None


def _profiles(value: object) -> dict[str, dict[str, object]]:
    wanted = "a table of load options for each model, such as {'qwen/qwen3-4b': {'context_length': 16384}}"
    if isinstance(value, str):  # of an environment variable
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError(f"{wanted}, as JSON") from None
    if not isinstance(value, Mapping) or not all(isinstance(options, Mapping) for options in value.values()):
        raise ValueError(wanted)
    profiles = {str(model): dict(options) for model, options in value.items()}
    for options in profiles.values():
        context = options.get("context_length", 1)
        if not isinstance(context, int) or isinstance(context, bool) or context < 1:
            raise ValueError(f"{wanted}; context_length is a positive integer")
    return profiles


CHECKS: dict[str, Callable[[object], object]] = {
    "host": _host,
    "port": _integer(1, 65535),
    "base_url": _url,
    "model": _text,
    "api_token": _secret,
    "timeout": _seconds,
    "first_token_timeout": _seconds,
    "connect_timeout": _seconds,
    "total_timeout": _seconds,
    "retry_attempts": _integer(1, 100),
    "retry_delay": _delay,
    "max_concurrency": _integer(1, 10_000),
    "without_rules": _rules,
    "debug": _boolean,
    "discover": _boolean,
    "profiles": _profiles,
    "proxy": _url,
    "tls_verify": _boolean,
    "tls_ca_file": _path,
    "tls_client_cert": _path,
    "tls_client_key": _path,
}
