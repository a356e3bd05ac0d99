"""The client of one LM Studio server: its settings, and the session for its requests."""

from __future__ import annotations

from lmdeck._pipeline.retry import RetryPolicy
from lmdeck._plans.session import Session
from lmdeck._transport import AsyncTransport
from lmdeck.config import Settings
from lmdeck.gateway.config import Config, HostConfig
from lmdeck.observe.failure_recordings import RecordFailures

__all__ = ["HostClient"]

NO_LIMIT = 1 << 30


class HostClient:
    """One LM Studio server, as seen by a process that sends requests to it."""

    def __init__(self, config: HostConfig, gateway: Config, transport: AsyncTransport) -> None:
        self.transport = transport
        self.use(config, gateway)

    def use(self, config: HostConfig, gateway: Config) -> None:
        """Use other settings from the next request on."""
        self.config = config
        limits = gateway.timeouts
        settings = Settings(
            base_url=config.url,
            api_token=config.token,
            timeout=limits.idle,
            first_token_timeout=limits.first_token,
            connect_timeout=limits.connect,
            total_timeout=limits.total,
            max_concurrency=NO_LIMIT,  # the gateway has its own queue
        )
        recorders = [RecordFailures(gateway.store.recordings)] if gateway.store.recordings else []
        self.session = Session(settings, retry=RetryPolicy(attempts=1, loading=limits.first_token), handlers=recorders)

    @property
    def name(self) -> str:
        """The name in the configuration."""
        return self.config.name
