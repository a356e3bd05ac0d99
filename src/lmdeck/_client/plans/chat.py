"""What the clients do, as plans: written once, run by the sync and the async driver."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from lmdeck._client.session import Session
from lmdeck._compatibility import Adjustments
from lmdeck._parsing.parser import StreamParser
from lmdeck._pipeline import Handler, Plan, Read
from lmdeck._pipeline.exchange import Answer
from lmdeck._requests.chat import ChatSpec, build_chat
from lmdeck._requests.images import suspect_images
from lmdeck._requests.tool_schema_fallback import blame, is_compilers, left_out, simpler_request
from lmdeck._responses.hints import fit_to_product
from lmdeck._responses.json_reader import JSONReader
from lmdeck._responses.model_lists import LISTINGS, choose_model, read_listing
from lmdeck._responses.server_detection import recognize
from lmdeck._streaming.assembler import ChatAssembler
from lmdeck._streaming.chat_reader import ChatReader
from lmdeck._transport import Timeouts
from lmdeck.errors import (
    APIError,
    EndpointNotFoundError,
    InvalidRequestError,
    LMStudioError,
    MalformedStreamError,
    ModelNotFoundError,
    NoModelLoadedError,
    TransportError,
)
from lmdeck.messages import Reply
from lmdeck.model_info import ApiLevel, ModelInfo
from lmdeck.stats import Measured, Stats

__all__ = [
    "Listing",
    "ask_json",
    "ask_listing",
    "begin_chat",
    "final_reply",
    "find_model",
    "fitting_hints",
    "list_models",
    "read_reply",
    "read_rest",
    "send_chat",
    "with_model",
    "with_simpler_tools",
]

T = TypeVar("T")


class Listing(Struct, frozen=True, kw_only=True):
    """A model list as the server sent it, what it says, and the words in which newer lists were refused."""

    api: ApiLevel
    models: list[ModelInfo]
    body: object
    headers: Mapping[str, str]
    refusals: Sequence[str]


def begin_chat(session: Session, spec: ChatSpec, *, stream: bool) -> Plan[Answer]:
    """Ask, and read the answer until something happens in it."""
    return (yield from with_model(session, spec.model, lambda model: _ask(session, spec, model, stream=stream)))


def with_model(session: Session, named: str | None, ask: Callable[[str | None], Plan[T]]) -> Plan[T]:
    """Ask the model that was named, or the client's, or the one chosen a short while ago, or choose one."""
    named = named or session.settings.model
    if named is not None:
        return (yield from ask(named))
    remembered = session.remembered_model()
    if remembered is not None:
        try:
            return (yield from ask(remembered))
        except (ModelNotFoundError, NoModelLoadedError):
            session.forget_model()
    chosen = yield from _choose(session)
    return (yield from ask(chosen))


def ask_json(
    session: Session,
    method: str,
    path: str,
    body: Mapping[str, Any] | None = None,
    *,
    timeouts: Timeouts | None = None,
    generates: bool = False,
    has_effects: bool = False,
) -> Plan[object]:
    """Ask an endpoint that answers with one JSON body, and return that; `generates` marks what a model works on."""
    call = session.call(method, path, JSONReader, body, timeouts=timeouts, has_effects=has_effects)
    return _json((yield from (session.handler if generates else session.unlimited)(call)))


def send_chat(session: Session, spec: ChatSpec) -> Plan[Reply]:
    """Ask, and read the whole answer."""
    return (yield from read_reply((yield from begin_chat(session, spec, stream=False))))


def read_reply(answer: Answer) -> Plan[Reply]:
    """Read the rest of an answer and give its reply."""
    yield from read_rest(answer)
    return final_reply(answer)


def read_rest(answer: Answer) -> Plan[None]:
    """Read the rest of an answer."""
    try:
        while answer.has_more():
            try:
                data = yield Read(answer.response)
            except TransportError as error:
                answer.take_failure(error)
            else:
                answer.take(data)
    finally:
        answer.response.close()


def final_reply(answer: Answer) -> Reply:
    """Give a finished answer's reply, with the client's times where the server was silent about them."""
    reader = answer.reader
    if not isinstance(reader, ChatReader):
        raise TypeError(f"{type(reader).__name__} reads no chat")
    reply, measured = reader.reply(), answer.measured()
    if not reader.is_streamed:
        # The first token came with the last: all that is known of the generation is how long the whole answer took.
        measured = replace(measured, time_to_first_token=measured.total_time, generation_time=measured.total_time)
    return replace(reply, stats=_completed(reply, measured, answer))


def list_models(session: Session) -> Plan[list[ModelInfo]]:
    """List the models over the newest API that the server speaks."""
    return (yield from ask_listing(session)).models


