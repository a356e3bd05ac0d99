"""`FakeLMStudio`: LM Studio for tests, on a real loopback port, with scripted answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmdeck._incoming.trust import AllowedHosts
from lmdeck._version import __version__
from lmdeck.server.app import create_app
from lmdeck.server.sockets import listen
from lmdeck.server.stored import StoredResponses
from lmdeck.testing.expectations import Expectations
from lmdeck.testing.fake_app import FakeASGIApp
from lmdeck.testing.fake_models import DEFAULT_EMBEDDING_MODEL, DEFAULT_MODEL, FakeModel, FakeModelStore, ModelScripting
from lmdeck.testing.faults import FAULTS, find_fault
from lmdeck.testing.listener import ListeningPort, WatchedServer
from lmdeck.testing.scripted_answers import Answer
from lmdeck.testing.scripted_backend import ScriptedBackend
from lmdeck.testing.scripting import Rule, Script, Scripting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self, Unpack

    from starlette.types import ASGIApp, Scope

    from lmdeck._client.clients import AsyncLMStudio, LMStudio
    from lmdeck.config import ClientSettings
    from lmdeck.server.joined_writes import JoinedWrites
    from lmdeck.testing.received_requests import SentRequest
    from lmdeck.testing.scripting import Scripted

LM_STUDIO_HEADERS = (("X-Powered-By", "Express"),)
"""The headers by which LM Studio's server identifies itself."""
FAKE_HEADERS = (*LM_STUDIO_HEADERS, ("Server", f"lmdeck-fake/{__version__}"))


