"""The recipes of docs/observability.md, with the packages that they are for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sentry_sdk
import structlog
from collector import collecting

from asking import lm
from lmdeck import LMStudio, LMStudioError
from lmdeck.testing import FakeLMStudio

PAGE = (Path(__file__).parents[2] / "docs" / "observability.md").read_text(encoding="utf-8")


def recipe(heading: str) -> str:
    """Return the code under a heading of the page."""
    section = PAGE.split(f"### {heading}\n", 1)[1]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found[1]


def run(heading: str, client: LMStudio, **replaced: str) -> dict[str, Any]:
    """Run a recipe on a client, with some of its words replaced, and give its names."""
    code = recipe(heading).replace("lm = LMStudio()\n", "")
    for old, new in replaced.items():
        code = code.replace(old, new)
    names: dict[str, Any] = {"lm": client}
    exec(compile(code, "recipe", "exec"), names)
    return names


def test_structlog_logs_each_request(fake: FakeLMStudio) -> None:
    """Model, tokens and times, and neither question nor answer."""
    fake.reply("My answer.").error(400, "no")
    with lm(fake.base_url) as client, structlog.testing.capture_logs() as logs:
        run("structlog", client)
        client.chat().user("My question").send()
        with pytest.raises(LMStudioError):
            client.chat().user("My question").send()
    assert [one["event"] for one in logs] == ["lmdeck.request_finished", "lmdeck.request_failed"]
    assert logs[0]["model"] == "m"
    assert logs[0]["output_tokens"] > 0
    assert logs[1]["error"] == "InvalidRequestError"
    assert "My " not in json.dumps(logs, default=str)


class Kept(sentry_sdk.Transport):
    """Keeps what would be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Any] = []

    def capture_envelope(self, envelope: Any) -> None:
        self.events.append(envelope.get_event())


@pytest.fixture
def sentry() -> Iterator[list[Any]]:
    """A Sentry without its threads."""
    kept = Kept()
    sentry_sdk.init(
        "http://key@127.0.0.1:9/1", transport=kept, default_integrations=False, auto_session_tracking=False,
        enable_backpressure_handling=False, include_local_variables=False,
    )  # fmt: skip
    yield kept.events
    sentry_sdk.get_client().close(timeout=0)
    sentry_sdk.get_global_scope().set_client(None)


def test_sentry_gets_breadcrumbs_and_failures(fake: FakeLMStudio, sentry: list[Any]) -> None:
    fake.reply("My answer.").error(400, "no")
    with lm(fake.base_url) as client:
        run("Sentry", client)
        client.chat().user("My question").send()
        with pytest.raises(LMStudioError):
            client.chat().user("My question").send()
    (event,) = sent = sentry
    assert event["exception"]["values"][-1]["type"] == "InvalidRequestError"
    assert event["breadcrumbs"]["values"][0]["category"] == "lmdeck"
    assert event["tags"]["lmdeck.endpoint"] == "/v1/chat/completions"
    assert "My " not in json.dumps(sent, default=str)


def test_langfuse_is_sent_spans(fake: FakeLMStudio) -> None:
    """Its OTLP address gets them with its keys, questions and answers included."""
    fake.reply("Hello.")
    with collecting() as langfuse, lm(fake.base_url) as client:
        own = {"https://cloud.langfuse.com": langfuse.url, "pk-lf-…": "pk", "sk-lf-…": "sk"}
        names = run("Langfuse", client, **own)
        client.chat().user("Hi").send()
        names["provider"].shutdown()
    assert langfuse.asked == [("/api/public/otel/v1/traces", "Basic cGs6c2s=")]
    (span,) = langfuse.traces[0].resource_spans[0].scope_spans[0].spans
    assert span.name == "chat m"
    assert "Hello." in {one.key: one.value.string_value for one in span.attributes}["gen_ai.output.messages"]
