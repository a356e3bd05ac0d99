"""What observing a client costs: CPU per request and per chunk with all observers, and CPU of a cache hit.

    python benchmarks/observe.py [--quick]

The server is `stub.py`, a process of its own. Rounds without and with observers alternate, and the difference between
the least of both is shown, as other work of the machine only adds to a round. A round ends when everything is recorded: metrics
are collected and rows are committed, in threads or not. OpenTelemetry has its SDK, without an exporter.
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import stub
from lmdeck import LMStudio, observe
from lmdeck.events import RequestFinished, RequestStarted
from lmdeck.testing import FakeLMStudio

LARGEST = {"µs a request": 80.0, "µs a chunk": 3.0, "µs a hit": 150.0}


def cpu(work: Callable[[], object], times: int, *, end: Callable[[], object] | None = None) -> float:
    """Return the CPU time of one call, in µs, with its part of `end`."""
    gc.collect()
    started = time.process_time()
    for _ in range(times):
        work()
    if end is not None:
        end()
    return (time.process_time() - started) / times * 1e6


def observers(folder: Path) -> dict[str, Callable[[Any], Any]]:
    """Return the observers that are installed, by name."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from prometheus_client import CollectorRegistry

    reader = InMemoryMetricReader()
    tracers, meters = TracerProvider(), MeterProvider([reader])
    registry = CollectorRegistry()

    @contextmanager
    def collected(lm: Any) -> Iterator[None]:
        with observe.otel(lm, tracer_provider=tracers, meter_provider=meters):
            yield
            reader.get_metrics_data()

    found: dict[str, Callable[[Any], Any]] = {
        "otel": collected,
        "prometheus": lambda lm: observe.prometheus(lm, registry),
    }
    if "usage" in observe.__all__:
        found["usage"] = lambda lm: observe.usage(lm, folder / "usage.db")
    return found


def compare(
    lm: LMStudio, observe_with: list[Callable[[Any], Any]], work: Callable[[], object], times: int, rounds: int
) -> float:
    """Return what the observers add to one call, in µs."""
    without, observed = [], []
    for _ in range(rounds):
        without.append(cpu(work, times))
        with ExitStack() as observing:
            for start in observe_with:
                observing.enter_context(start(lm))
            work()
            observed.append(cpu(work, times, end=observing.close))
    return min(observed) - min(without)


