"""The handlers between client and transport, driven by hand with plain values: nothing is opened, and nobody waits."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Generator, Mapping
from typing import Any

import pytest

from lmdeck._limits import DEFAULT_LIMITS
from lmdeck._pipeline.calls import Call, ResponseStream, locate
from lmdeck._pipeline.effects import Open, Read, Send, Sleep
from lmdeck._pipeline.exchange import Exchange, log_to_stderr
from lmdeck._pipeline.retry import Retry, RetryPolicy
from lmdeck._pipeline.run_plan import drive, drive_async
from lmdeck._secret import Secret
from lmdeck._streaming.assembler import ChatAssembler
from lmdeck._streaming.chat_reader import ChatReader
from lmdeck._transport import WireRequest
from lmdeck.errors import (
    APIError,
    AuthenticationError,
    ConfigurationError,
    ConnectionLostError,
    EmptyReplyError,
    IncompleteStreamError,
    InvalidRequestError,
    LMStudioError,
    MalformedStreamError,
    ModelCrashedError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    ServerUnreachableError,
)
from lmdeck.events import Chunk
from lmdeck.stats import Measured

URL = "http://host:1234/v1/chat/completions"
TOKEN = "sk-lm-S3cr3t"
SSE = {"content-type": "text/event-stream"}


def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    """Write a chunk of a stream."""
    body = {"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


HEL, LO, STOP, DONE = chunk({"content": "Hel"}), chunk({"content": "lo"}), chunk({}, "stop"), b"data: [DONE]\n\n"


class FakeResponse:
    """A response that knows how it was treated; its body is what the test sends."""

    undecoded = ""
    has_ended = False

    def __init__(self, status: int = 200, headers: Mapping[str, str] = SSE) -> None:
        self.status = status
        self.headers = headers
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


Effects = list[Any]  # what a plan is sent: a response, bytes, None for a wait, or an error to raise


def by_reads(plan: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Perform `Send` as the drivers do, by an opening and single reads, so that a test can hand in each piece."""
    try:
        effect = next(plan)
        while True:
            try:
                result = (yield from opened(effect)) if isinstance(effect, Send) else (yield effect)
            except LMStudioError as error:
                effect = plan.throw(error)
            else:
                effect = plan.send(result)
    except StopIteration as done:
        return done.value
    finally:
        plan.close()


def opened(effect: Send) -> Generator[Any, Any, Any]:
    """Open a response and read it until its first chunks."""
    response = yield Open(effect.request)
    try:
        stream = effect.begin(response)
        while stream is not None and not stream.feed_first((yield Read(response))):
            continue
    except BaseException:
        response.close()
        raise
    return response if stream is None else stream


def run(plan: Generator[Any, Any, Any], *results: Any, effects: Effects | None = None) -> tuple[Any, Effects]:
    """Run a plan with these results, and give what it returns, with the effects that it asked for."""
    asked = [] if effects is None else effects
    plan = by_reads(plan)
    try:
        asked.append(next(plan))
        for result in results:
            asked.append(plan.throw(result) if isinstance(result, BaseException) else plan.send(result))
    except StopIteration as done:
        assert len(asked) == len(results), "the plan ended before it was sent everything"
        return done.value, asked
    pytest.fail(f"the plan still wants {asked[-1]}")


def failing(kind: type[LMStudioError], plan: Generator[Any, Any, Any], *results: Any) -> tuple[LMStudioError, Effects]:
    """Run a plan that fails, and give its error, with the effects that it asked for."""
    effects: Effects = []
    with pytest.raises(kind) as caught:
        run(plan, *results, effects=effects)
    return caught.value, effects


def call(make_reader: Callable[..., Any] | None = None) -> Call[Any]:
    """Make a call with a token."""
    request = WireRequest(
        method="POST", url=URL, body=b'{"model":"m"}', headers={"X-Request-Id": "req_1"}, api_token=Secret(TOKEN)
    )
    return Call(
        request=request,
        request_id="req_1",
        make_reader=make_reader or (lambda status, headers: ChatReader(status, headers, ChatAssembler())),
    )


def exchange(*results: Any, clock: Clock | None = None) -> tuple[Any, Effects]:
    """Run one attempt."""
    return run(Exchange(clock or Clock())(call()), *results)


POLICY = RetryPolicy(attempts=3, delay=1.0, jitter=0.0)


def retry(policy: RetryPolicy = POLICY) -> Generator[Any, Any, Any]:
    """Plan the attempts."""
    return Retry(Exchange(Clock()), policy, rng=lambda: 0.0)(call())


# --- one attempt ----------------------------------------------------------------------------------------------------------


