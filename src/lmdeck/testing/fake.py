"""`FakeLMStudio`: LM Studio for tests, on a real loopback port, saying what it is told to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmdeck._client.clients import AsyncLMStudio, LMStudio
from lmdeck.server.app import create_app
from lmdeck.server.serve import listen
from lmdeck.server.stored import StoredResponses
from lmdeck.testing.answers import Answer
from lmdeck.testing.asgi import Front
from lmdeck.testing.backend import ScriptedBackend
from lmdeck.testing.expectations import Expectations
from lmdeck.testing.faults import FAULTS, find_fault
from lmdeck.testing.listener import Door, WatchedServer
from lmdeck.testing.model_scripting import Modelled
from lmdeck.testing.models import DEFAULT_EMBEDDING_MODEL, DEFAULT_MODEL, FakeModel, Shelf
from lmdeck.testing.recordings.cassette import load
from lmdeck.testing.recordings.replay import Player
from lmdeck.testing.scripting import Rule, Script, Scripting
from lmdeck.web.trust import AllowedHosts

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self, Unpack

    from starlette.types import ASGIApp, Scope

    from lmdeck.config import ClientSettings
    from lmdeck.testing.received_requests import SentRequest
    from lmdeck.testing.scripting import Scripted

LM_STUDIO_HEADERS = (("X-Powered-By", "Express"),)
"""What LM Studio's own server says of itself."""


