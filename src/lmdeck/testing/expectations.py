"""Assertions about received requests; their messages show what was sent instead."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lmdeck.testing.received_requests import SentRequest, ToolUse

SHOWN = 20
POLL_SECONDS = 0.005


class Expectations:
    """Assertions about the received requests.

    Model lists do not count as requests here.
    """

    requests: list[SentRequest]
    unexpected: list[SentRequest]

    @property
    def in_progress(self) -> int:
        """The number of answers that are being generated."""
        raise NotImplementedError

    @property
    def pending(self) -> int:
        """The number of unused scripted answers."""
        raise NotImplementedError

    def wait_until_busy(self, seconds: float = 5.0) -> None:
        """Wait until an answer is being generated.

        Raises:
            AssertionError: None was started within `seconds`.
        """
        self._wait(lambda: self.in_progress > 0, seconds, "no answer was started")

    def wait_until_idle(self, seconds: float = 5.0) -> None:
        """Wait until no answer is being generated: none is requested, or its client has left.

        Raises:
            AssertionError: An answer was still being generated after `seconds`.
        """
        self._wait(lambda: not self.in_progress, seconds, "an answer is still being generated")

    def _wait(self, condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"After {seconds:g} s {otherwise}.{self._shown()}")
            time.sleep(POLL_SECONDS)

    def assert_exhausted(self) -> None:
        """Check that every scripted answer was used.

        Raises:
            AssertionError: An answer was not used.
        """
        if self.pending:
            raise AssertionError(f"{self.pending} scripted answer(s) were not requested.{self._shown()}")

    def assert_expected(self) -> None:
        """Check that every request had a scripted answer.

        The end of the `with` block does the same.

        Raises:
            AssertionError: A request had none.
        """
        if self.unexpected:
            first = self.unexpected[0]
            count = f"{len(self.unexpected)} request(s) had no scripted answer"
            raise AssertionError(f"{count}, the first of them: {first}.{self._shown()}")

    def _answer_requests(self) -> list[SentRequest]:
        return [request for request in self.requests if request.wants_answer]

    def assert_sent(
        self,
        fits: Callable[[SentRequest], object] | None = None,
        *,
        times: int | None = None,
        path: str | None = None,
        model: str | None = None,
        contains: str | None = None,
        tools: Sequence[str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> SentRequest:
        """Check that a request matching all arguments was sent, and return the last one.

        `contains` is a part of the last user message; `body` is a part of the request's JSON. `times` is the exact
        number of such requests; None is at least one.

        Raises:
            AssertionError: There was none, or another number; the message shows what was sent.
        """
        wanted = {"path": path, "model": model, "contains": contains, "tools": tools, "body": body}
        matching = [request for request in self.requests if _fits(request, wanted) and (fits is None or fits(request))]
        if (times is None and matching) or (times is not None and len(matching) == times):
            return matching[-1] if matching else self.requests[-1]
        described = ", ".join(f"{name}={value!r}" for name, value in wanted.items() if value is not None)
        expected = f"{'at least 1' if times is None else times} request(s) that fit {described or 'the condition'}"
        raise AssertionError(f"Expected {expected}, found {len(matching)}.{self._shown()}{self._difference(body)}")

    def assert_tool_called(self, name: str, /, *, result: str | None = None, **arguments: object) -> ToolUse:
        """Check that the application ran a tool with these arguments and sent back its result.

        It may have used other arguments as well.

        Raises:
            AssertionError: It did not; the message shows the calls that it made.
        """
        uses = [use for request in self.requests for use in request.tool_uses if use.result is not None]
        for use in reversed(uses):
            used = {key: use.arguments.get(key) for key in arguments}
            if use.name == name and used == arguments and result in (None, use.result):
                return use
        made = list(dict.fromkeys(f"{use.name}({_written(use.arguments)}) → {use.result!r}" for use in uses))
        shown = "".join(f"\n  {line}" for line in made) or "\n  none"
        closest = next((use for use in reversed(uses) if use.name == name), None)
        difference = _diff(arguments, {key: closest.arguments.get(key) for key in arguments}) if closest else ""
        wanted = f"{name}({_written(arguments)}){f' → {result!r}' if result is not None else ''}"
        raise AssertionError(f"The tool call {wanted} was not answered. Calls that were:{shown}{difference}")

    def assert_call_count(self, count: int, *, path: str | None = None) -> None:
        """Check how many requests for an answer were sent.

        Raises:
            AssertionError: The number was different.
        """
        matching = [request for request in self._answer_requests() if path in (None, request.path)]
        if len(matching) != count:
            raise AssertionError(f"Expected {count} request(s), found {len(matching)}.{self._shown()}")

    def assert_nothing_sent(self) -> None:
        """Check that no request for an answer was sent.

        Raises:
            AssertionError: A request was sent.
        """
        self.assert_call_count(0)

    def _shown(self) -> str:
        lines = [f"\n  {at}. {request}" for at, request in enumerate(self.requests, 1)]
        more = [f"\n  … and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
        return "\nRequests received:" + ("".join(lines[:SHOWN] + more) or "\n  none")

    def _difference(self, body: Mapping[str, Any] | None) -> str:
        if not body or not self._answer_requests():
            return ""
        last = self._answer_requests()[-1].body
        return _diff(body, {name: last.get(name) for name in body})


def _fits(request: SentRequest, wanted: Mapping[str, Any]) -> bool:
    tools, body = wanted["tools"], wanted["body"]
    return (
        wanted["path"] in (None, request.path)
        and wanted["model"] in (None, request.model)
        and (wanted["contains"] is None or wanted["contains"] in request.last_user)
        and (tools is None or sorted(tools) == sorted(request.tools))
        and (body is None or _is_part(body, request.body))
    )


def _is_part(part: object, whole: object) -> bool:
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(name in whole and _is_part(value, whole[name]) for name, value in part.items())
    return part == whole


def _written(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())


def _diff(expected: object, found: object) -> str:
    before, after = (
        json.dumps(each, indent=2, ensure_ascii=False, sort_keys=True, default=str).splitlines()
        for each in (expected, found)
    )
    from difflib import unified_diff  # imported late: needed for failures only

    difference = list(unified_diff(before, after, "expected", "sent", lineterm="", n=2))
    return "\n" + "\n".join(difference) if difference else ""