def test_an_attempt_ends_with_the_first_thing_that_happens() -> None:
    """It reads until then, and the caller gets what happened."""
    response = FakeResponse()
    answer, effects = exchange(response, b": ping\n\n", HEL[:10], HEL[10:])
    assert effects == [Open(call().request), Read(response), Read(response), Read(response)]
    assert (answer.first_chunks, answer.is_finished, answer.attempts) == ([Chunk("Hel")], False, 1)
    assert response.closed == 0


def test_the_rest_comes_through_feed() -> None:
    """Up to `[DONE]`, which ends the answer whatever the connection does."""
    answer, _ = exchange(FakeResponse(), HEL)
    assert answer.feed(LO) == [Chunk("lo")]
    assert answer.feed(STOP + DONE) == [Chunk(finish_reason="stop")]
    assert answer.is_finished
    assert answer.reader.reply().content == "Hello"
    assert answer.chunk_count == 3


def test_the_end_of_the_body_ends_the_answer() -> None:
    """A finish reason and no end mark."""
    answer, _ = exchange(FakeResponse(), HEL + STOP)
    assert not answer.is_finished
    assert answer.feed(b"") == []
    assert answer.is_finished


def test_a_short_answer_may_be_whole_at_once() -> None:
    """One read and nothing to come."""
    answer, _ = exchange(FakeResponse(), HEL + STOP + DONE)
    assert answer.is_finished
    assert [each.content for each in answer.first_chunks] == ["Hel", ""]


@pytest.mark.parametrize(
    ("results", "kind"),
    [
        ([b"data: no\n\n"], MalformedStreamError),
        ([b""], IncompleteStreamError),
        ([b": ping\n\n", b""], MalformedStreamError),
        ([DONE], EmptyReplyError),
        ([b'data: {"error":"Channel Error"}\n\n'], ModelCrashedError),
        ([ConnectionLostError("It broke.")], ConnectionLostError),
        ([b": ping\n\n", RequestTimeoutError("Silence.", phase="first_token", seconds=5)], RequestTimeoutError),
    ],
)
def test_a_failed_attempt_lets_go_of_its_connection(results: list[Any], kind: type[LMStudioError]) -> None:
    """The connection is closed whatever came instead of an answer, and the error knows where it happened."""
    response = FakeResponse()
    error, _ = failing(kind, Exchange(Clock())(call()), response, *results)
    assert response.closed
    assert (error.request_id, error.url, error.attempts) == ("req_1", URL, 1)


def test_a_connection_that_was_not_made_is_located() -> None:
    """There is nothing to close."""
    error, _ = failing(ServerUnreachableError, Exchange(Clock())(call()), ServerUnreachableError("Refused."))
    assert (error.request_id, error.url, error.attempts) == ("req_1", URL, 1)


@pytest.mark.parametrize("effects_before", [1, 2])
def test_an_abandoned_attempt_releases_its_connection(effects_before: int) -> None:
    """A closed plan is a cancelled task or a left loop."""
    response = FakeResponse()
    plan = by_reads(Exchange(Clock())(call()))
    next(plan)
    plan.send(response)
    for _ in range(effects_before - 1):
        plan.send(b": ping\n\n")
    plan.close()
    assert response.closed


def test_an_error_of_ours_lets_go_of_the_connection_too() -> None:
    """A reader that cannot be made, or breaks, keeps nothing open."""

    def broken(status: int, headers: Mapping[str, str]) -> ChatReader:
        raise ZeroDivisionError

    response = FakeResponse()
    plan = by_reads(Exchange(Clock())(call(broken)))
    next(plan)
    with pytest.raises(ZeroDivisionError):
        plan.send(response)
    assert response.closed


# --- a refusal --------------------------------------------------------------------------------------------------------------


def test_a_refusal_is_read_and_raised() -> None:
    """The error has the body that came in pieces, its headers, and the path in the message."""
    response = FakeResponse(429, {"retry-after": "7"})
    error, effects = failing(RateLimitError, Exchange(Clock())(call()), response, b'{"error":', b'"Slow down"}', b"")
    assert error.message == "/v1/chat/completions: Slow down."
    assert isinstance(error, RateLimitError)
    assert (error.status, error.retry_after, error.attempts) == (429, 7.0, 1)
    assert [type(effect) for effect in effects] == [Open, Read, Read, Read]
    assert response.closed


