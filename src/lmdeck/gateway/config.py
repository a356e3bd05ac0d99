"""The configuration of the gateway: its tables, their settings and defaults."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from lmdeck._requests.base_url import BaseURL
from lmdeck._responses.model_management import checked_load_options
from lmdeck._secret import Secret
from lmdeck._usage_store import DEFAULT_URL, KEEP_DAYS
from lmdeck.errors import ConfigurationError, LMStudioError
from lmdeck.gateway.config_file import decode_configuration, named_errors, read_configuration

__all__ = [
    "AdminConfig",
    "AuthConfig",
    "BatchesConfig",
    "CacheConfig",
    "Config",
    "HostConfig",
    "LimitsConfig",
    "QueueConfig",
    "RoutingConfig",
    "ServerConfig",
    "StickyConfig",
    "StoreConfig",
    "TimeoutsConfig",
]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_STICKY = re.compile(r"prefix|header:[!#$%&'*+.^_`|~0-9a-z-]+")


class _Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file; a value out of range raises `ValueError("setting: reason")`."""


def _check(*, ok: bool, name: str, reason: str) -> None:
    if not ok:
        raise ValueError(f"{name}: {reason}")


class HostConfig(_Section, frozen=True):
    """One LM Studio server.

    `weight` is its share of the load, `token_env` the environment variable with its API token.

    `parallel` overrides how many answers a model generates at once. With `max_models`, the gateway unloads the model that was
    idle longest before it loads another one; without it, it never unloads. A host that is draining gets no new requests.
    """

    url: str
    name: str = ""
    weight: float = 1.0
    token_env: str = ""
    parallel: int | None = None
    max_models: int | None = None
    drain: bool = False

    def __post_init__(self) -> None:
        root = BaseURL.from_url(self.url).root
        msgspec.structs.force_setattr(self, "url", root)
        msgspec.structs.force_setattr(self, "name", self.name or root.partition("://")[2].replace("/", "_"))
        is_http = root.startswith(("http://", "https://"))
        _check(ok=is_http, name="url", reason="it must begin with http:// or https://")
        # It is sent in the header `x-lmdeck-host`.
        _check(ok=self.name.isprintable(), name="name", reason="it must not contain control characters")
        _check(ok=0 < self.weight <= 1000, name="weight", reason="it must be more than 0 and at most 1000")
        _check(ok=self.parallel is None or self.parallel > 0, name="parallel", reason="it must be at least 1")
        _check(ok=self.max_models is None or self.max_models > 0, name="max_models", reason="it must be at least 1")
        is_set = not self.token_env or self.token_env in os.environ
        _check(ok=is_set, name="token_env", reason=f"the environment variable {self.token_env} is not set")

    @property
    def token(self) -> Secret | None:
        """The host's own API token."""
        return Secret(os.environ[self.token_env]) if self.token_env else None


class QueueConfig(_Section, frozen=True):
    """The queue of each model: its length, and times in seconds.

    `collate`: how long requests for the models that a host has loaded go before one that needs a swap. `heartbeat`: after how
    long a waiting stream gets a comment, so that clients and proxies do not give up.
    """

    max_waiting: int = 1000
    max_wait: float = 120.0
    collate: float = 10.0
    heartbeat: float = 10.0

    def __post_init__(self) -> None:
        _check(ok=self.max_waiting > 0, name="max_waiting", reason="it must be at least 1")
        for name in ("max_wait", "collate", "heartbeat"):
            _check(ok=getattr(self, name) > 0, name=name, reason="it must be more than 0 seconds")


class StickyConfig(_Section, frozen=True):
    """How the requests of one conversation are recognised, so that one host gets them all.

    `by` is tried in order: the value of a header, or the first messages. `ttl` is how long a binding lasts, in seconds.
    """

    by: tuple[str, ...] = ("header:x-session-id", "prefix")
    ttl: float = 1200.0

    def __post_init__(self) -> None:
        for each in self.by:
            _check(
                ok=bool(_STICKY.fullmatch(each.lower())), name="by", reason=f'{each!r} is not "prefix" or "header:…"'
            )
        _check(ok=self.ttl > 0, name="ttl", reason="it must be more than 0 seconds")


class RoutingConfig(_Section, frozen=True):
    """How hosts are watched and chosen.

    `poll` and `probe` (of a host that is down) are in seconds.

    `faults` failures within `fault_window` seconds take a host out of rotation until a probe succeeds.
    """

    poll: float = 5.0
    probe: float = 2.0
    attempts: int = 3
    faults: int = 5
    fault_window: float = 10.0

    def __post_init__(self) -> None:
        for name in ("poll", "probe", "fault_window"):
            _check(ok=getattr(self, name) > 0, name=name, reason="it must be more than 0 seconds")
        for name in ("attempts", "faults"):
            _check(ok=getattr(self, name) > 0, name=name, reason="it must be at least 1")


