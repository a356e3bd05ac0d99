"""Spans and metrics as OpenTelemetry's conventions name them, with parents that fit."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from collector import collecting
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import NoOpHistogram, NoOpMeter, NoOpMeterProvider
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    InMemoryMetricReader,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from asking import alm, lm
from bodies import chunk, completion
from lmdeck import LMStudioError, observe
from lmdeck.observe.measurements import MAX_WAITING
from lmdeck.testing import FakeLMStudio, RawAnswer

HI = [{"role": "user", "content": "Hi"}]
SECRET = "four-one-one-one"


class Recorder:
    """An SDK that keeps what it is given."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])

    def observe(self, client: Any, **options: Any) -> Any:
        return observe.otel(client, tracer_provider=self.tracers, meter_provider=self.meters, **options)

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def span(self, name: str) -> ReadableSpan:
        (found,) = [span for span in self.spans if span.name == name]
        return found

    def points(self, name: str) -> list[Any]:
        data = self.reader.get_metrics_data()
        scopes = [] if data is None else [scope for one in data.resource_metrics for scope in one.scope_metrics]
        return [
            point for scope in scopes for one in scope.metrics if one.name == name for point in one.data.data_points
        ]


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    made = Recorder()
    yield made
    made.tracers.shutdown()
    made.meters.shutdown()


def tree(spans: list[ReadableSpan]) -> dict[str, str | None]:
    """Return the name of each span's parent."""
    names = {span.context.span_id: span.name for span in spans if span.context is not None}
    return {span.name: None if span.parent is None else names.get(span.parent.span_id, "elsewhere") for span in spans}


def test_a_chat_is_a_span_with_its_parameters_and_figures(fake: FakeLMStudio, recorder: Recorder) -> None:
    fake.reply("Hello.")
    with lm(fake.base_url) as client, recorder.observe(client):
        chat = client.chat().user("My question").with_options(temperature=0.5, max_tokens=50, seed=3, stop=["x"])
        reply = chat.stream().until_done()
    span = recorder.span("chat m")
    found = dict(span.attributes or {})
    assert span.kind is SpanKind.CLIENT
    assert span.status.status_code is StatusCode.UNSET
    assert (
        found
        | {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "lmstudio",
            "gen_ai.request.model": "m",
            "gen_ai.request.temperature": 0.5,
            "gen_ai.request.max_tokens": 50,
            "gen_ai.request.seed": 3,
            "gen_ai.request.stop_sequences": ("x",),
            "gen_ai.request.stream": True,
            "gen_ai.response.model": reply.model,
            "gen_ai.response.finish_reasons": ("stop",),
            "gen_ai.response.id": reply.id,
            "gen_ai.usage.input_tokens": reply.usage and reply.usage.prompt_tokens,
            "gen_ai.usage.output_tokens": reply.usage and reply.usage.completion_tokens,
            "server.address": "127.0.0.1",
            "server.port": int(fake.base_url.rsplit(":", 1)[1]),
        }
        == found
    )
    assert found["gen_ai.response.time_to_first_chunk"] > 0
    assert "My question" not in str(found)
    assert "Hello." not in str(found)


def test_metrics_have_the_units_and_labels_of_the_conventions(fake: FakeLMStudio, recorder: Recorder) -> None:
    fake.reply("one").reply("two").repeat()
    with lm(fake.base_url) as client, recorder.observe(client):
        client.chat().user("Hi").stream().until_done()
        reply = client.chat().user("Hi").send()
    (duration,) = recorder.points("gen_ai.client.operation.duration")
    assert (duration.count, duration.attributes["gen_ai.request.model"]) == (2, "m")
    tokens = {
        point.attributes["gen_ai.token.type"]: point.sum for point in recorder.points("gen_ai.client.token.usage")
    }
    assert reply.usage is not None
    assert tokens["input"] == 2 * reply.usage.prompt_tokens
    (first,) = recorder.points("gen_ai.client.operation.time_to_first_chunk")
    (per_chunk,) = recorder.points("gen_ai.client.operation.time_per_output_chunk")
    assert (first.count, per_chunk.count) == (1, 1)  # of the stream alone


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_run_with_two_tools_nests(fake: FakeLMStudio, recorder: Recorder, is_async: bool, is_streamed: bool) -> None:
    """Requests and tools are children of the run, what a tool does is the tool's, and the run is the caller's."""
    own = recorder.tracers.get_tracer("own")

    def weather(city: str) -> str:
        """Return the weather."""
        with own.start_as_current_span("database"):
            return "Sunny."

    async def news(city: str) -> str:
        """Return the news."""
        await asyncio.sleep(0)
        with own.start_as_current_span("fetch"):
            return "None."

    fake.tool_calls([("weather", {"city": "Paris"}), ("news", {"city": "Paris"})]).reply("Sunny, no news.")
    between = []

    def note() -> None:
        between.append(trace.get_current_span())

    def run() -> None:
        with lm(fake.base_url) as client, recorder.observe(client), own.start_as_current_span("caller") as caller:
            chat = client.chat().user("Paris?").with_tools([weather, news])
            if not is_streamed:
                chat.run()
                return
            for _ in chat.run_stream():
                note()
            assert set(between) == {caller}

    async def run_async() -> None:
        async with alm(fake.base_url) as client:
            with recorder.observe(client), own.start_as_current_span("caller") as caller:
                chat = client.chat().user("Paris?").with_tools([weather, news])
                if not is_streamed:
                    await chat.run()
                    return
                async for _ in chat.run_stream():
                    note()
                assert set(between) == {caller}

    asyncio.run(run_async()) if is_async else run()
    assert tree(recorder.spans) == {
        "caller": None,
        "invoke_agent": "caller",
        "chat m": "invoke_agent",
        "execute_tool weather": "invoke_agent",
        "execute_tool news": "invoke_agent",
        "database": "execute_tool weather",
        "fetch": "execute_tool news",
    }
    assert len(recorder.spans) == 8
    agent = dict(recorder.span("invoke_agent").attributes or {})
    assert agent["lmdeck.run.rounds"] == 2
    assert dict(recorder.span("execute_tool news").attributes or {})["gen_ai.tool.name"] == "news"
    assert recorder.points("gen_ai.invoke_agent.duration")[0].count == 1