def test_a_refusal_s_body_is_read_to_a_limit() -> None:
    """A server that never ends it is not listened to for ever."""
    response = FakeResponse(500)
    piece = b"x" * (DEFAULT_LIMITS.error_body_bytes // 2 + 1)
    error, effects = failing(ServerError, Exchange(Clock())(call()), response, piece, piece)
    assert len(effects) == 3
    assert len(error.message) < 5000
    assert response.closed


@pytest.mark.parametrize("body", [[], [b'{"error":"Invalid']])
def test_a_refusal_whose_body_breaks_is_a_refusal(body: list[bytes]) -> None:
    """The status says enough; a bad request is not sent again for it."""
    response = FakeResponse(400)
    error, _ = failing(
        InvalidRequestError, Exchange(Clock())(call()), response, *body, ConnectionLostError("It broke.")
    )
    assert isinstance(error, APIError)
    assert (error.status, bool(response.closed)) == (400, True)
    assert "Invalid" in error.message or not body


def test_an_abandoned_refusal_releases_its_connection() -> None:
    """A plan that is closed in the middle of the body closes the connection."""
    response = FakeResponse(500)
    plan = by_reads(Exchange(Clock())(call()))
    next(plan)
    plan.send(response)
    plan.close()
    assert response.closed


# --- after the first chunk --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", IncompleteStreamError),
        (b"data: no\n\n", MalformedStreamError),
        (b'data: {"error":{"message":"The model has crashed"}}\n\n', ModelCrashedError),
        (b"data: {", IncompleteStreamError),
    ],
)
def test_an_answer_that_breaks_closes_and_reports_its_partial_reply(data: bytes, kind: type[LMStudioError]) -> None:
    """The error has the URL, the attempt and the reply so far."""
    response = FakeResponse()
    answer, _ = exchange(response, HEL)
    answer.attempts = 2
    with pytest.raises(kind) as caught:
        assert [answer.feed(piece) for piece in (data, b"")] == [[]]
    assert response.closed
    assert caught.value.partial is not None
    assert caught.value.partial.content == "Hel"
    assert (caught.value.request_id, caught.value.url, caught.value.attempts) == ("req_1", URL, 2)
    assert not answer.is_finished


def test_a_connection_that_breaks_in_the_middle_is_reported_with_the_reply_so_far() -> None:
    """The very error of the transport is raised, with the partial reply."""
    response = FakeResponse()
    answer, _ = exchange(response, HEL)
    error = ConnectionLostError("It broke.")
    with pytest.raises(ConnectionLostError) as caught:
        answer.feed_failure(error)
    assert caught.value is error
    assert error.partial is not None
    assert (error.partial.content, error.url, response.closed) == ("Hel", URL, 1)


def test_a_connection_that_breaks_after_the_finish_reason_does_not_matter() -> None:
    """The answer is whole, and the reply says what happened."""
    response = FakeResponse()
    answer, _ = exchange(response, HEL + STOP)
    assert answer.feed_failure(ConnectionLostError("It broke.")) == []
    assert answer.is_finished
    assert [problem.code for problem in answer.reader.reply().problems] == ["end_missing"]


def test_times_are_measured_from_the_sending() -> None:
    """First token, generation, and all of it; they stand still when the answer is whole."""
    clock = Clock()
    plan = by_reads(Exchange(clock)(call()))
    next(plan)
    clock.now += 1
    plan.send(FakeResponse())
    clock.now += 2
    with pytest.raises(StopIteration) as done:
        plan.send(HEL)
    answer: ResponseStream[ChatReader] = done.value.value
    clock.now += 4
    assert answer.measured() == Measured(time_to_first_token=3.0, generation_time=4.0, total_time=7.0)
    answer.feed(STOP + DONE)
    clock.now += 100
    assert answer.measured() == Measured(time_to_first_token=3.0, generation_time=4.0, total_time=7.0)


def test_an_answer_without_a_first_token_has_only_its_whole_time() -> None:
    """No time is invented."""
    clock = Clock()
    answer = ResponseStream(call(), FakeResponse(), ChatReader(200, SSE, ChatAssembler()), clock, clock.now)
    clock.now += 5
    assert answer.measured() == Measured(total_time=5.0)


# --- trying again -----------------------------------------------------------------------------------------------------


def test_what_may_help_is_tried_again() -> None:
    """A refused connection, a crashed model, a busy server; each with its wait, and each response closed."""
    crashed, good = FakeResponse(400), FakeResponse()
    answer, effects = run(
        retry(), ServerUnreachableError("x"), None, crashed, b'{"error":"The model has crashed"}', b"", None, good, HEL
    )
    assert [effect for effect in effects if isinstance(effect, Sleep)] == [Sleep(1.0), Sleep(2.0)]
    assert (answer.attempts, answer.first_chunks) == (3, [Chunk("Hel")])
    assert (bool(crashed.closed), good.closed) == (True, 0)