class FakeLMStudio(Scripting, ModelScripting, Expectations):
    """A server of LM Studio's API that answers from a script.

    It listens when the `with` block is entered.

    Answers are split at random positions, even within characters and markers; `seed` makes that reproducible, `cuts=False`
    turns it off. `tokens_per_second` and `time_to_first_token` (seconds) pace them. With `strict`, a request without a scripted
    answer is refused, and the end of the block raises an `AssertionError`. With `api_token`, requests must send it. Accepted
    host names are those of the loopback interface and `allowed_hosts`; if it listens on another `host`, also addresses and
    names without a dot.

    Examples:
        >>> with FakeLMStudio(seed=0) as fake:
        ...     fake.reply("Hello")
        ...     fake.client().chat().user("Hi").send().content
        'Hello'
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        strict: bool = True,
        cuts: bool = True,
        tokens_per_second: float | None = None,
        time_to_first_token: float = 0.0,
        api_token: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        allowed_hosts: Iterable[str] = (),
    ) -> None:
        self.requests: list[SentRequest] = []
        self.unexpected: list[SentRequest] = []
        self._script = Script()
        self._models = FakeModelStore()
        self._models.add(FakeModel(key=DEFAULT_MODEL))
        self._models.add(FakeModel(key=DEFAULT_EMBEDDING_MODEL, type="embeddings", architecture="nomic-bert"))
        self._stored = StoredResponses()
        self._backend = ScriptedBackend(
            self._script,
            self._models,
            strict=strict,
            unexpected=self.unexpected,
            tokens_per_second=tokens_per_second,
            time_to_first_token=time_to_first_token,
        )
        self._api_token = api_token
        self._address = (host, port)
        self._hosts = AllowedHosts.of(allowed_hosts, host)
        self._server: WatchedServer | None = None
        self._port = ListeningPort()
        self._on_request: Callable[[SentRequest], object] | None = None
        self._seed = seed
        self._cuts = cuts
        self._asgi_app = self._wrap(
            create_app(self._backend, api_token=api_token, stored=self._stored, hosts=self._hosts)
        )

    @classmethod
    def replay(cls, cassette: str | Path, *, speed: float = 0.0) -> Self:
        """Return a fake that answers from a recording, byte for byte, each exchange once.

        `lmdeck record` makes recordings.

        `speed` divides the recorded delays; 0 removes them.

        Raises:
            ConfigurationError: The recording cannot be read.
        """
        from lmdeck._recordings.cassette import load
        from lmdeck._recordings.replay import ReplayApp

        fake = cls(strict=False, cuts=False)
        fake._asgi_app = fake._wrap(ReplayApp(load(cassette), speed))
        return fake

    def _wrap(self, app: ASGIApp) -> FakeASGIApp:
        return FakeASGIApp(
            app,
            self._script,
            seed=self._seed,
            cuts=self._cuts,
            transport_of=self._transport_of,
            on_request=self._received,
            on_response=self._close_port_if_scripted,
            hosts=self._hosts,
        )

    @property
    def app(self) -> ASGIApp:
        """The ASGI application, for clients that do not need a socket."""
        return self._asgi_app

    # --- start and stop ---

    def start(self, *, as_fake: bool = False) -> Self:
        """Start the server, on a free port unless one was chosen; a `with` block does it.

        With `as_fake`, it identifies itself as a fake (header `Server`), so that `lmdeck doctor` does not report an LM Studio.
        """
        if self._server is None:
            self._models.forget_loop()
            headers = FAKE_HEADERS if as_fake else LM_STUDIO_HEADERS
            self._server = WatchedServer(self.app, listen(*self._address), headers=headers)
        return self

    def close(self) -> None:
        """Close every connection and release the port; a second call has no effect."""
        server, self._server = self._server, None
        if server is not None:
            self._port.reopen(server)
            server.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        if error is None:
            self.assert_expected()

    async def __aenter__(self) -> Self:
        import asyncio

        return await asyncio.to_thread(self.start)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        import asyncio

        await asyncio.to_thread(self.close)
        if error is None:
            self.assert_expected()

    def close_port(self) -> None:
        """Refuse connections until `reset`."""
        if self._server is not None:
            self._port.close(self._server)

    @property
    def base_url(self) -> str:
        """The URL of the server; OpenAI's clients need `base_url + "/v1"`.

        Raises:
            RuntimeError: The fake has not been started.
        """
        if self._server is None:
            raise RuntimeError("The fake is not running: use `with FakeLMStudio() as fake:`, or call `start()`.")
        return self._server.base_url

    def client(self, **settings: Unpack[ClientSettings]) -> LMStudio:
        """Return a client of this server; keywords as for `LMStudio`."""
        from lmdeck._client.clients import LMStudio  # the server alone does not need it

        return LMStudio(**self._settings(settings))

    def async_client(self, **settings: Unpack[ClientSettings]) -> AsyncLMStudio:
        """Return an async client of this server; keywords as for `AsyncLMStudio`."""
        from lmdeck._client.clients import AsyncLMStudio  # as for `client`

        return AsyncLMStudio(**self._settings(settings))

    def _settings(self, overrides: ClientSettings) -> ClientSettings:
        settings: ClientSettings = {"base_url": self.base_url, "retry_delay": 0.01, **overrides}
        if self._api_token is not None:
            settings.setdefault("api_token", self._api_token)
        return settings

    # --- the script ---

    def _add(self, answer: Scripted) -> None:
        self._script.add(answer)
        self._close_port_if_scripted()

    def when(self, fits: Callable[[SentRequest], object]) -> Rule:
        """Script answers for matching requests.

        For example `fake.when(lambda r: "weather" in r.last_user).reply(…)`.

        They take precedence over the queue and are used in order; the last one is repeated.
        """
        return self._script.rule(fits)

    def at(self, path: str) -> Rule:
        """Script answers for one path, known or not.

        For example `fake.at("/api/v1/models").body({"models": []})`.

        As with `when`, they take precedence over the queue, and the last one is repeated.
        """
        return self._script.rule(lambda request: request.path == path, anywhere=True)

    def fail_always(self, fault: str | None) -> Self:
        """Inject this fault into every answer; None stops that.

        Raises:
            ConfigurationError: There is no fault of that name.
        """
        self._script.always = None if fault is None else find_fault(fault).name
        return self

    def repeat(self) -> Self:
        """Restart the queue whenever all its answers are used."""
        self._script.again = list(self._script.queue)
        return self

    def embeds(self, text: str, vector: Sequence[float]) -> Self:
        """Set the vector of a text; other texts get a vector that depends only on the text."""
        self._backend.vectors[text] = tuple(vector)
        return self

    @staticmethod
    def faults() -> dict[str, str]:
        """Return the name of every fault with its description."""
        return {name: fault.summary for name, fault in FAULTS.items()}

    @property
    def in_progress(self) -> int:
        """The number of answers that are being generated."""
        return self._backend.in_progress

    @property
    def most_at_once(self) -> int:
        """The largest number of simultaneous requests for an answer.

        Requests that waited for a slot are included.
        """
        return self._asgi_app.most_at_once

    @property
    def open_connections(self) -> int:
        """The number of open client connections."""
        return 0 if self._server is None else self._server.connections

    @property
    def pending(self) -> int:
        """The number of unused scripted answers."""
        return len(self._script.queue)

    def reset(self) -> None:
        """Clear the script, the received requests and the stored responses; models stay."""
        self._script.queue.clear()
        self._script.rules.clear()
        self._script.always = None
        self._script.again = []
        if self._server is not None:
            self._port.reopen(self._server)
        self._asgi_app.most_at_once = 0
        self.requests.clear()
        self.unexpected.clear()
        self._stored.clear()

    def forget_answers(self) -> None:
        """Drop the responses that `previous_response_id` refers to, as a restart of LM Studio does."""
        self._stored.clear()

    def on_request(self, callback: Callable[[SentRequest], object]) -> None:
        """Call a function with every request when it arrives."""
        self._on_request = callback

    # --- the socket ---

    def _transport_of(self, scope: Scope) -> JoinedWrites | None:
        return None if self._server is None else self._server.transport(scope.get("client"))

    def _received(self, request: SentRequest) -> None:
        self.requests.append(request)
        if self._on_request is not None:
            self._on_request(request)

    def _close_port_if_scripted(self) -> None:
        """Close the port for a while if the next scripted fault needs that."""
        queue = self._script.queue
        first = queue[0] if queue else None
        if self._server is None or not isinstance(first, Answer) or first.fault is None:
            return
        fault = find_fault(first.fault)
        if fault.closes_port:
            queue.popleft()
            seconds = {**fault.options, **first.fault_options}["seconds"]
            self._port.close(self._server, float(seconds), self._close_port_if_scripted)
