"""llama.cpp in this process, through xllamacpp.

Measurements of xllamacpp 2026.10.11549 with SmolLM2-135M Q4_1 on two cores, which shape this module:

- Speed: 5.9 ms of CPU time for a prompt token and 17 ms for a generated one; mistralrs took 10.5 and 17.7 ms in the same
  run, with weights requantized to Q8_0. Loading takes 0.3 s.
- Access: its `Server` always listens. It does so on a Unix socket in a folder that only this user may enter (where Python lacks
  them, on a free loopback port), and requests need a random key. Its Python methods lack `/completion`, `/apply-template` and
  `/tokenize`, and cannot be cancelled before the first token; over HTTP a closed connection cancels, within a second and the
  batch in progress. It opens no other socket and installs no signal handlers.
- Threads: OpenMP's wait for each other hundreds of times a token. Spinning, which is its default, takes ten times the CPU time
  beside other busy programs; sleeping at once (`OMP_WAIT_POLICY=passive`) halves the speed on an idle machine: 54 tokens a
  second instead of 120. Spinning for a few microseconds before sleeping (`SPINS`) reaches 97 and, at a load of 17 on two cores,
  four fifths of the speed of sleeping at once.
- Reuse: it keeps earlier prompts in memory and does not recompute the prefix that a new one shares with them. Tokens
  computed in other batches differ in the last digits, so a seeded request computes the whole prompt.
- Grammars: one that cannot be compiled is only logged and then ignored, so it is checked first, see `check_grammar`.
- Closing: freeing the server waits, with the GIL held, for the batch in progress and for open connections. Batches are small,
  therefore, and `_free` closes the connections before.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import secrets
import socket
import tempfile
import weakref
from contextlib import asynccontextmanager, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import aiohttp
import msgspec

from lmdeck.engine.errors import EngineError, needs_extra
from lmdeck.server.backend import BackendError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping

    import xllamacpp

    from lmdeck.server.text_model import Constraint

BATCH_TOKENS = 256
"""The number of prompt tokens that are computed at once; they cannot be interrupted."""

PROMPT_CACHE_MIB = 256
"""The memory for computed prompts besides the last one."""

SECONDS_TO_CLOSE = 2.0

SPINS = "200"
"""How often a waiting thread of GNU OpenMP polls before it sleeps."""

_Sessions: TypeAlias = dict[aiohttp.ClientSession, asyncio.AbstractEventLoop]
"""The session of each open request, and the loop that it runs in."""

_OVERFLOW = (
    "The number of tokens to keep from the initial prompt is greater than the context length. "
    "Try to load the model with a larger context length, or provide a shorter input"
)


class LlamaServer:
    """One loaded model.

    Raises:
        EngineError: xllamacpp is not installed, or it cannot load the file.
    """

    def __init__(self, path: Path, context_length: int) -> None:
        library = import_library()
        folder = tempfile.TemporaryDirectory(prefix="lmdeck-")
        self._key = secrets.token_urlsafe(32)
        self._socket = str(Path(folder.name) / "llama.sock") if hasattr(socket, "AF_UNIX") else None
        parameters = _parameters(library, path, context_length)
        parameters.api_keys = [self._key]
        parameters.hostnames = [self._socket or "127.0.0.1"]
        parameters.port = 0
        try:
            server = [library.Server(parameters)]
        except RuntimeError as error:
            folder.cleanup()
            raise EngineError(
                f"The model {path.name} cannot be loaded: llama.cpp refuses the file.",
                hint="Try another GGUF file of an architecture that llama.cpp supports, or `lmdeck engine pull`. "
                "LLAMA_ARG_LOG_VERBOSITY=1 shows llama.cpp's reason.",
            ) from error
        self._url = "http://llama.cpp" if self._socket else server[0].listening_address
        self._sessions: _Sessions = {}
        self._close = weakref.finalize(self, _free, server, folder, self._sessions)  # also when the interpreter exits

    async def ask(self, path: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the JSON answer to one request.

        Raises:
            BackendError: The request is refused, or it failed.
        """
        async with self._post(path, fields) as response:
            answer: dict[str, Any] = msgspec.json.decode(await response.read())
        return answer

    async def stream(self, path: str, fields: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the events of one answer; closing the generator cancels the request.

        Raises:
            BackendError: The request is refused, or it failed.
        """
        async with self._post(path, {**fields, "stream": True}) as response:
            async for line in response.content:
                if line.startswith(b"data: {"):
                    event: dict[str, Any] = msgspec.json.decode(line.removeprefix(b"data: "))
                    if "error" in event:
                        raise _failure(event["error"])
                    yield event

    @asynccontextmanager
    async def _post(self, path: str, fields: Mapping[str, Any]) -> AsyncIterator[aiohttp.ClientResponse]:
        connector = aiohttp.UnixConnector(self._socket) if self._socket else aiohttp.TCPConnector()
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))
        self._sessions[session] = asyncio.get_running_loop()
        try:
            async with (
                session,
                session.post(self._url + path, data=msgspec.json.encode(fields), headers=headers) as response,
            ):
                if response.status != 200:
                    raise _failure(msgspec.json.decode(await response.read())["error"])
                yield response
        except aiohttp.ClientError as error:
            raise BackendError(f"The engine failed: {error}. Send the request again.", status=500) from error
        finally:
            del self._sessions[session]

    def close(self) -> None:
        """End open requests and free the model, after the batch in progress.

        A second call has no effect.
        """
        self._close()


def _free(server: list[object], folder: tempfile.TemporaryDirectory[str], sessions: _Sessions) -> None:
    closing = [
        asyncio.run_coroutine_threadsafe(session.close(), loop)
        for session, loop in tuple(sessions.items())
        if loop.is_running()
    ]
    concurrent.futures.wait(closing, SECONDS_TO_CLOSE)
    server.clear()
    folder.cleanup()


def _parameters(library: Any, path: Path, context_length: int) -> xllamacpp.CommonParams:  # it has no types
    parameters = library.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx = context_length
    parameters.n_batch = parameters.n_ubatch = BATCH_TOKENS
    parameters.n_parallel = 1
    parameters.cache_ram_mib = PROMPT_CACHE_MIB
    parameters.fit_params = parameters.warmup = parameters.ui = parameters.endpoint_slots = False
    parameters.offline = True
    parameters.verbosity = int(os.environ.get("LLAMA_ARG_LOG_VERBOSITY", "-1"))
    if chosen := os.environ.get("OMP_NUM_THREADS", ""):
        threads = int(chosen.partition(",")[0])
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
    return parameters


def import_library() -> Any:  # it has no types
    """Import xllamacpp, whose threads sleep after a short wait.

    A user's own OMP_WAIT_POLICY or GOMP_SPINCOUNT is respected.

    Raises:
        EngineError: It is not installed, or a library of the system is missing.
    """
    with needs_extra(), _default_environment(OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT=SPINS):
        import llguidance  # noqa: F401  # so that a missing package is reported now, and not at the first grammar
        import xllamacpp
    return xllamacpp


@contextmanager
def _default_environment(**variables: str) -> Iterator[None]:
    """Set variables for a while, if the user has set none of them."""
    if os.environ.keys() & variables.keys():
        yield
        return
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]


def library_version() -> str:
    """Return the version of xllamacpp, which ends with the build number of llama.cpp."""
    return version("xllamacpp")


def check_grammar(constraint: Constraint) -> str:
    """Return a constraint in llama.cpp's form.

    Raises:
        BackendError: It cannot be compiled to a grammar.
    """
    from llguidance import LLMatcher

    rules = constraint.grammar if constraint.kind == "lark" else f"start: %json {constraint.grammar}"
    grammar = f"%llguidance {{}}\n{rules}"
    if problem := LLMatcher.validate_grammar(grammar):
        raise BackendError(f"Failed to initialize samplers: failed to parse grammar: {problem[:1000]}")
    return grammar


def _failure(error: Mapping[str, Any]) -> BackendError:
    if error.get("type") == "exceed_context_size_error":
        return BackendError(_OVERFLOW)
    message = str(error.get("message", "without a reason"))[:500].rstrip(".")
    return BackendError(f"The engine failed: {message}. Send the request again.", status=int(error.get("code", 500)))