def test_an_error_inside_a_good_status_is_tried_again_too() -> None:
    """It is retried before anything of the answer was handed on."""
    first = FakeResponse()
    answer, _ = run(retry(), first, b'data: {"error":"Channel Error"}\n\n', None, FakeResponse(), HEL)
    assert answer.attempts == 2
    assert first.closed


def test_the_last_error_is_raised_with_its_count() -> None:
    """The last error itself is raised, not the first one or a new one."""
    errors = [ConnectionLostError(str(number)) for number in range(3)]
    error, effects = failing(ConnectionLostError, retry(), errors[0], None, errors[1], None, errors[2])
    assert error is errors[2]
    assert (error.attempts, error.request_id, error.url) == (3, "req_1", URL)
    assert [type(effect) for effect in effects] == [Open, Sleep, Open, Sleep, Open]


@pytest.mark.parametrize(
    "error",
    [
        AuthenticationError("x", status=401),
        InvalidRequestError("x", status=400),
        RequestTimeoutError("x", phase="first_token", seconds=1),
        RateLimitError("x", retry_after=3600.0),
        MalformedStreamError("x"),
        ConfigurationError("x"),
    ],
)
def test_what_cannot_help_is_not_tried_again(error: LMStudioError) -> None:
    """The caller knows at once."""
    raised, effects = failing(type(error), retry(), error)
    assert raised is error
    assert raised.attempts == 1
    assert len(effects) == 1


def test_an_error_that_is_none_of_ours_is_not_touched() -> None:
    """A slip of ours is not hidden behind three attempts."""
    plan = retry()
    next(plan)
    with pytest.raises(ZeroDivisionError):
        plan.throw(ZeroDivisionError())


def test_the_server_s_own_wait_is_kept() -> None:
    """`Retry-After` replaces a shorter delay."""
    busy = FakeResponse(429, {"retry-after": "7"})
    _, effects = run(retry(), busy, b"", None, FakeResponse(), HEL)
    assert Sleep(7.0) in effects


def test_one_attempt_is_one_attempt() -> None:
    """Retries can be turned off."""
    error, effects = failing(ServerUnreachableError, retry(RetryPolicy(attempts=1)), ServerUnreachableError("x"))
    assert (error.attempts, len(effects)) == (1, 1)


def test_after_the_first_chunk_nothing_is_tried_again() -> None:
    """The plan is over by then: what breaks later is raised to the one who reads."""
    response = FakeResponse()
    answer, effects = run(retry(), response, HEL)
    assert len(effects) == 2
    with pytest.raises(ConnectionLostError) as caught:
        answer.feed_failure(ConnectionLostError("x"))
    assert caught.value.attempts == 1


def test_a_plan_that_is_abandoned_while_it_waits_ends() -> None:
    """Closing the plan is enough."""
    plan = retry()
    next(plan)
    assert isinstance(plan.throw(ServerUnreachableError("x")), Sleep)
    plan.close()
    with pytest.raises(StopIteration):
        next(plan)


def test_a_plan_that_is_abandoned_while_it_reads_closes_the_connection() -> None:
    """The connection is closed through all of the handlers."""
    response = FakeResponse()
    plan = Retry(Exchange(Clock()), POLICY)(call())
    next(plan)
    plan.send(response)
    plan.close()
    assert response.closed


def test_locating_keeps_the_higher_count() -> None:
    """An inner handler does not take back what an outer one knows."""
    error = LMStudioError("x")
    error.attempts = 3
    locate(error, call(), 1)
    assert (error.attempts, error.url) == (3, URL)


# --- the log ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Everything that is logged, from DEBUG up."""
    caplog.set_level(logging.DEBUG, logger="lmdeck")
    return caplog


def test_the_log_has_the_whole_course_and_never_the_token(log: pytest.LogCaptureFixture) -> None:
    """Request, failure, retry, answer and chunks, under the request's name."""
    plan = Retry(Exchange(Clock()), POLICY, rng=lambda: 0.0)(call())
    answer, _ = run(plan, FakeResponse(500), b"It broke", b"", None, FakeResponse(), HEL)
    answer.feed(STOP + DONE)
    lines = [f"{record.name} {record.getMessage()}" for record in log.records]
    assert any(line == f'lmdeck.http req_1 > POST {URL} {{"model":"m"}}' for line in lines)
    assert any("req_1 ! ServerError: /v1/chat/completions: It broke." in line for line in lines)
    assert any("req_1 attempt 1 failed, retrying in 1.00 s" in line for line in lines)
    assert any("req_1 < 200" in line for line in lines)
    assert 'lmdeck.stream req_1 {"content":"Hel"}' in lines
    assert any("req_1 finished after" in line for line in lines)
    shown = " ".join(f"{line} {record.__dict__}" for line, record in zip(lines, log.records, strict=True))
    assert "S3cr3t" not in shown