class TimeoutsConfig(_Section, frozen=True):
    """The time limits of a host's answers, in seconds, as in `lmdeck.Settings`."""

    connect: float = 5.0
    first_token: float = 600.0
    idle: float = 60.0
    total: float | None = None

    def __post_init__(self) -> None:
        for name in ("connect", "first_token", "idle"):
            _check(ok=getattr(self, name) > 0, name=name, reason="it must be more than 0 seconds")
        _check(ok=self.total is None or self.total > 0, name="total", reason="it must be more than 0 seconds")


class LimitsConfig(_Section, frozen=True):
    """The limits of a client's request: sizes in bytes, times in seconds.

    `write_seconds`: how long a client may leave an answer unread before its request is stopped. `idle_seconds`: how long an
    unused connection stays open; it is longer than the 60 s of nginx, whose request would otherwise meet a closed one.
    `url`: where the rates of keys are counted, `memory:` or `redis://…`.
    """

    body_bytes: int = 64 << 20
    header_bytes: int = 64 << 10
    header_seconds: float = 10.0
    body_seconds: float = 60.0
    write_seconds: float = 60.0
    idle_seconds: float = 75.0
    connections: int = 10_000
    url: str = "memory:"

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            _check(ok=name == "url" or getattr(self, name) > 0, name=name, reason="it must be more than 0")


class ServerConfig(_Section, frozen=True):
    """Where the gateway listens; `shutdown_seconds` is how long streams may go on after SIGTERM."""

    host: str = "127.0.0.1"
    port: int = 4000
    workers: int = 1
    allowed_hosts: tuple[str, ...] = ()
    shutdown_seconds: float = 30.0

    def __post_init__(self) -> None:
        _check(ok=0 <= self.port <= 65535, name="port", reason="it must be between 0 and 65535")
        _check(ok=1 <= self.workers <= 128, name="workers", reason="it must be between 1 and 128")
        # A worker inherits the socket of its parent, which Windows does not allow.
        _check(ok=self.workers == 1 or sys.platform != "win32", name="workers", reason="it must be 1 on Windows")
        _check(ok=self.shutdown_seconds >= 0, name="shutdown_seconds", reason="it must not be negative")


class CacheConfig(_Section, frozen=True):
    """The cache of exact answers.

    `url` is `sqlite:///path`, `memory:` or `redis://…`; `""` is `gateway-cache.db`.

    `ttl` is the longest age in seconds of an answer that is used. With `shared`, holders of all keys see each other's answers.
    """

    enabled: bool = False
    url: str = ""
    max_bytes: int = 1_000_000_000
    ttl: float | None = None
    shared: bool = False

    def __post_init__(self) -> None:
        _check(ok=self.max_bytes > 0, name="max_bytes", reason="it must be at least 1")
        _check(ok=self.ttl is None or self.ttl > 0, name="ttl", reason="it must be more than 0 seconds")


class StoreConfig(_Section, frozen=True):
    """Where keys and usage are stored: `sqlite:///path` or `postgresql://…`.

    `""` is `gateway.db` if keys are required.

    `keep_days`: how long single requests are kept; totals stay. `recordings`: a folder for recordings of failed requests, which
    contain prompts; `""` records nothing.
    """

    url: str = ""
    keep_days: float = KEEP_DAYS
    recordings: str = ""

    def __post_init__(self) -> None:
        _check(ok=self.keep_days > 0, name="keep_days", reason="it must be more than 0")

    @classmethod
    def load(cls, path: str | Path) -> StoreConfig:
        """Read this table of a configuration file alone, for commands that do not serve.

        Raises:
            ConfigurationError: The file cannot be read, or the table is invalid.
        """
        text = read_configuration(path)
        with named_errors(text, str(path), _StoreOnly):
            return msgspec.convert({"store": decode_configuration(text, str(path)).get("store", {})}, _StoreOnly).store


class _StoreOnly(Struct):
    store: StoreConfig


class AuthConfig(_Section, frozen=True):
    """Whether clients need a key; None if the configuration does not set it."""

    required: bool | None = None


class BatchesConfig(_Section, frozen=True):
    """Files and batches: the folder, which several workers share, and limits.

    `file_bytes` is the largest size of a file, `key_bytes` that of all files of a key; `rows` is the most rows of a batch, and
    `at_once` the number of batches that run at the same time. Files without a time of their own are removed after `keep_days`.
    """

    folder: str = "gateway-batches"
    file_bytes: int = 200 << 20
    key_bytes: int = 5 << 30
    rows: int = 100_000
    at_once: int = 4
    max_concurrency: int | None = None
    keep_days: float = 30.0

    def __post_init__(self) -> None:
        for name in ("file_bytes", "key_bytes", "rows", "at_once", "keep_days"):
            _check(ok=getattr(self, name) > 0, name=name, reason="it must be more than 0")
        ok = self.max_concurrency is None or self.max_concurrency > 0
        _check(ok=ok, name="max_concurrency", reason="it must be at least 1")


