"""A run that waits for decisions, as a value to store as JSON and resume in any process."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Self, TypeAlias

from msgspec import Struct, field
from msgspec.structs import asdict, replace

from lmdeck._agent.approvals import Decision
from lmdeck._agent.loop import PendingRound
from lmdeck._requests.chat import ChatSpec
from lmdeck.errors import ConfigurationError
from lmdeck.messages import Message, Problem, Reply, Round, ToolCall

MAX_RESUMED_IDS = 10_000
PAUSED = Problem("paused", "Tool calls wait for a decision; none of this answer's calls was run.")
Decisions: TypeAlias = Mapping[str, Decision] | bool
"""The decisions on the calls of a paused run, by call id, or one for all of them."""


class PausedRun(Struct, frozen=True, kw_only=True):
    """A run that ended because calls wait for a decision.

    `chat.resume(paused, decisions)` resumes it. `calls` are the calls to decide on. None of the calls of `reply`, the answer
    that contains them, was run. `model` and `messages` are those of the chat, `rounds` are the finished rounds before that
    answer, `decided` the decisions on its other calls. The results in `rounds` have no `value` after `from_json`.

    A paused run can be resumed only once. A process refuses to resume it again. A store shared by several processes must remove
    it when it is resumed, as the histories for Django, FastAPI and Flask do.
    """

    id: str
    model: str | None
    messages: list[Message]
    rounds: list[Round]
    reply: Reply
    decided: dict[str, Decision] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, pending: PendingRound, spec: ChatSpec) -> Self:
        """Return the paused run of a chat."""
        messages = [each if isinstance(each, Message) else Message.from_dict(each) for each in spec.messages]
        return cls(
            id=pending.id,
            model=spec.model or pending.reply.model or None,
            messages=messages,
            rounds=pending.rounds,
            reply=pending.reply,
            decided=pending.decided,
            waiting=pending.waiting,
        )

    @property
    def calls(self) -> list[ToolCall]:
        """The calls that wait for a decision, in the order of the answer.

        Of equal calls, it is the first.
        """
        return [call for call in self.reply.tool_calls if call.id in self.waiting]

    @property
    def partial(self) -> Reply:
        """The reply so far, with a problem `paused`.

        It has the answer with its calls, all rounds, and the messages of the finished rounds.
        """
        waiting = replace(self.reply, problems=[*self.reply.problems, PAUSED])
        rounds = [*self.rounds, Round(reply=waiting)]
        counted = [one.reply.usage for one in rounds if one.reply.usage is not None]
        return replace(
            waiting,
            rounds=rounds,
            messages=[message for one in self.rounds for message in one.messages],
            usage=sum(counted[1:], counted[0]) if counted else None,
            problems=[problem for one in rounds for problem in one.problems],
        )

    def to_json(self) -> str:
        """Return the run as JSON text."""
        from lmdeck._client.stored_run import StoredRun  # imported late: most programs store no run

        return StoredRun.of(**asdict(self)).to_json()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read a run from the output of `to_json`.

        Raises:
            ConfigurationError: The text is not a paused run.
        """
        from lmdeck._client.stored_run import StoredRun  # imported late, as above

        return cls(**StoredRun.from_json(text).fields())

    def decide(self, decisions: Decisions) -> PendingRound:
        """Return the run with the decisions on its waiting calls.

        Raises:
            ConfigurationError: A call has no decision, or a decision is not on a waiting call.
        """
        new = dict.fromkeys(self.waiting, decisions) if isinstance(decisions, bool) else dict(decisions)
        missing = [call for call in self.calls if call.id not in new]
        if missing:
            raise ConfigurationError(
                f"There is no decision on the call {missing[0].id!r} of {missing[0].name!r}.",
                hint=f"Decide on every waiting call: {', '.join(self.waiting)}.",
            )
        for name, decision in new.items():
            if name not in self.waiting:
                raise ConfigurationError(
                    f"No call {name!r} of this run waits for a decision.",
                    hint=f"The waiting calls are: {', '.join(self.waiting)}.",
                )
            if not isinstance(decision, bool | str):
                raise ConfigurationError(
                    f"The decision on the call {name!r} is {decision!r}.",
                    hint="Pass True to allow the call, False to refuse it, or a text to refuse it for that reason.",
                )
        return PendingRound(
            id=self.id, rounds=self.rounds, reply=self.reply, decided={**self.decided, **new}, waiting=[]
        )


class ResumedRuns:
    """The ids of the runs that this process has resumed recently."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ids: OrderedDict[str, None] = OrderedDict()

    def add(self, paused: PausedRun) -> None:
        """Record that a run is resumed.

        Raises:
            ConfigurationError: It was resumed before.
        """
        with self._lock:
            if paused.id in self._ids:
                raise ConfigurationError(
                    f"The paused run {paused.id} was resumed before: its calls may have been run.",
                    hint="If its tools must run again, start a new run.",
                )
            self._ids[paused.id] = None
            if len(self._ids) > MAX_RESUMED_IDS:
                self._ids.popitem(last=False)


RESUMED = ResumedRuns()
