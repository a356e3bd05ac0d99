"""The session shared by both clients: settings, base URL, handlers and a short-lived cache."""

from __future__ import annotations

import logging
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from lmdeck import _forking
from lmdeck._event_bus import EventBus
from lmdeck._forking import on_fork
from lmdeck._late_patterns import late_pattern
from lmdeck._limits import Limits
from lmdeck._pipeline.calls import Call, Handler, HandlerFactory, R
from lmdeck._pipeline.concurrency import DEFAULT_LIMIT, NO_LIMIT, ConcurrencyLimit, FairSemaphore
from lmdeck._pipeline.effects import Plan
from lmdeck._pipeline.exchange import Exchange, log_to_stderr
from lmdeck._pipeline.loading import LoadOnce, WatchEvictions
from lmdeck._pipeline.retry import Retry, RetryPolicy
from lmdeck._pipeline.telemetry import Telemetry
from lmdeck._plans.known_models import KnownModels
from lmdeck._plans.load_claims import LoadClaims
from lmdeck._plans.load_profiles import LoadProfiles
from lmdeck._plans.summary_store import Summaries
from lmdeck._requests.base_url import BaseURL
from lmdeck._requests.chat import encode, runs_tools_on_server
from lmdeck._requests.token_estimates import TokenEstimator
from lmdeck._responses.server_detection import LM_STUDIO, Peer, product_from_error
from lmdeck._transport import Timeouts, WireRequest
from lmdeck._version import __version__
from lmdeck.config import Settings
from lmdeck.errors import ConfigurationError, EndpointNotFoundError, LMStudioError, MalformedStreamError
from lmdeck.tools.registry import ToolRegistry

if TYPE_CHECKING:
    from lmdeck.cache import Cache
    from lmdeck.model_info import ModelInfo

