"""Claims on loading a model: of all clients of one server, one at a time loads it.

LM Studio loads a model once per request that arrives while it is not loaded (bug #1751). A claim is held by one client of this
process. A client that calls the load endpoint also locks a file, so that the processes of one user on this machine take turns;
the lock ends with its process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import IO

from lmdeck._forking import on_fork


class Claim:
    """A claim, until it is released."""

    def __init__(self, claims: _ProcessClaims, key: tuple[str, str]) -> None:
        self._claims = claims
        self._key = key
        self.file: IO[bytes] | None = None
        self.thread = threading.get_ident()

    def release(self) -> None:
        """End the claim; a second call does nothing."""
        self._claims.remove(self._key, self)
        if self.file is not None:
            self.file.close()


class _ProcessClaims:
    """The claims of this process, by server and model; a forked process has none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[tuple[str, str], Claim] = {}
        on_fork(self, _ProcessClaims.after_fork)

    def after_fork(self) -> None:
        """Leave the claims and their locked files to the parent process."""
        files = [claim.file for claim in self._held.values() if claim.file is not None]
        self._lock = threading.Lock()
        self._held = {}
        for file in files:
            file.close()

    def add(self, key: tuple[str, str]) -> tuple[Claim, bool]:
        """Return the claim of a model, and whether it is new."""
        new = Claim(self, key)
        with self._lock:
            held = self._held.setdefault(key, new)
        return held, held is new

    def remove(self, key: tuple[str, str], claim: Claim) -> None:
        """End a claim, if it is held."""
        with self._lock:
            if self._held.get(key) is claim:
                del self._held[key]


_process_claims = _ProcessClaims()


class LoadClaims:
    """The claims of one client.

    `caller` returns the id of the current thread if the client blocks it.
    """

    def __init__(self, server: str, caller: Callable[[], object]) -> None:
        self._server = server
        self._caller = caller

    def try_claim(self, model: str, *, between_processes: bool) -> Claim | None:
        """Return a claim, or None if another client has one.

        A sync client does not wait for its own thread, which may be in the middle of an async client's request.
        """
        key = (self._server, model)
        claim, is_new = _process_claims.add(key)
        if not is_new:
            is_own_thread = claim.thread == threading.get_ident() == self._caller()
            return Claim(_process_claims, key) if is_own_thread else None
        if not between_processes:
            return claim
        from lmdeck._plans.load_locks import open_lock  # imported late: few programs load models

        try:
            claim.file = open_lock(*key)
        except BlockingIOError:
            claim.release()
            return None
        except OSError:  # no folder for it: processes do not take turns
            return claim
        return claim