async def test_runs_at_once_do_not_mix(fake: FakeLMStudio, recorder: Recorder) -> None:
    """Each has its own trace; equal ids of calls in two runs are no trouble."""

    async def weather(city: str) -> str:
        """Return the weather."""
        await asyncio.sleep(0)
        return city

    fake.at("/v1/chat/completions").respond(_tool_first)
    async with alm(fake.base_url) as client:
        with recorder.observe(client):
            chats = [client.chat().user(f"city {number}").with_tools([weather]) for number in range(8)]
            await asyncio.gather(*(chat.run() for chat in chats))
    runs = [span for span in recorder.spans if span.name == "invoke_agent"]
    assert len({span.context.trace_id for span in runs if span.context}) == len(runs) == 8
    for run in runs:
        mine = [
            span
            for span in recorder.spans
            if span.context and run.context and span.context.trace_id == run.context.trace_id
        ]
        assert sorted(span.name for span in mine) == ["chat m", "chat m", "execute_tool weather", "invoke_agent"]


def _tool_first(request: Any) -> Any:
    """Call the tool, with the same id in every run, and then answer."""
    if any(message["role"] == "tool" for message in request.body["messages"]):
        return "Done."
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
    message = {"role": "assistant", "content": "", "tool_calls": [call]}
    body = {**completion(), "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    return RawAnswer.json(body, 200, None)


def test_failures_and_abandoned_answers_are_errors(fake: FakeLMStudio, recorder: Recorder) -> None:
    fake.error(400, "no such thing").fail("cut", reply="one two three").frames(chunk("one"), 30.0)
    with lm(fake.base_url) as client, recorder.observe(client):
        with pytest.raises(LMStudioError):
            client.chat().user("Hi").send()
        with pytest.raises(LMStudioError):
            client.chat().user("Hi").stream().until_done()
        with client.chat().user("Hi").stream() as stream:
            next(stream)
    kinds = [dict(span.attributes or {}).get("error.type") for span in recorder.spans]
    assert (kinds[0], kinds[2]) == ("InvalidRequestError", "abandoned")
    assert kinds[1] in {"IncompleteStreamError", "ConnectionLostError"}
    assert {span.status.status_code for span in recorder.spans} == {StatusCode.ERROR}
    assert sum(point.value for point in recorder.points("lmdeck.stream.broken")) == 1


def test_a_failing_tool_and_a_run_that_is_left(fake: FakeLMStudio, recorder: Recorder) -> None:
    def fails() -> str:
        """Fail."""
        raise ValueError("my fault")

    fake.tool_call("fails").reply("Oh.")
    fake.frames(chunk("one"), 30.0)
    with lm(fake.base_url) as client, recorder.observe(client):
        chat = client.chat().user("Hi").with_tools([fails])
        chat.run()
        with chat.run_stream() as run:
            next(run)
    tool = recorder.span("execute_tool fails")
    assert tool.status.status_code is StatusCode.ERROR
    runs = [dict(span.attributes or {}).get("error.type") for span in recorder.spans if span.name == "invoke_agent"]
    assert runs == [None, "abandoned"]


def test_retries_cache_and_queue_are_recorded(fake: FakeLMStudio, recorder: Recorder) -> None:
    fake.fail("server_error").reply("Hello.")
    with lm(fake.base_url, retry_attempts=2, cache="memory:") as client, recorder.observe(client):
        for _ in range(2):
            client.chat().user("Hi").with_options(temperature=0).send()
    first, second = recorder.spans
    assert [event.name for event in first.events] == ["lmdeck.retry"]
    assert [dict(span.attributes or {})["lmdeck.cache.result"] for span in (first, second)] == ["miss", "hit"]
    results = {point.attributes["lmdeck.cache.result"]: point.value for point in recorder.points("lmdeck.cache")}
    assert results == {"miss": 1, "hit": 1}
    assert sum(point.count for point in recorder.points("gen_ai.client.token.usage")) == 2  # of the miss alone


@pytest.mark.parametrize("by", ["argument", "variable"])
def test_content_is_recorded_only_if_asked_for(
    fake: FakeLMStudio, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """Messages with their parts, calls, results and definitions of tools; of images, only that there is one."""

    def weather(city: str) -> str:
        """Return the weather."""
        return "Sunny."

    if by == "variable":
        monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "span_only")
    options: dict[str, Any] = {"capture_content": True} if by == "argument" else {}
    fake.tool_call("weather", city="Paris").reply("Fine.")
    with lm(fake.base_url) as client, recorder.observe(client, **options):
        client.chat().with_system("Be brief.").user("Paris?").with_tools([weather]).run()
    last = [span for span in recorder.spans if span.name == "chat m"][-1]
    found = {name: json.loads(value) for name, value in (last.attributes or {}).items() if str(value)[:1] == "["}
    assert [message["role"] for message in found["gen_ai.input.messages"]] == ["system", "user", "assistant", "tool"]
    assert found["gen_ai.input.messages"][1]["parts"] == [{"type": "text", "content": "Paris?"}]
    assert found["gen_ai.input.messages"][2]["parts"][0]["name"] == "weather"
    assert found["gen_ai.output.messages"][0]["parts"] == [{"type": "text", "content": "Fine."}]
    assert found["gen_ai.tool.definitions"][0]["function"]["name"] == "weather"
    tool = dict(recorder.span("execute_tool weather").attributes or {})
    assert (tool["gen_ai.tool.call.arguments"], tool["gen_ai.tool.call.result"]) == ('{"city":"Paris"}', "Sunny.")


def test_errors_quote_no_content_unless_asked_for(fake: FakeLMStudio, recorder: Recorder) -> None:
    """Errors of calls, tools and unexpected answers all hide it."""

    def pay(card: int) -> str:
        """Pay."""
        raise ValueError(f"no such card: {SECRET}")

    fake.reply(f'<tool_call>{{"name": "pay", "arguments": {{"card": {SECRET}}}</tool_call>')
    fake.tool_call("pay", card=1).reply("Oh.").tool_call("pay", card=SECRET).reply("Oh.")
    fake.reply(f"I can not say {SECRET}.").reply(f"No {SECRET}.").body(f"<html>{SECRET}</html>")
    with lm(fake.base_url) as client, recorder.observe(client):
        chat = client.chat().user("Hi").with_tools([pay])
        with pytest.raises(LMStudioError):
            chat.with_strict().send()
        chat.run()
        chat.run()
        with pytest.raises(LMStudioError):
            client.chat().user("Hi").parse(list[int])
        with pytest.raises(LMStudioError):
            client.chat().user("Hi").send()
    told = [(span.name, dict(span.attributes or {}), span.status.description, span.events) for span in recorder.spans]
    assert sum(span.status.status_code is StatusCode.ERROR for span in recorder.spans) >= 3
    assert SECRET not in str(told)


def test_closing_ends_the_observation(fake: FakeLMStudio, recorder: Recorder) -> None:
    fake.reply("one").reply("two")
    with lm(fake.base_url) as client:
        observing = recorder.observe(client)
        client.chat().user("Hi").send()
        observing.close()
        client.chat().user("Hi").send()
    assert len(recorder.spans) == 1


def test_labels_stay_few(fake: FakeLMStudio, recorder: Recorder) -> None:
    """Two hundred of a thousand names of models are labels, and the others are one."""
    fake.when(lambda _: True).error(404, "no")
    with lm(fake.base_url) as client, recorder.observe(client):
        for number in range(230):
            with pytest.raises(LMStudioError):
                client.chat(f"model-{number}").user("Hi").send()
    models = {point.attributes["gen_ai.request.model"] for point in recorder.points("gen_ai.client.operation.duration")}
    assert len(models) == 201
    assert "other" in models


def test_a_collector_gets_it_over_otlp(fake: FakeLMStudio) -> None:
    """Collectors such as Langfuse and Jaeger get protobuf over HTTP, which OpenTelemetry's own classes decode."""
    fake.reply("Hello.")
    with collecting() as collector:
        tracers = TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{collector.url}/v1/traces")))
        exporter = OTLPMetricExporter(f"{collector.url}/v1/metrics")
        meters = MeterProvider([PeriodicExportingMetricReader(exporter)])
        with lm(fake.base_url) as client, observe.otel(client, tracer_provider=tracers, meter_provider=meters):
            client.chat().user("Hi").send()
        tracers.shutdown()
        meters.shutdown()
    (span,) = [span for one in collector.traces for r in one.resource_spans for s in r.scope_spans for span in s.spans]
    assert span.name == "chat m"
    assert {one.key: one.value.string_value for one in span.attributes}["gen_ai.provider.name"] == "lmstudio"
    names = {
        m.name for one in collector.metrics for r in one.resource_metrics for s in r.scope_metrics for m in s.metrics
    }
    assert names >= {"gen_ai.client.operation.duration", "gen_ai.client.token.usage"}


def test_every_collection_has_all_measurements(fake: FakeLMStudio) -> None:
    """Two readers get those of two clients, between requests and at the end, and deltas count once."""
    fake.when(lambda _: True).reply("Hello.")
    total = InMemoryMetricReader()
    delta = InMemoryMetricReader(preferred_temporality={Histogram: AggregationTemporality.DELTA})
    meters = MeterProvider([total, delta])

    def counts(reader: InMemoryMetricReader) -> int:
        data = reader.get_metrics_data()
        scopes = [] if data is None else [scope for one in data.resource_metrics for scope in one.scope_metrics]
        found = {one.name: one.data.data_points for scope in scopes for one in scope.metrics}
        assert not [name for name in found if "waiting" in name]
        return sum(point.count for point in found.get("gen_ai.client.operation.duration", ()))

    with lm(fake.base_url) as first, lm(fake.base_url) as second:
        for client in (first, second):
            observe.otel(client, tracer_provider=TracerProvider(), meter_provider=meters)
        first.chat().user("Hi").send()
        assert (counts(total), counts(delta)) == (1, 1)
        second.chat().user("Hi").send()
        first.chat().user("Hi").send()
        assert (counts(delta), counts(total)) == (2, 3)
        for _ in range(40):  # more than may wait
            second.chat().user("Hi").send()
        assert (counts(total), counts(delta)) == (43, 40)
    meters.shutdown()


class _Counting(NoOpMeterProvider):
    """A provider that never collects: it counts measurements."""

    def __init__(self) -> None:
        self.counted: list[float] = []

    def get_meter(self, *names: Any, **options: Any) -> Any:
        counted = self.counted

        class Meter(NoOpMeter):
            def create_histogram(self, *names: Any, **options: Any) -> Any:
                class Counts(NoOpHistogram):
                    def record(self, amount: float, *_: Any, **__: Any) -> None:
                        counted.append(amount)

                return Counts("counts")

        return Meter("counts")


def test_a_provider_that_never_collects_gets_the_measurements(fake: FakeLMStudio) -> None:
    fake.when(lambda _: True).reply("Hello.")
    meters = _Counting()
    with lm(fake.base_url) as client:
        observing = observe.otel(client, tracer_provider=TracerProvider(), meter_provider=meters)
        for _ in range(MAX_WAITING):
            client.chat().user("Hi").send()
        assert len(meters.counted) > MAX_WAITING
        observing.close()
        assert len(meters.counted) == 3 * MAX_WAITING


PROGRAM = """
import os, sys
from lmdeck import LMStudio, observe
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader

lm = LMStudio(base_url=sys.argv[1], model="m")
observe.otel(lm)
lm.chat().user("Hi").send()
metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(ConsoleMetricExporter())]))
lm.chat().user("Hi").send()
"""


def test_the_end_of_a_program_exports_its_last_measurements(fake: FakeLMStudio) -> None:
    """This also works with a global provider that is set after the observer."""
    fake.when(lambda _: True).reply("Hello.")
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, fake.base_url], capture_output=True, text=True, timeout=60, check=True
    )
    exported = [one for line in ran.stdout.split("\n}\n") if line.strip() for one in _exported(line + "\n}")]
    assert {name: count for name, count in exported if "duration" in name} == {"gen_ai.client.operation.duration": 2}


def _exported(text: str) -> Iterator[tuple[str, int]]:
    for resource in json.loads(text)["resource_metrics"]:
        for scope in resource["scope_metrics"]:
            for metric in scope["metrics"]:
                yield metric["name"], sum(point["count"] for point in metric["data"]["data_points"])