PROBE_SECONDS = 2.0
MAX_UNCOMPILABLE = 1000
PROBE_LIMITS = Limits(answer_bytes=1 << 20)
_log = logging.getLogger("lmdeck.http")
_RESERVED_HEADERS = {"authorization", "content-length", "content-type", "host", "transfer-encoding"}
_HEADER_NAME = late_pattern(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2: token


class Session:
    """The settings and handlers of one client.

    Generation requests go through `handler`, others through `unlimited`, probes through `once`. `prompt` is like `unlimited`,
    but does not wait for a model that is being loaded: it is for health checks. `caller` identifies the caller that waits in
    the queue: by default the task, or the thread if there is no event loop. The only state is the knowledge about models and
    tools, and the queue.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
        *,
        tools: ToolRegistry | None = None,
        retry: RetryPolicy | None = None,
        handlers: Iterable[HandlerFactory] = (),
        headers: Mapping[str, str] | None = None,
        cache: str | Cache | None = None,
        bus: EventBus | None = None,
        caller: Callable[[], object] | None = None,
    ) -> None:
        self.tools = ToolRegistry() if tools is None else tools
        self.bus = EventBus() if bus is None else bus
        self.settings = settings
        self.address = BaseURL.from_settings(settings)
        self.once: Handler = Exchange(clock)
        policy = RetryPolicy.from_settings(settings) if retry is None else retry
        self.peer = Peer()
        retried = Retry(self.once, policy, bus=self.bus)
        without_loading = Retry(self.once, replace(policy, loading=0.0), bus=self.bus)
        caller = caller or _task_or_thread
        self.semaphore = FairSemaphore(settings.max_concurrency, threading.Lock, caller)
        on_fork(self.semaphore, FairSemaphore.after_fork)
        limited = ConcurrencyLimit(retried, self.semaphore, clock, self.bus, self._look_up_parallel)
        self.load_once = LoadOnce(
            limited, threading.Lock, clock, self._is_loaded, self.semaphore.forget_limit,
            LoadClaims(self.address.root, caller), settings.first_token_timeout,
        )  # fmt: skip
        on_fork(self.load_once, LoadOnce.after_fork)
        self._evictions = WatchEvictions(self.load_once, threading.Lock, clock, self._look_up_models, self.bus)
        on_fork(self._evictions, WatchEvictions.after_fork)
        factories = tuple(handlers)
        self._made_with: dict[str, Any] = {"retry": retry, "handlers": factories, "headers": headers, "caller": caller}
        telemetry = partial(Telemetry, bus=self.bus, clock=clock)
        self.unlimited: Handler = _wrapped(telemetry(retried), factories)
        self.prompt: Handler = _wrapped(telemetry(without_loading), factories)
        self._wrap: HandlerFactory = lambda handler: _wrapped(telemetry(handler), factories)
        self.cache, self.owns_cache = _opened_cache(cache), isinstance(cache, str)
        self._headers = {"User-Agent": f"lmdeck/{__version__}", **_checked_headers(headers or {})}
        self.clock = clock
        self.handler: Handler = self._answering_handler(self.cache)
        self._timeouts = Timeouts.from_settings(settings)
        self.models = KnownModels(clock)
        self.estimator = TokenEstimator()
        self.summaries = Summaries()
        self.uncompilable: set[bytes] = set()
        self._is_foreign = False
        self.profiles = LoadProfiles(settings.profiles, clock)
        if settings.debug:
            log_to_stderr()

    def for_settings(self, settings: Settings) -> Session:
        """Return a session with other settings.

        Handlers, headers, tools, cache and events are the same.
        """
        return Session(settings, self.clock, tools=self.tools, cache=self.cache, bus=self.bus, **self._made_with)

    def call(
        self,
        method: str,
        path: str,
        make_reader: Callable[[int, Mapping[str, str]], R],
        body: Mapping[str, Any] | None = None,
        timeouts: Timeouts | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        has_effects: bool = False,
    ) -> Call[R]:
        """Return a call of an endpoint; it also has effects if the server runs tools for it.

        `headers` override the client's own.

        Raises:
            ConfigurationError: The body cannot be written as JSON.
        """
        if _forking.process != os.getpid():
            _forking.notice_fork()
        request_id, fields = f"req_{random.getrandbits(48):012x}", body or {}
        request = WireRequest(
            method=method,
            url=self.address.root + path,
            body=None if body is None else encode(body),
            headers={**self._headers, "X-Request-Id": request_id, **(headers or {})},
            api_token=self.settings.api_token,
            timeouts=timeouts or self._timeouts,
        )
        return Call(
            request=request,
            request_id=request_id,
            make_reader=make_reader,
            has_effects=has_effects or runs_tools_on_server(fields),
            model=str(fields.get("model") or ""),
            peer=self.peer,
            ttl=_seconds(fields["ttl"]) if "ttl" in fields else None,
        )

    def probe(self, path: str, port: int | None = None) -> Plan[object]:
        """Send a small GET request once, and return its JSON; None on any error.

        With `port`, it goes to that port of this machine, without token and headers.
        """
        from lmdeck._responses.json_reader import JSONReader  # imported late, as below: not every client needs it

        call = self.call("GET", path, partial(JSONReader, limits=PROBE_LIMITS), timeouts=self.probe_timeouts)
        if port is not None:
            url = f"http://127.0.0.1:{port}{path}"
            call = replace(call, request=replace(call.request, url=url, headers={}, api_token=None), peer=Peer())
        try:
            stream = yield from self.once(call)
        except LMStudioError:
            return None
        return stream.reader.value

    def _look_up_parallel(self) -> Plan[int | None]:
        """Return how many requests the loaded model processes in parallel; None if unknown."""
        models = yield from self._look_up_models()
        return _most_parallel(models or ()) or (NO_LIMIT if self._is_foreign else None)

    def _is_loaded(self, model: str) -> Plan[bool]:
        """Whether a model is loaded, or is not in the server's list, so that waiting is pointless."""
        is_loaded = False
        learns_limit = self.semaphore.should_learn_limit()  # the same list has it
        try:
            models = (yield from self._look_up_models()) or ()
            named = [each for each in models if model in (each.key, *(one.id for one in each.instances))]
            is_loaded = not named or any(each.instances for each in named)
            if is_loaded and self.settings.max_concurrency is None:
                self.semaphore.resize(_most_parallel(models) or (NO_LIMIT if self._is_foreign else DEFAULT_LIMIT))
        finally:
            if learns_limit and not is_loaded:
                self.semaphore.forget_limit()
        return is_loaded

    def _look_up_variant(self, model: str) -> Plan[str]:
        """Return the variant and quantization of a model, looked up once a minute; `""` if unlisted."""
        if self.models.has_old_variants:
            self.models.expect_variants()
            yield from self._look_up_models()
        return self.models.facts(model).variant

    def _look_up_models(self) -> Plan[list[ModelInfo] | None]:
        """Return LM Studio's model list; if there is none, record whether this is another server."""
        if self._is_foreign:
            return None
        from lmdeck._responses.json_reader import JSONReader
        from lmdeck._responses.model_lists import MODEL_LIST_PATHS, read_model_list

        api, path = MODEL_LIST_PATHS[0]
        read = partial(JSONReader, limits=PROBE_LIMITS)
        try:
            stream = yield from self.once(self.call("GET", path, read, timeouts=self.probe_timeouts))
            models = read_model_list(api, stream.reader.value)
        except (EndpointNotFoundError, MalformedStreamError) as error:
            self._is_foreign = product_from_error(error.message) != LM_STUDIO and self.peer.product != LM_STUDIO
            return None
        except LMStudioError:  # it may be any server
            return None
        self.learn(models)
        return models

    @property
    def look_up_timeouts(self) -> Timeouts:
        """The time limits of a small request, for which no model must be loaded."""
        limits = self._timeouts
        return Timeouts(
            connect=limits.connect,
            first_token=min(limits.idle, limits.first_token),
            idle=limits.idle,
            total=limits.total,
        )

    @property
    def probe_timeouts(self) -> Timeouts:
        """The time limits of a request that may remain unanswered."""
        limits = self.look_up_timeouts
        return Timeouts(
            connect=min(limits.connect, PROBE_SECONDS),
            first_token=min(limits.first_token, PROBE_SECONDS),
            idle=min(limits.idle, PROBE_SECONDS),
            total=min(limits.total or PROBE_SECONDS, PROBE_SECONDS),
        )

    def learn(self, models: Collection[ModelInfo]) -> None:
        """Record the names, architectures and options of listed models, and their parallel limit."""
        self.models.learn(models)
        self.load_once.note_loaded(name for model in models for one in model.instances for name in (model.key, one.id))
        if self.settings.max_concurrency is not None:
            return
        parallel = _most_parallel(models)
        if parallel is not None:
            self.semaphore.resize(parallel)

    def note_uncompilable(self, tools: Collection[bytes]) -> None:
        """Record tools that the server could not compile, so that they are simplified next time."""
        if len(self.uncompilable) + len(tools) > MAX_UNCOMPILABLE:
            self.uncompilable.clear()
        self.uncompilable.update(tools)

    def with_cache(self, cache: Cache) -> Session:
        """Return a session of the same client over another cache."""
        import copy  # imported late: few chats have a separate cache

        session = copy.copy(self)
        session.cache, session.owns_cache = cache, False
        session.handler = self._answering_handler(cache)
        return session

    def _answering_handler(self, cache: Cache | None) -> Handler:
        """Return the handler of requests that a model answers."""
        handler: Handler = self._evictions
        if cache is not None:
            handler = cache.handler(handler, clock=self.clock, variant=self._look_up_variant)
        return self._wrap(handler)

    def close(self) -> None:
        """Close the cache, if this session has opened it; it is opened again when it is needed."""
        if self.cache is not None and self.owns_cache:
            self.cache.close()

    def __repr__(self) -> str:
        return f"<{self.address.root}>"


def _opened_cache(cache: str | Cache | None) -> Cache | None:
    if not isinstance(cache, str):
        return cache
    from lmdeck.cache import Cache  # imported late: most clients have no cache

    return Cache.open(cache)


def _wrapped(handler: Handler, factories: Iterable[HandlerFactory]) -> Handler:
    """Return a handler wrapped in others; the first factory is the outermost."""
    for factory in reversed(tuple(factories)):
        handler = factory(handler)
    return handler


def _checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers to add to every request.

    Raises:
        ConfigurationError: A name is not a header name, a value is not one line of Latin-1 text, or lmdeck sets that header.
    """
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ConfigurationError(f"{name!r} is not a header name.", hint="Use letters, digits and hyphens.")
        if name.lower() in _RESERVED_HEADERS:
            raise ConfigurationError(
                f"The header {name} is set by lmdeck.",
                hint="Pass the token as `api_token`, and the address as `base_url`.",
            )
        if any(char in value for char in "\r\n\0") or not value.isprintable() or any(ord(char) > 255 for char in value):
            raise ConfigurationError(
                f"The value of the header {name} is not one line of Latin-1 text.",
                hint="Encode it, for example as percent-encoding.",
            )
    return dict(headers)


def _seconds(ttl: object) -> float | None:
    return float(ttl) if isinstance(ttl, int | float) and not isinstance(ttl, bool) else None


def _most_parallel(models: Iterable[ModelInfo]) -> int | None:
    return max((one.parallel for model in models for one in model.instances if one.parallel), default=None)


def _task_or_thread() -> int:
    """Return the id of the running task, or of the thread if there is no event loop."""
    asyncio = sys.modules.get("asyncio")  # a sync script may not have imported it
    try:
        task = asyncio.current_task() if asyncio else None
    except RuntimeError:
        task = None
    return threading.get_ident() if task is None else id(task)
