"""The engine with its HTTP server.

`lmdeck engine serve`, `lmdeck demo`, tests and examples call it.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from lmdeck._incoming.trust import AllowedHosts
from lmdeck.engine.errors import EngineError, needs_extra
from lmdeck.engine.weights import weights_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Self

    from starlette.types import ASGIApp

    from lmdeck.engine.model import EngineModel

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 1234


def serve(
    model: str | Path | None = None,
    *,
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    requantize: str | None = None,
    api_token: str | None = None,
    allowed_hosts: Iterable[str] = (),
    tolerant: bool = False,
    on_ready: Callable[[str], object] | None = None,
) -> None:
    """Load a GGUF model and serve LM Studio's API until Ctrl-C.

    Without a `model`, it is the one that `pull` downloaded.

    With `api_token`, requests need it. It answers to loopback names and `allowed_hosts`; listening on another `host`, also to
    addresses and names without a dot. `tolerant` accepts requests that LM Studio refuses, such as those of Claude Code
    and Codex. `on_ready` is called with the base URL once requests are answered. `requantize` is deprecated and has no effect.

    Raises:
        EngineError: The extra is not installed, the model file is missing, or it cannot be loaded.
        ConfigurationError: The server cannot listen on the address.
    """
    with needs_extra():
        from lmdeck.server.app import create_app
        from lmdeck.server.serve import run
        from lmdeck.server.sockets import listen
        from lmdeck.server.tool_use import DefaultToolUse

    with listen(host, port) as listener:  # before the model is loaded: a port in use is reported at once
        loaded = _load(model, requantize)
        try:
            hosts = AllowedHosts.of(allowed_hosts, host)
            backend = DefaultToolUse(loaded)
            middleware = _tolerance() if tolerant else None
            app = create_app(backend, api_token=api_token, hosts=hosts, middleware=middleware, counts_tokens=True)
            run(app, listener, on_ready)
        finally:
            loaded.close()


class EngineServer:
    """The engine served from a background thread, on a free port of this machine.

    >>> with EngineServer.start() as server:
    ...     server.base_url
    'http://127.0.0.1:…'
    """

    def __init__(self, base_url: str, model: str, close: Callable[[], None]) -> None:
        self.base_url = base_url
        self.model = model
        self._close = close

    @classmethod
    def start(
        cls,
        model: str | Path | None = None,
        *,
        host: str = DEFAULT_HOST,
        port: int = 0,
        requantize: str | None = None,
        api_token: str | None = None,
        tolerant: bool = False,
    ) -> Self:
        """Load a GGUF model and serve it; returns when requests are answered.

        Without a `model`, it is the one that `pull` downloaded. `requantize` is deprecated and has no effect.

        Raises:
            EngineError: The extra is not installed, the model file is missing, or it cannot be loaded.
            ConfigurationError: The server cannot listen on the address.
        """
        with needs_extra():
            from lmdeck.server.app import create_app
            from lmdeck.server.serve import BackgroundServer
            from lmdeck.server.sockets import listen
            from lmdeck.server.tool_use import DefaultToolUse

        listener = listen(host, port)
        try:
            loaded = _load(model, requantize)
        except BaseException:
            listener.close()
            raise
        hosts = AllowedHosts.of((), host)
        middleware = _tolerance() if tolerant else None
        app = create_app(
            DefaultToolUse(loaded), api_token=api_token, hosts=hosts, middleware=middleware, counts_tokens=True
        )
        background = BackgroundServer(app, listener, loaded.close)
        return cls(background.base_url, loaded.models()[0].key, background.close)

    def close(self) -> None:
        """Stop generating, end every connection, and release port and memory.

        A second call has no effect.
        """
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _load(model: str | Path | None, requantize: str | None) -> EngineModel:
    from lmdeck.engine.model import EngineModel

    if requantize is not None:
        warnings.warn(
            "requantize has no effect: the engine computes with the quantization of the file. Omit it.",
            DeprecationWarning,
            stacklevel=3,
        )
    path = weights_path() if model is None else Path(model).expanduser()
    if not path.is_file():
        message = f"The default model is not downloaded: {path}" if model is None else f"There is no model file {path}."
        raise EngineError(message, hint="Run `lmdeck engine pull`, or pass the path of a GGUF file.")
    return EngineModel(path)


def _tolerance() -> Callable[[ASGIApp], ASGIApp]:
    """Return the middleware of tolerant servers.

    It is imported late: the conversion of requests needs most of the client.
    """
    from lmdeck.engine.tolerance import ToleranceMiddleware

    return ToleranceMiddleware