class FakeLMStudio(Scripting, Modelled, Expectations):
    """A server that speaks LM Studio's API and answers from a script, ready when the `with` block is entered.

    Answers are cut at places that `seed` chooses, also within letters and markers; `cuts=False` leaves them whole.
    `tokens_per_second` and `time_to_first_token` (seconds) pace them. With `strict`, a request for which nothing is scripted
    is refused, and makes the end of the block fail. With `api_token`, requests need it. It answers to loopback names and
    `allowed_hosts`; listening on another `host`, also to addresses and names without a dot.

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
        self._shelf = Shelf()
        self._shelf.add(FakeModel(key=DEFAULT_MODEL))
        self._shelf.add(FakeModel(key=DEFAULT_EMBEDDING_MODEL, type="embeddings", architecture="nomic-bert"))
        self._stored = StoredResponses()
        self._backend = ScriptedBackend(
            self._script,
            self._shelf,
            strict=strict,
            unexpected=self.unexpected,
            tokens_per_second=tokens_per_second,
            time_to_first_token=time_to_first_token,
        )
        self._api_token = api_token
        self._address = (host, port)
        self._hosts = AllowedHosts.of(allowed_hosts, host)
        self._server: WatchedServer | None = None
        self._door = Door()
        self._tell: Callable[[SentRequest], object] | None = None
        self._seed = seed
        self._cuts = cuts
        self._front = self._before(
            create_app(self._backend, api_token=api_token, stored=self._stored, hosts=self._hosts)
        )

    @classmethod
    def replay(cls, cassette: str | Path, *, speed: float = 0.0) -> Self:
        """Make a fake that answers from a recording (`lmdeck record`), byte for byte, each exchange once.

        `speed` 1 keeps the recorded waits, 0 leaves them out.

        Raises:
            ConfigurationError: The recording cannot be read.
        """
        fake = cls(strict=False, cuts=False)
        fake._front = fake._before(Player(load(cassette), speed))
        return fake

    def _before(self, app: ASGIApp) -> Front:
        return Front(
            app,
            self._script,
            seed=self._seed,
            cuts=self._cuts,
            transport_of=self._transport_of,
            answered=self._look_ahead,
            tell=self._received,
            hosts=self._hosts,
        )

    @property
    def app(self) -> ASGIApp:
        """The ASGI application itself, for clients that need no socket."""
        return self._front

    # --- life ---

    def start(self) -> Self:
        """Begin to serve, on a free port unless one was given; a `with` block does so itself."""
        if self._server is None:
            self._server = WatchedServer(self.app, listen(*self._address), headers=LM_STUDIO_HEADERS)
        return self

    def close(self) -> None:
        """End every connection and release the port. A second call does nothing."""
        server, self._server = self._server, None
        if server is not None:
            self._door.open(server)
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
        """Refuse connections from now on, until `reset`."""
        if self._server is not None:
            self._door.shut(self._server)

    @property
    def base_url(self) -> str:
        """The address; OpenAI's clients take `base_url + "/v1"`.

        Raises:
            RuntimeError: The fake has not been started.
        """
        if self._server is None:
            raise RuntimeError("The fake is not running: use `with FakeLMStudio() as fake:`, or call `start()`.")
        return self._server.base_url

    def client(self, **settings: Unpack[ClientSettings]) -> LMStudio:
        """Make a client of this server; keywords as for `LMStudio`."""
        return LMStudio(**self._settings(settings))

    def async_client(self, **settings: Unpack[ClientSettings]) -> AsyncLMStudio:
        """Make an async client of this server; keywords as for `AsyncLMStudio`."""
        return AsyncLMStudio(**self._settings(settings))

    def _settings(self, given: ClientSettings) -> ClientSettings:
        settings: ClientSettings = {"base_url": self.base_url, "retry_delay": 0.01, **given}
        if self._api_token is not None:
            settings.setdefault("api_token", self._api_token)
        return settings

    # --- the script ---

    def _add(self, answer: Scripted) -> None:
        self._script.add(answer)
        self._look_ahead()

    def when(self, fits: Callable[[SentRequest], object]) -> Rule:
        """Script answers for requests that fit: `fake.when(lambda r: "weather" in r.last_user).reply(…)`.

        They go before the others, in order, the last one again and again.
        """
        return self._script.rule(fits)

    def at(self, path: str) -> Rule:
        """Script answers for one path, whatever lives there: `fake.at("/api/v1/models").body({"models": []})`.

        As with `when`, they go before the others, the last one again and again.
        """
        return self._script.rule(lambda request: request.path == path, anywhere=True)

    def fail_always(self, fault: str | None) -> Self:
        """Let every answer fail in this way from now on; None ends it.

        Raises:
            ConfigurationError: There is no fault of that name.
        """
        self._script.always = None if fault is None else find_fault(fault).name
        return self

    def repeat(self) -> Self:
        """Begin the queue anew whenever all of it is used."""
        self._script.again = list(self._script.queue)
        return self

    def embeds(self, text: str, vector: Sequence[float]) -> Self:
        """Give this vector for a text; other texts get one that depends on the text alone."""
        self._backend.vectors[text] = tuple(vector)
        return self

    @staticmethod
    def faults() -> dict[str, str]:
        """Give the name of every fault with what it does."""
        return {name: fault.summary for name, fault in FAULTS.items()}

    @property
    def in_progress(self) -> int:
        """How many answers are being made at this moment."""
        return self._backend.in_progress

    @property
    def most_at_once(self) -> int:
        """How many requests for an answer were open at the same time at most, those that wait for a slot among them."""
        return self._front.most_at_once

    @property
    def open_connections(self) -> int:
        """How many connections clients hold open at this moment."""
        return 0 if self._server is None else self._server.connections

    @property
    def pending(self) -> int:
        """How many scripted answers have not been used."""
        return len(self._script.queue)

    def reset(self) -> None:
        """Forget script, requests and stored answers, as between two tests; models stay."""
        self._script.queue.clear()
        self._script.rules.clear()
        self._script.always = None
        self._script.again = []
        if self._server is not None:
            self._door.open(self._server)
        self._front.most_at_once = 0
        self.requests.clear()
        self.unexpected.clear()
        self._stored.clear()

    def forget_answers(self) -> None:
        """Forget what `previous_response_id` refers to, as LM Studio does when it is started anew."""
        self._stored.clear()

    def on_request(self, tell: Callable[[SentRequest], object]) -> None:
        """Call a function with every request as it comes."""
        self._tell = tell

    # --- the socket ---

    def _transport_of(self, scope: Scope) -> asyncio.Transport | None:
        return None if self._server is None else self._server.transport(scope.get("client"))

    def _received(self, request: SentRequest) -> None:
        self.requests.append(request)
        if self._tell is not None:
            self._tell(request)

    def _look_ahead(self) -> None:
        """Close the door for a while, if that is what is scripted next."""
        queue = self._script.queue
        first = queue[0] if queue else None
        if self._server is None or not isinstance(first, Answer) or first.fault != "refuse":
            return
        queue.popleft()
        options = first.fault_options
        self._door.shut(self._server, float(options.get("seconds", 0.2)), self._look_ahead)
