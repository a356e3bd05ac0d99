"""The sync transport, on urllib3.

Closing an answer before its end shuts its socket down, so that the server stops generating.
"""

from __future__ import annotations

import contextlib
import http.client
import sys
import threading
import time
from collections.abc import Mapping
from functools import partial
from typing import cast

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NewConnectionError,
    ReadTimeoutError,
)
from urllib3.response import BaseHTTPResponse

from lmdeck._forking import on_fork
from lmdeck._transport import DRAIN_SECONDS, READ_BYTES, CheckAddress, WireRequest, codings_left, server_of
from lmdeck._transport.deadlines import Deadlines
from lmdeck._transport.tls import ssl_context
from lmdeck._transport.urllib3.pools import Pool, PooledConnection, pool_manager
from lmdeck.config import Settings
from lmdeck.errors import (
    ConnectionLostError,
)

NO_RETRIES = urllib3.Retry.from_int(False, redirect=False)


class Urllib3Transport:
    """The sync transport over a pool of connections; can be shared between threads."""

    def __init__(self, settings: Settings, check_address: CheckAddress | None = None) -> None:
        self._make_manager = partial(pool_manager, settings, ssl_context(settings), check_address)
        self._manager = self._make_manager()
        self._pools: dict[str, Pool] = {}
        on_fork(self, Urllib3Transport.after_fork)

    def open(self, request: WireRequest, /) -> Urllib3Response:
        """Send a request and wait for the head of its answer.

        Raises:
            TransportError: The server is unreachable, the connection broke, or a time limit was exceeded.
        """
        deadlines = Deadlines(request.timeouts)
        remaining, phase = deadlines.remaining()
        try:
            response = self._send(request, remaining)
        except (HTTPError, OSError, http.client.HTTPException, ValueError) as error:
            from lmdeck._transport.urllib3.errors import (  # imported late: few fail
                is_broken_by_system,
                root_of,
                translate,
            )

            cause = root_of(error)
            # Connecting is limited by `connect` and by the other limits; the error names the shorter one.
            late = TimeoutError if remaining > request.timeouts.connect else (TimeoutError, ConnectTimeoutError)
            is_late = isinstance(cause, (ReadTimeoutError, late)) and not isinstance(cause, NewConnectionError)
            if is_late and not is_broken_by_system(cause):
                raise deadlines.expired(phase) from error
            raise translate(error, request) from error
        return Urllib3Response(response, deadlines, request)

    def close(self) -> None:
        """Close every connection."""
        self._pools.clear()
        self._manager.clear()

    def after_fork(self) -> None:
        """Start with new pools; a thread of the parent process may hold the locks of the old ones."""
        self._manager = self._make_manager()
        self._pools = {}

    def _send(self, request: WireRequest, seconds: float) -> BaseHTTPResponse:
        """Send a request through the server's pool, or through the manager if there is a proxy."""
        server, handled = server_of(request.url), sys.exc_info()[1]
        try:
            if self._manager.proxy is None:
                pool = self._pools.get(server)
                if pool is None:
                    pool = self._pools[server] = cast("Pool", self._manager.connection_from_url(server))
                return pool.send(request, request.wire_headers(), seconds)
            return self._manager.urlopen(
                request.method,
                request.url,
                redirect=False,
                body=request.body,
                headers=request.wire_headers(),
                preload_content=False,
                retries=NO_RETRIES,
                timeout=urllib3.Timeout(connect=min(request.timeouts.connect, seconds), read=seconds),
            )
        except BaseException as error:
            from lmdeck._transport.traceback_secrets import clear_locals

            clear_locals(error, handled)
            raise


class Urllib3Response:
    """An answer whose body is read as it arrives."""

    def __init__(self, response: BaseHTTPResponse, deadlines: Deadlines, request: WireRequest) -> None:
        self._response = response
        self._deadlines = deadlines
        self._request = request
        self._connection = response.connection
        self._reads = self._connection.reads if isinstance(self._connection, PooledConnection) else None
        if self._reads is not None:
            self._reads.by = deadlines.all_by
        self._is_finished = False
        self._reading = threading.RLock()  # held while the response is read: it cannot be closed meanwhile
        self._finishing = threading.Lock()
        self.has_ended = False
        self.status = response.status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}
        coding = self.headers.get("content-encoding")
        self._is_coded = coding is not None
        self.undecoded = codings_left(coding, BaseHTTPResponse.CONTENT_DECODERS) if coding else ""

    def read(self) -> bytes:
        """Return the bytes that have arrived, at least one; `b""` at the end of the body.

        Raises:
            TransportError: The connection broke, or a time limit was exceeded.
        """
        if self.has_ended:
            return b""
        remaining, phase = self._deadlines.remaining()
        reads = self._reads
        if reads is not None and reads.is_inherited:
            raise ConnectionLostError(
                "The process was forked while the answer was read: only the parent process can read the rest."
            )
        try:
            if reads is not None:
                reads.limit(remaining)
            with self._reading:
                data = self._response.read1(READ_BYTES, decode_content=self._is_coded)
        except (HTTPError, OSError, http.client.HTTPException, ValueError) as error:
            from lmdeck._transport.urllib3.errors import is_broken_by_system, translate

            self.close()
            if isinstance(error, ReadTimeoutError) and not is_broken_by_system(error):
                raise self._deadlines.expired(phase) from error
            raise translate(error, self._request) from error
        self._deadlines.has_bytes = True
        if isinstance(self._connection, PooledConnection):
            self._connection.last_used = time.monotonic()
        if data and (self._response.length_remaining != 0 or self._is_coded):
            return data
        with self._finishing:
            self.has_ended, self._is_finished = not self._is_finished, True
        if not self.has_ended:  # closed by another thread
            raise ConnectionLostError("The answer was closed before its end.")
        self._response.release_conn()
        return data

    def be_patient(self, *, wanted: bool) -> None:
        """Allow silences as long as the wait for the first byte (`wanted`), or stop allowing them."""
        self._deadlines.be_patient(wanted=wanted)

    def drain(self) -> None:
        """Read the rest of a finished answer, but only briefly, to make the connection reusable."""
        with contextlib.suppress(
            HTTPError, OSError, http.client.HTTPException, ValueError
        ):  # then `close` cuts the connection
            if self._reads is not None:
                self._reads.by = time.monotonic() + DRAIN_SECONDS
            with self._reading:
                while not self._is_finished and len(self._response.read1(READ_BYTES)) == 0:
                    if self._finish():
                        self._response.release_conn()
        self.close()

    def close(self) -> None:
        """Release the connection; if the body was not read to its end, its socket is shut down.

        A thread that reads is woken, and raises `ConnectionLostError`.
        """
        if not self._finish(cuts=True):
            return
        is_inherited = self._reads is not None and self._reads.is_inherited  # the reader may be a thread of the parent
        with contextlib.nullcontext() if is_inherited else self._reading:
            self._response.close()
            self._response.release_conn()

    def _finish(self, *, cuts: bool = False) -> bool:
        """Mark the answer as finished; return whether it was not yet, perhaps by another thread.

        With `cuts`, its connection is shut down, unless it has already been released for other requests.
        """
        with self._finishing:
            if self._is_finished:
                return False
            self._is_finished = True
            if cuts and self._reads is not None:
                self._reads.cut()
            return True
