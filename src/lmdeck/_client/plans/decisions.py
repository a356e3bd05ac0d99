"""Decisions, as a plan: over the decision endpoints, or over a chat that stands in for them where that was asked for."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, Literal, TypedDict

from msgspec import Struct

from lmdeck._client.plans.chat import begin_chat, final_reply
from lmdeck._client.plans.generation import read_rest
from lmdeck._client.plans.model_lists import ask_json, ask_listing
from lmdeck._client.session import Session
from lmdeck._client.structured import Ask, Form, asking
from lmdeck._compatibility import CompatibilityFixes
from lmdeck._pipeline.effects import Plan
from lmdeck._requests.chat import ChatSpec
from lmdeck._requests.decisions import (
    AskedQuestion,
    checked_questions,
    decisions_body,
    image_urls,
    state_text,
    systemone_body,
)
from lmdeck._responses.decisions import read_decisions, read_systemone
from lmdeck.decisions import DecisionAnswer, Decisions, QuestionLike
from lmdeck.errors import EndpointNotFoundError, InvalidRequestError, LMStudioError, NoModelLoadedError
from lmdeck.images import ImageSource
from lmdeck.messages import Message, Problem, Reply

HINT = "Load a decision model and name it: `lm.decide(…, model=…)`; or let a chat model answer: `emulate=True`."
EMULATED = "A chat model answered in place of a decision model: there are no probabilities."


class _Wanted(Struct, frozen=True, kw_only=True):
    """A decision request: the subject, the questions, and the problems."""

    text: str
    images: list[str]
    asked: list[AskedQuestion]
    changes: CompatibilityFixes


def decide(
    session: Session,
    given: object,
    questions: Mapping[str, QuestionLike],
    model: str | None,
    images: Sequence[ImageSource],
    *,
    emulate: bool,
) -> Plan[Decisions]:
    """Ask a decision model, and with `emulate` a chat model where there is none."""
    changes = CompatibilityFixes(session.settings.without_rules)
    wanted = _Wanted(
        text=state_text(given),
        images=image_urls(images, changes),
        asked=checked_questions(questions),
        changes=changes,
    )
    try:
        return (yield from _ask_decision_model(session, wanted, model))
    except (EndpointNotFoundError, NoModelLoadedError, InvalidRequestError) as error:
        if not emulate:
            if isinstance(error, EndpointNotFoundError):
                error.hint = "Update LM Studio, or let a chat model answer: `emulate=True`."
            raise
    return (yield from _ask_chat_model(session, wanted, model))


def _ask_decision_model(session: Session, wanted: _Wanted, model: str | None) -> Plan[Decisions]:
    named = model or (yield from _choose_decider(session))
    content = (named, wanted.text, wanted.images, wanted.asked)
    try:
        body = yield from ask_json(session, "POST", "/v1/decisions", decisions_body(*content), generates=True)
        found = read_decisions(body, wanted.asked, named)
    except EndpointNotFoundError:
        body = yield from ask_json(session, "POST", "/v1/systemone", systemone_body(*content), generates=True)
        found = read_systemone(body, wanted.asked, named)
    found.problems.extend(wanted.changes.problems)
    return found


def _choose_decider(session: Session) -> Plan[str]:
    """Choose a decision model: a loaded one, else the first that is there."""
    try:
        models = (yield from ask_listing(session)).models
    except EndpointNotFoundError:
        models = []
    deciders = sorted((model for model in models if model.decides), key=lambda model: not model.loaded)
    if not deciders:
        raise NoModelLoadedError("The server lists no decision model.", hint=HINT)
    first = deciders[0]
    return first.instances[0].id or first.key if first.instances else first.key


def _ask_chat_model(session: Session, wanted: _Wanted, model: str | None) -> Plan[Decisions]:
    """Ask a chat model for a JSON object that has one of the possible answers for each question."""
    form = _form(wanted.asked)
    shown = [{"type": "image_url", "image_url": {"url": url}} for url in wanted.images]
    words = _words(wanted)
    said = Message(role="user", content=[{"type": "text", "text": words}, *shown] if shown else words)

    def ask(step: Ask) -> Plan[Reply]:
        messages: tuple[Message, ...] = (said,)
        if step.after is not None:
            messages = (*messages, Message(role="assistant", content=step.after.content))
        if step.words:
            messages = (*messages, Message(role="user", content=step.words))
        options = {"response_format": form.response_format} if step.held else {}
        stream = yield from begin_chat(session, ChatSpec(model=model, messages=messages, options=options), stream=False)
        yield from read_rest(stream)
        return final_reply(stream)

    value, reply, problems = yield from _until_it_fits(asking(form, 1), ask)
    return Decisions(
        answers={each.name: _picked(each, value[each.name]) for each in wanted.asked},
        model=reply.model,
        usage=reply.usage,
        problems=[Problem("emulated", EMULATED), *wanted.changes.problems, *reply.problems, *problems],
        raw=reply.raw,
    )


def _form(asked: Sequence[AskedQuestion]) -> Form[Any]:
    make: Any = TypedDict
    return Form(
        make("Decision", {each.name: Literal[tuple(option.label for option in each.options)] for each in asked})
    )


def _words(wanted: _Wanted) -> str:
    lines = [wanted.text, "", "Answer each question about the above with exactly one of its answers."]
    for each in wanted.asked:
        lines += ["", f"{each.name}: {each.instructions}"]
        lines += [f"- {one.label}" + (f": {one.description}" if one.description else "") for one in each.options]
    return "\n".join(lines)


def _picked(question: AskedQuestion, label: str) -> DecisionAnswer:
    value = next(option.value for option in question.options if option.label == label)
    return DecisionAnswer(value=value, score=float(value) if question.kind == "score" else None)


def _until_it_fits(steps: Generator[Ask, Any, Any], ask: Any) -> Plan[Any]:  # as `asking` gives it
    """Run the questions of structured output within a plan."""
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