def find_model(session: Session, key: str) -> Plan[ModelInfo]:
    """Give one model, by its key or by the id of an instance of it."""
    models = yield from list_models(session)
    for model in models:
        if model.key == key or any(instance.id == key for instance in model.instances):
            return model
    with fitting_hints(session):
        raise ModelNotFoundError(f"The server has no model {key!r}.", available=[model.key for model in models])


def _ask(session: Session, spec: ChatSpec, model: str | None, *, stream: bool) -> Plan[Answer]:
    changes = Adjustments((*session.settings.without_rules, *spec.without_rules))
    body = build_chat(spec, model, changes, stream=stream)
    offered = () if body.get("tool_choice") == "none" else body.get("tools", ())

    def make_reader(status: int, headers: Mapping[str, str]) -> ChatReader:
        assembler = ChatAssembler(
            strict=spec.strict,
            expects_tokens=spec.expects_tokens,
            expects_logprobs=spec.expects_logprobs,
            expects_one_call=spec.expects_one_call,
            text_parser=StreamParser(offered, architecture=session.architecture(model)),
            tools=offered,
            problems=changes.problems,
            model=model or "",
        )
        return ChatReader(status, headers, assembler)

    def post(body: Mapping[str, Any]) -> Plan[Answer]:
        try:
            return (yield from session.handler(session.call("POST", "/v1/chat/completions", make_reader, body)))
        except InvalidRequestError as error:
            suspect_images(error, body)
            raise

    return (yield from with_simpler_tools(session, body, changes, post))


def with_simpler_tools(
    session: Session,
    body: Mapping[str, Any],
    changes: Adjustments,
    post: Callable[[Mapping[str, Any]], Plan[T]],
) -> Plan[T]:
    """Send a request, and once more with simpler tools where their schemas cannot be compiled; name the tools refused.

    What could not be compiled once is not tried again: the next round of a run offers the same tools.
    """
    if session.uncompilable:
        body = simpler_request(body, changes, session.uncompilable) or body
    try:
        return (yield from post(body))
    except InvalidRequestError as error:
        simpler = simpler_request(body, changes) if is_compilers(error) else None
        if simpler is None:
            blame(error, body.get("tools") or ())
            raise
    try:
        answer = yield from post(simpler)
    except InvalidRequestError as error:
        blame(error, simpler.get("tools") or ())
        raise
    session.note_uncompilable(left_out(body, simpler))
    return answer


def _choose(session: Session) -> Plan[str | None]:
    """Choose a model; None where the server has no model list, so that it chooses itself."""
    try:
        models = yield from list_models(session)
    except EndpointNotFoundError:
        return None
    with fitting_hints(session):
        model = choose_model(models)
    session.remember_model(model)
    return model


def ask_listing(session: Session, handler: Handler | None = None) -> Plan[Listing]:
    """Ask the three APIs in turn; what an older server answers to a newer path counts as "not there"."""
    refusals: list[str] = []
    for api, path in LISTINGS:
        call = session.call("GET", path, JSONReader, timeouts=session.look_up_timeouts)
        is_last = path == LISTINGS[-1][1]
        try:
            answer = yield from (handler or session.unlimited)(call)
            body = _json(answer)
            models = read_listing(api, body)
        except (EndpointNotFoundError, MalformedStreamError) as error:
            if is_last:
                raise
            refusals.append(error.message)
            continue
        session.learn(models)
        headers = answer.response.headers
        session.peer.product = recognize(api, body, headers, refusals).name or session.peer.product
        return Listing(api=api, models=models, body=body, headers=headers, refusals=refusals)
    raise APIError("The server lists no models.")


@contextmanager
def fitting_hints(session: Session) -> Iterator[None]:
    """Let the hints of errors raised inside speak of the product that answers."""
    try:
        yield
    except LMStudioError as error:
        fit_to_product(error, session.peer.product)
        raise


def _json(answer: Answer) -> object:
    if not isinstance(answer.reader, JSONReader):
        raise TypeError(f"{type(answer.reader).__name__} reads no plain JSON")
    return answer.reader.value


def _completed(reply: Reply, measured: Measured, answer: Answer) -> Stats:
    """Fill in what the server did not say; without its token count, a chunk counts as a token."""
    stats = reply.stats
    speed = stats.tokens_per_second
    tokens = reply.usage.completion_tokens if reply.usage else answer.chunks
    if speed is None and tokens and measured.generation_time:
        speed = tokens / measured.generation_time
    return Stats(
        time_to_first_token=_first(stats.time_to_first_token, measured.time_to_first_token),
        tokens_per_second=speed,
        generation_time=_first(stats.generation_time, measured.generation_time),
        stop_reason=stats.stop_reason,
        model_load_time=stats.model_load_time,
        queue_time=answer.queue_time,
        measured=measured,
    )


def _first(said: float | None, measured: float | None) -> float | None:
    return measured if said is None else said