def test_the_token_is_in_no_text_of_a_request() -> None:
    """It goes over the wire, and nowhere else."""
    request = call().request
    assert request.wire_headers()["Authorization"] == f"Bearer {TOKEN}"
    for shown in (repr(request), str(request), repr(call()), repr(Open(request)), repr(request.headers)):
        assert "S3cr3t" not in shown


def test_a_long_body_is_logged_short(log: pytest.LogCaptureFixture) -> None:
    """The log has its size, so that nobody takes it for the whole."""
    plan = Exchange(Clock())(
        Call(
            request=WireRequest(method="POST", url=URL, body=b"x" * 5000),
            request_id="r",
            make_reader=call().make_reader,
        )
    )
    next(plan)
    assert log.records[0].getMessage().endswith("x… (5000 bytes)")
    assert len(log.records[0].getMessage()) < 2200


def test_without_debugging_nothing_is_formatted(caplog: pytest.LogCaptureFixture) -> None:
    """The chunks of a normal run cost no log."""
    caplog.set_level(logging.WARNING, logger="lmdeck")
    answer, _ = run(Exchange(Clock())(call()), FakeResponse(), HEL)
    answer.feed(STOP + DONE)
    assert caplog.records == []


def test_debug_turns_the_log_on_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It goes to standard error without a handler, and to the program's own handler otherwise."""
    logger = logging.getLogger("lmdeck")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "propagate", False)
    for _ in range(2):
        log_to_stderr()
    logging.getLogger("lmdeck.http").debug("seen")
    logger.setLevel(logging.NOTSET)
    assert len(logger.handlers) == 1
    assert capsys.readouterr().err.count("seen") == 1


# --- the drivers ------------------------------------------------------------------------------------------------------


class SyncResponse(FakeResponse):
    """A response with a body for the sync driver."""

    def __init__(self, *pieces: bytes, status: int = 200) -> None:
        super().__init__(status)
        self.pieces = list(pieces)

    def read(self) -> bytes:
        return self.pieces.pop(0)


class AsyncResponse(SyncResponse):
    """The same for the async one."""

    async def read(self) -> bytes:  # type: ignore[override]
        return self.pieces.pop(0)


class Route:
    """A transport that gives these responses, or raises."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def open(self, request: WireRequest) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


class AsyncRoute(Route):
    """The same, awaited."""

    async def open(self, request: WireRequest) -> Any:
        return super().open(request)


NO_WAIT = RetryPolicy(attempts=3, delay=0.0)


def test_the_sync_driver_runs_a_plan() -> None:
    """Open, fail, wait, open, read."""
    answer = drive(retry(NO_WAIT), Route(ServerUnreachableError("x"), SyncResponse(HEL)))
    assert (answer.attempts, answer.first_chunks) == (2, [Chunk("Hel")])


async def test_the_async_driver_runs_the_same_plan() -> None:
    """The async driver awaits each effect and returns the same result."""
    answer = await drive_async(retry(NO_WAIT), AsyncRoute(ServerUnreachableError("x"), AsyncResponse(HEL)))
    assert (answer.attempts, answer.first_chunks) == (2, [Chunk("Hel")])


class Interrupting(SyncResponse):
    """A response whose reading is interrupted."""

    def read(self) -> bytes:
        raise KeyboardInterrupt


class AsyncInterrupting(FakeResponse):
    """The same for the async driver."""

    async def read(self) -> bytes:
        raise KeyboardInterrupt


async def test_an_interruption_closes_the_connection() -> None:
    """Ctrl-C is no error of the plan, and leaves nothing open."""
    response, other = Interrupting(), AsyncInterrupting()
    plan, other_plan = retry(), retry()  # kept, so that the driver closes them and not their end
    with pytest.raises(KeyboardInterrupt):
        drive(plan, Route(response))
    assert response.closed
    with pytest.raises(KeyboardInterrupt):
        await drive_async(other_plan, AsyncRoute(other))
    assert other.closed


async def test_a_cancelled_task_closes_the_connection() -> None:
    """A cancellation in the middle of a read closes it."""
    import asyncio

    reading = asyncio.Event()

    class Silent(FakeResponse):
        async def read(self) -> bytes:
            reading.set()
            await asyncio.Event().wait()
            raise AssertionError

    response = Silent()
    plan = retry()
    task = asyncio.ensure_future(drive_async(plan, AsyncRoute(response)))
    await reading.wait()
    assert not response.closed
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert response.closed
