"""The store in PostgreSQL, for gateways on several machines.

It needs the extra `postgres` (psycopg 3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lmdeck._forking import disown
from lmdeck._secret import redact_url
from lmdeck._usage_store.database import Connection
from lmdeck._usage_store.errors import StoreError
from lmdeck.errors import ConfigurationError, describe

if TYPE_CHECKING:
    import psycopg

__all__ = ["Postgres"]

CONNECT_SECONDS = 5
WRITERS_LOCK = 0x6C6D6465636B  # "lmdeck": one writer at a time, so that two transactions cannot wait for each other
_abandoned: list[Any] = []
_REFUSED = ("28", "3D", "42501")  # SQLSTATE: invalid authorization, unknown database, no privilege


class Postgres:
    """A PostgreSQL database, version 12 or newer."""

    def __init__(self, url: str) -> None:
        try:
            import psycopg
        except ImportError as error:
            raise ConfigurationError(
                "A store in PostgreSQL needs the package psycopg, which is not installed.",
                hint='Install it with `pip install "lmdeck[postgres]"`.',
            ) from error
        self.interruptions: tuple[type[Exception], ...] = (psycopg.OperationalError, StoreError)
        self.failures: tuple[type[Exception], ...] = (psycopg.Error,)
        self.label = redact_url(url)
        self._url = url
        self._psycopg = psycopg

    def connect(self) -> Connection:
        """Open a connection.

        Raises:
            ConfigurationError: The address is wrong, or access is denied.
            StoreError: The server does not answer.
        """
        psycopg = self._psycopg
        try:
            raw = psycopg.connect(
                self._url,
                autocommit=True,
                connect_timeout=CONNECT_SECONDS,
                application_name="lmdeck",
                prepare_threshold=None,  # works behind PgBouncer
                keepalives_idle=30,
            )
        except psycopg.ProgrammingError as error:
            raise ConfigurationError(
                f"The store's address {self.label!r} is not valid.", hint="Write postgresql://user@host:5432/database."
            ) from error
        except psycopg.OperationalError as error:
            raise self._refused(error) from error
        return Connection(
            raw,
            begin=f"BEGIN; SELECT pg_advisory_xact_lock({WRITERS_LOCK})",
            marker="%s",
            abandon=lambda: _abandon(raw),
        )

    def _refused(self, error: psycopg.OperationalError) -> ConfigurationError | StoreError:
        reason = describe(str(error))
        is_denied = (error.sqlstate or "").startswith(_REFUSED) or "authentication failed" in reason
        if is_denied or "does not exist" in reason or "no password supplied" in reason:
            return ConfigurationError(
                f"The store {self.label} refuses access: {reason}", hint="Check user, password and database."
            )
        return StoreError(f"The store {self.label} does not answer: {reason}")


def _abandon(raw: psycopg.Connection[Any]) -> None:
    """Forget a connection in a forked process: closing it would end the parent's session."""
    _abandoned.append(raw)
    if not raw.closed:
        disown(raw.fileno())