def sdk_alone(send: Callable[[], object], times: int, rounds: int) -> float:
    """Return what a span and three histograms as of `observe.otel` add to a request without lmdeck's part, in µs."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider

    tracer = TracerProvider().get_tracer("alone")
    meter = MeterProvider([InMemoryMetricReader()]).get_meter("alone")
    duration, tokens = meter.create_histogram("duration"), meter.create_histogram("tokens")
    labels = {f"gen_ai.label{number}": "qwen2.5-7b-instruct" for number in range(4)}
    typed = {**labels, "gen_ai.token.type": "input"}
    start = {**labels, "server.address": "127.0.0.1", "server.port": 1234, "lmdeck.request.id": "x"}
    end = {"lmdeck.attempts": 1, "usage.input": 31, "usage.output": 22, "finish_reasons": ["stop"], "response.id": "x"}

    def work() -> None:
        send()
        span = tracer.start_span("chat qwen2.5-7b-instruct", attributes=start)
        duration.record(0.5, labels)
        tokens.record(31, typed)
        tokens.record(22, typed)
        span.set_attributes(end)
        span.end()

    pairs = [(cpu(send, times), cpu(work, times)) for _ in range(rounds)]
    return min(with_sdk for _, with_sdk in pairs) - min(without for without, _ in pairs)


@dataclass(frozen=True)
class Subscription:
    remove: Callable[[], None]


class Replay:
    """A stand-in for a client that publishes the events of one of its requests again."""

    def __init__(self, lm: LMStudio, send: Callable[[], object]) -> None:
        self.base_url = lm.base_url
        self._events: list[object] = []
        self._handlers: dict[type, list[Callable[[Any], object]]] = {}
        with lm.on(RequestStarted, self._events.append), lm.on(RequestFinished, self._events.append):
            send()

    def on(self, kind: type, handler: Callable[[Any], object]) -> Subscription:
        self._handlers.setdefault(kind, []).append(handler)
        return Subscription(lambda: self._handlers[kind].remove(handler))

    def publish(self) -> None:
        for event in self._events:
            for handler in self._handlers.get(type(event), ()):
                handler(event)


def handlers_alone(replay: Replay, observe_with: list[Callable[[Any], Any]], times: int) -> float:
    """Return what the handlers take for the events of one request in a loop of their own, in µs.

    They add more than that to a real request, whose own work takes their code and data out of the processor's caches.
    """
    rounds = []
    for _ in range(7):
        with ExitStack() as observing:
            for start in observe_with:
                observing.enter_context(start(replay))
            replay.publish()
            rounds.append(cpu(replay.publish, times, end=observing.close))
    return min(rounds)


def hit(fake: FakeLMStudio, cache: str, times: int, *, streamed: bool = False) -> float:
    """Return what an answer from the cache costs, in µs."""
    with LMStudio(base_url=fake.base_url, model="m", cache=cache) as lm:
        chat = lm.chat().user("Where is Paris?").with_options(temperature=0)
        ask: Callable[[], Any] = (lambda: chat.stream().until_done()) if streamed else chat.send
        ask()
        assert ask().cache == "hit"
        return min(cpu(ask, times) for _ in range(5))


def hits(folder: Path, times: int) -> list[tuple[str, float, str]]:
    """Return the rows of the cache."""
    with FakeLMStudio() as fake:
        fake.add_model("m")
        fake.when(lambda _: True).reply(stub.WHOLE)
        file = f"sqlite:///{folder / 'answers.db'}"
        return [
            ("cache in memory", hit(fake, "memory:", times), "µs a hit"),
            ("cache in SQLite", hit(fake, file, times), "µs a hit"),
            ("cache in SQLite, streamed", hit(fake, file, times, streamed=True), "µs a streamed hit"),
        ]


def run(port: int, folder: Path, *, quick: bool) -> list[tuple[str, float, str]]:
    """Measure, and return rows of name, figure and unit."""
    requests, chunks, rounds = (100, 2_000, 3) if quick else (500, 50_000, 12)
    known = observers(folder)
    rows = []
    with LMStudio(host="127.0.0.1", port=port) as lm:
        whole = lm.chat(str(stub.HEAD["model"])).user("Hi")
        long = lm.chat(f"chunks-{chunks}").user("Hi")
        whole.send()
        figure = sdk_alone(whole.send, requests, rounds)
        rows.append(("OpenTelemetry's SDK alone", figure, "µs a request"))
        replay = Replay(lm, whole.send)
        for name, starts in [*((name, [start]) for name, start in known.items()), ("all", list(known.values()))]:
            rows.append((f"{name}, handlers alone", handlers_alone(replay, starts, 5 * requests), "µs a request"))
            rows.append((name, compare(lm, starts, whole.send, requests, rounds), "µs a request"))
            a_stream = compare(lm, starts, lambda: long.stream().until_done(), 1, rounds)
            rows.append((name, a_stream / chunks, "µs a chunk"))
    rows += hits(folder, requests)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few rounds, to check that everything works")
    quick = parser.parse_args().quick
    command = [sys.executable, str(Path(__file__).with_name("stub.py"))]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server,
    ):
        try:
            assert server.stdout is not None
            rows = run(int(server.stdout.readline()), Path(folder), quick=quick)
        finally:
            server.terminate()
    missed = False
    for what, figure, unit in rows:
        bound = LARGEST.get(unit) if what == "all" or unit == "µs a hit" else None
        is_missed = bound is not None and figure > bound
        missed = missed or (is_missed and not quick)
        print(
            f"{what:28} {figure:8.2f} {unit}{'' if bound is None else f' (at most {bound:g})'}{' MISSED' if is_missed else ''}"
        )
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())