class AdminConfig(_Section, frozen=True):
    """Who may read the status and change the configuration.

    These are programs on this machine, and holders of the token in the environment variable `token_env`.
    """

    token_env: str = ""

    def __post_init__(self) -> None:
        is_set = not self.token_env or bool(os.environ.get(self.token_env))
        _check(ok=is_set, name="token_env", reason=f"the environment variable {self.token_env} is not set")

    @property
    def token(self) -> Secret | None:
        """The operators' token."""
        return Secret(os.environ[self.token_env]) if self.token_env else None


class Config(_Section, frozen=True):
    """The configuration of a gateway.

    The default is one host, `http://localhost:1234`, and no keys.
    """

    hosts: list[HostConfig] = field(default_factory=lambda: [HostConfig(url="http://localhost:1234", name="local")])
    aliases: dict[str, str | list[str]] = {}
    profiles: dict[str, dict[str, Any]] = {}
    server: ServerConfig = field(default_factory=ServerConfig)
    queue: QueueConfig = field(default_factory=QueueConfig)
    sticky: StickyConfig = field(default_factory=StickyConfig)
    routing: RoutingConfig = field(default_factory=RoutingConfig)
    timeouts: TimeoutsConfig = field(default_factory=TimeoutsConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    auth: AuthConfig = field(default_factory=AuthConfig)
    admin: AdminConfig = field(default_factory=AdminConfig)
    batches: BatchesConfig = field(default_factory=BatchesConfig)

    def __post_init__(self) -> None:
        _check(ok=bool(self.hosts), name="hosts", reason="there must be at least one")
        names = [host.name for host in self.hosts]
        for name in names:
            _check(ok=names.count(name) == 1, name="hosts", reason=f"two hosts have the name {name!r}")
        for alias, models in self.aliases.items():
            _check(ok=bool(models), name=f"aliases.{alias}", reason="it names no model")
        for model, options in self.profiles.items():
            try:
                checked_load_options(options)
            except LMStudioError as error:
                raise ValueError(f"profiles.{model}: {error.message}") from None

    @classmethod
    def replacement(cls, text: str, origin: str) -> Config:
        """Read the configuration that replaces a running one.

        A text that names no host and sets nothing is refused: a half-written file would otherwise remove all hosts.

        Raises:
            ConfigurationError: As for `parse`, or the text sets nothing.
        """
        config = cls.parse(text, origin)
        if config == cls() and "hosts" not in decode_configuration(text, origin):
            raise ConfigurationError(
                f"{origin} sets nothing; the running configuration stays.",
                hint="Send or write the whole configuration.",
            )
        return config

    @classmethod
    def load(cls, path: str | Path | None, server: Mapping[str, object] | None = None) -> Config:
        """Read a configuration file; None is the default configuration.

        `server` has settings that override those of its table `[server]`.

        Raises:
            ConfigurationError: The file cannot be read or a setting is invalid; the message names file, line and setting.
        """
        config = cls() if path is None else cls.parse(read_configuration(path), str(path))
        return replace(config, server=replace(config.server, **(server or {})))

    @classmethod
    def parse(cls, text: str, origin: str = "the configuration") -> Config:
        """Read a configuration from TOML text, or from JSON, which starts with a brace.

        Errors name `origin`.

        Raises:
            ConfigurationError: The text is not TOML, or a setting is invalid.
        """
        with named_errors(text, origin, cls):
            return msgspec.convert(decode_configuration(text, origin), cls)

    @property
    def store_url(self) -> str:
        """Where keys and usage are stored."""
        return self.store.url or DEFAULT_URL

    @property
    def limits_url(self) -> str:
        """Where the rates of keys are counted."""
        return self.limits.url

    def models_of(self, name: str) -> list[str]:
        """Return the models that a requested name stands for, in the order in which they are tried."""
        models = self.aliases.get(name, name)
        return [models] if isinstance(models, str) else list(models)

    def profile_of(self, model: str) -> dict[str, Any] | None:
        """Return the load options of a model; None if it has no profile.

        A name may be a pattern such as `qwen*`.
        """
        exact = self.profiles.get(model)
        if exact is not None:
            return exact
        return next((options for name, options in self.profiles.items() if fnmatchcase(model, name)), None)


def to_builtins(config: Config) -> Mapping[str, Any]:
    """Return the configuration as plain values; tokens are named by their variables only."""
    values: Mapping[str, Any] = msgspec.to_builtins(config)
    return values
