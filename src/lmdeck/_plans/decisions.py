"""The plan of decisions: an endpoint or, on request, a chat model answers."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, Literal, TypedDict

from msgspec import Struct

from lmdeck._compatibility import CompatibilityFixes
from lmdeck._pipeline.effects import Plan
from lmdeck._plans.chat import send_chat
from lmdeck._plans.model_lists import ask_json, ask_listing
from lmdeck._plans.models import apply_profile
from lmdeck._plans.session import Session
from lmdeck._plans.structured import OutputRequest, OutputType, plan_attempts
from lmdeck._questions import CheckedQuestion, checked_questions
from lmdeck._requests.chat import ChatSpec
from lmdeck._requests.decisions import decisions_body, image_urls, state_text, systemone_body
from lmdeck._responses.decisions import read_decisions, read_systemone
from lmdeck.decisions import DecisionAnswer, Decisions, QuestionLike
from lmdeck.errors import EndpointNotFoundError, InvalidRequestError, LMStudioError, NoModelLoadedError
from lmdeck.images import ImageSource
from lmdeck.messages import Message, Problem, Reply

HINT = "Load a decision model and name it, `lm.decide(…, model=…)`, or let a chat model answer: `emulate=True`."
EMULATED = "A chat model answered in place of a decision model: there are no probabilities."


class _DecisionRequest(Struct, frozen=True, kw_only=True):
    """A decision request: the input, the questions, and the compatibility fixes."""

    text: str
    images: list[str]
    questions: list[CheckedQuestion]
    fixes: CompatibilityFixes


def decide(
    session: Session,
    input_: object,
    questions: Mapping[str, QuestionLike],
    model: str | None,
    images: Sequence[ImageSource],
    *,
    emulate: bool,
) -> Plan[Decisions]:
    """Ask a decision model; with `emulate`, ask a chat model if there is none."""
    fixes = CompatibilityFixes(session.settings.without_rules)
    request = _DecisionRequest(
        text=state_text(input_),
        images=image_urls(images, fixes),
        questions=checked_questions(questions),
        fixes=fixes,
    )
    try:
        return (yield from _ask_decision_model(session, request, model))
    except (EndpointNotFoundError, NoModelLoadedError, InvalidRequestError) as error:
        if not emulate:
            if isinstance(error, EndpointNotFoundError):
                error.hint = "Update LM Studio, or let a chat model answer: `emulate=True`."
            raise
    return (yield from _ask_chat_model(session, request, model))


def _ask_decision_model(session: Session, request: _DecisionRequest, model: str | None) -> Plan[Decisions]:
    named = model or (yield from _choose_decider(session))
    yield from apply_profile(session, named or "")
    content = (named, request.text, request.images, request.questions)
    try:
        body = yield from ask_json(session, "POST", "/v1/decisions", decisions_body(*content), generates=True)
        found = read_decisions(body, request.questions, named)
    except EndpointNotFoundError:
        body = yield from ask_json(session, "POST", "/v1/systemone", systemone_body(*content), generates=True)
        found = read_systemone(body, request.questions, named)
    found.problems.extend(request.fixes.problems)
    return found


def _choose_decider(session: Session) -> Plan[str]:
    """Return a decision model: a loaded one, or else the first in the list."""
    try:
        models = (yield from ask_listing(session)).models
    except EndpointNotFoundError:
        models = []
    deciders = sorted((model for model in models if model.decides), key=lambda model: not model.loaded)
    if not deciders:
        raise NoModelLoadedError("The server does not list a decision model.", hint=HINT)
    first = deciders[0]
    return first.instances[0].id or first.key if first.instances else first.key


def _ask_chat_model(session: Session, request: _DecisionRequest, model: str | None) -> Plan[Decisions]:
    """Ask a chat model for a JSON object with one of the allowed answers to each question."""
    output_type = _output_type(request.questions)
    images = [{"type": "image_url", "image_url": {"url": url}} for url in request.images]
    prompt = _prompt(request)
    question = Message(role="user", content=[{"type": "text", "text": prompt}, *images] if images else prompt)

    def ask(attempt: OutputRequest) -> Plan[Reply]:
        messages: tuple[Message, ...] = (question,)
        if attempt.previous is not None:
            messages = (*messages, Message(role="assistant", content=attempt.previous.content))
        if attempt.instruction:
            messages = (*messages, Message(role="user", content=attempt.instruction))
        options = {"response_format": output_type.response_format} if attempt.uses_schema else {}
        return (yield from send_chat(session, ChatSpec(model=model, messages=messages, options=options)))

    value, reply, problems = yield from _run_attempts(plan_attempts(output_type, 1), ask)
    return Decisions(
        answers={each.name: _answer(each, value[each.name]) for each in request.questions},
        model=reply.model,
        usage=reply.usage,
        problems=[Problem("emulated", EMULATED), *request.fixes.problems, *reply.problems, *problems],
        raw=reply.raw,
    )


def _output_type(questions: Sequence[CheckedQuestion]) -> OutputType[Any]:
    make: Any = TypedDict
    return OutputType(
        make("Decision", {each.name: Literal[tuple(option.label for option in each.options)] for each in questions})
    )


def _prompt(request: _DecisionRequest) -> str:
    lines = [request.text, "", "Answer each question about the text above with exactly one of its answers."]
    for each in request.questions:
        lines += ["", f"{each.name}: {each.instructions}"]
        lines += [f"- {one.label}" + (f": {one.description}" if one.description else "") for one in each.options]
    return "\n".join(lines)


def _answer(question: CheckedQuestion, label: str) -> DecisionAnswer:
    value = next(option.value for option in question.options if option.label == label)
    return DecisionAnswer(value=value, score=float(value) if question.kind == "score" else None)


def _run_attempts(steps: Generator[OutputRequest, Any, Any], ask: Any) -> Plan[Any]:
    """Run the attempts of structured output within a plan."""
    try:
        step = next(steps)
        while True:
            try:
                reply = yield from ask(step)
            except LMStudioError as error:
                step = steps.throw(error)
            else:
                step = steps.send(reply)
    except StopIteration as done:
        return done.value
